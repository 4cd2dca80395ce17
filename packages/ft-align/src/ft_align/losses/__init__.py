"""Losses of preference methods: pure functions of log-probabilities, each with its paper."""

from ft_align.losses.cpo import CPO_LOSS_TYPES, cpo_loss
from ft_align.losses.dpo import DPO_LOSS_TYPES, dpo_loss
from ft_align.losses.kto import KTO_LOSS_TYPES, LabelledLoss, kto_loss
from ft_align.losses.orpo import log_odds_ratio, orpo_loss
from ft_align.losses.preference import PreferenceLoss
from ft_align.losses.reward import reward_loss
from ft_align.losses.simpo import simpo_loss

__all__ = [
    "CPO_LOSS_TYPES",
    "DPO_LOSS_TYPES",
    "KTO_LOSS_TYPES",
    "LabelledLoss",
    "PreferenceLoss",
    "cpo_loss",
    "dpo_loss",
    "kto_loss",
    "log_odds_ratio",
    "orpo_loss",
    "reward_loss",
    "simpo_loss",
]
