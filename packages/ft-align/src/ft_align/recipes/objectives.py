"""What each method of pairs asks of the log-probabilities of chosen and rejected answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from ft_align.logprobs import AnswerLogprobs
from ft_align.loss_types import check_beta, check_loss_type, check_smoothing
from ft_align.losses.cpo import AVERAGED as CPO_AVERAGED
from ft_align.losses.cpo import cpo_loss
from ft_align.losses.dpo import AVERAGED as DPO_AVERAGED
from ft_align.losses.dpo import dpo_loss
from ft_align.losses.orpo import orpo_loss
from ft_align.losses.preference import PreferenceLoss


class Objective(Protocol):
    """A loss over pairs.

    ``policy`` holds answers in the order of their pairs, each chosen one before its rejected one;
    ``reference`` their log-probabilities [D] under the reference.
    """

    @property
    def refers(self) -> bool:
        """Whether answers are compared with a reference."""
        ...

    def __call__(self, policy: AnswerLogprobs, reference: torch.Tensor | None) -> PreferenceLoss:
        """Return the loss of each pair."""
        ...


@dataclass(frozen=True, slots=True)
class Dpo:
    """The DPO family: log-ratios to a reference; see ``dpo_loss``."""

    beta: float = 0.1
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    refers: bool = True

    def __post_init__(self) -> None:
        check_loss_type("dpo", self.loss_type)
        check_beta(self.beta)
        check_smoothing("dpo", self.loss_type, self.label_smoothing)

    def __call__(self, policy: AnswerLogprobs, reference: torch.Tensor | None) -> PreferenceLoss:
        """Return the loss of each pair."""
        if reference is None:
            raise ValueError("dpo compares with a reference, and there is none")
        counted = self.loss_type in DPO_AVERAGED
        return dpo_loss(
            policy.sums[::2],
            policy.sums[1::2],
            reference[::2],
            reference[1::2],
            beta=self.beta,
            loss_type=self.loss_type,
            label_smoothing=self.label_smoothing,
            chosen_tokens=policy.tokens[::2] if counted else None,
            rejected_tokens=policy.tokens[1::2] if counted else None,
        )


@dataclass(frozen=True, slots=True)
class Orpo:
    """The odds of chosen against rejected answers; see ``orpo_loss``."""

    beta: float = 0.1
    refers: bool = False

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, policy: AnswerLogprobs, reference: torch.Tensor | None) -> PreferenceLoss:
        """Return the loss of each pair."""
        averages = policy.averages
        return orpo_loss(averages[::2], averages[1::2], beta=self.beta)


@dataclass(frozen=True, slots=True)
class Cpo:
    """CPO's losses, SimPO's among them; see ``cpo_loss``."""

    beta: float = 0.1
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    gamma: float = 1.0
    refers: bool = False

    def __post_init__(self) -> None:
        check_loss_type("cpo", self.loss_type)
        check_beta(self.beta)
        check_smoothing("cpo", self.loss_type, self.label_smoothing)

    def __call__(self, policy: AnswerLogprobs, reference: torch.Tensor | None) -> PreferenceLoss:
        """Return the loss of each pair."""
        values = policy.averages if self.loss_type in CPO_AVERAGED else policy.sums
        return cpo_loss(
            values[::2],
            values[1::2],
            beta=self.beta,
            loss_type=self.loss_type,
            label_smoothing=self.label_smoothing,
            gamma=self.gamma,
        )
