"""A chat format for rows with media: the format of texts, with tokens for what is seen and heard put into it.

Media are tokens before losses are laid over them: what stands for them is format and never learned.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ft_core.errors import DataError
from ft_core.examples import Example, Message
from ft_core.media.grounding import Size, fill_in
from ft_core.media.images import open_image
from ft_core.media.located import at_row, naming, resolved
from ft_core.media.marks import Place, Placed, has_media, is_marked, place_media
from ft_core.media.processing import MediaProcessor, Source
from ft_core.samples import Medium, MediumKind, Tokens
from ft_core.templates.conversation import fail
from ft_core.templates.encoding import encode_rows
from ft_core.templates.sentinels import SENTINEL, meaning, sentinel
from ft_core.templates.template import Segment, Template
from ft_core.tokenizer import Tokenizer


class MediaTemplate:
    """A chat format bound to a model's processor (``ft_core.templates.Template``).

    Rows without media are rendered as the format alone would.

    Args:
        inner: the format of texts.
        processor: the model's.
    """

    def __init__(self, inner: Template, processor: MediaProcessor) -> None:
        self._inner, self._processor = inner, processor

    @property
    def inner(self) -> Template:
        """The format of texts."""
        return self._inner

    @property
    def processor(self) -> MediaProcessor:
        """The model's processor."""
        return self._processor

    @property
    def name(self) -> str:
        """The registry's name, or ``"jinja"``."""
        return self._inner.name

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer it encodes with."""
        return self._inner.tokenizer

    @property
    def date(self) -> datetime.date | None:
        """The date it writes into conversations; ``None`` if it shows none."""
        return self._inner.date

    def ignored(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the names of variables that change nothing in this format."""
        return self._inner.ignored(variables)

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the same rows would give other tokens."""
        facts = f"{self._inner.fingerprint}\n{self._processor.fingerprint}"
        return hashlib.sha256(facts.encode()).hexdigest()[:32]

    @property
    def tools_prompt(self) -> str | None:
        """The agent format it writes tools in; ``None`` if it has a form of its own, or none at all."""
        return self._inner.tools_prompt

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._inner.stop_token_ids

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end an answer where the end of turn is no single token."""
        return self._inner.stop_strings

    @property
    def multi_turn(self) -> bool:
        """Whether a conversation can have more than one round."""
        return self._inner.multi_turn

    def render(self, example: Example) -> list[list[Segment]]:
        """Render a row for training: one list of segments per sample.

        Raises:
            DataError: the row doesn't fit the format, or one of its media can't be used.
        """
        if self._is_plain(example):
            return self._inner.render(example)
        with at_row(example):
            placing = self._placing(example)
            samples = self._inner.render(placing.example)
            return [
                placing.expanded(sample, whole=number == len(samples) - 1)
                for number, sample in enumerate(samples)
            ]

    def render_prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> list[Segment]:
        """Render what serving feeds the model; media stand in parts of the messages' contents."""
        example = Example(
            messages=tuple(messages), tools=tuple(tools), chat_template_kwargs=variables or {}
        )
        return self.render_question(example)

    def render_question(self, example: Example) -> list[Segment]:
        """Render a row's messages up to its question."""
        example = replace(example, messages=example.prompt)
        if self._is_plain(example):
            return self._inner.render_prompt(
                example.messages, example.tools, example.chat_template_kwargs
            )
        with at_row(example):
            placing = self._placing(example)
            made = placing.example
            segments = self._inner.render_prompt(
                made.messages, made.tools, made.chat_template_kwargs
            )
            return placing.expanded(segments, whole=True)

    def encode(self, examples: Sequence[Example]) -> list[list[Tokens]]:
        """Tokenize rows in one batch; per row one ``Tokens`` per rendered sample, not truncated."""
        if all(map(self._is_plain, examples)):
            return self._inner.encode(examples)
        return encode_rows(self, examples)

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[Tokens]:
        """Tokenize rendered segments in one batch."""
        return self._inner.encode_segments(rendered)

    def encode_prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return the ids of ``render_prompt``."""
        rendered = self.render_prompt(messages, tools, variables)
        return list(self.encode_segments([rendered])[0].input_ids)

    def to_jinja(self) -> str:
        """Return the format as a Jinja chat template, for the tokenizer saved with a checkpoint."""
        return self._inner.to_jinja()

    def _is_plain(self, example: Example) -> bool:
        if example.input_ids is not None:
            return True
        if has_media(example) or example.objects:
            return False
        # A mark without a file is a fault that is told, where the model sees images.
        asked = (message for message in example.messages if message.role != "assistant")
        return "<image>" not in (example.text or "") and not any(map(is_marked, asked))

    def _placing(self, example: Example) -> _Placing:
        folder = None if example.source is None else Path(example.source.path).parent
        if example.videos:
            self._processor.require("video")
        placed = place_media(resolved(example, folder), self._processor.kinds)
        return _Placing(self._inner, self._processor, placed)


def question_segments(template: Template, example: Example) -> list[Segment]:
    """Render what serving feeds the model for a row's question.

    Raises:
        DataError: the row doesn't fit the format, or one of its media can't be used.
    """
    if isinstance(template, MediaTemplate):
        return template.render_question(example)
    return template.render_prompt(
        example.prompt, example.tools, example.chat_template_kwargs or None
    )


def encode_question(template: Template, example: Example) -> Tokens:
    """Return the ids and media that serving feeds the model for a row's question.

    Raises:
        DataError: the row doesn't fit the format, or one of its media can't be used.
    """
    return template.encode_segments([question_segments(template, example)])[0]


class _Placing:
    """One row: its media and where their tokens go."""

    def __init__(self, inner: Template, processor: MediaProcessor, placed: Placed) -> None:
        self._inner, self._processor, self._media = inner, processor, placed.media
        self._tokens: list[str] = []
        self.example = placed.example
        if placed.example.objects:
            images = tuple(item.source for item in placed.media["image"])
            with_images = replace(placed.example, images=images)
            style = processor.family.grounding
            filled = fill_in(with_images, style, self._size_of, self._token)
            self.example = replace(filled, images=())

    def _size_of(self, image: int, resized: bool) -> Size:
        place = self._media["image"][image]
        with naming(place):
            if resized:
                return self._processor.resized(place.source)
            size: Size = open_image(
                place.source, replace(self._processor.limits, rescale=None)
            ).size
            return size

    def _token(self, text: str) -> str:
        """Return what stands for a text that is a special token of the model; other texts stay."""
        if self._inner.tokenizer.token_to_id(text) is None:
            return text
        self._tokens.append(text)
        return sentinel("token", len(self._tokens) - 1)

    def expanded(self, segments: Sequence[Segment], *, whole: bool) -> list[Segment]:
        """Return segments with the tokens of media, and what stands for them, in their places.

        Args:
            segments: of the row, or of its beginning.
            whole: whether all media of the row must stand in them.
        """
        found = list(self._found(segments))
        counts = Counter(kind for kind, _ in found if kind != "token")
        if whole:
            for kind, items in self._media.items():
                if counts[kind] != len(items):
                    fail(
                        f"the chat template shows {counts[kind]} of {len(items)} {kind}s; use another --template_type",
                        rule="media",
                        field=f"{kind}s",
                    )
        order = [self._media[kind][number] for kind, number in found if kind != "token"]  # type: ignore[index]
        texts = iter(self._texts(order))
        made: list[Segment] = []
        taken = iter(found)
        for segment in segments:
            made += self._cut(segment, taken, texts)
        return made

    def _texts(self, order: Sequence[Place]) -> tuple[str, ...]:
        """Return what is written for each medium; one that can't be used is named."""
        if not order:
            return ()
        try:
            return self._processor.process(order).texts
        except DataError as error:
            if len(order) == 1:
                with naming(order[0]):
                    raise
            for place in order:
                with naming(place):
                    self._processor.process([place])
            raise error

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        texts = [self._processor.placeholder(kind) for kind in self._media if self._media[kind]]
        return re.compile(
            "|".join([SENTINEL.pattern, *(re.escape(text) for text in texts if text)])
        )

    def _matches(self, segment: Segment) -> Iterator[re.Match[str]]:
        """Find sentinels, and in the format's own texts the processor's placeholders."""
        for match in self._pattern.finditer(segment.text):
            if SENTINEL.fullmatch(match[0]) or segment.kind == "format":
                yield match

    def _found(self, segments: Sequence[Segment]) -> Iterator[tuple[str, int]]:
        """Yield kind and number of what is to be put in place, in order."""
        seen: Counter[str] = Counter()
        kinds = {self._processor.placeholder(kind): kind for kind in self._media}
        for segment in segments:
            for match in self._matches(segment):
                if SENTINEL.fullmatch(match[0]):
                    yield meaning(match[0])
                else:
                    kind = kinds[match[0]]
                    seen[kind] += 1
                    yield kind, seen[kind] - 1

    def _cut(
        self, segment: Segment, taken: Iterator[tuple[str, int]], texts: Iterator[str]
    ) -> list[Segment]:
        matches = list(self._matches(segment))
        if not matches:
            return [segment]
        made: list[Segment] = []
        position = 0
        for match in matches:
            made += _piece(segment, segment.text[position : match.start()])
            position = match.end()
            kind, number = next(taken)
            if kind == "token":
                made.append(self._literal(segment, self._tokens[number]))
                continue
            mark = match[0] if not SENTINEL.fullmatch(match[0]) else self._mark(kind, number)
            before, _, after = mark.partition(self._processor.placeholder(kind))
            base = Segment("", "format", segment.role, turn=segment.turn)
            place = self._media[kind][number]  # type: ignore[index]
            made += _piece(base, before)
            made += self._medium(base, place, next(texts))
            made += _piece(base, after)
        return made + _piece(segment, segment.text[position:])

    def _literal(self, segment: Segment, text: str) -> Segment:
        token_id = self._inner.tokenizer.token_to_id(text)
        assert token_id is not None
        return replace(segment, text=text, token_ids=(token_id,), ends=False)

    def _medium(self, base: Segment, place: Place, text: str) -> list[Segment]:
        """Return the tokens of a medium as one segment, and the plain texts around them."""
        special = [match for match in _SPECIAL.finditer(text) if self._is_token(match[0])]
        if not special:
            fail(f"the processor writes no token for {place.source}", rule="processor")
        start, end = special[0].start(), special[-1].end()
        core = text[start:end]
        ids = self._inner.encode_segments([[Segment(core)]])[0].input_ids
        medium = Medium(place.kind, place.source, 0, len(ids))
        return [
            *_piece(base, text[:start]),
            replace(base, text=core, token_ids=tuple(ids), medium=medium),
            *_piece(base, text[end:]),
        ]

    def _is_token(self, text: str) -> bool:
        return self._inner.tokenizer.token_to_id(text) is not None

    def _mark(self, kind: str, number: int) -> str:
        """Return how a medium is written where the format has no form of its own for it."""
        known: Mapping[MediumKind, str] = self._processor.family.marks
        mark = known.get(kind) or self._processor.placeholder(kind)  # type: ignore[call-overload]
        return str(mark).replace("{n}", str(number + 1))


_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")
"""What a special token looks like."""


def _piece(base: Segment, text: str) -> list[Segment]:
    return [replace(base, text=text, ends=False)] if text else []


__all__ = ["MediaTemplate", "Source", "encode_question", "question_segments"]
