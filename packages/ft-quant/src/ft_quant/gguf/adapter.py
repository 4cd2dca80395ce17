"""A LoRA adapter as a GGUF file of its own, which llama.cpp and Ollama lay over the base's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from peft import load_peft_weights

from ft_core.checkpoints import ADAPTER_CONFIG
from ft_core.errors import ModelError
from ft_core.tuners.older_layout import as_peft
from ft_quant.dtypes import read_config
from ft_quant.gguf.families import Array, Family, check_family, lay_out

if TYPE_CHECKING:
    from ft_quant.export import ExportJob

_PREFIX = "base_model.model."
_PARTS = {".lora_A.weight": ".lora_a", ".lora_B.weight": ".lora_b"}
_UNKNOWN = ("use_dora", "modules_to_save", "trainable_token_indices", "target_parameters")
"""What an adapter may have that GGUF has no place for."""


def write_adapter(job: ExportJob, directory: Path) -> dict[str, Any]:
    """Write the adapter of a checkpoint as GGUF; its matrices are float32 or float16.

    Returns:
        What was written, for the record.

    Raises:
        ModelError: it isn't plain LoRA, or the base's architecture has no names in GGUF here.
    """
    checkpoint = job.prepared.checkpoint
    assert checkpoint is not None
    kind = "f32" if job.convert.to_gguf == "f32" else "f16"
    config = read_config(job.prepared.directory)
    family = check_family(config)
    with as_peft(checkpoint.path) as plain:
        settings = json.loads((plain / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        weights = load_peft_weights(str(plain), device="cpu")
    _refuse_odd(settings)
    file = f"adapter-{kind}.gguf"
    tensors = {
        _named(family, config, name): tensor.float().numpy() for name, tensor in weights.items()
    }
    _write(job, family, config, settings, tensors, directory / file, kind)
    return {"file": file, "type": kind, "adapter": True}


def _write(
    job: ExportJob,
    family: Family,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    tensors: Mapping[str, Array],
    file: Path,
    kind: str,
) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(file, family.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", _alpha(settings))
    writer.add_name(job.prepared.name)
    for name, values in tensors.items():
        stored = values
        if name.endswith(".lora_b"):
            # The rows of B are those of the weight, so they lie as the weight's do.
            stored = lay_out(family, name.removesuffix(".lora_b"), values, config)
        writer.add_tensor(
            name, np.ascontiguousarray(stored, dtype=np.float32 if kind == "f32" else np.float16)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _alpha(settings: Mapping[str, Any]) -> float:
    """Return the alpha that llama.cpp divides by the rank; for rsLoRA one that gives its scale."""
    alpha, rank = float(settings["lora_alpha"]), int(settings["r"])
    return alpha * rank**0.5 if settings.get("use_rslora") else alpha


def _refuse_odd(settings: Mapping[str, Any]) -> None:
    odd = [name for name in _UNKNOWN if settings.get(name)]
    patterns = [name for name in ("rank_pattern", "alpha_pattern") if settings.get(name)]
    plain = settings.get("peft_type") == "LORA" and settings.get("bias", "none") == "none"
    if odd or patterns or not plain:
        what = ", ".join([*odd, *patterns]) or f"{settings.get('peft_type')} with trained biases"
        raise ModelError(
            f"--gguf_adapter: GGUF has a place for plain LoRA only, and this adapter has {what}; leave the flag out, which "
            "merges it"
        )


def _named(family: Family, config: Mapping[str, Any], name: str) -> str:
    """Return a matrix's name in GGUF.

    Raises:
        ModelError: it has none.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = next(k for k, known in MODEL_ARCH_NAMES.items() if known == family.architecture)
    names = get_tensor_name_map(architecture, int(config["num_hidden_layers"]))
    for ending, part in _PARTS.items():
        if name.endswith(ending):
            layer = name.removeprefix(_PREFIX).removesuffix(ending)
            if written := names.get_name(f"{layer}.weight", try_suffixes=(".weight",)):
                return f"{written}{part}"
    raise ModelError(f"--gguf_adapter: GGUF has no name for the adapter's {name}")
