"""The losses of the DPO family: functions of log-ratios, each with the paper it comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from ft_align.losses.preference import smoothed_logistic

DISCOPOP_TEMPERATURE = 0.05
"""How sharply DiscoPOP changes over between its two losses (Lu et al. 2024)."""

EXO_SMOOTHING = 1e-3
"""The label smoothing of EXO where none is given: its loss is infinite at 0 (Ji et al. 2024)."""


@dataclass(frozen=True, slots=True)
class LogRatios:
    """Log-ratios of a batch of pairs, shape (B,) each, and the loss's settings.

    Attributes:
        chosen: policy over reference, of the chosen answer.
        rejected: policy over reference, of the rejected answer.
        policy: chosen over rejected, under the policy.
        reference: chosen over rejected, under the reference.
        chosen_tokens, rejected_tokens: lengths of the answers, for losses over averages.
        beta, label_smoothing: as ``dpo_loss`` takes them.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    policy: torch.Tensor
    reference: torch.Tensor
    chosen_tokens: torch.Tensor | None
    rejected_tokens: torch.Tensor | None
    beta: float
    label_smoothing: float

    @property
    def margin(self) -> torch.Tensor:
        """The chosen answer's implicit reward minus the rejected one's."""
        return self.beta * (self.chosen - self.rejected)

    @property
    def average_gap(self) -> torch.Tensor:
        """The difference of the log-ratios, per token where lengths are given."""
        chosen, rejected = self.chosen, self.rejected
        if self.chosen_tokens is not None and self.rejected_tokens is not None:
            chosen = chosen / self.chosen_tokens.clamp(min=1)
            rejected = rejected / self.rejected_tokens.clamp(min=1)
        return chosen - rejected


def _sigmoid(ratios: LogRatios) -> torch.Tensor:
    """Logistic loss (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).

    With label smoothing it is conservative DPO: the label is taken to be flipped with that
    probability (Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO", eq. 3).
    """
    return smoothed_logistic(ratios.margin, ratios.label_smoothing)


def _sigmoid_norm(ratios: LogRatios) -> torch.Tensor:
    """Logistic loss over averages per token (Lambert et al. 2024, Tulu 3, arXiv:2411.15124, eq. 6)."""
    return -logsigmoid(ratios.beta * ratios.average_gap)


def _hinge(ratios: LogRatios) -> torch.Tensor:
    """Hinge loss on the margin (Zhao et al. 2023, SLiC-HF, arXiv:2305.10425, with DPO's rewards)."""
    return torch.relu(1 - ratios.margin)


def _ipo(ratios: LogRatios) -> torch.Tensor:
    """Squared distance of the log-ratio from 1/(2 beta) (Azar et al. 2023, arXiv:2310.12036, eq. 17)."""
    return (ratios.average_gap - 1 / (2 * ratios.beta)) ** 2


def _robust(ratios: LogRatios) -> torch.Tensor:
    """Unbiased loss under flipped labels (Chowdhury et al. 2024, arXiv:2403.00409)."""
    share = ratios.label_smoothing
    clean = -(1 - share) * logsigmoid(ratios.margin)
    flipped = -share * logsigmoid(-ratios.margin)
    return (clean - flipped) / (1 - 2 * share)


def _bco_pair(ratios: LogRatios) -> torch.Tensor:
    """Two classifications, without a reward shift (Jung et al. 2024, arXiv:2404.04656)."""
    return -logsigmoid(ratios.beta * ratios.chosen) - logsigmoid(-ratios.beta * ratios.rejected)


def _sppo_hard(ratios: LogRatios) -> torch.Tensor:
    """Self-play with certain preferences (Wu et al. 2024, arXiv:2405.00675, eq. 4.7, P of 1 and 0)."""
    goal = 0.5 / ratios.beta
    return (ratios.chosen - goal) ** 2 + (ratios.rejected + goal) ** 2


def _nca_pair(ratios: LogRatios) -> torch.Tensor:
    """Noise contrastive alignment of two answers (Chen et al. 2024, arXiv:2402.05369)."""
    chosen, rejected = ratios.beta * ratios.chosen, ratios.beta * ratios.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _exo_pair(ratios: LogRatios) -> torch.Tensor:
    """Reverse Kullback-Leibler divergence to smoothed labels (Ji et al. 2024, arXiv:2402.00856, eq. 16)."""
    share = ratios.label_smoothing or EXO_SMOOTHING
    margin = ratios.margin
    right = torch.sigmoid(margin) * (logsigmoid(margin) - math.log1p(-share))
    wrong = torch.sigmoid(-margin) * (logsigmoid(-margin) - math.log(share))
    return right + wrong


def _aot(ratios: LogRatios) -> torch.Tensor:
    """Stochastic dominance of the policy's log-ratios (Melnyk et al. 2024, arXiv:2406.05882, paired)."""
    gap = ratios.policy.sort().values - ratios.reference.sort().values
    return smoothed_logistic(ratios.beta * gap, ratios.label_smoothing)


def _aot_unpaired(ratios: LogRatios) -> torch.Tensor:
    """Stochastic dominance of chosen over rejected (Melnyk et al. 2024, arXiv:2406.05882, unpaired)."""
    gap = ratios.chosen.sort().values - ratios.rejected.sort().values
    return smoothed_logistic(ratios.beta * gap, ratios.label_smoothing)


def _apo_zero(ratios: LogRatios) -> torch.Tensor:
    """Anchored: chosen up, rejected down (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7)."""
    chosen, rejected = ratios.beta * ratios.chosen, ratios.beta * ratios.rejected
    return 1 - torch.sigmoid(chosen) + torch.sigmoid(rejected)


def _apo_down(ratios: LogRatios) -> torch.Tensor:
    """Anchored: both down, rejected more (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8)."""
    return torch.sigmoid(ratios.beta * ratios.chosen) + 1 - torch.sigmoid(ratios.margin)


def _discopop(ratios: LogRatios) -> torch.Tensor:
    """Logistic and exponential loss blended by the margin (Lu et al. 2024, arXiv:2406.08414, eq. 5)."""
    margin = ratios.margin
    sharp = margin / DISCOPOP_TEMPERATURE
    # One exponential for the second product: its factors alone would be infinity times 0 far below 0.
    return -logsigmoid(margin) * torch.sigmoid(-sharp) + torch.exp(logsigmoid(sharp) - margin)


VARIANTS: Mapping[str, Callable[[LogRatios], torch.Tensor]] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "robust": _robust,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "nca_pair": _nca_pair,
    "exo_pair": _exo_pair,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sigmoid_norm": _sigmoid_norm,
}
"""The losses by the name that ``loss_type`` takes."""
