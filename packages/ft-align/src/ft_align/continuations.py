"""A prompt and the answers that continue it, as tokens: what all preference methods are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ft_core.errors import DataError, Place
from ft_core.examples import Example, Message
from ft_core.loss_scale import LossPolicy
from ft_core.media import question_segments
from ft_core.samples import Dropped, Tokens
from ft_core.templates.encoding import collector_paused
from ft_core.templates.template import Segment, Template


@dataclass(frozen=True, slots=True)
class Continuations:
    """Answers to one prompt.

    Attributes:
        prompt: how many tokens they all begin with: the ids that serving would feed the model.
        answers: each with the prompt before it. Weights before ``prompt`` are 0, unless the policy has
            prompts learned; then those of the first answer stay.
    """

    prompt: int
    answers: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be encoded of a row.

    Attributes:
        row: its index.
        example: the row.
        answers: the turns of each answer to its prompt.
    """

    row: int
    example: Example
    answers: tuple[tuple[Message, ...], ...]


def encode_continuations(
    wanted: Sequence[Wanted], template: Template, policy: LossPolicy
) -> list[Continuations | Dropped]:
    """Encode rows in one batch; a row that breaks a rule becomes ``Dropped`` with that rule."""
    try:
        return [*_encode(wanted, template, policy)]
    except DataError:
        return [_encode_one(item, template, policy) for item in wanted]


def _encode_one(item: Wanted, template: Template, policy: LossPolicy) -> Continuations | Dropped:
    try:
        return _encode([item], template, policy)[0]
    except DataError as error:
        return Dropped(item.row, error.rule, str(error), item.example.source)


def _encode(
    wanted: Sequence[Wanted], template: Template, policy: LossPolicy
) -> list[Continuations]:
    with collector_paused():
        rendered: list[Sequence[Segment]] = []
        for item in wanted:
            rendered.append(question_segments(template, item.example))
            rendered += (_render(item.example, turns, template, policy) for turns in item.answers)
        encoded = iter(template.encode_segments(rendered))
        return [_gather(item, encoded, policy) for item in wanted]


def _render(
    example: Example, turns: tuple[Message, ...], template: Template, policy: LossPolicy
) -> Sequence[Segment]:
    """Render a conversation that ends with an answer, as the sample that shows all of the answer."""
    conversation = replace(
        example, messages=(*example.prompt, *turns), rejected=None, label=None, weight=1.0
    )
    conversation.validate()
    samples = policy.weigh(template.render(policy.prepare(conversation)), template)
    spoken = sum(message.role == "assistant" for message in turns)
    if spoken > 1 and len(samples) > 1:
        raise _fault(
            example,
            f"the format {template.name} writes earlier turns anew, so an answer of {spoken} turns has no single "
            "text; keep its first turn",
            "rewritten_turns",
        )
    return samples[-1]


def _gather(item: Wanted, encoded: Iterator[Tokens], policy: LossPolicy) -> Continuations:
    prompt = next(encoded).input_ids
    size = len(prompt)
    answers = []
    for index, _ in enumerate(item.answers):
        tokens = next(encoded)
        if list(tokens.input_ids[:size]) != list(prompt):
            raise _fault(
                item.example,
                "its answers don't continue the prompt that serving would feed, in this chat format",
                "other_prompt",
            )
        learned = policy.prompt and index == 0
        before = tokens.loss_weights[:size] if learned else [0.0] * size
        weights = [*before, *tokens.loss_weights[size:]]
        answers.append(Tokens(tokens.input_ids, weights, tokens.media))
    return Continuations(size, tuple(answers))


def _fault(example: Example, message: str, rule: str) -> DataError:
    source = example.source or Place("row")
    return DataError(message, path=source.path, line=source.line, field="messages", rule=rule)
