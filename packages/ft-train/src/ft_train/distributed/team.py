"""The processes of a run: which of them have rows of their own, and which share a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from transformers import PreTrainedModel

from ft_core.launch import rank
from ft_core.recipe import Batch
from ft_core.sequences.parallel import (
    SequenceGroup,
    enable_split_attention,
    sequence_group,
    split,
)
from ft_train.metrics import reduce_sums
from ft_train.plan import TrainingPlan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Team:
    """This process's place among those of a run.

    Attributes:
        reader: which rows are its: its number, or that of its group, among those that have rows of their own.
        readers: how many those are.
        group: the processes that hold each sequence together; ``None`` where each holds its own.
    """

    reader: int = 0
    readers: int = 1
    group: SequenceGroup | None = None

    @classmethod
    def of(cls, plan: TrainingPlan, model: PreTrainedModel) -> Team:
        """Find this process's place, and let the model attend over slices where sequences are shared.

        Raises:
            UsageError: the model's heads can't be divided.
            ModelError: the model can't work on slices.
        """
        size = plan.division.sequence_parallel_size
        if size == 1:
            return cls(rank(), plan.world_size)
        group = sequence_group(size)
        enable_split_attention(model, group)
        return cls(rank() // size, plan.readers, group)

    @property
    def size(self) -> int:
        """How many processes see the same rows."""
        return 1 if self.group is None else self.group.size

    def totals(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Add up counts of rows or tokens over the run, those of a shared sequence once."""
        return {name: value / self.size for name, value in reduce_sums(counts).items()}

    def slice_of(self, batch: Batch) -> Batch:
        """Return this process's part of a batch."""
        return batch if self.group is None else split(batch, self.group)

    def by_reader(self, values: list[T]) -> list[T]:
        """Of values by process, return one for each that has rows of its own."""
        return values[:: self.size]
