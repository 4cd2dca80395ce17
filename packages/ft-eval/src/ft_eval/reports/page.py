"""An evaluation as one HTML file that needs nothing else: tables, and a viewer of all samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from ft_eval.compare import Comparison
from ft_eval.reports.lines import compared_cells, lines_of, notes_of
from ft_eval.results import Evaluation

_RESULTS = ("task", "model", "metric", "value", "interval", "n", "shots", "how", "version")
_COMPARED = ("task", "metric", "from", "to", "difference", "interval", "p", "McNemar p", "verdict")


def page(
    evaluation: Evaluation, comparisons: Sequence[Comparison] = (), plot: str | None = None
) -> str:
    """Return the page. All texts of models and questions are data in it, never markup."""
    template = files("ft_eval.reports").joinpath("page.html").read_text(encoding="utf-8")
    compared = ""
    if comparisons:
        compared = f"<h2>Comparison</h2>{_table(_COMPARED, map(compared_cells, comparisons))}"
    notes = "".join(f"<li>{escape(note)}</li>" for note in notes_of(evaluation))
    parts = {
        "RESULTS": _table(_RESULTS, (line.cells for line in lines_of(evaluation))),
        "COMPARISON": compared,
        "NOTES": f"<ul>{notes}</ul>" if notes else "",
        "PLOT": f"<h2>Over training</h2>{plot}" if plot else "",
        "SETUP": escape(json.dumps(_setup(evaluation), indent=2, ensure_ascii=False, default=str)),
        "DATA": _script(_samples(evaluation)),
    }
    before, *rest = template.split("@@")
    # Odd pieces are names of parts; a sample that holds such a mark is put in, never looked into.
    return before + "".join(
        parts[piece] if place % 2 == 0 else piece for place, piece in enumerate(rest)
    )


def _setup(evaluation: Evaluation) -> dict[str, Any]:
    return {"models": evaluation.models, **evaluation.setup}


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _samples(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {"model": result.model, "task": result.title, **sample.to_json()}
        for result in evaluation.results
        for sample in result.samples
    ]


def _script(data: Any) -> str:
    """Return JSON that may stand inside of a script element."""
    text = json.dumps(data, ensure_ascii=False, default=str)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
