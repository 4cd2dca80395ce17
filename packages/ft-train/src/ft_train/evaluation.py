"""Measuring a model on rows it is not trained on: loss, accuracy, and if wanted its answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ft_core.recipe import Batch, Recipe, StepRecipe, Totals
from ft_core.samples import Sample
from ft_train.answer_metrics import answer_scores, answer_sums
from ft_train.data import MicroBatch
from ft_train.distributed.team import Team
from ft_train.generation import AnswerSettings, answer, question_of
from ft_train.metrics import Tally, merge_totals, reduce_sums


def _zeros() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass(slots=True)
class _Sums:
    """What is added up over the rows of one process before anything is divided."""

    tally: Tally = field(default_factory=Tally)
    terms: defaultdict[str, float] = field(default_factory=_zeros)
    answered: defaultdict[str, float] = field(default_factory=_zeros)
    counts: list[Totals] = field(default_factory=list)
    rows: int = 0

    def add(self, other: _Sums) -> None:
        """Take in the sums of other rows."""
        for mine, theirs in (
            (self.terms, other.terms),
            (self.answered, other.answered),
            (self.tally.sums, other.tally.sums),
            (self.tally.counts, other.tally.counts),
        ):
            for name, value in theirs.items():
                mine[name] += value
        self.counts += other.counts
        self.rows += other.rows

    def metrics(self, recipe: Recipe, team: Team, *, answers: bool) -> dict[str, float]:
        """Return the metrics over all processes."""
        sums, totals = reduce_sums(self.terms), team.totals(merge_totals(self.counts))
        losses = [value / totals[key.partition("\t")[2]] for key, value in sums.items()]
        metrics = {"loss": sum(losses) if losses else math.nan, **self.tally.means()}
        if isinstance(recipe, StepRecipe):
            metrics |= recipe.summarise(metrics)
        return metrics | (answer_scores(reduce_sums(self.answered)) if answers else {})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model is measured.

    Attributes:
        recipe: gives loss and counts.
        answers: how questions are answered; ``None`` measures no answers.
        seed: of sampled answers.
        to_device: moves a batch to the model's device.
        autocast: gives the context of mixed precision.
        reference: the frozen model that some recipes compare with.
        team: this process's place among those of the run.
        in_step: all processes must run the model equally often, as where its weights are divided.
    """

    recipe: Recipe
    answers: AnswerSettings | None
    seed: int
    to_device: Callable[[Batch], Batch]
    autocast: Callable[[], AbstractContextManager[Any]]
    reference: torch.nn.Module | None = None
    team: Team = field(default_factory=Team)
    in_step: bool = False

    def measure(
        self, model: torch.nn.Module, plain: Any, parts: Mapping[str, Iterable[MicroBatch]]
    ) -> tuple[dict[str, float], int]:
        """Measure a model, each token (and each answer) counting alike however rows are batched.

        Args:
            model: is put back into training afterwards.
            plain: the same model without wrappers, which answers.
            parts: this process's share of the rows, by the name of their set; several sets are measured
                together, and each by itself.

        Returns:
            The metrics over all processes, those of a set behind its name, and how many rows they were
            taken of.
        """
        model.eval()
        with torch.no_grad(), self.autocast():
            ready = self._prepared(plain, parts)
            found = {name: self._sums(model, plain, batches) for name, batches in ready.items()}
        model.train()
        together = _Sums()
        for sums in found.values():
            together.add(sums)
        metrics = together.metrics(self.recipe, self.team, answers=self.answers is not None)
        if len(found) > 1:
            for name, sums in found.items():
                alone = sums.metrics(self.recipe, self.team, answers=self.answers is not None)
                metrics |= {f"{name}_{key}": value for key, value in alone.items()}
        return metrics, round(self.team.totals({"rows": together.rows})["rows"])

    def _prepared(
        self, plain: torch.nn.Module, parts: Mapping[str, Iterable[MicroBatch]]
    ) -> Mapping[str, Iterable[MicroBatch]]:
        """Give each micro-batch what the recipe must know of all rows that are evaluated together."""
        if not isinstance(self.recipe, StepRecipe):
            return parts
        held = {name: list(batches) for name, batches in parts.items()}
        samples = [batch.samples for batches in held.values() for batch in batches]
        found = iter(self.recipe.prepare(plain, samples, self.reference))
        return {
            name: [replace(batch, batch={**batch.batch, **next(found)}) for batch in batches]
            for name, batches in held.items()
        }

    def _sums(self, model: torch.nn.Module, plain: Any, batches: Iterable[MicroBatch]) -> _Sums:
        sums = _Sums()
        for item in batches:
            if item.filler and not self.in_step:
                continue
            output = self.recipe.loss(model, self.to_device(item.batch), self.reference)
            if item.filler:
                continue
            for name, term in output.terms.items():
                sums.terms[f"{name}\t{term.unit}"] += float(term.total)
            sums.counts.append(self.recipe.count(item.samples))
            sums.tally.add(output, item.tokens, item.trained)
            sums.rows += len(item.samples)
            if self.answers is not None:
                for name, value in self._answer(plain, item.samples, self.answers).items():
                    sums.answered[name] += value
        return sums

    def _answer(
        self, model: Any, samples: Iterable[Sample], settings: AnswerSettings
    ) -> dict[str, float]:
        questions = [question_of(sample.sequences[0]) for sample in samples]
        answers = answer(model, [item.prompt for item in questions], settings, seed=self.seed)
        return answer_sums(answers, [settings.decode(item.answer).strip() for item in questions])
