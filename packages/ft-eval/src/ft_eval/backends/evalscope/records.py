"""EvalScope's reviews as our results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ft_core.errors import ModelError
from ft_core.examples import Message
from ft_eval.respondents.protocol import Prompt
from ft_eval.results import SampleResult, Statistics, TaskResult, summarise


def read_reviews(
    directory: Path, model: str, statistics: Statistics, titles: Mapping[tuple[str, str], Any]
) -> list[TaskResult]:
    """Return a result for each subset that EvalScope reviewed.

    Args:
        directory: EvalScope's work_dir.
        model: who answered.
        statistics: how intervals are made.
        titles: by data set and subset, the name and subset that reports show.

    Raises:
        ModelError: EvalScope left no reviews.
    """
    results = []
    for file in sorted((directory / "reviews").rglob("*.jsonl")):
        dataset, subset = _divided(file.stem, directory)
        name, part = titles.get((dataset, subset), (dataset, subset))
        samples = [_sample(json.loads(line)) for line in file.open(encoding="utf-8")]
        metrics = list(dict.fromkeys(metric for sample in samples for metric in sample.scores))
        results.append(
            TaskResult(
                model=model,
                task=name,
                subset=part,
                method="generation",
                backend="evalscope",
                metrics=summarise(samples, metrics, statistics),
                samples=tuple(samples),
                total=len(samples),
            )
        )
    if not results:
        raise ModelError(f"EvalScope left no reviews in {directory}; its log says why")
    return results


def _divided(stem: str, directory: Path) -> tuple[str, str]:
    """Return data set and subset of a file called ``dataset_subset``."""
    known = {report.stem for report in (directory / "reports").rglob("*.json")}
    for dataset in sorted(known, key=len, reverse=True):
        if stem.startswith(f"{dataset}_"):
            return dataset, stem.removeprefix(f"{dataset}_")
    dataset, _, subset = stem.partition("_")
    return dataset, subset


def _sample(review: Mapping[str, Any]) -> SampleResult:
    scored = review["sample_score"]["score"]
    # A metric that failed counts as 0 in EvalScope; here it isn't a number at all.
    failed = tuple(name.lower() for name in (scored.get("metadata") or {}).get("metric_errors", {}))
    scores = {
        name: (float(value), 1.0)
        for name, value in scored["value"].items()
        if not name.lower().startswith(failed or ("\0",))
    }
    messages = [message for message in review["messages"] if message["role"] != "assistant"]
    target = review["target"]
    identity = (review["sample_score"].get("sample_metadata") or {}).get("id")
    error = None if scored.get("status") == "success" else str(scored.get("explanation"))
    return SampleResult(
        str(review["index"] if identity is None else identity),
        Prompt(tuple(Message(item["role"], str(item["content"])) for item in messages)),
        tuple(map(str, target)) if isinstance(target, list) else (str(target),),
        str(scored.get("prediction") or ""),
        scores,
        {"extracted": scored.get("extracted_prediction")},
        error=error,
    )
