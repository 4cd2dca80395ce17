"""What measurements say of a result."""

from __future__ import annotations

import json
import math

import pytest

from ft_quant.proof.measure import Measurement
from ft_quant.proof.verdict import compare

CHOICES = [[1, 2, 3], [4]]


def measured(
    perplexity: float, choices: list[list[int]] | None = None, **values: object
) -> Measurement:
    fields = {
        "nll": 4 * math.log(perplexity) if perplexity < math.inf else math.inf,
        "tokens": 4,
        "choices": choices or CHOICES,
        "prompts": ["really"],
        "prompt_ids": [[7, 8]],
        "answers": [[1, 2, 3, 4]],
        "texts": ["yes"],
        "loading_seconds": 1.0,
        "scoring_seconds": 1.0,
        "generating_seconds": 2.0,
        "peak_memory": 100,
    }
    return Measurement(**{**fields, **values})


def proof(after: Measurement, before: float = 10.0, **settings: object):
    values = {"bound": 1.25, "vocabulary": 50, "questions": ("really?",), **settings}
    return compare(measured(before), after, **values)


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (9.0, "good"),
        (12.4, "good"),
        (12.6, "worse"),
        (49.0, "worse"),
        (51.0, "broken"),
        (math.inf, "broken"),
    ],
)
def test_perplexity_decides(after: float, verdict: str) -> None:
    assert proof(measured(after)).verdict == verdict


def test_no_number_is_broken_and_saved_as_none() -> None:
    found = proof(measured(10.0, nll=math.nan))
    assert found.verdict == "broken"
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["perplexity_after"] is None


def test_a_source_that_knows_nothing_breaks_no_result() -> None:
    assert proof(measured(61.0), before=60.0).verdict == "good"


def test_other_prompts_are_broken() -> None:
    assert proof(measured(10.0), prompts=("really",)).verdict == "good"
    found = proof(measured(10.0), prompts=("oh",))
    assert found.verdict == "broken" and "OTHER prompts" in str(found)


def test_agreement_is_counted() -> None:
    found = proof(measured(10.0, [[1, 2, 9], [4]], answers=[[1, 2, 9, 4]]))
    assert (found.same_choice, found.positions, found.same_answers) == (0.75, 4, 0.5)
    assert found.speed == (2.0, 2.0) and found.answers == {"really?": "yes"}
    assert "75.0% of 4 positions" in str(found)
