"""The rows of a training command with ``--streaming``: read, encoded and packed while it trains."""

from __future__ import annotations

import ft_data
from ft_cli.batches import pack_length
from ft_core.arguments import ModelArguments
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.prepare import Say
from ft_core.recipe import Recipe
from ft_core.templates.template import Template
from ft_data.arguments import DataArguments, EncodingArguments
from ft_data.batch_arguments import StreamArguments
from ft_data.given import identity_of, register_given
from ft_data.streaming import EncodedStream


def open_stream(
    invocation: Invocation, template: Template, recipe: Recipe, *, say: Say
) -> EncodedStream:
    """Open what ``--dataset`` names as one stream of samples.

    Raises:
        UsageError: a flag can't work with streaming.
        FtError: as ``ft_data.stream``.
    """
    data, arguments = invocation.get(DataArguments), invocation.get(StreamArguments)
    register_given(data)
    sources = ft_data.parse_sources(data.sources())
    weights = tuple(arguments.interleave_prob)
    if weights and len(weights) != len(sources):
        raise UsageError(
            f"--interleave_prob has {len(weights)} numbers for {len(sources)} data sets; give one for each"
        )
    streams = tuple(
        ft_data.stream(source, check=data.check_dataset_strategy, identity=identity_of(data))
        for source in sources
    )
    for source in sources:
        say(f"{source}: streamed")
    return EncodedStream(
        streams,
        recipe,
        template,
        names=tuple(map(str, sources)),
        weights=weights,
        window=arguments.shuffle_buffer_size,
        pack_length=pack_length(invocation) if invocation.get(EncodingArguments).packing else None,
        seed=data.seed_or(invocation.get(ModelArguments).seed),
    )


def validation_rows(invocation: Invocation) -> ft_data.Rows:
    """Load the rows to evaluate on: those of ``--val_dataset``, since nothing is split off a stream."""
    data = invocation.get(DataArguments)
    return ft_data.load(
        data.val_sources(),
        seed=data.seed_or(invocation.get(ModelArguments).seed),
        check=data.check_dataset_strategy,
        identity=identity_of(data),
    )
