"""Metrics as functions of sums over samples, so that every one of them has an interval.

Each sample contributes a row of numbers; a metric is computed from the rows' sums. A mean adds up scores
and counts, a perplexity adds up nats and tokens, BLEU adds up matching n-grams. Drawing samples again and
again then needs nothing but sums (bootstrap: Efron 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ft_core.errors import UsageError
from ft_core.registry import Registry
from ft_eval.report import Interval

if TYPE_CHECKING:
    from ft_eval.respondents.protocol import Answer
    from ft_eval.tasks.task import Item

Floats = NDArray[np.float64]
Combine = Callable[[Floats], Floats]
Grade = Callable[["Item", "Answer"], Sequence[float]]

CELLS = 4_000_000
"""Numbers held at a time while samples are drawn."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric.

    Attributes:
        name: as in reports.
        combine: from sums [..., K] over samples to values [...].
        grade: from a sample and its answer to what it contributes [K]; ``None`` where it takes more than the
            answer (likelihoods, programs that are run, a judge).
        better: whether more or less of it is better.
        binary: whether a sample is right or wrong, so that McNemar's test applies.
    """

    name: str
    combine: Combine
    grade: Grade | None = None
    better: Literal["higher", "lower"] = "higher"
    binary: bool = False


def mean(sums: Floats) -> Floats:
    """Divide the sum of scores by how many there are; columns: score, 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def exp_mean(sums: Floats) -> Floats:
    """Return exp of nats by token; columns: nats, tokens."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(mean(sums)))


def scored(score: Callable[[Item, Answer], float]) -> Grade:
    """Return the grade of a mean: the score, and 1 for the sample."""
    return lambda item, answer: (float(score(item, answer)), 1.0)


MEASURES: Registry[Measure] = Registry("metric", entry_point_group="ft.evaluators")
"""All metrics; further ones come by entry points of packages and by --custom_register_path."""


for _measure in (
    Measure("accuracy", mean, binary=True),
    Measure("perplexity", exp_mean, better="lower"),
    Measure("bits_per_byte", mean, better="lower"),
    Measure("word_perplexity", exp_mean, better="lower"),
    Measure("byte_perplexity", exp_mean, better="lower"),
    Measure("acc_norm", mean, binary=True),
    Measure("pass@1", mean),
    Measure("judge", mean),
    Measure("judge_agrees", mean, binary=True),
):
    MEASURES.register(_measure.name, _measure)

for _name, _target in {
    "exact_match": "answers:EXACT_MATCH",
    "contains": "answers:CONTAINS",
    "f1": "answers:F1",
    "rouge-1": "overlap:ROUGE_1",
    "rouge-2": "overlap:ROUGE_2",
    "rouge-l": "overlap:ROUGE_L",
    "bleu-4": "overlap:BLEU_4",
    "json_valid": "structured:JSON_VALID",
    "tool_name": "tool_calls:TOOL_NAME",
    "tool_call": "tool_calls:TOOL_CALL",
}.items():
    MEASURES.register(_name, f"ft_eval.scoring.{_target}", lazy=True)


def measure_named(name: str) -> Measure:
    """Return a metric; one that another program computed and isn't known here is a mean of scores."""
    base = name.partition(" (")[0]
    if base not in MEASURES:
        return Measure(name, mean)
    return replace(MEASURES.get(base), name=name)


def value_of(measure: Measure, rows: Floats) -> float:
    """Return a metric over samples: rows [N, K]."""
    return float(measure.combine(rows.sum(axis=0)))


def interval_of(
    measure: Measure,
    rows: Floats,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 42,
) -> Interval:
    """Return the percentile bootstrap interval of a metric.

    Args:
        measure: the metric.
        rows: what each sample contributes [N, K].
        level: share of resamples inside of the interval, in (0, 1).
        resamples: how many times the samples are drawn with replacement.
        seed: of the drawing.

    Raises:
        UsageError: there are no samples.
    """
    if not len(rows):
        raise UsageError("there are no samples to compute an interval from")
    values = resampled(measure, [rows], resamples=resamples, seed=seed)[0]
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail], method="linear")
    return Interval(float(low), float(high), level)


def resampled(
    measure: Measure, tables: Sequence[Floats], *, resamples: int, seed: int
) -> list[Floats]:
    """Return the metric of each table [N, K] over the same drawn samples: arrays [resamples]."""
    count = len(tables[0])
    drawing = np.random.default_rng(seed)
    values: list[list[Floats]] = [[] for _ in tables]
    step = max(1, CELLS // max(count, 1))
    for begin in range(0, resamples, step):
        size = min(step, resamples - begin)
        drawn = drawing.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        for place, table in enumerate(tables):
            values[place].append(measure.combine(drawn @ table))
    return [np.concatenate(parts) for parts in values]


def table_of(scores: Sequence[Mapping[str, Sequence[float]]], name: str) -> Floats:
    """Return what samples contribute to one metric: [N, K]."""
    return np.asarray([score[name] for score in scores], dtype=np.float64)
