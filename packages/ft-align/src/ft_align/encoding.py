"""Rows to samples for preference methods: the part that needs no model, and no torch.

``Sample.values`` says of each sample how many tokens its ``prompt`` has, how many were ``cut`` off it, and the
``weight`` and ``margin`` of its row. The trained tokens from ``prompt`` on are the answer, whose log-probability counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ft_align.continuations import Wanted, encode_continuations
from ft_align.lengths import Fitted, Lengths
from ft_core.examples import Example
from ft_core.loss_scale import LossPolicy
from ft_core.media import has_media
from ft_core.next_tokens import place
from ft_core.samples import Dropped, Sample, Tokens
from ft_core.templates.template import Template


@dataclass(frozen=True, slots=True)
class PairEncoder:
    """Turns preferences into samples of two sequences, the chosen answer's and the rejected one's.

    Attributes:
        name: of the method.
        lengths: bounds on prompts and answers.
        policy: what is learned of the answers. Tokens of weight 0 are no part of an answer's
            log-probability; other weights count in its likelihood (``nll``) only.
        media: whether rows may have images, videos and audios, in what is asked.
    """

    name: str = "dpo"
    lengths: Lengths = field(default_factory=Lengths)
    policy: LossPolicy = field(default_factory=LossPolicy)
    media: bool = True

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same rows would give other samples."""
        return f"pairs-3:{self.lengths.fingerprint}:{self.policy.fingerprint}"

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        """Turn rows into samples; each row that gives none comes back with its reason."""
        wanted = [_pair(row, example, media=self.media) for row, example in enumerate(examples)]
        return _encode(wanted, template, self.policy, self.lengths, _as_pair)


@dataclass(frozen=True, slots=True)
class AnswerEncoder:
    """Turns labelled answers into samples of one sequence each; ``values["label"]`` is 1 or 0.

    A preference gives two samples: its chosen answer is desirable, its rejected one is not.

    Attributes:
        name: of the method.
        lengths: bounds on prompts and answers.
        policy: what is learned of the answers; tokens of weight 0 are no part of an answer.
    """

    name: str = "kto"
    lengths: Lengths = field(default_factory=Lengths)
    policy: LossPolicy = field(default_factory=LossPolicy)

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same rows would give other samples."""
        return f"answers-2:{self.lengths.fingerprint}:{self.policy.fingerprint}"

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        """Turn rows into samples; each row that gives none comes back with its reason."""
        wanted = [_labelled(row, example) for row, example in enumerate(examples)]
        return _encode(wanted, template, self.policy, self.lengths, _as_answers)


_Make = Callable[[Wanted, Fitted], list[Sample | Dropped]]


def _encode(
    wanted: Sequence[Wanted | Dropped],
    template: Template,
    policy: LossPolicy,
    lengths: Lengths,
    make: _Make,
) -> list[Sample | Dropped]:
    good = [item for item in wanted if isinstance(item, Wanted)]
    encoded = iter(encode_continuations(good, template, policy))
    special = frozenset(token.id for token in template.tokenizer.special_tokens)
    result: list[Sample | Dropped] = []
    for item in wanted:
        if isinstance(item, Dropped):
            result.append(item)
            continue
        found = next(encoded)
        if isinstance(found, Dropped):
            result.append(found)
            continue
        fitted = lengths.fit(found, special)
        if isinstance(fitted, Fitted):
            result += make(item, fitted)
        else:
            result.append(_dropped(item.row, item.example, fitted.reason, fitted.detail))
    return result


def _pair(row: int, example: Example, *, media: bool) -> Wanted | Dropped:
    if (unfit := _unfit(row, example, media=media)) is not None:
        return unfit
    if example.rejected is None:
        return _dropped(
            row,
            example,
            "missing_rejected",
            "the row has no rejected answer (rejected_response, or rejected beside chosen)",
        )
    chosen = (example.messages[-1],)
    if chosen == example.rejected:
        return _equal(row, example)
    if example.rejected[-1:] and example.rejected[-1].role != "assistant":
        return _dropped(
            row, example, "missing_answer", "the rejected turns don't end with an answer"
        )
    return Wanted(row, example, (chosen, example.rejected))


def _labelled(row: int, example: Example) -> Wanted | Dropped:
    if (unfit := _unfit(row, example, media=False)) is not None:
        return unfit
    if example.rejected is not None:
        return _pair(row, example, media=False)
    if example.label is None:
        return _dropped(
            row,
            example,
            "missing_label",
            "the row has no label; give true for a desirable answer and false for an undesirable one",
        )
    return Wanted(row, example, ((example.messages[-1],),))


def _unfit(row: int, example: Example, *, media: bool) -> Dropped | None:
    if example.answer is None:
        return _dropped(
            row,
            example,
            "missing_answer",
            "preferences are about the answer that a conversation ends with, and there is none",
        )
    if example.weight == 0:
        return _nothing(row, example)
    if not media and has_media(example):
        return _dropped(
            row,
            example,
            "media",
            "this method learns from texts only; use dpo, orpo, simpo or cpo for what is seen or heard, or leave "
            "images, videos and audios out",
        )
    return None


def _as_pair(item: Wanted, fitted: Fitted) -> list[Sample | Dropped]:
    prompt, (chosen, rejected) = fitted.continuations.prompt, fitted.continuations.answers
    if list(chosen.input_ids) == list(rejected.input_ids):
        return [_equal(item.row, item.example)]
    if not all(_answer_tokens(tokens, prompt) for tokens in (chosen, rejected)):
        return [_nothing(item.row, item.example)]
    weight = item.example.weight
    return [Sample((chosen.weighed(weight), rejected), item.row, _values(item, fitted))]


def _as_answers(item: Wanted, fitted: Fitted) -> list[Sample | Dropped]:
    pair = len(fitted.continuations.answers) == 2
    if pair and isinstance(alike := _as_pair(item, fitted)[0], Dropped):
        return [alike]
    labels: Iterable[bool | None] = (True, False) if pair else (item.example.label,)
    samples: list[Sample | Dropped] = []
    for tokens, label in zip(fitted.continuations.answers, labels, strict=True):
        if not _answer_tokens(tokens, fitted.continuations.prompt):
            return [_nothing(item.row, item.example)]
        values = {**_values(item, fitted), "label": float(bool(label))}
        samples.append(Sample((tokens,), item.row, values))
    return samples


def _values(item: Wanted, fitted: Fitted) -> dict[str, float]:
    return {
        "prompt": float(fitted.continuations.prompt),
        "cut": float(fitted.cut),
        "weight": float(item.example.weight),
        "margin": float(item.example.margin),
    }


def _answer_tokens(tokens: Tokens, prompt: int) -> int:
    return sum(map(bool, tokens.loss_weights[prompt:]))


def _nothing(row: int, example: Example) -> Dropped:
    return _dropped(
        row,
        example,
        "nothing_to_learn",
        "no token of an answer carries loss; it needs one whose weight is not 0",
    )


def _equal(row: int, example: Example) -> Dropped:
    return _dropped(
        row,
        example,
        "equal_answers",
        "chosen and rejected are equal, so there is nothing to prefer",
    )


def _dropped(row: int, example: Example, reason: str, detail: str) -> Dropped:
    return Dropped(row, reason, f"{place(example)}{detail}", example.source)


def count_cut_prompts(samples: Iterable[Sample]) -> int:
    """Count the samples whose prompt was cut, by ``--max_prompt_length`` or to fit ``--max_length``."""
    return sum(sample.values["cut"] > 0 for sample in samples)
