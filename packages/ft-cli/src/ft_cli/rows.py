"""The rows of a training command: loaded, encoded, grouped, with a report of everything left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import ft_data
from ft_cli.batches import Batches, batches_of, item_lengths
from ft_cli.streams import open_stream, validation_rows
from ft_core.arguments import ModelArguments, TemplateArguments
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.examples import Example
from ft_core.hub import cache_directory
from ft_core.prepare import Say
from ft_core.recipe import Recipe
from ft_core.samples import Dropped, Sample
from ft_core.templates.template import Template
from ft_data.arguments import DataArguments, EncodingArguments, MixArguments
from ft_data.batch_arguments import BatchArguments, StreamArguments
from ft_data.progress import EncodingProgress
from ft_data.short_names import short_name

if TYPE_CHECKING:
    from ft_data.streaming import EncodedStream
    from ft_train import TrainData

Encoded = Sequence[Sample] | Sequence[Sequence[Sample | Dropped]]
"""Samples, or rows that are encoded when they are asked for."""


@dataclass(frozen=True, slots=True)
class EncodedData:
    """What a run trains and evaluates on.

    Attributes:
        train: samples, lazily encoded rows, or a stream.
        evaluation: samples, or lazily encoded rows.
        batches: which samples come together.
        evaluation_batches: likewise in evaluation.
        evaluation_sets: the items of each set of rows to evaluate on, by its name.
        dropped: rows left out, by reason.
        max_length: bound of rows whose lengths aren't known.
        sources: names of the data sets whose training loss is logged.
        origins: the number of the data set of each row to train on.
        examples: the rows to train on, where they are held.
    """

    train: Encoded | EncodedStream
    evaluation: Encoded
    batches: Batches
    evaluation_batches: Batches
    dropped: Counter[str]
    max_length: int
    evaluation_sets: Mapping[str, range] = field(default_factory=dict)
    sources: Sequence[str] = ()
    origins: Sequence[int] | None = None
    examples: Sequence[Example] = ()

    def place_of(self, row: int) -> str:
        """Say where a row to train on is."""
        if row < len(self.examples) and self.examples[row].source is not None:
            return str(self.examples[row].source)
        return f"row {row}"

    def train_data(self) -> TrainData:
        """Return the form ft-train takes."""
        from ft_train import TrainData

        return TrainData(
            self.train,
            self.evaluation,
            self.batches.groups,
            evaluation_groups=self.evaluation_batches.groups,
            evaluation_sets=self.evaluation_sets,
            arrangement=self.batches.arrangement,
            lengths=self.batches.lengths,
            sources=self.sources,
            origins=self.origins,
        )

    def largest(self, batch_size: int) -> tuple[int, int]:
        """Return tokens and trained tokens of the largest micro-batch there can be."""
        if not isinstance(self.train, ft_data.StoredSamples):
            return self.max_length * batch_size, self.max_length * batch_size
        lengths = item_lengths(self.train.lengths.tolist(), self.batches.groups)
        trained = item_lengths(self.train.trained.tolist(), self.batches.groups)
        biggest = sorted(zip(lengths, trained, strict=True), reverse=True)[:batch_size]
        return sum(size for size, _ in biggest), sum(trained for _, trained in biggest)

    def typical(self) -> tuple[float, float] | None:
        """Return the mean tokens and trained tokens of an item; ``None`` if lengths aren't known."""
        if not isinstance(self.train, ft_data.StoredSamples) or not len(self.train):
            return None
        items = len(self.train if self.batches.groups is None else self.batches.groups)
        return (
            float(self.train.lengths.sum()) / items,
            float(self.train.trained.sum()) / items,
        )

    def counts(self) -> dict[str, Any]:
        """Return numbers for the log."""
        groups = self.batches.groups
        return {
            "train": len(self.train) if isinstance(self.train, Sequence) else None,
            "evaluation": len(self.evaluation),
            "packs": None if groups is None else len(groups),
            "dropped": dict(self.dropped),
        }


def encode_data(
    invocation: Invocation, template: Template, recipe: Recipe, *, say: Say
) -> EncodedData:
    """Load and encode the rows of a training command.

    Raises:
        DataError: nothing is left to train on; the message says why.
        UsageError: flags can't work together.
    """
    if invocation.get(StreamArguments).streaming:
        return _streamed(invocation, template, recipe, say=say)
    loaded = ft_data.load_given(
        invocation.get(DataArguments),
        seed=invocation.get(ModelArguments).seed,
        mixing=invocation.get(MixArguments),
    )
    for line in (*loaded.train.report.lines(), *loaded.val.report.lines()):
        say(line)
    max_length = invocation.get(TemplateArguments).max_length
    named, origins = _origins(invocation, loaded.train, say)
    if _is_lazy(invocation):
        train, evaluation = (
            ft_data.LazyRows(part.examples, recipe, template) for part in (loaded.train, loaded.val)
        )
        sets = {name: range(rows.start, rows.stop) for name, rows in _sets(loaded.val).items()}
        plain = Batches()
        return EncodedData(
            train,
            evaluation,
            plain,
            plain,
            Counter(),
            max(max_length, 2048),
            sets,
            named,
            origins,
            loaded.train.examples,
        )
    encoded = _encode(invocation, loaded.train, template, recipe, say)
    held_out = _encode(invocation, loaded.val, template, recipe, say)
    batches = batches_of(invocation, encoded.samples, say=say)
    parts = _parts(held_out.samples, _sets(loaded.val))
    evaluation_batches, sets = _evaluation(invocation, held_out.samples, parts)
    return EncodedData(
        encoded.samples,
        held_out.samples,
        batches,
        evaluation_batches,
        encoded.drops + held_out.drops,
        max_length,
        sets,
        named,
        origins,
        loaded.train.examples,
    )


def show_sample(template: Template, data: EncodedData) -> None:
    """Print the first row with its trained tokens marked."""
    from rich.console import Console

    sample = _first_sample(data)
    rows = [ft_data.preview_row(tokens, template.tokenizer) for tokens in sample.sequences]
    Console(soft_wrap=True).print(ft_data.to_terminal(rows))


def _first_sample(data: EncodedData) -> Sample:
    if not isinstance(data.train, Sequence):
        (item,) = islice(data.train.items(), 1)
        return item.samples[0]
    for row in data.train:
        for part in (row,) if isinstance(row, Sample) else row:
            if isinstance(part, Sample):
                return part
    raise UsageError("no row gives anything to train on; `ft preview` shows why")


def _streamed(
    invocation: Invocation, template: Template, recipe: Recipe, *, say: Say
) -> EncodedData:
    """Open a stream; rows to evaluate on are loaded and encoded as ever."""
    stream = open_stream(invocation, template, recipe, say=say)
    held_out = validation_rows(invocation)
    for line in held_out.report.lines():
        say(line)
    encoded = _encode(invocation, held_out, template, recipe, say)
    parts = _parts(encoded.samples, _sets(held_out))
    evaluation_batches, sets = _evaluation(invocation, encoded.samples, parts)
    max_length = max(invocation.get(TemplateArguments).max_length, 2048)
    named = _stream_names(stream) if invocation.get(BatchArguments).log_source_loss else ()
    return EncodedData(
        stream,
        encoded.samples,
        Batches(),
        evaluation_batches,
        encoded.drops,
        max_length,
        sets,
        named,
    )


def _stream_names(stream: EncodedStream) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for source in stream.names:
        names[short_name(source, taken=names)] = None
    return tuple(names)


def _is_lazy(invocation: Invocation) -> bool:
    """Whether rows are encoded while training; what needs their lengths before decides against it."""
    encoding, batches = invocation.get(EncodingArguments), invocation.get(BatchArguments)
    needs = (
        encoding.packing,
        batches.group_by_length,
        batches.max_tokens_per_batch is not None,
        batches.test_oom_error,
    )
    return bool(encoding.lazy_tokenize) and not any(needs)


def _encode(
    invocation: Invocation, rows: ft_data.Rows, template: Template, recipe: Recipe, say: Say
) -> ft_data.EncodedRows:
    encoded = ft_data.encode(
        rows.examples,
        recipe,
        template,
        num_proc=invocation.get(EncodingArguments).preprocess_num_proc,
        cache_dir=cache_directory() / "encoded",
        progress=EncodingProgress(),
        say=say,
    )
    for line in encoded.report_lines():
        say(line)
    return encoded


def _sets(rows: ft_data.Rows) -> dict[str, range]:
    """Return which rows are of which source, if there are several sources and none was mixed with another."""
    reports = rows.report.sources
    sizes = [report.used - report.split_off for report in reports]
    if len(reports) < 2 or sum(sizes) != len(rows):
        return {}
    sets: dict[str, range] = {}
    start = 0
    for report, size in zip(reports, sizes, strict=True):
        sets[short_name(report.source, taken=sets)] = range(start, start + size)
        start += size
    return sets


def _origins(
    invocation: Invocation, rows: ft_data.Rows, say: Say
) -> tuple[tuple[str, ...], Sequence[int] | None]:
    """Return the names of the data sets whose loss is logged, and the number of each row's."""
    if not invocation.get(BatchArguments).log_source_loss:
        return (), None
    sets = _sets(rows)
    if not sets:
        say(
            "--log_source_loss has no effect: there is one data set, or rows of several are mixed beyond telling"
        )
        return (), None
    origins = [number for number, part in enumerate(sets.values()) for _ in part]
    return tuple(sets), origins


def _parts(samples: ft_data.StoredSamples, sets: Mapping[str, range]) -> dict[str, range]:
    """Return which samples are of which set of rows: samples are in the order of their rows."""
    return {
        name: range(*map(int, samples.rows.searchsorted([rows.start, rows.stop])))
        for name, rows in sets.items()
    }


def _evaluation(
    invocation: Invocation, samples: ft_data.StoredSamples, parts: Mapping[str, range]
) -> tuple[Batches, dict[str, range]]:
    """Group the samples of each set by themselves, and return the items of each."""
    if not parts:
        return batches_of(invocation, samples, evaluation=True), {}
    groups: list[list[int]] = []
    sets: dict[str, range] = {}
    for name, part in parts.items():
        batches = batches_of(invocation, samples, part, evaluation=True)
        if batches.groups is None:
            return batches, dict(parts)
        sets[name] = range(len(groups), len(groups) + len(batches.groups))
        groups += batches.groups
    return Batches(groups), sets
