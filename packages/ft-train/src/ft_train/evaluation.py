"""Measuring a model on rows it is not trained on: loss, accuracy, and if wanted its answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from ft_core.recipe import Batch, Recipe
from ft_core.samples import Sample
from ft_train.answer_metrics import answer_scores, answer_sums
from ft_train.data import MicroBatch
from ft_train.generation import AnswerSettings, answer, question_of
from ft_train.metrics import Tally, merge_totals, reduce_sums


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
    """

    recipe: Recipe
    answers: AnswerSettings | None
    seed: int
    to_device: Callable[[Batch], Batch]
    autocast: Callable[[], AbstractContextManager[Any]]
    reference: torch.nn.Module | None = None

    def measure(
        self, model: torch.nn.Module, plain: Any, batches: Iterable[MicroBatch]
    ) -> tuple[dict[str, float], int]:
        """Measure a model, each token (and each answer) counting alike however rows are batched.

        Args:
            model: is put back into training afterwards.
            plain: the same model without wrappers, which answers.
            batches: this process's share of the rows.

        Returns:
            The metrics over all processes, and how many rows they were taken of.
        """
        tally = Tally()
        terms: defaultdict[str, float] = defaultdict(float)
        answered: defaultdict[str, float] = defaultdict(float)
        counts, rows = [], 0
        model.eval()
        with torch.no_grad(), self.autocast():
            for item in batches:
                if item.filler:
                    continue
                output = self.recipe.loss(model, self.to_device(item.batch), self.reference)
                for name, term in output.terms.items():
                    terms[f"{name}\t{term.unit}"] += float(term.total)
                counts.append(self.recipe.count(item.samples))
                tally.add(output, item.tokens, item.trained)
                rows += len(item.samples)
                if self.answers is not None:
                    for name, value in self._answer(plain, item.samples, self.answers).items():
                        answered[name] += value
        model.train()
        sums, totals = reduce_sums(terms), reduce_sums(merge_totals(counts))
        losses = [value / totals[key.partition("\t")[2]] for key, value in sums.items()]
        metrics = {"loss": sum(losses) if losses else math.nan, **tally.means()}
        if self.answers is not None:
            metrics |= answer_scores(reduce_sums(answered))
        return metrics, round(reduce_sums({"rows": rows})["rows"])

    def _answer(
        self, model: Any, samples: Iterable[Sample], settings: AnswerSettings
    ) -> dict[str, float]:
        questions = [question_of(sample.sequences[0]) for sample in samples]
        answers = answer(model, [item.prompt for item in questions], settings, seed=self.seed)
        return answer_sums(answers, [settings.decode(item.answer).strip() for item in questions])
