"""What a loss over preference pairs takes and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ft_core.errors import UsageError


@dataclass(frozen=True, slots=True)
class PreferenceLoss:
    """The loss of each pair, and the rewards that are shown while training.

    Attributes:
        losses: shape (B,), one loss per pair, differentiable and not reduced: whoever trains divides
            by the number of pairs of the whole global batch.
        chosen_rewards: shape (B,), the implicit reward of the chosen answer, without gradient.
        rejected_rewards: shape (B,), the same of the rejected answer.
    """

    losses: torch.Tensor
    chosen_rewards: torch.Tensor
    rejected_rewards: torch.Tensor

    def shown(self) -> dict[str, torch.Tensor]:
        """Return what the log shows of each pair, shape (B,), by its name there."""
        margins = self.chosen_rewards - self.rejected_rewards
        return {
            "rewards/chosen": self.chosen_rewards,
            "rewards/rejected": self.rejected_rewards,
            "rewards/margins": margins,
            "rewards/accuracies": (margins > 0).to(margins.dtype),
        }


def check_shapes(tensors: Mapping[str, torch.Tensor | None], per: str = "pair") -> None:
    """Refuse tensors that don't hold one number for each pair (or answer).

    Raises:
        UsageError: names each tensor with its shape.
    """
    shapes = {name: tuple(item.shape) for name, item in tensors.items() if item is not None}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UsageError(f"a number per {per} is needed, all of one shape (B,), not {given}")


def smoothed_logistic(margin: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return the logistic loss of a margin whose sign is wrong with some probability.

    Args:
        margin: any shape.
        label_smoothing: that probability; at 0 this is ``-log sigmoid(margin)``.
    """
    right = -torch.nn.functional.logsigmoid(margin)
    if label_smoothing == 0:
        return right
    flipped = -torch.nn.functional.logsigmoid(-margin)
    return (1 - label_smoothing) * right + label_smoothing * flipped
