"""What a chat format does, whatever describes it: the protocol that field and Jinja templates fulfil."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from ft_core.examples import Example, Message, Role
from ft_core.samples import Medium, Tokens
from ft_core.tokenizer import Tokenizer

SegmentKind = Literal["format", "content", "generation"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a rendered conversation that is tokenized on its own.

    Attributes:
        text: the piece; when ``token_ids`` is set, its text form for display only.
        kind: ``format`` belongs to the chat format (its special tokens are tokens), ``content`` came from
            the row (text that looks like a special token stays text), ``generation`` is what the model
            itself would produce: an assistant turn's content and its end of turn.
        role: whose turn it belongs to; ``None`` for text between turns.
        weight: of its tokens in the loss.
        token_ids: literal ids instead of text.
        turn: number of the round or message it belongs to; it grows along a conversation and means the
            same in all samples of a row. ``None`` before the first.
        ends: it ends an answer (its end of turn).
        medium: the image, video or audio that ``token_ids`` stand for; its ``start`` is not known yet.
    """

    text: str
    kind: SegmentKind = "format"
    role: Role | None = None
    weight: float = 0.0
    token_ids: tuple[int, ...] | None = None
    turn: int | None = None
    ends: bool = False
    medium: Medium | None = None


@runtime_checkable
class Template(Protocol):
    """A chat format bound to a tokenizer.

    Attributes:
        name: the registry's name, or ``"jinja"``.
        tokenizer: the tokenizer it encodes with.
    """

    @property
    def name(self) -> str:
        """The registry's name, or ``"jinja"``."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer it encodes with."""
        ...

    @property
    def date(self) -> datetime.date | None:
        """The date it writes into conversations; ``None`` if it shows none."""
        ...

    def ignored(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the names of variables that change nothing in this format."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same rows would give other tokens: part of cache keys."""
        ...

    @property
    def tools_prompt(self) -> str | None:
        """The agent format it writes tools in; ``None`` if it has a form of its own, or none at all."""
        ...

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end an answer where the end of turn is no single token."""
        ...

    @property
    def multi_turn(self) -> bool:
        """Whether a conversation can have more than one round."""
        ...

    def render(self, example: Example) -> list[list[Segment]]:
        """Render a row for training: one list of segments per sample.

        A conversation gives one list; a format that rewrites earlier turns gives one per assistant turn.

        Raises:
            DataError: the row doesn't fit the format (say, two user turns in a row, or several rounds in
                a single-turn format).
        """
        ...

    def render_prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> list[Segment]:
        """Render what serving feeds the model to get the next assistant turn.

        Args:
            messages: the conversation up to the question.
            tools: functions the model may call.
            variables: of this request (``chat_template_kwargs``); they go before the run's own.
        """
        ...

    def encode(self, examples: Sequence[Example]) -> list[list[Tokens]]:
        """Tokenize rows in one batch; per row one ``Tokens`` per rendered sample, not truncated.

        For every trained turn, the ids before its first trained token equal ``encode_prompt`` of the
        messages before that turn, with the row's tools and variables.
        """
        ...

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[Tokens]:
        """Tokenize rendered segments in one batch."""
        ...

    def encode_prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return the ids of ``render_prompt``."""
        ...

    def to_jinja(self) -> str:
        """Return the format as a Jinja chat template, for the tokenizer saved with a checkpoint."""
        ...
