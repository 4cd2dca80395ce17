"""Reward models: the chosen answer's score above the rejected one's."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from ft_align.losses.preference import PreferenceLoss, check_shapes
from ft_core.errors import UsageError


def reward_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    margins: torch.Tensor | None = None,
    center: float = 0.0,
) -> PreferenceLoss:
    """Compute the negative log-likelihood of preferences under Bradley and Terry's model.

    ``-log sigmoid(chosen - rejected - margin)`` (Ouyang et al. 2022, arXiv:2203.02155, eq. 1; the margin: Touvron et
    al. 2023, arXiv:2307.09288, eq. 2), and ``center * (chosen + rejected) ** 2``, which settles where rewards are
    around 0 (Eisenstein et al. 2023, arXiv:2312.09244, sec. 2).

    Args:
        chosen: rewards of the chosen answers, shape (B,).
        rejected: the same of the rejected ones.
        margins: by how much each chosen reward should be the larger one, shape (B,); ``None`` is 0.
        center: weight of the second term.

    Returns:
        The loss of each pair, and the rewards.

    Raises:
        UsageError: a setting is out of its range, or the shapes differ.
    """
    if not center >= 0:
        raise UsageError(
            f"--center_rewards_coefficient {center}: it weighs a penalty; give a number of at least 0"
        )
    check_shapes({"chosen": chosen, "rejected": rejected})
    difference = chosen - rejected
    losses = -logsigmoid(difference if margins is None else difference - margins)
    if center:
        losses = losses + center * (chosen + rejected) ** 2
    return PreferenceLoss(losses, chosen.detach(), rejected.detach())
