"""From what ``--dataset`` names to canonical rows, with a report of every row that was left out."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from ft_core.examples import Example
from ft_data.arguments import CheckStrategy
from ft_data.identity import Identity
from ft_data.reading import read_source
from ft_data.registry import renamed
from ft_data.report import LoadReport
from ft_data.select import sample, split, split_size
from ft_data.sources import Source, format_source, parse_sources


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Example]):
    """Loaded rows, and what became of the others."""

    examples: tuple[Example, ...]
    report: LoadReport = field(default_factory=LoadReport)

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def dicts(self) -> Iterator[dict[str, Any]]:
        """Give each row as plain JSON: ``messages`` in the OpenAI form or ``text``, and what else it has."""
        return (example.to_json() for example in self.examples)


@dataclass(frozen=True, slots=True)
class TrainVal:
    """Rows to train on and rows to evaluate on; no row is in both."""

    train: Rows
    val: Rows

    @property
    def report(self) -> LoadReport:
        """What became of all sources."""
        train, val = self.train.report, self.val.report
        return LoadReport(train.sources + val.sources, train.notes + val.notes)


def load(
    *sources: str | Source | Iterable[str | Source],
    seed: int = 42,
    check: CheckStrategy = "none",
    require_answer: bool = True,
    identity: Identity | None = None,
) -> Rows:
    """Load rows from files, registered names and hub ids.

    Args:
        *sources: ``[HF::|MS::]name|id|path[:subset/subset][#rows]`` each, also in lists.
        seed: of the sampling that ``#rows`` asks for; each source is sampled by itself.
        check: what happens to a row that breaks a rule: ``none`` drops it and shows the first three of
            each rule, ``discard`` and ``warning`` drop it and show each, ``error`` raises.
        require_answer: whether a row without an answer breaks a rule; rows to be answered have none.
        identity: what stands for ``{{NAME}}`` and ``{{AUTHOR}}`` in the rows.

    Raises:
        DataError: a file is missing, empty, invalid or of mixed shapes, or none of its rows is good.
        UsageError: an unknown dataset (the message lists close names), or a row has placeholders that nothing
            stands for.
        HubError: a hub dataset can't be fetched.
    """
    how = _How(seed, check, require_answer, identity)
    listed = [source for given in sources for source in _as_sources(given)]
    return _joined(part.train for part in _parts(listed, 0.0, how))


def load_split(
    sources: str | Source | Iterable[str | Source],
    val_sources: str | Source | Iterable[str | Source] = (),
    *,
    ratio: float = 0.01,
    seed: int = 42,
    check: CheckStrategy = "none",
    require_answer: bool = True,
    identity: Identity | None = None,
) -> TrainVal:
    """Load rows to train on and rows to evaluate on.

    With ``val_sources`` these are the rows to evaluate on; otherwise a share of every source is split
    off. The split comes before rows are repeated, so no row is ever in both.

    Args:
        sources: rows to train on, as for ``load``.
        val_sources: rows to evaluate on, as for ``load``.
        ratio: share of each source that is split off; 0 takes none, 1 takes all, anything between at
            least one row.
        seed: of sampling and splitting.
        check: as for ``load``.
        require_answer: as for ``load``.
        identity: as for ``load``.
    """
    how = _How(seed, check, require_answer, identity)
    validation = _as_sources(val_sources)
    parts = _parts(sources, 0.0 if validation else ratio, how)
    val = (
        [part.train for part in _parts(validation, 0.0, how)]
        if validation
        else [part.val for part in parts]
    )
    return TrainVal(_joined(part.train for part in parts), _joined(val))


@dataclass(frozen=True, slots=True)
class _How:
    """How all sources of a call are read."""

    seed: int
    check: CheckStrategy
    require_answer: bool
    identity: Identity | None


def _parts(
    sources: str | Source | Iterable[str | Source], ratio: float, how: _How
) -> list[TrainVal]:
    return [
        _take(source, ratio, how, repeat) for source, repeat in _with_repeats(_as_sources(sources))
    ]


def _as_sources(sources: str | Source | Iterable[str | Source]) -> list[Source]:
    return parse_sources([sources] if isinstance(sources, (str, Source)) else sources)


def _with_repeats(sources: Sequence[Source]) -> Iterator[tuple[Source, int]]:
    """Number equal sources, so that each has a seed of its own wherever it stands in the list."""
    seen: dict[str, int] = {}
    for source in sources:
        repeat = seen.get(source.name, 0)
        seen[source.name] = repeat + 1
        yield source, repeat


def _joined(parts: Iterable[Rows]) -> Rows:
    loaded = list(parts)
    return Rows(
        tuple(example for part in loaded for example in part.examples),
        LoadReport(tuple(report for part in loaded for report in part.report.sources)),
    )


def _take(given: Source, ratio: float, how: _How, repeat: int) -> TrainVal:
    """Load one source, split its rows, then sample what ``#rows`` asks for."""
    source = renamed(given) or given
    good, report = read_source(
        source, check=how.check, require_answer=how.require_answer, identity=how.identity
    )
    if source is not given:
        note = f"{format_source(given)} is a former name; use {format_source(source)}"
        report = replace(report, notes=(note, *report.notes))
    key = f"{how.seed}/{zlib.crc32(source.name.encode())}/{repeat}"
    wanted = len(good) if source.count is None else source.count
    val_count = split_size(min(wanted, len(good)), ratio)
    if wanted <= len(good):
        chosen = good if source.count is None else sample(good, wanted, f"{key}/sample")
        train, val = split(chosen, ratio, f"{key}/split")
    else:
        rest, val = split(good, ratio, f"{key}/split")
        train = sample(rest, wanted - val_count, f"{key}/sample") if rest else []
    report = replace(report, used=len(train) + len(val), split_off=len(val))
    # The source is reported once, with the rows to train on.
    return TrainVal(Rows(tuple(train), LoadReport((report,))), Rows(tuple(val)))
