"""The protocol of a training method. ft-train runs any recipe; sft, pt and the alignment methods are some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ft_core.examples import Example
from ft_core.samples import Dropped, Sample
from ft_core.templates.template import Template

if TYPE_CHECKING:
    import torch

Batch = dict[str, Any]
"""Tensors of one forward pass by name, as ``ft_core.sequences.join`` makes them."""

Totals = Mapping[str, float]
"""Counts over the whole global batch, by term: all its micro-batches on all ranks."""


@dataclass(frozen=True, slots=True)
class Term:
    """One named part of a loss: ``total`` is a sum over ``unit``s of this micro-batch (a scalar tensor).

    The trainer divides it by the global count of the same ``unit`` that ``Recipe.count`` gave, so that
    cutting a batch into micro-batches or spreading it over ranks changes nothing.
    """

    total: torch.Tensor
    unit: str = "tokens"


@dataclass(frozen=True, slots=True)
class LossOutput:
    """What a recipe returns for one micro-batch.

    Attributes:
        terms: the parts of the loss; their normalised values are added up and differentiated.
        metrics: named sums and counts for the log, as ``(sum, count)``; shown as ``sum / count`` over
            the logging interval.
    """

    terms: Mapping[str, Term]
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@runtime_checkable
class Encoder(Protocol):
    """The part of a training method that turns rows into samples."""

    @property
    def name(self) -> str:
        """``"sft"``, ``"dpo"``, …."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever ``encode`` would give other samples for the same rows: part of cache keys."""
        ...

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        """Turn rows into samples.

        ``Sample.row`` and ``Dropped.row`` are indices into ``examples``. A row may give several samples;
        a row that gives none is returned as ``Dropped`` with its reason.
        """
        ...


@runtime_checkable
class Recipe(Encoder, Protocol):
    """A training method."""

    def count(self, global_batch: Sequence[Sample]) -> Totals:
        """Count each unit of this rank's share of the global batch; the trainer adds up the ranks."""
        ...

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Build the tensors of one micro-batch."""
        ...

    def loss(
        self, model: torch.nn.Module, batch: Batch, reference: torch.nn.Module | None
    ) -> LossOutput:
        """Compute the loss with one call of the whole model, with logits only where they are needed."""
        ...


@runtime_checkable
class TokenRecipe(Recipe, Protocol):
    """A training method whose loss is a sum over tokens, so that it can be computed from slices of sequences."""

    @property
    def sums_tokens(self) -> bool:
        """Whether this is so."""
        ...


@runtime_checkable
class StepRecipe(Recipe, Protocol):
    """A training method that must know something of a whole step before its first backward pass."""

    def prepare(
        self,
        model: torch.nn.Module,
        micro_batches: Sequence[Sequence[Sample]],
        reference: torch.nn.Module | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Look at this rank's share of a step, or of all rows that are evaluated together.

        All ranks call it together, with as many micro-batches each; one without samples only keeps its rank
        in step.

        Returns:
            What ``loss`` finds in the batch of each micro-batch besides its tensors.
        """
        ...

    def summarise(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return metrics that follow from the means of others."""
        ...

    def state(self) -> Mapping[str, float]:
        """Return what a checkpoint must keep; all ranks ask together."""
        ...

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint's state; an empty one begins anew."""
        ...
