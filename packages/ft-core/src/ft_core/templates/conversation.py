"""What both kinds of template ask of a row before they render it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import NoReturn

from ft_core.errors import DataError, ModelError
from ft_core.examples import Example, Message, Source
from ft_core.templates.template import Segment
from ft_core.tokenizer import Tokenizer


def fail(
    message: str, *, rule: str, source: Source | None = None, field: str = "messages"
) -> NoReturn:
    """Raise a ``DataError`` at the row's place."""
    if source is None:
        raise DataError(message, rule=rule)
    raise DataError(message, path=source.path, line=source.line, field=field, rule=rule)


def require_text(messages: Sequence[Message], example: Example | None = None) -> None:
    """Refuse rows with images, video or audio.

    Raises:
        DataError: the row holds something other than text.
    """
    source = example.source if example is not None else None
    if example is not None and (example.images or example.videos or example.audios):
        fail(
            "the row has images, video or audio, and this template renders text only; leave them out",
            rule="media",
            source=source,
        )
    for index, message in enumerate(messages):
        if isinstance(message.content, str):
            continue
        kinds = sorted({str(part.get("type")) for part in message.content} - {"text"})
        if kinds:
            fail(
                f"the content has parts of type {', '.join(kinds)}, and this template renders text only; leave them out",
                rule="media",
                source=source,
                field=f"messages[{index}]",
            )


def up_to_last_answer(example: Example) -> tuple[Message, ...]:
    """Return the messages without those after the last answer, from which nothing can be learned.

    Raises:
        DataError: there is no answer at all.
    """
    for end in range(len(example.messages), 0, -1):
        if example.messages[end - 1].role == "assistant":
            return example.messages[:end]
    fail("has no assistant answer to learn from", rule="missing_answer", source=example.source)


def answer_weight(message: Message) -> float:
    """Return the loss weight of an answer."""
    return 1.0 if message.weight is None else message.weight


def end_share(message: Message) -> float:
    """Return what share of an answer's weight its end of turn has; an answer joined of several may say."""
    if isinstance(message.content, str) or not message.content:
        return 1.0
    return float(message.content[-1].get("end", 1.0))


def text_segments(text: str, tokenizer: Tokenizer, *, bos: bool) -> list[Segment]:
    """Render plain text: BOS where the model expects one, the text and EOS, all of it trained.

    Raises:
        ModelError: the tokenizer has no EOS, so the model can't learn where a text ends.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer in {tokenizer.directory} names no eos_token, which ends a text; add it to tokenizer_config.json"
        )
    segments = [bos_segment(tokenizer)] if bos else []
    ids = (tokenizer.eos_token_id,)
    end = Segment(tokenizer.eos_token or "", "generation", weight=1.0, token_ids=ids, ends=True)
    return [*segments, Segment(text, "generation", weight=1.0), end]


def given_segments(example: Example, tokenizer: Tokenizer) -> list[Segment]:
    """Return a row that is encoded already, as it is: what its labels name is trained, whatever the recipe learns.

    Raises:
        DataError: a token that the tokenizer doesn't have.
    """
    ids, labels = example.input_ids or (), example.labels or ()
    largest = max(ids, default=0)
    if largest >= tokenizer.vocab_size and tokenizer.id_to_token(largest) is None:
        fail(
            f"token {largest} is none of the {tokenizer.vocab_size:,} of the tokenizer in {tokenizer.directory}; "
            "the row was encoded with another one",
            rule="unknown_token",
            source=example.source,
            field="input_ids",
        )
    pairs = zip(ids, labels, strict=True)
    return [
        Segment(
            "",
            "generation",
            weight=float(learned),
            token_ids=tuple(token for token, _ in group),
        )
        for learned, group in groupby(pairs, key=lambda pair: pair[1] != -100)
    ]


def bos_segment(tokenizer: Tokenizer) -> Segment:
    """Return the tokenizer's BOS, which must exist."""
    assert tokenizer.bos_token_id is not None
    return Segment(tokenizer.bos_token or "", token_ids=(tokenizer.bos_token_id,))


Parts = Sequence[tuple[str, float]]
"""The parts of an answer's text with the loss weight of each, relative to the answer's own."""


def answer_parts(message: Message) -> Parts:
    """Return the parts of an answer whose content is given in weighted parts; nothing for a plain one."""
    if isinstance(message.content, str) or all("weight" not in part for part in message.content):
        return ()
    return [(str(part["text"]), float(part.get("weight", 1.0))) for part in message.content]


def weigh_parts(
    segments: Sequence[Segment], parts: Parts, source: Source | None = None
) -> list[Segment]:
    """Return an answer's segments cut where its parts begin, each with its part's share of the weight.

    What a template adds around the text (an end of turn) keeps the answer's own weight.

    Args:
        segments: of one answer, of kind ``generation``.
        parts: of the answer's text; nothing leaves the segments as they are.
        source: the row's place, for errors.

    Raises:
        DataError: the template changes the text, so that its parts can't be found in it.
    """
    if not parts:
        return list(segments)
    whole = "".join(segment.text for segment in segments)
    text = "".join(part for part, _ in parts)
    found = text if text in whole else text.strip()
    start = whole.find(found)
    if start < 0:
        fail(
            "the chat template changes this answer's text, so its parts can't be weighted; "
            "use another template_type, or leave the loss scale out",
            rule="weighted_parts",
            source=source,
        )
    inner = [share for part, share in parts for _ in part][text.index(found) :][: len(found)]
    shares = [1.0] * start + inner + [1.0] * (len(whole) - start - len(found))
    return cut_by_share(segments, shares)


def cut_by_share(segments: Sequence[Segment], shares: Sequence[float]) -> list[Segment]:
    """Return segments cut where the share changes, each with its share of its weight.

    Args:
        segments: whose texts together are as long as ``shares``.
        shares: one for each character; an id has that of its text's first.
    """
    result: list[Segment] = []
    place = 0
    for segment in segments:
        own = shares[place : place + len(segment.text)]
        place += len(segment.text)
        if segment.token_ids is not None or not own:
            share = own[0] if own else 1.0
            result.append(replace(segment, weight=segment.weight * share))
            continue
        begin = 0
        for end in range(1, len(own) + 1):
            if end == len(own) or own[end] != own[begin]:
                weight = segment.weight * own[begin]
                result.append(replace(segment, text=segment.text[begin:end], weight=weight))
                begin = end
    return result


@contextmanager
def located(source: Source | None) -> Iterator[None]:
    """Give errors the place of the row that causes them."""
    try:
        yield
    except DataError as error:
        if source is None or error.place is not None:
            raise
        fail(str(error), rule=error.rule, source=source)
