"""What an export makes and where it goes, decided before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ft_core.checkpoints import ADAPTER_CONFIG, SavedCheckpoint
from ft_core.errors import ModelError, UsageError
from ft_core.tuner import UNMERGEABLE
from ft_quant.export_arguments import ConvertArguments, QuantizeArguments

Kind = Literal["peft", "merged", "quantized", "gguf", "ollama"]

_FLAGS: Mapping[Kind, str] = {
    "quantized": "--quant_output_dir",
    "gguf": "--gguf_output_dir",
    "ollama": "--ollama_output_dir",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is made, in this order.

    Attributes:
        targets: directory of each thing that is made.
        merges: whether an adapter is folded into its base on the way.
        notes: sentences for the person.
    """

    targets: Mapping[Kind, Path]
    merges: bool
    notes: tuple[str, ...] = ()

    @property
    def keeps_merged(self) -> bool:
        """Whether the merged model is a result; else it is only on the way to one."""
        return "merged" in self.targets


def plan_export(
    name: str,
    checkpoint: SavedCheckpoint | None,
    *,
    merge_lora: bool,
    quantize: QuantizeArguments,
    convert: ConvertArguments,
    push: bool = False,
) -> Plan:
    """Decide what an export makes.

    Args:
        name: what output directories call a model that is no checkpoint.
        checkpoint: what is exported, if it is one.
        merge_lora: whether the merged model is asked for.
        quantize: how weights are quantized.
        convert: which other forms are asked for.
        push: whether something is pushed, which alone needs nothing to be made.

    Raises:
        UsageError: nothing is asked for, or a target exists.
        ModelError: the checkpoint can't be merged or has no adapter.
    """
    adapter = checkpoint is not None and not checkpoint.whole
    wanted: dict[Kind, bool] = {
        "peft": convert.to_peft_format,
        "merged": merge_lora or (convert.to_ollama and adapter and convert.to_gguf is None),
        "quantized": bool(quantize.quant_bits),
        "gguf": convert.to_gguf is not None,
        "ollama": convert.to_ollama,
    }
    if not any(wanted.values()) and not push:
        raise UsageError(
            "nothing to export: give --merge_lora true, --quant_bits, --to_gguf, --to_ollama true, --to_peft_format true "
            "or --push_to_hub true"
        )
    targets = {
        kind: _target(kind, name, checkpoint, quantize, convert)
        for kind, asked in wanted.items()
        if asked
    }
    _check_adapter(
        checkpoint,
        {
            "--merge_lora": merge_lora,
            "--to_peft_format": convert.to_peft_format,
            "--gguf_adapter": convert.gguf_adapter,
        },
    )
    gguf = wanted["gguf"] and not convert.gguf_adapter
    whole = wanted["merged"] or wanted["quantized"] or gguf or wanted["ollama"]
    if adapter and whole:
        assert checkpoint is not None
        _check_mergeable(checkpoint)
    for kind, target in targets.items():
        if target.exists():
            remedy = f", or give another {_FLAGS[kind]}" if kind in _FLAGS else ""
            raise UsageError(f"{target} exists already; use it as it is, or remove it{remedy}")
    return Plan(
        targets, adapter and whole, _notes({**wanted, "gguf": gguf}, adapter, merge_lora, quantize)
    )


def _target(
    kind: Kind,
    name: str,
    checkpoint: SavedCheckpoint | None,
    quantize: QuantizeArguments,
    convert: ConvertArguments,
) -> Path:
    """Return the directory that a result is written to."""
    beside = Path(name) if checkpoint is None else checkpoint.path
    given, default = {
        "peft": (None, beside.with_name(f"{beside.name}-peft")),
        "merged": (None, beside.with_name(f"{beside.name}-merged")),
        "quantized": (
            quantize.quant_output_dir,
            beside.with_name(f"{beside.name}-{quantize.quant_method}-int{quantize.quant_bits}"),
        ),
        "gguf": (
            convert.gguf_output_dir,
            beside.with_name(f"{beside.name}-gguf-{convert.to_gguf}"),
        ),
        "ollama": (convert.ollama_output_dir, Path(f"{name}-ollama")),
    }[kind]
    return (default if given is None else Path(given).expanduser()).resolve()


def _check_adapter(checkpoint: SavedCheckpoint | None, flags: Mapping[str, bool]) -> None:
    """Refuse flags about adapters where there is none."""
    for flag in (name for name, asked in flags.items() if asked):
        if checkpoint is None:
            raise UsageError(f"{flag} true needs --ckpt_dir with the checkpoint of an adapter")
        if flag == "--to_peft_format" and (checkpoint.path / ADAPTER_CONFIG).is_file():
            raise UsageError(
                f"{flag} true: {checkpoint.path} holds an adapter of peft already; leave the flag out"
            )
        if checkpoint.whole:
            raise ModelError(
                f"{flag} true: {checkpoint.path} holds a whole model, not an adapter; leave {flag} out"
            )


def _check_mergeable(checkpoint: SavedCheckpoint) -> None:
    if reason := UNMERGEABLE.get(checkpoint.kind):
        raise ModelError(
            f"--ckpt_dir {checkpoint.path}: was trained with --sft_type {checkpoint.kind} and can't be merged, so it can't "
            f"be exported as a whole model: {reason}"
        )


def _notes(
    wanted: Mapping[Kind, bool], adapter: bool, merge_lora: bool, quantize: QuantizeArguments
) -> tuple[str, ...]:
    notes = []
    if adapter and not merge_lora and any(wanted[k] for k in ("quantized", "gguf", "ollama")):
        kept = "is kept, since the Modelfile names it" if wanted["merged"] else "is not kept"
        notes.append(
            f"the adapter is merged into its base first, and the merged model {kept} (--merge_lora true keeps it)"
        )
    if wanted["ollama"] and wanted["quantized"]:
        notes.append(
            f"the Modelfile names the model without --quant_method {quantize.quant_method}, which Ollama doesn't read; "
            "`ollama create -q` quantizes it"
        )
    return tuple(notes)
