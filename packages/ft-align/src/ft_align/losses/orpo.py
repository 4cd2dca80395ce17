"""Odds ratio preference optimisation: no reference; the chosen answer's odds against the rejected one's."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import logsigmoid

from ft_align.loss_types import check_beta
from ft_align.losses.preference import PreferenceLoss, check_shapes


def orpo_loss(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor, *, beta: float = 0.1
) -> PreferenceLoss:
    """Compute the odds ratio part of ORPO (Hong et al. 2024, arXiv:2403.07691, eq. 4 and 7).

    The whole loss is this plus the negative log-likelihood of the chosen answer.

    Args:
        policy_chosen: log-probability of the chosen answer, averaged over its tokens, shape (B,).
        policy_rejected: the same of the rejected answer.
        beta: weight of the odds ratio; the paper calls it lambda.

    Returns:
        The loss ``-beta * log sigmoid(log odds ratio)`` of each pair, and the rewards ``beta * policy``.

    Raises:
        UsageError: ``beta`` is not above 0, or the shapes differ.
    """
    check_beta(beta)
    check_shapes({"policy_chosen": policy_chosen, "policy_rejected": policy_rejected})
    return PreferenceLoss(
        losses=-beta * logsigmoid(log_odds_ratio(policy_chosen, policy_rejected)),
        chosen_rewards=beta * policy_chosen.detach(),
        rejected_rewards=beta * policy_rejected.detach(),
    )


def log_odds_ratio(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return the log of ``odds(chosen) / odds(rejected)``, where ``odds(p) = p / (1 - p)``.

    Args:
        chosen: log-probabilities, of any shape.
        rejected: the same shape.
    """
    return (chosen - rejected) - (_log_complement(chosen) - _log_complement(rejected))


def _log_complement(logprobs: torch.Tensor) -> torch.Tensor:
    """Return ``log(1 - p)`` without cancellation (Maechler 2012, "Accurately computing log(1 - exp(-|a|))").

    A probability of 1, which has no complement, counts as the next smaller number.
    """
    least = -torch.finfo(logprobs.dtype).eps
    values = logprobs.clamp(max=least)
    near_one = values > -math.log(2)
    # Each branch sees only numbers it is good for: a NaN in the other one would spoil the gradient.
    near = torch.where(near_one, values, values.new_full((), -math.log(2)))
    far = torch.where(near_one, values.new_full((), -math.log(2)), values)
    return torch.where(near_one, torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))
