"""lm-eval's results and logged samples as ours."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

from ft_eval.backends.lm_eval.model import prompt_of
from ft_eval.respondents.protocol import Prompt
from ft_eval.results import (
    MetricResult,
    SampleResult,
    Statistics,
    TaskResult,
    summarise,
)
from ft_eval.tasks.task import Method

METHODS: Mapping[str, Method] = {
    "loglikelihood": "likelihood",
    "multiple_choice": "likelihood",
    "loglikelihood_rolling": "perplexity",
    "generate_until": "generation",
}

OURS = {"acc": "accuracy"}
"""Our names of metrics that are the same in lm-eval."""


def task_result(
    found: Mapping[str, Any],
    name: str,
    model: str,
    statistics: Statistics,
    *,
    title: tuple[str, str | None],
    total: int,
    cut: Collection[int],
    seconds: float,
) -> TaskResult:
    """Return a task's result.

    Args:
        found: what ``simple_evaluate`` returned.
        name: the task in lm-eval.
        model: who answered.
        statistics: how intervals are made.
        title: the task's name and subset in reports.
        total: questions before the limit.
        cut: numbers of documents whose answer reached its longest length.
        seconds: of asking.
    """
    config = found["configs"][name]
    samples = _samples(found["samples"][name], cut)
    version = found["versions"].get(name)
    return TaskResult(
        model=model,
        task=title[0],
        subset=title[1],
        method=METHODS[config["output_type"]],
        backend="lm_eval",
        metrics=_metrics(found, name, samples, statistics),
        samples=tuple(samples),
        shots=int(found["n-shot"].get(name, 0) or 0),
        version="1" if version in (None, "Yaml") else str(version),
        digest=str(found.get("task_hashes", {}).get(name, ""))[:16],
        total=total,
        seconds=seconds,
    )


def _samples(logged: Sequence[Mapping[str, Any]], cut: Collection[int]) -> list[SampleResult]:
    samples: dict[int, SampleResult] = {}
    for row in logged:
        number = int(row["doc_id"])
        scores = {
            _named(metric, row["filter"]): columns
            for metric in row["metrics"]
            if (columns := _columns(metric, row[metric])) is not None
        }
        if number in samples:
            known = samples[number]
            samples[number] = replace(known, scores={**known.scores, **scores})
        else:
            samples[number] = _sample(row, scores, cut=number in cut)
    return [samples[number] for number in sorted(samples)]


def _sample(
    row: Mapping[str, Any], scores: Mapping[str, Sequence[float]], *, cut: bool
) -> SampleResult:
    doc, arguments = row["doc"], row["arguments"]
    doc = doc if isinstance(doc, Mapping) else {"text": doc}
    context = arguments[0][0] if len(arguments[0]) > 1 else ""
    answers = [response[0] for response in row["resps"]]
    shown: dict[str, Any] = {}
    if isinstance(answers[0], (tuple, list)):
        texts = [argument[-1] for argument in arguments]
        values = [float(answer[0]) for answer in answers]
        shown["logprobs"] = {
            text: round(value, 4) for text, value in zip(texts, values, strict=True)
        }
        answer = texts[values.index(max(values))].strip() if len(texts) > 1 else None
    else:
        answer = str(answers[0]) if isinstance(answers[0], str) else None
    return SampleResult(
        str(doc.get("id", row["doc_id"])),
        prompt_of(context) if isinstance(context, str) else Prompt(text=str(context)),
        tuple(_references(row, doc)),
        answer,
        scores,
        shown,
        cut=cut,
        place=doc.get("place"),
    )


def _references(row: Mapping[str, Any], doc: Mapping[str, Any]) -> Sequence[str]:
    if "references" in doc:
        return list(doc["references"])
    target, arguments = row["target"], row["arguments"]
    if isinstance(target, int) and 0 <= target < len(arguments) > 1:
        return [str(arguments[target][-1]).strip()]
    return [str(item) for item in target] if isinstance(target, list) else [str(target)]


def _named(metric: str, chosen_by: str) -> str:
    name = OURS.get(metric, metric)
    return name if chosen_by == "none" else f"{name} ({chosen_by})"


def _columns(metric: str, value: Any) -> list[float] | None:
    """Return what a sample contributes to a metric; ``None`` where it isn't a mean or a perplexity."""
    if isinstance(value, (bool, int, float)):
        return [float(value), 1.0]
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    if pair and metric in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        nats = -float(value[0])
        return [nats / math.log(2) if metric == "bits_per_byte" else nats, float(value[1])]
    return None


def _metrics(
    found: Mapping[str, Any], name: str, samples: Sequence[SampleResult], statistics: Statistics
) -> tuple[MetricResult, ...]:
    """Return lm-eval's values, with our interval where we compute the same value, else with its own."""
    numbers, metrics = found["results"][name], []
    for key, value in numbers.items():
        metric, comma, chosen_by = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        label = _named(metric, chosen_by)
        ours = summarise(samples, (label,), statistics)
        if ours and math.isclose(ours[0].value, value, rel_tol=1e-6, abs_tol=1e-9):
            metrics.append(replace(ours[0], value=float(value)))
            continue
        higher = found.get("higher_is_better", {}).get(name, {}).get(metric, True)
        error = numbers.get(f"{metric}_stderr,{chosen_by}")
        spread = (
            NormalDist().inv_cdf((1 + statistics.level) / 2) * error
            if isinstance(error, (int, float))
            else None
        )
        metrics.append(
            MetricResult(
                label,
                float(value),
                None if spread is None else value - spread,
                None if spread is None else value + spread,
                statistics.level,
                "higher" if higher else "lower",
                len(samples),
            )
        )
    return tuple(metrics)
