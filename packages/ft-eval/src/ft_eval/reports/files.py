"""The files of an evaluation: written by a run, read by comparisons."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ft_core.errors import DataError
from ft_core.runs import write_json
from ft_eval.compare import Comparison
from ft_eval.reports.lines import Line, compared_cells, lines_of, notes_of
from ft_eval.reports.page import page
from ft_eval.reports.plot import curves
from ft_eval.results import Evaluation, SampleResult, TaskResult

RESULTS, SAMPLES = "results.json", "samples.jsonl"
MARKDOWN, TABLE, PAGE, PLOT = "results.md", "results.csv", "report.html", "steps.svg"

COLUMNS = (
    "task",
    "model",
    "metric",
    "value",
    "low",
    "high",
    "level",
    "n",
    "failed",
    "shots",
    "how",
    "backend",
    "version",
)


def write_reports(
    directory: Path, evaluation: Evaluation, comparisons: Sequence[Comparison] = ()
) -> None:
    """Write all files of an evaluation into its directory."""
    data = {
        "results": [result.to_json() for result in evaluation.results],
        "models": {name: dict(identity) for name, identity in evaluation.models.items()},
        "steps": dict(evaluation.steps),
        "comparisons": [item.to_json() for item in comparisons],
        "notes": notes_of(evaluation),
        "setup": dict(evaluation.setup),
    }
    write_json(directory / RESULTS, data)
    _write(directory / SAMPLES, "".join(_sample_lines(evaluation)))
    _write(directory / MARKDOWN, markdown(evaluation, comparisons))
    _write(directory / TABLE, table(evaluation))
    plot = curves(evaluation)
    if plot is not None:
        _write(directory / PLOT, plot)
    _write(directory / PAGE, page(evaluation, comparisons, plot))


def read_evaluation(directory: str | Path) -> Evaluation:
    """Read an evaluation from its directory, or from the results.json in it.

    Raises:
        DataError: there is none, or it can't be read.
    """
    place = Path(directory).expanduser()
    place = place.parent if place.name == RESULTS else place
    try:
        data = json.loads((place / RESULTS).read_text(encoding="utf-8"))
        lines = (place / SAMPLES).read_text(encoding="utf-8").splitlines()
        samples: dict[tuple[str, str], list[SampleResult]] = {}
        for line in lines:
            row = json.loads(line)
            group = samples.setdefault((row["model"], row["title"]), [])
            group.append(SampleResult.from_json(row))
        results = []
        for item in data["results"]:
            bare = TaskResult.from_json(item, ())
            results.append(TaskResult.from_json(item, samples.get((bare.model, bare.title), ())))
    except FileNotFoundError:
        raise DataError(
            f"holds no {RESULTS} with {SAMPLES} beside it; give the directory of an evaluation, such as "
            "eval_outputs/defaults/20260101-120000",
            path=str(directory),
            rule="no_file",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"can't be read as an evaluation ({type(error).__name__}: {error})",
            path=str(directory),
            rule="invalid_results",
        ) from None
    return Evaluation(tuple(results), data["models"], data["setup"], data["steps"])


def table(evaluation: Evaluation) -> str:
    """Return the results as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(line) for line in lines_of(evaluation))
    return out.getvalue()


def _row(line: Line) -> Mapping[str, Any]:
    metric, result = line.metric, line.result
    return {
        "task": result.title,
        "model": result.model,
        "metric": metric.name,
        "value": metric.value,
        "low": metric.low,
        "high": metric.high,
        "level": metric.level,
        "n": metric.count,
        "failed": result.failed,
        "shots": result.shots,
        "how": line.how,
        "backend": result.backend,
        "version": result.version,
    }


def markdown(evaluation: Evaluation, comparisons: Sequence[Comparison] = ()) -> str:
    """Return the results as Markdown."""
    lines = [
        "| task | model | metric | value | interval | n | shots | how | version |",
        "|---|---|---|---:|---|---:|---:|---|---|",
    ]
    for line in lines_of(evaluation):
        lines.append("| " + " | ".join(map(_cell, line.cells)) + " |")
    if comparisons:
        lines += [
            "",
            "| task | metric | from | to | difference | interval | p | McNemar p | verdict |",
            "|---|---|---|---|---:|---|---:|---:|---|",
        ]
        for item in comparisons:
            lines.append("| " + " | ".join(map(_cell, compared_cells(item))) + " |")
    if notes := notes_of(evaluation):
        lines += ["", *(f"- {' '.join(note.split())}" for note in notes)]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _sample_lines(evaluation: Evaluation) -> Iterator[str]:
    for result in evaluation.results:
        for sample in result.samples:
            row = {"model": result.model, "title": result.title, **sample.to_json()}
            yield json.dumps(row, ensure_ascii=False, default=str) + "\n"


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.half")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
