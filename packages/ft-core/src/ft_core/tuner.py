"""The protocol of a tuner: what makes a loaded model trainable, and what its checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SftType = Literal[
    "lora",
    "full",
    "longlora",
    "adalora",
    "ia3",
    "llamapro",
    "adapter",
    "vera",
    "boft",
    "fourierft",
]
"""The tuners of ft by name, as ``--sft_type`` takes them."""

WHOLE_MODEL = frozenset({"full", "llamapro"})
"""Tuners whose checkpoints are whole models; those of the others need their base."""

UNMERGEABLE: Mapping[str, str] = {
    "adapter": "its bottlenecks bend what goes through them, and no matrix of the model can hold that"
}
"""Tuners whose checkpoints can't be folded into the model's weights, and why."""


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of parameters of a model, for the line a run prints."""

    trainable: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.trainable / self.total if self.total else 0.0
        return f"{self.trainable:,} of {self.total:,} parameters are trained ({share:.4f} %)"


def count_parameters(model: torch.nn.Module) -> ParameterCount:
    """Count what is trained of a model and what there is; shared weights count once, packed ones unpacked."""
    from ft_core.models.quantized import parameter_sizes

    sizes = list(parameter_sizes(model))
    return ParameterCount(sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes))


@runtime_checkable
class Tuner(Protocol):
    """A way to train a model.

    ``settings`` is the tuner's own frozen dataclass, found next to it (``LoraSettings``).
    """

    name: str

    def apply(self, model: PreTrainedModel, settings: Any) -> PreTrainedModel:
        """Return the model with its trainable part attached and everything else frozen."""
        ...

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write what was trained, in a form plain peft or plain transformers loads."""
        ...

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Attach what ``save`` wrote to a freshly loaded base model."""
        ...

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a plain model with the trained part folded into its weights.

        Raises:
            ModelError: this tuner or this base can't be merged; the message says why.
        """
        ...
