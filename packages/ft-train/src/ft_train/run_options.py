"""What a run is given beyond recipe, model, rows and plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedModel

from ft_core.models.memory import MemoryEstimate
from ft_core.tuner import Tuner
from ft_train.faults import NameRow
from ft_train.generation import AnswerSettings
from ft_train.optimizers.muon import muon
from ft_train.plan import TrainingPlan


@dataclass(frozen=True, slots=True)
class CheckpointWriter:
    """How the weights of a run and the files beside them are written.

    Attributes:
        tuner: writes what was trained.
        sidecars: writes tokenizer, generation config and arguments into the given directory.
    """

    tuner: Tuner
    sidecars: Callable[[Path], None] | None = None


OptimizerFactory = Callable[[PreTrainedModel, TrainingPlan, frozenset[str]], torch.optim.Optimizer]
"""Makes the optimizer of a model, given the plan and the names of the parameters that shrink."""

OPTIMIZERS: Mapping[str, OptimizerFactory] = {"muon": muon}
"""Optimizers that transformers doesn't know, by the name that ``--optim`` takes."""


class Keeper(Protocol):
    """Keeps what a tuner needs to go on exactly, beyond what its adapter's files say."""

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write it into a checkpoint."""
        ...

    def load(self, model: torch.nn.Module, directory: Path) -> None:
        """Put it back before the optimizer is made.

        Raises:
            ModelError: the checkpoint lacks it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Extras:
    """What only some runs need.

    Attributes:
        optimizer: makes the optimizer instead of ``plan.optim``.
        penalty: a term of the model alone that each step's loss gets once; the log leaves it out.
        answers: how the model answers, for evaluation by answers.
        name_row: says where a row is, for errors that name rows.
        estimate: of the memory the run takes, for advice where that runs out.
        keeper: keeps what the tuner needs to go on.
    """

    optimizer: OptimizerFactory | None = None
    penalty: Callable[[torch.nn.Module], torch.Tensor] | None = None
    answers: AnswerSettings | None = None
    name_row: NameRow | None = None
    estimate: MemoryEstimate | None = None
    keeper: Keeper | None = None
