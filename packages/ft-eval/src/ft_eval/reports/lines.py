"""The lines of every table: one for each model, task and metric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ft_eval.compare import Comparison
from ft_eval.results import Evaluation, MetricResult, TaskResult

HOW = {
    "likelihood": "likelihood",
    "letter": "generated letter",
    "generation": "generation",
    "perplexity": "likelihood",
    "program": "programs run",
}
"""How a method is called."""


@dataclass(frozen=True, slots=True)
class Line:
    """A metric of a task of a model."""

    result: TaskResult
    metric: MetricResult

    @property
    def value(self) -> str:
        """The value with four digits."""
        return f"{self.metric.value:.4f}"

    @property
    def interval(self) -> str:
        """Both ends, or nothing where there is none."""
        if self.metric.low is None or self.metric.high is None:
            return ""
        return f"{self.metric.low:.4f} to {self.metric.high:.4f}"

    @property
    def how(self) -> str:
        """Likelihood or generation."""
        return HOW.get(self.result.method, self.result.method)

    @property
    def count(self) -> str:
        """How many questions count, of how many where some had no answer."""
        asked = len(self.result.samples) or self.metric.count
        return str(asked) if asked == self.metric.count else f"{self.metric.count} of {asked}"

    @property
    def cells(self) -> tuple[str, ...]:
        """What tables show: task, model, metric, value, interval, number, shots, how, version."""
        return (
            self.result.title,
            self.result.model,
            self.metric.name,
            self.value,
            self.interval,
            self.count,
            str(self.result.shots),
            self.how,
            self.result.version,
        )


def compared_cells(item: Comparison) -> tuple[str, ...]:
    """Return what tables show: task, metric, from, to, difference, interval, p, McNemar's p, verdict."""
    return (
        item.task,
        item.metric,
        item.first,
        item.second,
        f"{item.difference:+.4f}",
        f"{item.low:+.4f} to {item.high:+.4f}",
        f"{item.p:.3f}",
        "" if item.mcnemar is None else f"{item.mcnemar:.3f}",
        item.verdict,
    )


def lines_of(evaluation: Evaluation) -> Iterator[Line]:
    """Give all lines: tasks in order, models within a task."""
    for title in evaluation.titles:
        for result in evaluation.results:
            if result.title == title:
                for metric in result.metrics:
                    yield Line(result, metric)


def notes_of(evaluation: Evaluation) -> list[str]:
    """Return what a reader must know to trust the numbers: missing and cut answers, limits."""
    notes = []
    for result in evaluation.results:
        where = f"{result.title}, {result.model}"
        asked = len(result.samples)
        if result.failed:
            reason = next(s.error for s in result.samples if s.error is not None)
            notes.append(
                f"{where}: {result.failed} of {asked} questions have no answer and don't count; the first: "
                f"{reason}"
            )
        if result.cut:
            notes.append(
                f"{where}: {result.cut} of {asked} answers reached their longest length and were cut"
            )
        if result.total > asked:
            notes.append(f"{where}: {asked} of {result.total} questions were asked")
    return list(dict.fromkeys(notes))
