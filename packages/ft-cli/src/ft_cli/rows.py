"""The rows of a training command: loaded, encoded, grouped, with a report of everything left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ft_data
from ft_core.arguments import ModelArguments, TemplateArguments
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.hub import cache_directory
from ft_core.prepare import Say
from ft_core.recipe import Recipe
from ft_core.samples import Dropped, Sample
from ft_core.templates.template import Template
from ft_data.arguments import DataArguments, EncodingArguments, MixArguments

if TYPE_CHECKING:
    from ft_train import TrainData

Encoded = Sequence[Sample | Sequence[Sample | Dropped]]
"""Samples, or rows that are encoded when they are asked for."""


@dataclass(frozen=True, slots=True)
class EncodedData:
    """What a run trains and evaluates on.

    Attributes:
        train, evaluation: samples, or lazily encoded rows.
        groups: with packing, the samples of each pack.
        dropped: rows left out, by reason.
        max_length: bound of lazily encoded rows, whose lengths aren't known.
    """

    train: Encoded
    evaluation: Encoded
    groups: Sequence[Sequence[int]] | None
    dropped: Counter[str]
    max_length: int

    def train_data(self) -> TrainData:
        """Return the form ft-train takes."""
        from ft_train import TrainData

        return TrainData(self.train, self.evaluation, self.groups)

    def largest(self, batch_size: int) -> tuple[int, int]:
        """Return tokens and trained tokens of the largest micro-batch there can be."""
        if isinstance(self.train, ft_data.StoredSamples):
            pairs = zip(self.train.lengths.tolist(), self.train.trained.tolist(), strict=True)
            sizes = list(pairs)
            if self.groups is not None:
                sizes = [
                    (sum(sizes[i][0] for i in group), sum(sizes[i][1] for i in group))
                    for group in self.groups
                ]
            biggest = sorted(sizes, reverse=True)[:batch_size]
            return sum(size for size, _ in biggest), sum(trained for _, trained in biggest)
        return self.max_length * batch_size, self.max_length * batch_size

    def counts(self) -> dict[str, Any]:
        """Return numbers for the log."""
        return {
            "train": len(self.train),
            "evaluation": len(self.evaluation),
            "packs": None if self.groups is None else len(self.groups),
            "dropped": dict(self.dropped),
        }


def encode_data(
    invocation: Invocation, template: Template, recipe: Recipe, *, say: Say
) -> EncodedData:
    """Load and encode the rows of a training command.

    Raises:
        DataError: nothing is left to train on; the message says why.
    """
    data, encoding = invocation.get(DataArguments), invocation.get(EncodingArguments)
    loaded = ft_data.load_given(
        data, seed=invocation.get(ModelArguments).seed, mixing=invocation.get(MixArguments)
    )
    for line in (*loaded.train.report.lines(), *loaded.val.report.lines()):
        say(line)
    max_length = invocation.get(TemplateArguments).max_length
    if encoding.lazy_tokenize and not encoding.packing:
        train, evaluation = (
            ft_data.LazyRows(part.examples, recipe, template) for part in (loaded.train, loaded.val)
        )
        return EncodedData(train, evaluation, None, Counter(), max(max_length, 2048))
    dropped: Counter[str] = Counter()
    parts: list[ft_data.StoredSamples] = []
    for rows in (loaded.train, loaded.val):
        encoded = ft_data.encode(
            rows.examples,
            recipe,
            template,
            num_proc=encoding.preprocess_num_proc,
            cache_dir=cache_directory() / "encoded",
            say=say,
        )
        for line in encoded.report_lines():
            say(line)
        dropped.update(item.reason for item in encoded.dropped)
        parts.append(encoded.samples)
    groups = _pack(parts[0], max_length, say) if encoding.packing else None
    return EncodedData(parts[0], parts[1], groups, dropped, max_length)


def show_sample(template: Template, data: EncodedData) -> None:
    """Print the first row with its trained tokens marked."""
    from rich.console import Console

    first = data.train[0]
    sample = first if isinstance(first, Sample) else next(s for s in first if isinstance(s, Sample))
    rows = [ft_data.preview_row(tokens, template.tokenizer) for tokens in sample.sequences]
    Console(soft_wrap=True).print(ft_data.to_terminal(rows))


def _pack(samples: ft_data.StoredSamples, max_length: int, say: Say) -> list[list[int]]:
    lengths = samples.lengths.tolist()
    if max_length == -1:
        raise UsageError("--packing needs a --max_length other than -1: the length of a pack")
    groups = ft_data.pack(lengths, max_length)
    filled = ft_data.efficiency(lengths, groups, max_length)
    say(
        f"packed {len(samples):,} samples into {len(groups):,} of up to {max_length:,} tokens "
        f"({filled:.1%} full)"
    )
    return groups
