"""Which layers of a model are quantized, and in groups of which size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from ft_core.errors import ModelError, UsageError
from ft_core.models.linear import is_linear, matrix_shape
from ft_core.models.modules import linear_names

SIZES = (128, 64, 32, 16)
"""Sizes of groups that are tried, the first that fits is taken."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The linear layers of a model.

    Attributes:
        shapes: name → (out, in) of those that are quantized.
        kept: names of those that stay as they are.
    """

    shapes: Mapping[str, tuple[int, int]]
    kept: tuple[str, ...]


def layers_of(model: PreTrainedModel) -> Layers:
    """Return the linear layers of a model but its head, routers and experts; it may be on torch's meta device.

    Raises:
        ModelError: it has none.
    """
    chosen = linear_names(model)
    others = (name for name, module in model.named_modules() if is_linear(module))
    if not chosen:
        raise ModelError(f"{model.config.model_type} has no linear layers that could be quantized")
    shapes = {name: matrix_shape(model.get_submodule(name)) for name in chosen}
    return Layers(shapes, tuple(name for name in others if name not in shapes))


def group_size(layers: Layers, wanted: int) -> int:
    """Return how many weights share a scale: what is wanted, or the largest size that divides every layer.

    Raises:
        UsageError: the wanted size doesn't divide a layer.
        ModelError: no size does.
    """
    inner = {name: shape[1] for name, shape in layers.shapes.items()}
    if wanted:
        for name, size in inner.items():
            if size % wanted:
                raise UsageError(
                    f"--quant_group_size {wanted} doesn't divide the {size} inputs of {name}; take 0, which finds one "
                    "that does"
                )
        return wanted
    for size in SIZES:
        if not any(value % size for value in inner.values()):
            return size
    worst = next(name for name, value in inner.items() if value % SIZES[-1])
    raise ModelError(
        f"{worst} has {inner[worst]} inputs, which groups of {SIZES[-1]} don't divide; take --quant_method bnb"
    )
