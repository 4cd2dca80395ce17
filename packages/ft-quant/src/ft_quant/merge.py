"""Folding an adapter into its base model: a whole model on disk that plain transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import GenerationConfig

from ft_core.checkpoints import (
    SavedCheckpoint,
    atomic_directory,
    open_checkpoint,
    write_sidecars,
)
from ft_core.errors import ModelError, UsageError
from ft_core.hub import fetch
from ft_core.hub.cache import Report, report_to_stderr
from ft_core.models.dtype import TORCH_DTYPES
from ft_core.models.loading import base_source, load_with_adapter
from ft_core.models.resolution import ModelSource
from ft_core.tuner import UNMERGEABLE
from ft_core.tuners import TUNERS
from ft_core.tuners.shards import open_merger
from ft_quant.devices import device_of
from ft_quant.dtypes import DTYPE_NAMES, read_config, stored_dtype
from ft_quant.provenance import origin_of, write_record
from ft_quant.sidecars import copy_sidecars, whole_arguments
from ft_quant.weights import open_weights, rewrite

DtypeChoice = Literal["AUTO", "bf16", "fp16", "fp32"]


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What was merged.

    Attributes:
        path: the directory of the whole model.
        checkpoint: the adapter's checkpoint.
        base: the base model: its registered name, id or directory.
        dtype: of the written weights: ``bf16``, ``fp16`` or ``fp32``.
        parameters: number of parameters of the whole model.
        size: bytes of its weights on disk.
    """

    path: Path
    checkpoint: Path
    base: str
    dtype: str
    parameters: int
    size: int

    def __str__(self) -> str:
        """One line for a terminal."""
        return (
            f"{self.checkpoint} merged into {self.base}: {self.path} "
            f"({self.parameters:,} parameters in {self.dtype}, {self.size / 1e6:,.1f} MB)"
        )


def merge_checkpoint(
    ckpt_dir: str | Path,
    output_dir: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: DtypeChoice = "AUTO",
    safe_serialization: bool = True,
    overwrite: bool = False,
    source: ModelSource | None = None,
    trust_remote_code: bool = False,
    report: Report = report_to_stderr,
    finish: Callable[[Path], None] | None = None,
) -> MergeReport:
    """Fold the adapter of a checkpoint into its base model and write the whole model.

    Each weight is merged in float32 and rounded once to its data type. Tokenizer, chat template,
    generation config and saved arguments come along; what the checkpoint doesn't hold is taken from
    the base. The directory appears whole or not at all.

    Args:
        ckpt_dir: a checkpoint that holds an adapter.
        output_dir: where the whole model goes; ``None`` is ``<ckpt_dir>-merged``.
        device: where the weights are merged: ``cpu`` (also ``None``), ``auto`` for an accelerator if
            there is one, or a device of torch such as ``cuda:0``.
        dtype: of the written weights; ``AUTO`` keeps that of the base.
        safe_serialization: write safetensors, else one ``pytorch_model.bin``.
        overwrite: replace a model that is at ``output_dir`` already.
        source: where the base comes from; ``None`` takes what the checkpoint says.
        trust_remote_code: run Python code of the base model's repository if it needs it.
        report: is told what takes long.
        finish: is called with the complete directory before it gets its name, and writes its record; what it raises
            leaves nothing. ``None`` writes a record without figures.

    Raises:
        ModelError: the checkpoint is none, holds a whole model, doesn't fit its base, or the base is
            quantized.
        UsageError: the output is there already and ``overwrite`` is false, can't be replaced, or the
            device doesn't exist.
        HubError: the base can't be fetched.
        FtError: the output can't be written.
    """
    checkpoint = open_checkpoint(ckpt_dir)
    _refuse_unmergeable(checkpoint)
    target = _target(checkpoint, output_dir)
    _check_target(target, checkpoint, overwrite=overwrite)
    place = device_of(device, "--merge_device_map")
    source = source or base_source(checkpoint)
    base = fetch(source, report=report)
    _check_base(base, target)
    chosen = stored_dtype(base) if dtype == "AUTO" else TORCH_DTYPES[dtype]

    if bits := checkpoint.arguments.get("quantization_bit"):
        report(
            f"the adapter was trained on weights of {bits} bits and goes into the plain ones of {source.name}, so "
            "answers may differ a little from those of the training"
        )
    report(f"merging the adapter of {checkpoint.path.name} into {source.name}")
    how = _How(base, checkpoint, chosen, place, source.base_name(base), trust_remote_code)
    with atomic_directory(target, replace=overwrite) as directory:
        streamed = None
        if safe_serialization and place.type == "cpu":
            streamed = _merge_by_shards(how, directory)
        parameters = streamed or _merge_whole(how, directory, safe_serialization)
        copy_sidecars(checkpoint.path, base, directory)
        arguments = whole_arguments(checkpoint.arguments, DTYPE_NAMES[chosen])
        write_sidecars(directory, arguments=arguments)
        if finish is None:
            facts = {"made": "merged", "dtype": DTYPE_NAMES[chosen], "verification": None}
            write_record(directory, {**facts, "origin": origin_of(source, checkpoint)})
        else:
            finish(directory)
    return MergeReport(
        path=target,
        checkpoint=checkpoint.path,
        base=str(base) if source.hub == "local" else source.name,
        dtype=DTYPE_NAMES[chosen],
        parameters=parameters,
        size=sum(file.stat().st_size for file in _weight_files(target)),
    )


@dataclass(frozen=True, slots=True)
class _How:
    """What is merged, and how."""

    base: Path
    checkpoint: SavedCheckpoint
    dtype: torch.dtype
    device: torch.device
    name: str
    trust_remote_code: bool


def _merge_by_shards(how: _How, directory: Path) -> int | None:
    """Merge with no more than a shard in memory; ``None`` where the model has to be held whole.

    Returns:
        The number of parameters.
    """
    if not any(how.base.glob("*.safetensors")):
        return None
    weights = open_weights(how.base)
    merger = open_merger(
        how.base,
        how.checkpoint,
        weights.names,
        weights.read,
        dtype=how.dtype,
        trust_remote_code=how.trust_remote_code,
    )
    if merger is None:
        return None
    rewrite(weights, directory, lambda name: {name: merger.merged(name)})
    model = merger.model
    model.config.dtype = how.dtype
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    return sum(weights.shape(name).numel() for name in weights.names)


def _merge_whole(how: _How, directory: Path, safe_serialization: bool) -> int:
    """Merge in memory and write the model; returns the number of parameters."""
    model = load_with_adapter(
        how.base,
        how.checkpoint,
        dtype=how.dtype,
        device=how.device,
        name=how.name,
        trust_remote_code=how.trust_remote_code,
    )
    merged = TUNERS.get(how.checkpoint.kind).merge(model)
    # The file itself is copied: transformers refuses to write some published ones anew.
    merged.generation_config = GenerationConfig.from_model_config(merged.config)
    TUNERS.get("full").save(merged, directory, safe_serialization=safe_serialization)
    return sum(parameter.numel() for parameter in merged.parameters())


def _refuse_unmergeable(checkpoint: SavedCheckpoint) -> None:
    if reason := UNMERGEABLE.get(checkpoint.kind):
        raise ModelError(
            f"--ckpt_dir {checkpoint.path}: was trained with --sft_type {checkpoint.kind} and can't be merged: {reason}; "
            f"use it as it is: ft infer --ckpt_dir {checkpoint.path}"
        )
    if checkpoint.scores:
        raise ModelError(
            f"--ckpt_dir {checkpoint.path}: is the adapter of a reward model, which has no place for exported models that "
            "write; merge it with peft: AutoPeftModelForSequenceClassification.from_pretrained(DIR, "
            "num_labels=1).merge_and_unload()"
        )
    if not checkpoint.whole:
        return
    raise ModelError(
        f"--ckpt_dir {checkpoint.path}: holds a whole model, not an adapter (it was trained with "
        f"--sft_type {checkpoint.kind}, or is merged already), so there is nothing to merge; use it as it is: "
        f"ft infer --ckpt_dir {checkpoint.path}"
    )


def _target(checkpoint: SavedCheckpoint, output_dir: str | Path | None) -> Path:
    if output_dir is None:
        return checkpoint.path.with_name(f"{checkpoint.path.name}-merged")
    return Path(output_dir).expanduser().resolve()


def _check_target(target: Path, checkpoint: SavedCheckpoint, *, overwrite: bool) -> None:
    """Refuse before any long work what could not be written, or would destroy something else."""
    if target == checkpoint.path or target in checkpoint.path.parents:
        raise UsageError(
            f"{target} holds the checkpoint itself; give another directory for the merged model"
        )
    if not target.exists():
        return
    if not overwrite:
        raise UsageError(
            f"{target} exists already; use it as it is (ft infer --ckpt_dir {target}), remove it, or "
            "give another directory"
        )
    if not target.is_dir():
        raise UsageError(f"{target} is a file; give a directory for the merged model")
    if any(target.iterdir()) and not (target / "config.json").is_file():
        raise UsageError(
            f"{target} exists and holds something else than a model, so it is not replaced; "
            "give another directory"
        )


def _check_base(base: Path, target: Path) -> None:
    if base.resolve() == target or target in base.resolve().parents:
        raise UsageError(
            f"{target} holds the base model; give another directory for the merged model"
        )
    quantized = read_config(base).get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else ""
        raise ModelError(
            f"the base model {base} is quantized ({method}), and an adapter can't be merged into "
            "quantized weights; give the unquantized model with --model_id_or_path"
        )


def _weight_files(directory: Path) -> list[Path]:
    return [*directory.glob("*.safetensors"), *directory.glob("pytorch_model*.bin")]
