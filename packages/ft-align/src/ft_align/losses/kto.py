"""Losses of single answers that are labelled desirable or undesirable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from ft_align.loss_types import LOSS_TYPES, check_beta, check_loss_type, check_weights
from ft_align.losses.preference import check_shapes
from ft_core.errors import UsageError

KTO_LOSS_TYPES: tuple[str, ...] = LOSS_TYPES["kto"]
"""The values of ``loss_type`` that ``kto_loss`` takes."""


@dataclass(frozen=True, slots=True)
class LabelledLoss:
    """The loss of each labelled answer, and its reward.

    Attributes:
        losses: shape (B,), weighted, differentiable and not reduced: whoever trains divides by the number
            of answers of the whole global batch.
        rewards: shape (B,), the implicit reward of each answer, without gradient.
    """

    losses: torch.Tensor
    rewards: torch.Tensor


def kto_loss(
    policy: torch.Tensor,
    reference: torch.Tensor,
    desirable: torch.Tensor,
    *,
    anchor: float | torch.Tensor = 0.0,
    beta: float = 0.1,
    loss_type: str = "kto",
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> LabelledLoss:
    """Compute a loss over labelled answers.

    Args:
        policy: log-probability of each answer under the model that is trained, shape (B,): the sum over
            its tokens, in float32 or wider.
        reference: the same under the frozen reference.
        desirable: the labels, shape (B,), boolean.
        anchor: what rewards are compared with, one number of the whole global batch, without gradient.
            For ``kto`` an estimate of the divergence KL(policy, reference) in nats, at least 0: the mean
            log-ratio of answers that belong to other prompts. For ``bco`` the running mean of the
            rewards. ``apo_zero_unpaired`` has none.
        beta: how strongly the model is kept near the reference.
        loss_type: ``kto`` (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7), ``bco`` (Jung et al. 2024,
            arXiv:2404.04656), or ``apo_zero_unpaired`` (D'Oosterlinck et al. 2024,
            arXiv:2408.06266, eq. 7, one answer at a time).
        desirable_weight: of the losses of desirable answers.
        undesirable_weight: of the losses of undesirable answers.

    Returns:
        The loss of each answer, and the rewards ``beta * (policy - reference)``.

    Raises:
        UsageError: ``loss_type`` is unknown, a setting is out of its range or has no meaning for this
            loss, or the shapes differ.
    """
    check_loss_type("kto", loss_type)
    check_beta(beta)
    check_weights(desirable_weight, undesirable_weight)
    check_shapes({"policy": policy, "reference": reference, "desirable": desirable}, per="answer")
    rewards = beta * (policy - reference)
    shift = torch.as_tensor(anchor, dtype=rewards.dtype, device=rewards.device).detach()
    if loss_type == "kto":
        shift = beta * shift.clamp(min=0)
    elif loss_type == "apo_zero_unpaired" and bool(shift != 0):
        raise UsageError("loss_type apo_zero_unpaired compares rewards with 0; leave anchor out")
    sign = torch.where(desirable.bool(), 1.0, -1.0).to(rewards.dtype)
    gained = sign * (rewards - shift)
    losses = -logsigmoid(gained) if loss_type == "bco" else 1 - torch.sigmoid(gained)
    weights = torch.where(desirable.bool(), desirable_weight, undesirable_weight)
    return LabelledLoss(losses=losses * weights.to(losses.dtype), rewards=rewards.detach())
