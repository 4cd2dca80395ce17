"""The table of what was measured: read from what ``ft eval`` wrote, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ft_ui.pages.studio.measured import row_of
from ft_ui.studio.measured import measured_in
from ft_ui.studio.workplace import Workplace


def write(directory: Path, data: Any) -> None:
    directory.mkdir(parents=True)
    (directory / "results.json").write_text(json.dumps(data), encoding="utf-8")


def evaluation(time: str, value: float, **more: Any) -> dict[str, Any]:
    metric = {"name": "accuracy", "value": value, "low": 0.2, "high": 0.75, "count": 9}
    result = {"model": "tuned", "task": "quiz", "subset": None, "failed": 0, "metrics": [metric]}
    return {"setup": {"time": time}, "results": [result | more]}


def test_newest_evaluations_come_first_with_intervals(tmp_path: Path) -> None:
    write(tmp_path / "eval" / "a", evaluation("2026-01-02T03:04:05+00:00", 0.5))
    write(tmp_path / "eval" / "b", evaluation("2026-02-02T03:04:05+00:00", 0.25, subset="hard"))
    newest, oldest = measured_in(Workplace(tmp_path))
    assert (newest.task, newest.value, newest.directory) == ("quiz/hard", 0.25, "eval/b")
    assert row_of(oldest) == [
        *("quiz", "tuned", "accuracy", "0.5000", "0.2000 – 0.7500", "9"),
        *("2026-01-02 03:04", "eval/a"),
    ]


def test_questions_without_an_answer_show(tmp_path: Path) -> None:
    write(tmp_path / "a", evaluation("2026-01-02T03:04:05+00:00", 0.5, failed=3))
    (line,) = measured_in(Workplace(tmp_path))
    assert row_of(line)[5] == "9/12"


def test_other_files_of_that_name_are_left_out(tmp_path: Path) -> None:
    for number, data in enumerate(([], {}, {"results": 1, "setup": {"time": ""}}, "text")):
        write(tmp_path / str(number), data)
    (tmp_path / "0" / "results.json").write_text("{", encoding="utf-8")
    write(tmp_path / ".hidden", evaluation("2026", 1.0))
    assert measured_in(Workplace(tmp_path)) == []
