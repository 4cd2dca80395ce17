"""What encodes and decodes: the ``tokenizers`` library, or a transformers tokenizer written in Python."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import tokenizers

PrefixSpace = Literal["none", "start", "section"]
"""Where a tokenizer puts a space of its own in front of text: nowhere, at the start of the text only, or
at the start and after each special token (SentencePiece as first converted, ByteLevel with a prefix)."""

Spans = Sequence[tuple[int, int]]
"""For each token the half-open range of characters it came from."""


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A token that is matched as a whole before the text is split into words.

    ``lstrip`` and ``rstrip`` say whether it swallows the white space on that side.
    """

    text: str
    id: int
    lstrip: bool = False
    rstrip: bool = False


class Backend(Protocol):
    """The little that ``Tokenizer`` needs from an implementation.

    ``continues`` says that a text follows other text, so that no prefix space may be added.
    """

    @property
    def prefix_space(self) -> PrefixSpace:
        """Where it puts a space of its own."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of entries, added tokens included."""
        ...

    @property
    def special_tokens(self) -> tuple[SpecialToken, ...]:
        """The added tokens that count as special, by id."""
        ...

    def encode_batch(
        self, texts: Sequence[str], *, special: bool, continues: bool
    ) -> list[list[int]]:
        """Encode texts as they are, without BOS or EOS."""
        ...

    def encode_with_spans(self, text: str, *, continues: bool) -> tuple[list[int], Spans] | None:
        """Encode one text in which nothing is special; ``None`` if it can't tell the spans."""
        ...

    def encode_empty(self) -> list[int]:
        """What it adds to a text by itself."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ``ids``."""
        ...

    def token_to_id(self, token: str) -> int | None:
        """Return the id of exactly this token."""
        ...

    def id_to_token(self, token_id: int) -> str | None:
        """Return the token with this id."""
        ...

    def content(self) -> bytes:
        """Everything that decides how text is encoded."""
        ...

    def with_tokens(self, texts: Sequence[str]) -> Backend | None:
        """Return a copy that matches these texts as whole tokens everywhere; ``None`` if it can't."""
        ...

    def save(self, directory: Path) -> None:
        """Write the files that transformers reads it from."""
        ...


class LibraryBackend:
    """A ``tokenizers.Tokenizer``."""

    def __init__(self, library: Any) -> None:
        library.no_truncation()
        library.no_padding()
        self._library = library
        # ``encode_special_tokens`` is a switch of the shared object, so it is set and used under a lock.
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_library": self._library}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._library = state["_library"]
        self._lock = threading.Lock()

    @property
    def vocab_size(self) -> int:
        """Number of entries, added tokens included."""
        return int(self._library.get_vocab_size(with_added_tokens=True))

    @cached_property
    def special_tokens(self) -> tuple[SpecialToken, ...]:
        """The added tokens that count as special."""
        return tuple(
            SpecialToken(token.content, index, token.lstrip, token.rstrip)
            for index, token in sorted(self._library.get_added_tokens_decoder().items())
            if token.special
        )

    @cached_property
    def _plain(self) -> Any | None:
        """The same tokenizer without its prefix space; ``None`` where it has none."""
        parts = (self._library.normalizer, self._library.pre_tokenizer)
        if not any(
            _adds_prefix(json.loads(part.__getstate__())) for part in parts if part is not None
        ):
            return None
        data = json.loads(self._library.to_str())
        for key in ("normalizer", "pre_tokenizer"):
            if data.get(key) is not None:
                data[key] = _without_prefix(data[key])
        return tokenizers.Tokenizer.from_str(json.dumps(data))

    @cached_property
    def prefix_space(self) -> PrefixSpace:
        """Found by encoding the same word at the start, after a special token, and without a prefix."""
        if self._plain is None:
            return "none"
        word = "word"
        bare = self._plain.encode(word, add_special_tokens=False).ids
        if self.encode_batch([word], special=True, continues=False)[0] == bare:
            return "none"
        if not self.special_tokens:
            return "start"
        marked = self.encode_batch(
            [self.special_tokens[0].text + word], special=True, continues=False
        )[0]
        return "start" if marked[1:] == bare else "section"

    def encode_batch(
        self, texts: Sequence[str], *, special: bool, continues: bool
    ) -> list[list[int]]:
        """Encode texts as they are, without BOS or EOS."""
        library = self._plain if continues and self._plain is not None else self._library
        with self._lock:
            library.encode_special_tokens = not special
            encodings = library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_spans(self, text: str, *, continues: bool) -> tuple[list[int], Spans] | None:
        """Encode one text in which nothing is special, with the characters behind each token."""
        library = self._plain if continues and self._plain is not None else self._library
        with self._lock:
            library.encode_special_tokens = True
            encoding = library.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_empty(self) -> list[int]:
        """What the post-processor alone adds."""
        return list(self._library.encode("").ids)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ``ids``."""
        return str(self._library.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def token_to_id(self, token: str) -> int | None:
        """Return the id of exactly this token."""
        index: int | None = self._library.token_to_id(token)
        return index

    def id_to_token(self, token_id: int) -> str | None:
        """Return the token with this id."""
        token: str | None = self._library.id_to_token(token_id)
        return token

    def content(self) -> bytes:
        """Everything that decides how text is encoded."""
        return str(self._library.to_str()).encode()

    def with_tokens(self, texts: Sequence[str]) -> LibraryBackend:
        """Return a copy with more tokens.

        To the library they are not special: it would hide special ones from decoded answers, and not match
        them in rows' texts, where they belong.
        """
        library = tokenizers.Tokenizer.from_str(self._library.to_str())
        library.add_tokens(
            [tokenizers.AddedToken(text, special=False, normalized=False) for text in texts]
        )
        return LibraryBackend(library)

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json``."""
        self._library.save(str(directory / "tokenizer.json"))


class TransformersBackend:
    """A transformers tokenizer that has no ``tokenizers`` object behind it."""

    # The text that a continuing piece is encoded after; its own tokens are cut off again.
    _anchor = "\n"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of entries, added tokens included."""
        return len(self._tokenizer)

    @cached_property
    def special_tokens(self) -> tuple[SpecialToken, ...]:
        """The added tokens that count as special."""
        decoder = self._tokenizer.added_tokens_decoder
        return tuple(
            SpecialToken(token.content, index, token.lstrip, token.rstrip)
            for index, token in sorted(decoder.items())
            if token.special
        )

    @cached_property
    def prefix_space(self) -> PrefixSpace:
        """Found by encoding a word alone, after other text, and after a special token."""
        alone, after = self._encode("word", special=True), self._encode_after("word", special=True)
        if alone == after:
            return "none"
        if not self.special_tokens:
            return "start"
        marked = self._encode(self.special_tokens[0].text + "word", special=True)[1:]
        return "section" if marked == alone else "start"

    def _encode(self, text: str, *, special: bool) -> list[int]:
        return list(
            self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special)
        )

    def _encode_after(self, text: str, *, special: bool) -> list[int]:
        anchor = self._encode(self._anchor, special=special)
        joined = self._encode(self._anchor + text, special=special)
        if joined[: len(anchor)] == anchor:
            return joined[len(anchor) :]
        return self._encode(text, special=special)

    def encode_batch(
        self, texts: Sequence[str], *, special: bool, continues: bool
    ) -> list[list[int]]:
        """Encode texts as they are, without BOS or EOS."""
        encode = self._encode_after if continues else self._encode
        return [encode(text, special=special) for text in texts]

    def encode_with_spans(self, text: str, *, continues: bool) -> tuple[list[int], Spans] | None:
        """Return ``None``: tokenizers written in Python don't know where their tokens came from."""
        return None

    def encode_empty(self) -> list[int]:
        """What the tokenizer adds to a text by itself."""
        return list(self._tokenizer.encode(""))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ``ids``."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def token_to_id(self, token: str) -> int | None:
        """Return the id of exactly this token."""
        index = self._tokenizer.convert_tokens_to_ids(token)
        known = index is not None and self._tokenizer.convert_ids_to_tokens(index) == token
        return int(index) if known else None

    def id_to_token(self, token_id: int) -> str | None:
        """Return the token with this id."""
        if not 0 <= token_id < len(self._tokenizer):
            return None
        return str(self._tokenizer.convert_ids_to_tokens(token_id))

    def content(self) -> bytes:
        """Everything that decides how text is encoded."""
        return json.dumps(
            [type(self._tokenizer).__name__, self._tokenizer.get_vocab()], sort_keys=True
        ).encode()

    def with_tokens(self, texts: Sequence[str]) -> None:
        """Return ``None``: these tokenizers match all added tokens or none, and marks in texts must stay text."""
        return

    def save(self, directory: Path) -> None:
        """Write the files that transformers reads it from."""
        self._tokenizer.save_pretrained(str(directory))


def _adds_prefix(part: dict[str, Any]) -> bool:
    return _without_prefix(part) != part


def _without_prefix(part: dict[str, Any]) -> dict[str, Any] | None:
    """Return a normalizer or pre-tokenizer that adds no space in front; ``None`` if nothing is left."""
    kind = part.get("type")
    if kind == "Prepend":
        return None
    if kind == "Metaspace":
        changes: dict[str, Any] = {"prepend_scheme": "never"}
        if "add_prefix_space" in part:
            changes["add_prefix_space"] = False
        return {**part, **changes}
    if kind == "ByteLevel":
        return {**part, "add_prefix_space": False}
    if kind == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        kept = [left for item in part[key] if (left := _without_prefix(item)) is not None]
        return {**part, key: kept}
    return part
