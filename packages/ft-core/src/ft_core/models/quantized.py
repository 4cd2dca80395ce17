"""Quantizing weights while a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import BitsAndBytesConfig, EetqConfig, HqqConfig, PreTrainedModel

from ft_core.errors import ModelError, UsageError
from ft_core.models.dtype import TORCH_DTYPES
from ft_core.models.modules import linear_names
from ft_core.models.quantization import Quantization, quiet_bitsandbytes

if TYPE_CHECKING:
    from transformers.utils.quantization_config import QuantizationConfigMixin

_GROUP = 64
"""Weights that share a scale in hqq, its own default."""


def transformers_config(wanted: Quantization, dtype: torch.dtype) -> QuantizationConfigMixin | None:
    """Spell a quantization as transformers' configuration; ``None`` for hqq, which it can't load."""
    if wanted.method == "eetq":
        return EetqConfig("int8")
    if wanted.method == "hqq":
        return None
    quiet_bitsandbytes()
    if wanted.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = dtype if wanted.compute_dtype == "AUTO" else TORCH_DTYPES[wanted.compute_dtype]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_type=wanted.quant_type,
        bnb_4bit_use_double_quant=wanted.double_quant,
        bnb_4bit_quant_storage=wanted.storage,
    )


def layer_tag(name: str) -> str:
    """Return what hqq calls layers of one kind: ``model.layers.3.self_attn.q_proj`` is ``self_attn.q_proj``."""
    return ".".join(
        part for part in name.split(".") if part not in ("model", "layers") and not part.isdigit()
    )


def check_layers(model: PreTrainedModel, wanted: Quantization) -> None:
    """Refuse settings of layers that the model doesn't have; it may be on torch's meta device.

    Raises:
        UsageError: with the tags that exist.
    """
    names = set(linear_names(model))
    tags = {layer_tag(name) for name in names}
    unknown = sorted(set(wanted.layers) - tags - names)
    if unknown:
        raise UsageError(
            f"--hqq_dynamic_config_path: this model has no layer {', '.join(unknown)}; it has {', '.join(sorted(tags))}"
        )


def quantize_by_hqq(
    model: PreTrainedModel, wanted: Quantization, dtype: torch.dtype, device: torch.device | str
) -> PreTrainedModel:
    """Replace the linear layers of a model by hqq's, one by one, and move the rest.

    The method is Badri and Shaji 2023 (https://mobiusml.github.io/hqq_blog/).

    Args:
        model: plain, on the CPU; it is changed.
        wanted: the quantization.
        dtype: of the computation.
        device: where the model goes.

    Raises:
        UsageError: settings of layers that don't exist.
        ModelError: a layer's shape doesn't suit the group size.
    """
    from hqq.core.quantize import HQQLinear

    model.requires_grad_(False)
    check_layers(model, wanted)
    chosen = {name: _settings(wanted, name) for name in linear_names(model)}
    if not any(chosen.values()):
        raise ModelError(f"{model.config.model_type} has no linear layer that hqq could quantize")
    for name, settings in chosen.items():
        if settings is None:
            continue
        layer = model.get_submodule(name)
        _check_shape(name, layer, settings)
        quantized = HQQLinear(
            layer, _hqq_config(settings), compute_dtype=dtype, device=str(device), del_orig=True
        )
        model.set_submodule(name, quantized)
    model.to(device)
    # Marks the model, so that tuners know that its weights can be neither trained nor merged into.
    model.config.quantization_config = HqqConfig(
        nbits=wanted.bits or 4, group_size=_GROUP, axis=wanted.axis
    )
    return model


def keep_differentiable(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights for inference on a CPU once the model is evaluated.

    No gradient goes through weights in that form, and it doesn't unpack them when training goes on.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            cast(Any, module).support_avx512bf16_for_cpu = False


def parameter_sizes(model: torch.nn.Module) -> Iterator[tuple[int, bool]]:
    """Return for each parameter how many weights it stands for and whether it is trained.

    Packed weights count as what they were packed from; shared ones count once.
    """
    packed = {
        id(module.W_q): cast(int, module.in_features) * cast(int, module.out_features)
        for module in model.modules()
        if type(module).__name__ == "HQQLinear"
    }
    for parameter in model.parameters():
        count = packed.get(id(parameter), parameter.numel())
        if type(parameter).__name__ == "Params4bit":
            state = cast(Any, parameter).quant_state
            count = parameter.numel() if state is None else int(torch.Size(state.shape).numel())
        yield count, parameter.requires_grad


def _settings(wanted: Quantization, name: str) -> Mapping[str, Any] | None:
    """Return hqq's settings of a layer; ``None`` leaves it as it is."""
    for key in (name, layer_tag(name)):
        if key in wanted.layers:
            return wanted.layers[key]
    if not wanted.bits:
        return None
    return {"nbits": wanted.bits, "group_size": _GROUP, "axis": wanted.axis}


def _hqq_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    from hqq.core.quantize import BaseQuantizeConfig

    return cast(dict[str, Any], BaseQuantizeConfig(**settings))


def _check_shape(name: str, layer: torch.nn.Module, settings: Mapping[str, Any]) -> None:
    weight = cast(torch.Tensor, layer.weight)
    size = settings.get("group_size")
    if size is not None and weight.numel() % size:
        rows, columns = weight.shape
        raise ModelError(
            f"{name} has {rows} times {columns} weights, which groups of {size} don't divide; give it another "
            "group_size with --hqq_dynamic_config_path, or take --quant_method bnb"
        )
