"""Whether one model is better than another on the same questions, or whether that is noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ft_core.errors import UsageError
from ft_eval.measures import Floats, Measure, measure_named, resampled, table_of, value_of
from ft_eval.results import Evaluation, Statistics, TaskResult


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the questions that both answered.

    Attributes:
        task, metric: what is compared.
        first, second: the models.
        before, after: their values on the common questions.
        low, high, level: interval of the difference, by a paired bootstrap.
        p: two-sided, from the same resamples: how often the difference has the other sign or none.
        mcnemar: p of McNemar's exact test; ``None`` where answers aren't right or wrong.
        better, worse: questions that only the second, or only the first got right.
        count: common questions.
        verdict: in words.
    """

    task: str
    metric: str
    first: str
    second: str
    before: float
    after: float
    low: float
    high: float
    level: float
    p: float
    mcnemar: float | None
    better: int
    worse: int
    count: int
    verdict: str

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.after - self.before

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**asdict(self), "difference": self.difference}


def compare_models(evaluation: Evaluation, statistics: Statistics) -> list[Comparison]:
    """Compare the first model of an evaluation with each of the others, task by task."""
    models = list(evaluation.models)
    found: list[Comparison] = []
    for title in evaluation.titles:
        first = evaluation.find(models[0], title)
        for name in models[1:]:
            second = evaluation.find(name, title)
            if first is not None and second is not None:
                found += compare_results(first, second, statistics)
    return found


def compare_results(
    first: TaskResult, second: TaskResult, statistics: Statistics
) -> Iterator[Comparison]:
    """Compare two results of a task, metric by metric (paired bootstrap: Koehn 2004; McNemar 1947).

    Raises:
        UsageError: they have no question in common, or it isn't the same task.
    """
    if first.title != second.title or first.method != second.method:
        raise UsageError(
            f"{first.title} ({first.method}) and {second.title} ({second.method}) aren't the same task"
        )
    asked = {sample.id: sample for sample in second.samples if sample.error is None}
    pairs = [
        (sample, asked[sample.id])
        for sample in first.samples
        if sample.error is None
        and sample.id in asked
        and asked[sample.id].references == sample.references
    ]
    if not pairs:
        raise UsageError(
            f"{first.title}: {first.model} and {second.model} have no question in common; compare runs with the "
            "same --eval_limit and --seed"
        )
    names = [metric.name for metric in first.metrics]
    for name in names:
        both = [(a, b) for a, b in pairs if name in a.scores and name in b.scores]
        if not both:
            continue
        tables = [
            table_of([a.scores for a, _ in both], name),
            table_of([b.scores for _, b in both], name),
        ]
        yield _compare(first, second, measure_named(name), tables, statistics)


def _compare(
    first: TaskResult,
    second: TaskResult,
    measure: Measure,
    tables: list[Floats],
    statistics: Statistics,
) -> Comparison:
    before, after = (value_of(measure, table) for table in tables)
    drawn = resampled(measure, tables, resamples=statistics.resamples, seed=statistics.seed)
    differences = drawn[1] - drawn[0]
    tail = (1 - statistics.level) / 2
    low, high = (float(x) for x in np.nanquantile(differences, [tail, 1 - tail]))
    p = two_sided(differences)
    better = worse = 0
    mcnemar = None
    if measure.binary:
        right = [table[:, 0] > 0.5 for table in tables]
        better, worse = int(np.sum(~right[0] & right[1])), int(np.sum(right[0] & ~right[1]))
        mcnemar = mcnemar_exact(better, worse)
    gain = (after - before) * (1 if measure.better == "higher" else -1)
    return Comparison(
        first.title,
        measure.name,
        first.model,
        second.model,
        before,
        after,
        low,
        high,
        statistics.level,
        p,
        mcnemar,
        better,
        worse,
        len(tables[0]),
        _verdict(gain, low, high),
    )


def _verdict(gain: float, low: float, high: float) -> str:
    if low <= 0 <= high:
        return "no difference shown"
    return "better" if gain > 0 else "worse"


def two_sided(differences: Floats) -> float:
    """Return the two-sided p of resampled differences; never less than their number can show."""
    count = len(differences)
    below, above = int(np.sum(differences <= 0)), int(np.sum(differences >= 0))
    return min(1.0, 2 * (min(below, above) + 1) / (count + 1))


def mcnemar_exact(better: int, worse: int) -> float:
    """Return the two-sided p of McNemar's exact test, from the questions that changed sides."""
    changed = better + worse
    if not changed:
        return 1.0
    few = min(better, worse)
    total = sum(math.comb(changed, count) for count in range(few + 1))
    return float(min(1.0, 2 * total / 2**changed))
