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
from ft_data.arguments import DataArguments, EncodingArguments, MixArguments
from ft_data.batch_arguments import BatchArguments, StreamArguments
from ft_data.given import identity_of, register_given
from ft_data.streaming import EncodedStream
from ft_train.arguments import TrainingArguments


def open_stream(
    invocation: Invocation, template: Template, recipe: Recipe, *, say: Say
) -> EncodedStream:
    """Open what ``--dataset`` names as one stream of samples.

    Raises:
        UsageError: a flag can't work with streaming.
        FtError: as ``ft_data.stream``.
    """
    check_streaming(invocation)
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


def check_streaming(invocation: Invocation) -> None:
    """Refuse what needs all rows before training.

    Raises:
        UsageError: naming the flag and the remedy.
    """
    if invocation.get(TrainingArguments).max_steps <= 0:
        raise UsageError(
            "--streaming needs --max_steps: how many rows a stream has is not known, so epochs can't end the run"
        )
    data, encoding = invocation.get(DataArguments), invocation.get(EncodingArguments)
    batches = invocation.get(BatchArguments)
    needs_all = {
        "dataset_test_ratio": data.dataset_test_ratio > 0,
        "lazy_tokenize": bool(encoding.lazy_tokenize),
        "preprocess_num_proc": encoding.preprocess_num_proc > 1,
        "train_dataset_sample": data.train_dataset_sample != -1,
        "val_dataset_sample": data.val_dataset_sample is not None,
        "train_dataset_mix_ratio": invocation.get(MixArguments).train_dataset_mix_ratio > 0,
        "packing_window": batches.packing_window is not None,
        "group_by_length": batches.group_by_length,
        "max_tokens_per_batch": batches.max_tokens_per_batch is not None,
        "test_oom_error": batches.test_oom_error,
    }
    instead = {
        "dataset_test_ratio": "evaluate with --val_dataset",
        "lazy_tokenize": "rows are encoded when they come anyway",
        "preprocess_num_proc": "use --dataloader_num_workers",
        "train_dataset_sample": "write --dataset NAME#N",
        "val_dataset_sample": "write --val_dataset NAME#N",
        "train_dataset_mix_ratio": "name the rows in --dataset, with --interleave_prob",
        "packing_window": "use --shuffle_buffer_size",
    }
    for name, used in needs_all.items():
        if used and invocation.given(name):
            raise UsageError(
                f"--{name} needs all rows before training, which --streaming doesn't have; "
                f"{instead.get(name, 'drop one of them')}"
            )
