"""What a comparison of two measurements means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ft_quant.proof.measure import Measurement

Verdict = Literal["good", "worse", "broken"]

PERPLEXITY_BOUNDS: Mapping[str, float] = {
    "merge": 1.03,
    "16": 1.03,
    "8": 1.05,
    "4": 1.75,
    "3": 4.0,
    "2": 50.0,
}
"""Perplexity over that of the source up to which a result counts as good, by the bits of its weights.

The rows that come with ft have few answers (256 tokens), so that rounding alone moves their perplexity: with an adapter
on SmolLM2-135M, merging to bf16 gave 1.012 times, though all answers stayed the same, and rounding to 8 bit 0.973. The
bounds of merging, 16 and 8 bit are about twice such a step. At 4 bit bitsandbytes, GPTQ, AWQ and q4_0 keep theirs on that
model, and rounding alone doesn't (1.95 times). Those of 3 and 2 bit leave
room for small models, which lose the most; they aren't measured.
"""


@dataclass(frozen=True, slots=True)
class Proof:
    """How a result compares with what it was made from.

    Attributes:
        before: perplexity of the source on held-out texts.
        after: of the result.
        bound: largest ``after / before`` that counts as good.
        same_choice: share of positions in [0, 1] where both find the same token most likely.
        positions: how many positions were compared.
        same_answers: share of the tokens of the source's greedy answers, up to the first that differs, in [0, 1].
        same_prompts: whether the result's own chat template makes the prompts that ft makes; ``None`` where that
            wasn't compared.
        vocabulary: number of tokens, which is the perplexity of a model that knows nothing.
        answers: what the result answered, by question.
        speed: new tokens a second of source and result.
        memory: largest memory of their processes in bytes.
    """

    before: float
    after: float
    bound: float
    same_choice: float
    positions: int
    same_answers: float
    same_prompts: bool | None
    vocabulary: int
    answers: Mapping[str, str]
    speed: tuple[float, float]
    memory: tuple[int, int]

    @property
    def verdict(self) -> Verdict:
        """``broken`` where the result says less than a model that knows nothing, ``worse`` beyond the bound."""
        ceiling = max(float(self.vocabulary), 1.5 * self.before)
        if not math.isfinite(self.after) or self.after > ceiling or self.same_prompts is False:
            return "broken"
        return "good" if self.after <= self.bound * self.before else "worse"

    def __str__(self) -> str:
        """One line for a terminal."""
        words = {
            "good": "",
            "worse": f"; WORSE than the {self.bound:.2f} times allowed",
            "broken": "; BROKEN",
        }
        prompts = (
            "" if self.same_prompts is not False else "; its chat template makes OTHER prompts"
        )
        return (
            f"perplexity {self.before:.3f} before, {self.after:.3f} after ({self.after / self.before:.3f} times), the same "
            f"token first at {self.same_choice:.1%} of {self.positions:,} positions, {self.same_answers:.0%} of the greedy "
            f"answers the same{words[self.verdict]}{prompts}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures as they are saved; what is no number becomes ``None``."""
        return {
            "verdict": self.verdict,
            "perplexity_before": _number(self.before),
            "perplexity_after": _number(self.after),
            "bound": self.bound,
            "same_choice": self.same_choice,
            "positions": self.positions,
            "same_answers": self.same_answers,
            "same_prompts": self.same_prompts,
            "answers": dict(self.answers),
            "tokens_per_second": list(self.speed),
            "peak_memory": list(self.memory),
        }


def compare(
    before: Measurement,
    after: Measurement,
    *,
    bound: float,
    vocabulary: int,
    questions: tuple[str, ...],
    prompts: tuple[str, ...] = (),
) -> Proof:
    """Compare what source and result did.

    Args:
        before: the source's.
        after: the result's.
        bound: largest ratio of perplexities that counts as good.
        vocabulary: number of tokens.
        questions: as both were asked.
        prompts: what ft's own chat format makes of them; empty where that isn't compared.
    """
    pairs = [
        (ours, theirs)
        for left, right in zip(before.choices, after.choices, strict=True)
        for ours, theirs in zip(left, right, strict=True)
    ]
    same = [
        _common(ours, theirs) for ours, theirs in zip(before.answers, after.answers, strict=True)
    ]
    total = sum(map(len, before.answers))
    return Proof(
        before=before.perplexity,
        after=after.perplexity,
        bound=bound,
        same_choice=sum(ours == theirs for ours, theirs in pairs) / max(len(pairs), 1),
        positions=len(pairs),
        same_answers=sum(same) / total if total else 1.0,
        same_prompts=tuple(after.prompts) == prompts if prompts else None,
        vocabulary=vocabulary,
        answers=dict(zip(questions, after.texts, strict=True)),
        speed=(before.tokens_per_second, after.tokens_per_second),
        memory=(before.peak_memory, after.peak_memory),
    )


def _common(left: Any, right: Any) -> int:
    """Return how many tokens two answers begin with alike."""
    count = 0
    for ours, theirs in zip(left, right, strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
