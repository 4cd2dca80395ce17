"""lm-eval scores our server as it scores the same weights by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

lm_eval = pytest.importorskip("lm_eval")

ROWS = Path(__file__).parents[5] / "shared" / "data" / "alpaca_en_demo.json"
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "counts",
    "to",
    "ten",
    "while",
    "it",
    "rains",
    "at",
    "sea",
]


def documents(count: int) -> list[tuple[str, str]]:
    """Return contexts with continuations: real rows where they are at hand."""
    if ROWS.is_file():
        rows = json.loads(ROWS.read_text(encoding="utf-8"))[:count]
        return [(row["instruction"][:200], " " + row["output"][:120]) for row in rows]
    return [
        (" ".join(WORDS[: 2 + number % 9]), " " + " ".join(WORDS[number % 7 :][: 1 + number % 5]))
        for number in range(count)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_likelihoods_are_those_of_its_own_backend(running: Any, directory: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    asked = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number)
        for number, pair in enumerate(documents(50))
    ]
    own = HFLM(
        pretrained=str(directory), dtype="float32", device="cpu", batch_size=4, max_length=512
    )
    want = own.loglikelihood(asked, disable_tqdm=True)
    served = LocalCompletionsAPI(
        base_url=f"{running.url}/v1/completions",
        model="tiny",
        tokenizer=str(directory),
        tokenizer_backend="huggingface",
        tokenized_requests=True,
        batch_size=8,
        num_concurrent=1,
        max_length=512,
    )
    got = served.loglikelihood(asked, disable_tqdm=True)
    for (ours, our_greedy), (theirs, their_greedy) in zip(got, want, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
        assert our_greedy == their_greedy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_answers_are_those_of_its_own_backend(running: Any, directory: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    settings = {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False, "temperature": 0}
    asked = [
        Instance(
            request_type="generate_until", doc={}, arguments=(context, dict(settings)), idx=number
        )
        for number, (context, _) in enumerate(documents(8))
    ]
    own = HFLM(
        pretrained=str(directory), dtype="float32", device="cpu", batch_size=1, max_length=512
    )
    served = LocalCompletionsAPI(
        base_url=f"{running.url}/v1/completions",
        model="tiny",
        tokenizer=str(directory),
        tokenizer_backend="huggingface",
        max_length=512,
    )
    want = own.generate_until(asked, disable_tqdm=True)
    assert served.generate_until(asked, disable_tqdm=True) == want
