"""PiSSA, OLoRA and CorDA: adapters that begin with a part of the weights, saved as plain LoRA.

They take B₀A₀ out of the weights W and train from there: what the model computes is W − sB₀A₀ + sBA. The
difference to W is s[B, −B₀][A; A₀], a LoRA of twice the rank that fits the plain model. That is what is saved,
and from its second half the beginning can be had again to train on.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from ft_core.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ft_core.tuners.note import add_to_note, read_note

_BEGINNING = ("ft_first_A", "ft_first_B")
_PREFIX = "base_model.model."


def remember_beginning(adapted: PeftModel) -> None:
    """Keep what the matrices begin with, which was taken out of the weights."""
    for layer in _layers(adapted).values():
        name = _adapter(layer)
        for key, matrices in zip(_BEGINNING, (layer.lora_A, layer.lora_B), strict=True):
            layer.register_buffer(key, matrices[name].weight.detach().clone(), persistent=False)


def has_beginning(adapted: PeftModel) -> bool:
    """Whether a part of the weights was taken for the adapter."""
    return any(_first(layer) is not None for layer in _layers(adapted).values())


def write_as_plain(adapted: PeftModel, directory: Path, *, safe_serialization: bool) -> None:
    """Turn the adapter that peft wrote into one of twice the rank that fits the plain model.

    Args:
        adapted: the model.
        directory: holds what ``save_pretrained`` wrote.
        safe_serialization: whether that is safetensors.
    """
    weights = load_peft_weights(str(directory), device="cpu")
    for name, layer in _layers(adapted).items():
        first = _first(layer)
        if first is None:
            continue
        key_a, key_b = (f"{name}.{part}.weight" for part in ("lora_A", "lora_B"))
        weights[key_a] = torch.cat([weights[key_a], first[0].cpu().to(weights[key_a].dtype)])
        weights[key_b] = torch.cat(
            [weights[key_b], -first[1].cpu().to(weights[key_b].dtype)], dim=1
        )
    file = directory / ADAPTER_CONFIG
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    began = {name: config[name] for name in ("init_lora_weights", "r", "lora_alpha")}
    growth = math.sqrt(2) if config.get("use_rslora") else 2  # keeps the scale of the product
    config |= {
        "r": config["r"] * 2,
        "lora_alpha": config["lora_alpha"] * growth,
        "init_lora_weights": True,
        "corda_config": None,
    }
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    add_to_note(directory, began=began)
    if safe_serialization:
        save_file(weights, directory / ADAPTER_WEIGHTS[0], metadata={"format": "pt"})
    else:
        torch.save(weights, directory / ADAPTER_WEIGHTS[1])


def reads_beginning(directory: Path) -> bool:
    """Whether a checkpoint's adapter began with a part of the weights."""
    return "began" in read_note(directory)


@torch.no_grad()
def take_again(adapted: PeftModel, directory: Path) -> None:
    """Put an adapter that was loaded as plain LoRA back to how it was trained.

    Args:
        adapted: the model with the adapter of twice the rank.
        directory: where it was loaded from.
    """
    began = read_note(directory)["began"]
    rank = int(began["r"])
    for layer in _layers(adapted).values():
        name = _adapter(layer)
        both_a, both_b = layer.lora_A[name].weight.data, layer.lora_B[name].weight.data
        first_a, first_b = both_a[rank:].clone(), -both_b[:, rank:].clone()
        layer.lora_A[name].weight.data = both_a[:rank].clone()
        layer.lora_B[name].weight.data = both_b[:, :rank].clone()
        layer.lora_A[name].out_features = layer.lora_B[name].in_features = rank
        layer.r[name], layer.lora_alpha[name] = rank, began["lora_alpha"]
        for key, value in zip(_BEGINNING, (first_a, first_b), strict=True):
            layer.register_buffer(key, value, persistent=False)
        base = layer.get_base_layer()
        weight = base.weight.data
        rest = (
            _turned(weight.float(), layer) - layer.scaling[name] * first_b.float() @ first_a.float()
        )
        base.weight.data = _turned(rest, layer).to(weight.dtype)
    config = adapted.active_peft_config
    config.r, config.lora_alpha = rank, began["lora_alpha"]
    config.init_lora_weights = began["init_lora_weights"]


@torch.no_grad()
def give_back(adapted: PeftModel) -> None:
    """Put what was taken back into the weights, and leave the difference to the adapter: exact merging."""
    for layer in _layers(adapted).values():
        first = _first(layer)
        if first is None:
            continue
        name = _adapter(layer)
        matrix_a, matrix_b = layer.lora_A[name], layer.lora_B[name]
        matrix_a.weight.data = torch.cat([matrix_a.weight.data, first[0]])
        matrix_b.weight.data = torch.cat([matrix_b.weight.data, -first[1]], dim=1)
        base = layer.get_base_layer()
        weight = base.weight.data
        full = (
            _turned(weight.float(), layer)
            + layer.scaling[name] * first[1].float() @ first[0].float()
        )
        base.weight.data = _turned(full, layer).to(weight.dtype)


def _layers(adapted: PeftModel) -> dict[str, LoraLayer]:
    """Return the layers that have an adapter, by peft's name of them."""
    return {
        _PREFIX + name: module
        for name, module in adapted.get_base_model().named_modules()
        if isinstance(module, LoraLayer) and len(module.lora_A)
    }


def _adapter(layer: LoraLayer) -> str:
    return str(next(iter(layer.lora_A)))


def _first(layer: LoraLayer) -> tuple[torch.Tensor, torch.Tensor] | None:
    buffers = dict(layer.named_buffers(recurse=False))
    found = [buffers[key] for key in _BEGINNING if key in buffers]
    return (found[0], found[1]) if len(found) == 2 else None


def _turned(weight: torch.Tensor, layer: LoraLayer) -> torch.Tensor:
    """Return a matrix as (out, in), or back: GPT-2 keeps its own transposed."""
    return weight.T if layer.fan_in_fan_out else weight
