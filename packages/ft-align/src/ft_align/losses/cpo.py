"""Contrastive preference optimisation: DPO with a uniform reference, which then needn't be computed."""

from __future__ import annotations

import torch

from ft_align.loss_types import LOSS_TYPES, check_beta, check_loss_type, check_smoothing
from ft_align.losses.preference import PreferenceLoss, check_shapes, smoothed_logistic
from ft_align.losses.simpo import simpo_loss

CPO_LOSS_TYPES: tuple[str, ...] = LOSS_TYPES["cpo"]
"""The values of ``loss_type`` that ``cpo_loss`` takes."""

AVERAGED = frozenset({"ipo", "simpo"})
"""The losses whose log-probabilities are averages over tokens; those of the others are sums."""


def cpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    *,
    beta: float = 0.1,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
    gamma: float = 1.0,
) -> PreferenceLoss:
    """Compute the preference part of CPO (Xu et al. 2024, arXiv:2401.08417, eq. 3).

    The whole loss is this plus ``cpo_alpha`` times the negative log-likelihood of the chosen answer.

    Args:
        policy_chosen: log-probability of the chosen answer, shape (B,): the sum over its tokens, or for
            the losses in ``AVERAGED`` the average.
        policy_rejected: the same of the rejected answer.
        beta: scales the rewards.
        loss_type: one of ``CPO_LOSS_TYPES``: ``sigmoid`` is CPO's own; ``hinge`` is SLiC's
            (arXiv:2305.10425), ``ipo`` is IPO's (arXiv:2310.12036), ``simpo`` SimPO's (arXiv:2405.14734).
        label_smoothing: probability in [0, 0.5) that a preference is the wrong way round; for
            ``sigmoid`` and ``simpo``.
        gamma: the margin that ``simpo`` aims at.

    Returns:
        The loss of each pair, and the rewards ``beta * policy``.

    Raises:
        UsageError: ``loss_type`` is unknown, a setting is out of its range or has no meaning for this
            loss, or the shapes differ.
    """
    check_loss_type("cpo", loss_type)
    check_beta(beta)
    check_smoothing("cpo", loss_type, label_smoothing)
    if loss_type == "simpo":
        return simpo_loss(
            policy_chosen, policy_rejected, beta=beta, gamma=gamma, label_smoothing=label_smoothing
        )
    check_shapes({"policy_chosen": policy_chosen, "policy_rejected": policy_rejected})
    gap = policy_chosen - policy_rejected
    if loss_type == "hinge":
        losses = torch.relu(1 - beta * gap)
    elif loss_type == "ipo":
        losses = (gap - 1 / (2 * beta)) ** 2
    else:
        losses = smoothed_logistic(beta * gap, label_smoothing)
    return PreferenceLoss(
        losses=losses,
        chosen_rewards=beta * policy_chosen.detach(),
        rejected_rewards=beta * policy_rejected.detach(),
    )
