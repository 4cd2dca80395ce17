"""Folding an adapter into its base model: a whole model on disk that plain transformers loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
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

DtypeChoice = Literal["AUTO", "bf16", "fp16", "fp32"]

DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}
"""The data types that weights are written in, by torch's."""

# What a checkpoint keeps beside its weights; all but the first group belong to the base where the
# checkpoint has none of its own.
_TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "*.tiktoken",
    "chat_template.*",
    "chat_templates",
)
_OTHER_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "*.py",
)
_UNQUANTIZED: Mapping[str, Any] = {"quant_method": None, "quantization_bit": 0}


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
    place = _device(device)
    source = source or base_source(checkpoint)
    base = fetch(source, report=report)
    _check_base(base, target)
    chosen = stored_dtype(base) if dtype == "AUTO" else TORCH_DTYPES[dtype]

    if bits := checkpoint.arguments.get("quantization_bit"):
        report(
            f"the adapter was trained on weights of {bits} bits and goes into the plain ones of {source.name}, so "
            "answers may differ a little from those of the training"
        )
    report(f"loading {source.name} and the adapter of {checkpoint.path.name}")
    model = load_with_adapter(
        base,
        checkpoint,
        dtype=chosen,
        device=place,
        name=source.base_name(base),
        trust_remote_code=trust_remote_code,
    )
    merged = TUNERS.get(checkpoint.kind).merge(model)
    # The file itself is copied below: transformers refuses to write some published ones anew.
    merged.generation_config = GenerationConfig.from_model_config(merged.config)
    report(f"writing {target}")
    with atomic_directory(target, replace=overwrite) as directory:
        TUNERS.get("full").save(merged, directory, safe_serialization=safe_serialization)
        _copy_sidecars(checkpoint.path, base, directory)
        write_sidecars(directory, arguments=_arguments(checkpoint, DTYPE_NAMES[chosen]))
    return MergeReport(
        path=target,
        checkpoint=checkpoint.path,
        base=str(base) if source.hub == "local" else source.name,
        dtype=DTYPE_NAMES[chosen],
        parameters=sum(parameter.numel() for parameter in merged.parameters()),
        size=sum(file.stat().st_size for file in _weight_files(target)),
    )


def stored_dtype(directory: Path) -> torch.dtype:
    """Return the data type that a model directory's weights are stored in, as one that ft writes.

    The configuration says it; where it doesn't, the first floating-point tensor does. Anything but
    bf16 and fp16 is float32.

    Raises:
        ModelError: a file is damaged.
    """
    config = _read_config(directory)
    for part in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):
            if isinstance(part.get(key), str):
                return _writable(getattr(torch, part[key].removeprefix("torch."), torch.float32))
    for file in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                names = {str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: can't be read: {error}; fetch it again") from error
        for name, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
            if name in names:
                return dtype
    return torch.float32


def _writable(dtype: object) -> torch.dtype:
    return dtype if isinstance(dtype, torch.dtype) and dtype in DTYPE_NAMES else torch.float32


def _refuse_unmergeable(checkpoint: SavedCheckpoint) -> None:
    if reason := UNMERGEABLE.get(checkpoint.kind):
        raise ModelError(
            f"--ckpt_dir {checkpoint.path}: was trained with --sft_type {checkpoint.kind} and can't be merged: {reason}; "
            f"use it as it is: ft infer --ckpt_dir {checkpoint.path}"
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
    quantized = _read_config(base).get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else ""
        raise ModelError(
            f"the base model {base} is quantized ({method}), and an adapter can't be merged into "
            "quantized weights; give the unquantized model with --model_id_or_path"
        )


def _read_config(directory: Path) -> dict[str, Any]:
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: can't be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file}: holds no JSON object")
    return config


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cpu")
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--merge_device_map {name}: this machine has no such device ({reason}); use cpu or auto"
        ) from error
    return device


def _copy_sidecars(checkpoint: Path, base: Path, directory: Path) -> None:
    has_tokenizer = any(
        (checkpoint / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
    )
    for pattern in _TOKENIZER_FILES:
        _copy((checkpoint if has_tokenizer else base).glob(pattern), directory)
    for pattern in _OTHER_FILES:
        _copy(base.glob(pattern), directory)
        _copy(checkpoint.glob(pattern), directory)


def _copy(files: Iterable[Path], directory: Path) -> None:
    for file in files:
        if file.is_dir():
            shutil.copytree(file, directory / file.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(file, directory / file.name)


def _arguments(checkpoint: SavedCheckpoint, dtype: str) -> dict[str, Any]:
    """The checkpoint's arguments, as they are true of the whole model."""
    plain = {name: value for name, value in _UNQUANTIZED.items() if name in checkpoint.arguments}
    return {**checkpoint.arguments, **plain, "sft_type": "full", "dtype": dtype}


def _weight_files(directory: Path) -> list[Path]:
    return [*directory.glob("*.safetensors"), *directory.glob("pytorch_model*.bin")]
