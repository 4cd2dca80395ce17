"""What an evaluation found: samples, metrics with intervals, and all that is needed to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ft_eval.measures import interval_of, measure_named, table_of, value_of
from ft_eval.respondents.protocol import Prompt


@dataclass(frozen=True, slots=True)
class Statistics:
    """How intervals are made: level in (0, 1), bootstrap resamples, seed."""

    level: float = 0.95
    resamples: int = 1000
    seed: int = 42


@dataclass(frozen=True, slots=True)
class SampleResult:
    """One question with its answer and scores.

    Attributes:
        id: of the question within its task.
        prompt: what was asked.
        references: what counts as right.
        answer: what came back; the chosen letter for likelihoods.
        scores: by metric, what the sample contributes to its sums.
        shown: what else the viewer shows.
        error: why there is no answer; then there are no scores.
        cut: the answer reached its longest length.
        place: file and line of the question.
    """

    id: str
    prompt: Prompt
    references: tuple[str, ...]
    answer: str | None
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    cut: bool = False
    place: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "id": self.id,
            "prompt": self.prompt.to_json(),
            "references": list(self.references),
            "answer": self.answer,
            "scores": {name: list(columns) for name, columns in self.scores.items()},
            "shown": dict(self.shown),
            "error": self.error,
            "cut": self.cut,
            "place": self.place,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SampleResult:
        """Read what ``to_json`` wrote."""
        names = ("id", "answer", "shown", "error", "cut", "place")
        return cls(
            prompt=Prompt.from_json(data["prompt"]),
            references=tuple(data["references"]),
            scores={name: tuple(columns) for name, columns in data["scores"].items()},
            **{name: data[name] for name in names},
        )


@dataclass(frozen=True, slots=True)
class MetricResult:
    """A metric over a task.

    Attributes:
        name: the metric.
        value: over all answered samples.
        low, high: ends of the interval; ``None`` where there is none.
        level: of the interval.
        better: whether higher or lower values are better.
        count: samples it was computed on.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    level: float
    better: str
    count: int


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task as one model did it.

    Attributes:
        model: who answered.
        task: its name; with ``subset`` the part of it.
        method: how it was answered.
        backend: what asked and graded.
        metrics: the numbers.
        samples: the questions.
        shots, version, digest: of the task.
        total: questions before the limit.
        seconds: of asking.
        subset: the part of a larger data set.
    """

    model: str
    task: str
    method: str
    backend: str
    metrics: tuple[MetricResult, ...]
    samples: tuple[SampleResult, ...]
    shots: int = 0
    version: str = "1"
    digest: str = ""
    total: int = 0
    seconds: float = 0.0
    subset: str | None = None

    @property
    def title(self) -> str:
        """Name with the subset."""
        return self.task if self.subset is None else f"{self.task}/{self.subset}"

    @property
    def failed(self) -> int:
        """Questions without an answer."""
        return sum(sample.error is not None for sample in self.samples)

    @property
    def cut(self) -> int:
        """Answers that reached their longest length."""
        return sum(sample.cut for sample in self.samples)

    def metric(self, name: str) -> MetricResult:
        """Return a metric by its name."""
        return next(metric for metric in self.metrics if metric.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON without the samples."""
        names = ("model", "task", "subset", "method", "backend", "shots", "version", "digest")
        return {
            **{name: getattr(self, name) for name in names},
            "metrics": [asdict(metric) for metric in self.metrics],
            "questions": len(self.samples),
            "failed": self.failed,
            "cut": self.cut,
            "total": self.total,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], samples: Sequence[SampleResult]) -> TaskResult:
        """Read what ``to_json`` wrote, with the samples beside it."""
        counted = ("questions", "failed", "cut", "metrics")
        given = {name: value for name, value in data.items() if name not in counted}
        metrics = tuple(MetricResult(**item) for item in data["metrics"])
        return cls(metrics=metrics, samples=tuple(samples), **given)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All results of a run.

    Attributes:
        results: by model and task, in the order they were asked.
        models: by name, the identity of each.
        setup: what is needed to repeat it: arguments, settings, versions, seeds.
        steps: by model, the training step of a checkpoint.
    """

    results: tuple[TaskResult, ...]
    models: Mapping[str, Mapping[str, Any]]
    setup: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)

    @property
    def titles(self) -> list[str]:
        """The tasks in order."""
        return list(dict.fromkeys(result.title for result in self.results))

    def find(self, model: str, title: str) -> TaskResult | None:
        """Return a model's result of a task, if there is one."""
        found = (r for r in self.results if r.model == model and r.title == title)
        return next(found, None)


def summarise(
    samples: Sequence[SampleResult], names: Sequence[str], statistics: Statistics
) -> tuple[MetricResult, ...]:
    """Return metrics over those samples that have an answer, each with its interval."""
    graded = [sample.scores for sample in samples if sample.error is None]
    found = []
    for name in names:
        rows = [scores for scores in graded if name in scores]
        if not rows:
            continue
        measure, table = measure_named(name), table_of(rows, name)
        around = interval_of(
            measure,
            table,
            level=statistics.level,
            resamples=statistics.resamples,
            seed=statistics.seed,
        )
        found.append(
            MetricResult(
                name,
                value_of(measure, table),
                around.low,
                around.high,
                statistics.level,
                measure.better,
                len(rows),
            )
        )
    return tuple(found)


def joined(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Evaluation:
    """Return several evaluations as one; a model's name that comes twice gets its run's name behind it."""
    results: list[TaskResult] = []
    models: dict[str, Mapping[str, Any]] = {}
    steps: dict[str, int] = {}
    for evaluation, run in zip(evaluations, names, strict=True):
        for model, identity in evaluation.models.items():
            name = model if model not in models else f"{model} ({run.rstrip('/')})"
            models[name] = identity
            if model in evaluation.steps:
                steps[name] = evaluation.steps[model]
            results += [replace(r, model=name) for r in evaluation.results if r.model == model]
    setup = {run: dict(item.setup) for run, item in zip(names, evaluations, strict=True)}
    return Evaluation(tuple(results), models, setup, steps)
