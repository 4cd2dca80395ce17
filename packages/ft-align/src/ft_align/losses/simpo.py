"""Simple preference optimisation: no reference, rewards per token, a margin to be reached."""

from __future__ import annotations

import torch

from ft_align.loss_types import check_beta, check_smoothing
from ft_align.losses.preference import PreferenceLoss, check_shapes, smoothed_logistic


def simpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    label_smoothing: float = 0.0,
) -> PreferenceLoss:
    """Compute SimPO (Meng et al. 2024, arXiv:2405.14734, eq. 6).

    Args:
        policy_chosen: log-probability of the chosen answer, averaged over its tokens, shape (B,).
        policy_rejected: the same of the rejected answer.
        beta: scales the rewards.
        gamma: the margin between the rewards that is aimed at.
        label_smoothing: probability in [0, 0.5) that a preference is the wrong way round.

    Returns:
        The loss of each pair, and the rewards ``beta * policy``.

    Raises:
        UsageError: a setting is out of its range, or the shapes differ.
    """
    check_beta(beta)
    check_smoothing("simpo", "simpo", label_smoothing)
    check_shapes({"policy_chosen": policy_chosen, "policy_rejected": policy_rejected})
    margin = beta * (policy_chosen - policy_rejected) - gamma
    return PreferenceLoss(
        losses=smoothed_logistic(margin, label_smoothing),
        chosen_rewards=beta * policy_chosen.detach(),
        rejected_rewards=beta * policy_rejected.detach(),
    )
