"""From segments to token ids with loss weights, in one batch.

Text is cut where a generation begins or ends, so that a prompt has the same ids whether an answer follows
it or not, and at special tokens, where every tokenizer cuts. In between, texts of the format and of the
row are joined: the ids are those of tokenizing the whole string, only that nothing in the row's texts
becomes a special token.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ft_core.examples import Example
from ft_core.samples import Medium, Tokens
from ft_core.templates.special import SpecialTokens
from ft_core.templates.template import Segment, Template
from ft_core.tokenizer import Tokenizer

# Texts of the format are few; the bound only matters to templates that make new ones for each row.
_MAX_REMEMBERED = 4096

_Key = tuple[str, bool]


@dataclass(slots=True)
class _Run:
    """Text between two cuts."""

    text: str
    continues: bool
    weights: list[tuple[int, float]]
    remember: bool

    @property
    def weight(self) -> float | None:
        """The one weight of all its text, or ``None``."""
        first = self.weights[0][1]
        if len(self.weights) == 1 or all(weight == first for _, weight in self.weights):
            return first
        return None


@dataclass(slots=True)
class _Literal:
    """Ids that are known without the tokenizer."""

    ids: tuple[int, ...]
    weight: float
    medium: Medium | None = None


@dataclass(slots=True)
class _Plan:
    """Cuts one rendered row into runs and literal ids."""

    special: SpecialTokens
    section_prefix: bool
    bos: int | None
    entries: list[_Run | _Literal] = field(default_factory=list)
    texts: list[tuple[str, float]] = field(default_factory=list)
    continues: bool = False
    remember: bool = True

    def cut(self) -> None:
        if self.texts:
            text = "".join([item for item, _ in self.texts])
            weights = [(len(item), weight) for item, weight in self.texts]
            self.entries.append(_Run(text, self.continues, weights, self.remember))
            self.continues = True
        self.texts, self.remember = [], True

    def put_ids(
        self, ids: tuple[int, ...], weight: float, *, written: bool, medium: Medium | None = None
    ) -> None:
        self.cut()
        # A BOS that the format doesn't spell out is one that the tokenizer puts before "the start".
        starts = not written and not self.entries and ids == (self.bos,)
        self.entries.append(_Literal(ids, weight, medium))
        self.continues = not (starts or self.section_prefix)

    def put_text(self, text: str, weight: float, *, remember: bool) -> None:
        if not text:
            return
        self.texts.append((text, weight))
        self.remember = self.remember and remember


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from looking through a growing batch again and again.

    A batch makes many small objects and no cycles, so there is nothing for it to find; on alpaca rows it
    took a fifth of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class SegmentEncoder:
    """Encodes rendered rows with one tokenizer and remembers the ids of the format's own texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.special = SpecialTokens(tokenizer)
        self._splits: dict[str, list[str | int]] = {}
        self._known: dict[_Key, list[int]] = {}

    def encode(self, rendered: Sequence[Sequence[Segment]]) -> list[Tokens]:
        """Tokenize rows in one batch (two where the tokenizer puts prefix spaces)."""
        with collector_paused():
            plans = [self._plan(segments).entries for segments in rendered]
            runs = [entry for entries in plans for entry in entries if isinstance(entry, _Run)]
            ids = self._encode_runs(runs)
            return [self._tokens(entries, ids) for entries in plans]

    def _plan(self, segments: Sequence[Segment]) -> _Plan:
        has_prefix = self._tokenizer.prefix_space
        plan = _Plan(self.special, has_prefix == "section", self._tokenizer.bos_token_id)
        generating = False
        for segment in segments:
            if (segment.kind == "generation") != generating:
                plan.cut()
                generating = not generating
            if segment.token_ids is not None:
                plan.put_ids(
                    segment.token_ids, segment.weight, written=False, medium=segment.medium
                )
            elif segment.kind == "format":
                for piece in self._split(segment.text):
                    if isinstance(piece, int):
                        plan.put_ids((piece,), segment.weight, written=True)
                    else:
                        plan.put_text(piece, segment.weight, remember=True)
            else:
                plan.put_text(segment.text, segment.weight, remember=False)
        plan.cut()
        if has_prefix == "none":
            for entry in plan.entries:
                if isinstance(entry, _Run):
                    entry.continues = False
        return plan

    def _split(self, text: str) -> list[str | int]:
        pieces = self._splits.get(text)
        if pieces is None:
            pieces = self.special.split(text)
            if len(self._splits) < _MAX_REMEMBERED:
                self._splits[text] = pieces
        return pieces

    def _encode_runs(self, runs: Sequence[_Run]) -> dict[_Key, list[int]]:
        wanted: dict[_Key, bool] = {}
        ids: dict[_Key, list[int]] = {}
        for run in runs:
            key = (run.text, run.continues)
            if (known := self._known.get(key)) is not None:
                ids[key] = known
            else:
                wanted[key] = wanted.get(key, False) or run.remember
        for continues in (False, True):
            texts = [text for text, after in wanted if after is continues]
            if not texts:
                continue
            for text, encoded in zip(
                texts,
                self._tokenizer.encode_batch(texts, special=False, continues=continues),
                strict=True,
            ):
                key = (text, continues)
                ids[key] = encoded
                if wanted[key] and len(self._known) < _MAX_REMEMBERED:
                    self._known[key] = encoded
        return ids

    def _tokens(self, entries: Sequence[_Run | _Literal], ids: dict[_Key, list[int]]) -> Tokens:
        input_ids: list[int] = []
        weights: list[float] = []
        media: list[Medium] = []
        for entry in entries:
            if isinstance(entry, _Literal):
                if entry.medium is not None:
                    media.append(replace(entry.medium, start=len(input_ids)))
                input_ids += entry.ids
                weights += [entry.weight] * len(entry.ids)
                continue
            encoded = ids[entry.text, entry.continues]
            input_ids += encoded
            if (weight := entry.weight) is not None:
                weights += [weight] * len(encoded)
            else:
                weights += self._spread(entry, len(encoded))
        if weights:
            weights[0] = 0.0
        return Tokens(input_ids, weights, tuple(media))

    def _spread(self, run: _Run, count: int) -> list[float]:
        """Give each token of a run the weight of the text it begins in.

        Weights never move a cut: an earlier answer has the same ids whatever its weights. A tokenizer
        that doesn't know where its tokens came from gives them to tokens in proportion to the text.
        """
        located = self._tokenizer.encode_with_spans(run.text, continues=run.continues)
        if located is None:
            starts: Iterator[int] = (index * len(run.text) // count for index in range(count))
        else:
            starts = (start for start, _ in located[1])
        by_character = [weight for length, weight in run.weights for _ in range(length)]
        return [by_character[min(start, len(by_character) - 1)] for start in starts]


def encode_rows(template: Template, examples: Sequence[Example]) -> list[list[Tokens]]:
    """Render rows by a format and tokenize them in one batch.

    Returns:
        Per row one ``Tokens`` per rendered sample, not truncated.

    Raises:
        DataError: a row doesn't fit the format.
    """
    with collector_paused():
        rendered = [template.render(example) for example in examples]
        flat = [segments for row in rendered for segments in row]
        encoded = iter(template.encode_segments(flat))
        return [
            [next(encoded).weighed(example.weight) for _ in row]
            for example, row in zip(examples, rendered, strict=True)
        ]
