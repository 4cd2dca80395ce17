"""The lm_eval backend: the same questions and numbers as the builtin one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import UsageError
from ft_core.examples import Message
from ft_eval.arguments import EvalArguments
from ft_eval.evaluation import evaluate
from ft_eval.respondents.protocol import Prompt
from ft_eval.results import Evaluation
from ft_eval.testing import ScriptedRespondent, write_lines
from ft_eval.work import Work

pytest.importorskip("lm_eval")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def run(tmp_path: Path, respondent: ScriptedRespondent, **flags: Any) -> Evaluation:
    arguments = EvalArguments(**{"eval_output_dir": str(tmp_path / "out"), **flags})
    arguments.check(frozenset(flags))
    work = Work(arguments, 42, ("eval",), arguments.model_dump(), say=lambda text: None)

    @contextmanager
    def group(wait: object) -> Iterator[Sequence[ScriptedRespondent]]:
        yield [respondent]

    return evaluate(work, [group], steps={})


def by_hash(prompt: Prompt, text: str) -> float:
    """Score by a hash, so that nothing but the same prompts gives the same numbers."""
    return -int(hashlib.sha256(f"{prompt}{text}".encode()).hexdigest()[:6], 16) / 2**20


@pytest.mark.parametrize("chat", [True, False])
def test_choices_are_the_same_as_builtin(
    tmp_path: Path, choices: Path, configured: Callable[..., Path], chat: bool
) -> None:
    config = str(configured({"name": "mc", "pattern": "ceval", "dataset": str(choices)}))
    found = {}
    for backend in ("builtin", "lm_eval"):
        respondent = ScriptedRespondent(score=by_hash, chat=chat)
        flags = {"eval_backend": backend, "custom_eval_config": config}
        (found[backend],) = run(tmp_path, respondent, **flags, eval_limit="[1:5]").results
    one, other = found["builtin"], found["lm_eval"]
    assert other.backend == "lm_eval"
    assert other.metrics == one.metrics
    assert [s.prompt for s in other.samples] == [s.prompt for s in one.samples]
    assert [s.answer for s in other.samples] == [s.answer for s in one.samples]
    assert [s.references for s in other.samples] == [s.references for s in one.samples]


def test_texts_have_the_same_bits_per_byte(tmp_path: Path, configured: Callable[..., Path]) -> None:
    rows = [{"text": "The quick brown fox."}, {"text": "It jumps over the lazy dog."}]
    write_lines(tmp_path / "texts" / "default.jsonl", rows)
    config = str(configured({"name": "t", "pattern": "text", "dataset": str(tmp_path / "texts")}))
    values = []
    for backend in ("builtin", "lm_eval"):
        flags = {"eval_backend": backend, "custom_eval_config": config}
        (result,) = run(tmp_path, ScriptedRespondent(score=by_hash), **flags).results
        values.append(result.metric("bits_per_byte").value)
    assert values[0] == pytest.approx(values[1])


def test_conversations_reach_the_respondent_as_they_are(
    tmp_path: Path, configured: Callable[..., Path]
) -> None:
    row = {"history": [["Hi", "Hello!"]], "query": "Who?", "response": "me"}
    write_lines(tmp_path / "qa" / "default.jsonl", [row])
    entry = {"name": "qa", "pattern": "general_qa", "dataset": str(tmp_path / "qa")}
    flags = {"eval_backend": "lm_eval", "custom_eval_config": str(configured(entry))}
    respondent = ScriptedRespondent("Me")
    (result,) = run(tmp_path, respondent, **flags).results
    assert respondent.asked[0].messages == (
        Message("user", "Hi"),
        Message("assistant", "Hello!"),
        Message("user", "Who?"),
    )
    assert result.metric("exact_match").value == 1.0


def test_what_lm_eval_has_nothing_for_is_said(
    tmp_path: Path, choices: Path, configured: Callable[..., Path]
) -> None:
    entry = {"name": "mc", "pattern": "ceval", "dataset": str(choices)}
    flags = {"eval_backend": "lm_eval", "custom_eval_config": str(configured(entry))}
    with pytest.raises(UsageError, match="--eval_backend builtin"):
        run(tmp_path, ScriptedRespondent(scores=False), **flags)


def test_other_names_of_benchmarks_are_suggested(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean humaneval"):
        run(tmp_path, ScriptedRespondent(), eval_backend="builtin", eval_dataset=["humanevl"])
    with pytest.raises(UsageError, match="has no such benchmark"):
        run(tmp_path, ScriptedRespondent(), eval_backend="lm_eval", eval_dataset=["chid"])
