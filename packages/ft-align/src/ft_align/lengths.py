"""How long prompts and answers may be, and what is cut where they are longer."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from ft_align.continuations import Continuations
from ft_core.errors import UsageError
from ft_core.next_tokens import check_length
from ft_core.samples import Tokens
from ft_core.templates.truncation import TruncationStrategy


@dataclass(frozen=True, slots=True)
class TooLong:
    """Why nothing is left of a row: a short name and a sentence."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """Answers that fit.

    Attributes:
        continuations: with the prompt that is left.
        cut: how many tokens of the prompt are cut away.
    """

    continuations: Continuations
    cut: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Bounds on a prompt and its answers, in tokens.

    A prompt that is too long loses what follows the special tokens at its head, so that its end, the
    question, stays; images, videos and audios go whole. All answers to a prompt keep the same prompt.

    Attributes:
        max_length: of a prompt with one of its answers; -1 sets no limit.
        strategy: what happens to longer ones. ``delete`` drops the row, ``truncation_left`` cuts more of the
            prompt, ``right`` cuts the ends of the answers.
        max_prompt_length: of a prompt; -1 sets no limit.
    """

    max_length: int = 2048
    strategy: TruncationStrategy = "delete"
    max_prompt_length: int = 1024

    def __post_init__(self) -> None:
        check_length(self.max_length)
        if self.strategy == "split":
            raise UsageError(
                "--truncation_strategy split cuts plain text into several samples; answers can't be compared in "
                "pieces, use delete, truncation_left or right here"
            )
        if self.max_prompt_length != -1 and self.max_prompt_length < 1:
            raise UsageError(
                f"--max_prompt_length {self.max_prompt_length}: a prompt needs at least 1 token; give a larger "
                "number, or -1 for no limit"
            )

    @property
    def fingerprint(self) -> str:
        """Changes whenever other tokens would be kept."""
        return f"{self.max_length}:{self.strategy}:{self.max_prompt_length}"

    def fit(self, given: Continuations, special: Set[int]) -> Fitted | TooLong:
        """Return what is kept of a prompt and its answers.

        Args:
            given: the whole of them.
            special: ids of special tokens, which stay at the head of a prompt that is cut.
        """
        bound = given.prompt if self.max_prompt_length == -1 else self.max_prompt_length
        fitted = _cut_prompt(given, bound, special)
        longest = max(len(answer) for answer in fitted.continuations.answers)
        if self.max_length == -1 or longest <= self.max_length:
            return fitted
        excess = longest - self.max_length
        if self.strategy == "truncation_left" and excess < fitted.continuations.prompt:
            return _cut_prompt(given, fitted.continuations.prompt - excess, special)
        if self.strategy == "right" and fitted.continuations.prompt < self.max_length:
            return Fitted(_cut_ends(fitted.continuations, self.max_length), fitted.cut)
        return self._too_long(longest)

    def _too_long(self, longest: int) -> TooLong:
        size = f"{longest} tokens are more than --max_length {self.max_length}"
        if self.strategy == "delete":
            advice = "raise it, or use --truncation_strategy truncation_left or right"
            return TooLong("too_long", f"{size}; {advice}")
        what = "the whole prompt" if self.strategy == "truncation_left" else "the answers"
        return TooLong(
            "cut_away",
            f"{size}, and --truncation_strategy {self.strategy} cuts off {what}; raise it",
        )


def _cut_prompt(given: Continuations, bound: int, special: Set[int]) -> Fitted:
    if given.prompt <= bound:
        return Fitted(given, 0)
    ids = given.answers[0].input_ids[: given.prompt]
    media = given.answers[0].media
    head = next((i for i, token in enumerate(ids) if token not in special), len(ids))
    head = min(head, bound - 1, *(item.start for item in media))
    tail = given.prompt - (bound - head)
    # A medium that would be cut through goes whole.
    tail = next((item.end for item in media if item.start < tail < item.end), tail)
    answers = tuple(_without(answer, head, tail) for answer in given.answers)
    return Fitted(Continuations(given.prompt - (tail - head), answers), tail - head)


def _without(tokens: Tokens, start: int, end: int) -> Tokens:
    """Take a stretch of tokens out; the one after it has lost its predecessor and isn't learned."""
    weights = [*tokens.loss_weights[:start], 0.0, *tokens.loss_weights[end + 1 :]]
    media = (replace(m, start=m.start - (end - start)) for m in tokens.media if m.start >= end)
    return Tokens([*tokens.input_ids[:start], *tokens.input_ids[end:]], weights, tuple(media))


def _cut_ends(given: Continuations, length: int) -> Continuations:
    answers = tuple(
        Tokens(answer.input_ids[:length], answer.loss_weights[:length], answer.media)
        for answer in given.answers
    )
    return Continuations(given.prompt, answers)
