"""Where media stand in a row: marks in texts and parts of contents are counted against its files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from ft_core.examples import Example, Message, Part
from ft_core.samples import MediumKind
from ft_core.templates.conversation import fail
from ft_core.templates.sentinels import SENTINEL, sentinel

KINDS: Final[tuple[MediumKind, ...]] = ("image", "video", "audio")

_MARK: Final = re.compile("<(image|video|audio)>")


@dataclass(frozen=True, slots=True)
class Place:
    """A medium of a row.

    Attributes:
        kind: what it is.
        source: its path, address or data URI.
        field: where the row has it, for errors.
    """

    kind: MediumKind
    source: str
    field: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A row whose contents are texts with a character for each medium, and its media in their order.

    Attributes:
        example: the row, without files.
        media: by kind, in the order in which they stand in the row.
    """

    example: Example
    media: Mapping[MediumKind, tuple[Place, ...]]


def has_media(example: Example) -> bool:
    """Whether a row has files, or parts that stand for some."""
    return bool(example.images or example.videos or example.audios) or any(
        part.get("type") in KINDS
        for message in example.messages
        if not isinstance(message.content, str)
        for part in message.content
    )


def place_media(example: Example, kinds: Collection[MediumKind]) -> Placed:
    """Put a row's media where they are marked; those without a mark go to the beginning of the first question.

    A mark is ``<image>``, ``<video>`` or ``<audio>`` in a text, or a part of a content. Marks of a kind of which
    the row has no file are text, but for ``<image>`` where the model sees images: then the files are missing.

    Args:
        example: the row.
        kinds: what the model takes.

    Raises:
        DataError: there are more marks than files, or media in an answer, or of a kind that the model doesn't take.
    """
    files: dict[MediumKind, Sequence[str]] = {
        "image": example.images,
        "video": example.videos,
        "audio": example.audios,
    }
    inside = {kind: _own_files(example.messages, kind) for kind in KINDS}
    found = {kind: files[kind] or tuple(item for item in inside[kind] if item) for kind in KINDS}
    for kind in KINDS:
        if found[kind] and kind not in kinds:
            fail(
                f"the row has {kind}s, and this model takes {_listed(kinds)}; leave them out",
                rule="media",
                source=example.source,
                field=f"{kind}s",
            )
    live = {kind for kind in KINDS if found[kind] or (kind == "image" and kind in kinds)}
    placing = _Placing(example, live)
    placing.count()
    spare = {kind: len(found[kind]) - placing.counts[kind] for kind in KINDS}
    for kind, number in spare.items():
        if number < 0:
            marks = placing.counts[kind]
            fail(
                f"there are {marks} marks <{kind}> and {len(found[kind])} {kind}s; give as many files as marks",
                rule="more_marks",
                source=example.source,
                field=f"{kind}s",
            )
    made = placing.rewritten(spare)
    media = {
        kind: tuple(
            Place(kind, source, f"{kind}s[{number}]") for number, source in enumerate(found[kind])
        )
        for kind in KINDS
    }
    return Placed(made, media)


@dataclass(slots=True)
class _Placing:
    """Counts the marks of a row, then writes it with sentinels for them."""

    example: Example
    live: Collection[MediumKind]
    counts: Counter[str]

    def __init__(self, example: Example, live: Collection[MediumKind]) -> None:
        self.example, self.live = example, live
        self.counts = Counter()

    def count(self) -> None:
        self._texts()

    def rewritten(self, spare: Mapping[MediumKind, int]) -> Example:
        """Return the row with sentinels; ``spare`` media stand before its first question."""
        self.counts = Counter()
        first = "".join(self._next(kind) for kind in KINDS for _ in range(spare[kind]))
        messages, text = self._texts()
        files: dict[str, tuple[str, ...]] = {"images": (), "videos": (), "audios": ()}
        if text is not None:
            return replace(self.example, text=first + text, **files)  # type: ignore[arg-type]
        if first:
            at = next((i for i, item in enumerate(messages) if item.role == "user"), None)
            if at is None:
                fail(
                    "the row has media and no question to put them to",
                    rule="media",
                    source=self.example.source,
                )
            messages[at] = replace(messages[at], content=first + cast(str, messages[at].content))
        return replace(self.example, messages=tuple(messages), **files)  # type: ignore[arg-type]

    def _texts(self) -> tuple[list[Message], str | None]:
        if self.example.text is not None:
            return [], self._marked(self.example.text)
        return [
            self._message(index, item) for index, item in enumerate(self.example.messages)
        ], None

    def _message(self, index: int, message: Message) -> Message:
        if message.role == "assistant":
            if not isinstance(message.content, str) and any(
                part.get("type") in KINDS for part in message.content
            ):
                fail(
                    "an answer can't hold media: the models that are trained here write text",
                    rule="media",
                    source=self.example.source,
                    field=f"messages[{index}]",
                )
            return message
        if isinstance(message.content, str):
            return replace(message, content=self._marked(message.content))
        return replace(message, content="".join(map(self._part, message.content)))

    def _part(self, part: Part) -> str:
        kind = part.get("type")
        if kind in KINDS:
            return self._next(cast(MediumKind, kind))
        if kind != "text":
            fail(
                f"the content has a part of type {kind}, which is neither text nor a medium",
                rule="media",
                source=self.example.source,
            )
        text = str(part["text"])
        return _plain(text) if part.get("literal") else self._marked(text)

    def _marked(self, text: str) -> str:
        if SENTINEL.search(text):
            fail(
                "a text holds characters of Unicode's private use area B, which mean something inside; take them out",
                rule="private_characters",
                source=self.example.source,
            )
        return _MARK.sub(
            lambda match: self._next(match[1]) if match[1] in self.live else match[0], text
        )

    def _next(self, kind: str) -> str:
        self.counts[kind] += 1
        return sentinel(kind, self.counts[kind] - 1)


def _plain(text: str) -> str:
    """Return a text in which nothing is a mark; characters that would mean something inside are left out."""
    return SENTINEL.sub("", text)


def is_marked(message: Message) -> bool:
    """Whether a message's texts hold ``<image>`` as a mark."""
    if isinstance(message.content, str):
        return "<image>" in message.content
    return any(
        "<image>" in str(part.get("text", ""))
        for part in message.content
        if not part.get("literal")
    )


def _own_files(messages: Iterable[Message], kind: MediumKind) -> list[str | None]:
    """Return the files that stand in parts of contents."""
    return [
        part.get(kind)
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
        if part.get("type") == kind
    ]


def _listed(kinds: Collection[str]) -> str:
    return " and ".join(["text", *(f"{kind}s" for kind in KINDS if kind in kinds)])
