"""Rows to samples for learning next tokens: the part of sft and pt that needs no model.

Who encodes ahead, without torch, gets the samples and the fingerprint that training will ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ft_core.errors import DataError, UsageError
from ft_core.examples import Example
from ft_core.loss_scale import LossPolicy
from ft_core.samples import Dropped, Sample, Tokens
from ft_core.templates.encoding import collector_paused
from ft_core.templates.template import Template
from ft_core.templates.truncation import TruncationStrategy, truncate


@dataclass(frozen=True, slots=True)
class NextTokenEncoder:
    """Turns rows into samples of one sequence each.

    Attributes:
        name: ``sft`` learns answers, ``pt`` texts; only texts can be split.
        max_length: longest sample in tokens, at least 2; -1 sets no limit.
        truncation_strategy: what happens to longer ones, as ``ft_core.templates.truncate`` says.
        policy: what is learned of a row, and how much it counts.
    """

    name: Literal["sft", "pt"]
    max_length: int
    truncation_strategy: TruncationStrategy
    policy: LossPolicy = field(default_factory=LossPolicy)

    def __post_init__(self) -> None:
        check_length(self.max_length)
        if self.name == "sft" and self.truncation_strategy == "split":
            raise UsageError(
                "--truncation_strategy split cuts plain text into several samples, which would tear "
                "conversations apart; use delete, truncation_left or right here, or ft pt for texts"
            )

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same rows would give other samples."""
        bound = f"{self.max_length}:{self.truncation_strategy}"
        return f"{self.name}-3:{bound}:{self.policy.fingerprint}"

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        """Turn rows into samples; each row that gives none comes back with its reason."""
        bound = Bound(self.max_length, self.truncation_strategy)
        return encode_bounded(examples, template, self.policy, bound)


def encode_rows(
    examples: Sequence[Example], template: Template, policy: LossPolicy
) -> list[list[Tokens] | Dropped]:
    """Encode rows in one batch; a row that breaks a rule becomes ``Dropped`` with that rule."""
    try:
        return list(_encode(examples, template, policy))
    except DataError:
        return [
            _encode_row(index, example, template, policy) for index, example in enumerate(examples)
        ]


def _encode_row(
    index: int, example: Example, template: Template, policy: LossPolicy
) -> list[Tokens] | Dropped:
    try:
        return _encode([example], template, policy)[0]
    except DataError as error:
        return Dropped(index, error.rule, str(error), example.source)


def _encode(
    examples: Sequence[Example], template: Template, policy: LossPolicy
) -> list[list[Tokens]]:
    for example in examples:
        example.validate()
    if policy.plain:
        return template.encode(examples)
    with collector_paused():
        rendered = [
            policy.weigh(template.render(policy.prepare(example)), template) for example in examples
        ]
        encoded = iter(template.encode_segments([item for row in rendered for item in row]))
        return [
            [next(encoded).weighed(example.weight) for _ in row]
            for example, row in zip(examples, rendered, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Bound:
    """How long samples may be, and what happens to longer ones.

    Attributes:
        max_length: in tokens; -1 sets no limit.
        strategy: as ``ft_core.templates.truncate`` takes it.
    """

    max_length: int
    strategy: str

    def samples(
        self, row: int, example: Example, encoded: Sequence[Tokens]
    ) -> list[Sample | Dropped]:
        """Make samples of a row's sequences; what is lost comes back with its reason."""
        samples: list[Sample | Dropped] = []
        lost: list[Dropped] = []
        for tokens in encoded:
            pieces = [piece for piece in self._cut(example, tokens) if piece.trained]
            samples += [Sample((piece,), row) for piece in pieces]
            if not pieces:
                reason, detail = self._why(example, tokens)
                lost.append(Dropped(row, reason, f"{place(example)}{detail}", example.source))
        if not samples:
            return [*lost[:1]]
        # Parts that had nothing to teach are no loss.
        return samples + [
            replace(
                item, reason=f"{item.reason}_in_part", detail=f"{item.detail} (a part of the row)"
            )
            for item in lost
            if item.reason != "nothing_to_learn"
        ]

    def _cut(self, example: Example, tokens: Tokens) -> list[Tokens]:
        whole = self.strategy == "split" and example.text is None
        return truncate(tokens, self.max_length, "delete" if whole else self.strategy)

    def _why(self, example: Example, tokens: Tokens) -> tuple[str, str]:
        if tokens.trained == 0:
            what = (
                "it needs an answer whose weight is not 0"
                if example.text is None
                else "a text needs at least two tokens"
            )
            return "nothing_to_learn", f"no token of this row carries loss; {what}"
        size = f"{len(tokens)} tokens are more than --max_length {self.max_length}"
        if self.strategy in ("truncation_left", "right"):
            return "cut_away", (
                f"{size}, and --truncation_strategy {self.strategy} cuts off all that is learned; raise it"
            )
        if self.strategy == "split" and example.text is None:
            return "too_long", (
                f"{size}, and split cuts plain text only, no conversations; raise it, "
                "or use --truncation_strategy truncation_left or right"
            )
        return (
            "too_long",
            f"{size}; raise it, or use --truncation_strategy truncation_left or right",
        )


def encode_bounded(
    examples: Sequence[Example], template: Template, policy: LossPolicy, bound: Bound
) -> list[Sample | Dropped]:
    """Turn rows into samples; each row that gives none comes back with its reason."""
    result: list[Sample | Dropped] = []
    rows = zip(examples, encode_rows(examples, template, policy), strict=True)
    for row, (example, encoded) in enumerate(rows):
        if isinstance(encoded, Dropped):
            result.append(encoded)
        elif example.label is False:
            result.append(_undesirable(row, example))
        else:
            result += bound.samples(row, example, encoded)
    return result


def _undesirable(row: int, example: Example) -> Dropped:
    detail = "its label says that the answer shouldn't be given, and here answers are learned"
    return Dropped(row, "undesirable", f"{place(example)}{detail}", example.source)


def check_length(max_length: int) -> None:
    """Refuse a length in which nothing can be learned.

    Raises:
        UsageError: it is below 2, and not -1.
    """
    if max_length != -1 and max_length < 2:
        raise UsageError(
            f"--max_length {max_length}: a row needs at least 2 tokens; give a larger number, or -1 for no limit"
        )


def place(example: Example) -> str:
    """Name a row's place at the head of a message."""
    return "" if example.source is None else f"{example.source}: "
