"""An evaluation from its arguments to its reports: the one path of ``ft eval`` and ``ft-eval eval``."""

from __future__ import annotations

import asyncio
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from ft_core.runs import Run
from ft_eval.backends.choice import choose_backend
from ft_eval.compare import compare_models
from ft_eval.identity import versions
from ft_eval.reports import print_report, write_reports
from ft_eval.respondents.protocol import Respondent
from ft_eval.respondents.remembered import ANSWERS_FILE, AnswerStore, Remembering
from ft_eval.results import Evaluation, TaskResult
from ft_eval.rundir import earlier_answers, new_directory
from ft_eval.work import Wait, Work

HISTORY = "eval_result.jsonl"
"""File in eval_output_dir that gets a line for every run."""

Group = Callable[[Wait], AbstractContextManager[Sequence[Respondent]]]
"""Loads models that share weights, gives the respondents made of them, and lets go of them."""


def evaluate(work: Work, groups: Sequence[Group], *, steps: Mapping[str, int]) -> Evaluation:
    """Examine all respondents, one group after another, and write and print the results.

    Answers are kept as they come: a run that breaks off loses none, and the next run of the same name goes
    on where it stopped.

    Args:
        work: what is asked and how.
        groups: who is asked.
        steps: by name of a respondent, the training step of its checkpoint.

    Raises:
        FtError: the backend, a task, a model or a server can't be used.
    """
    arguments = work.arguments
    backend = choose_backend(work)
    directory = new_directory(arguments.eval_output_dir, arguments.name)
    run = Run.open(directory, command="eval", argv=work.argv, arguments=work.plain)
    results: list[TaskResult] = []
    models: dict[str, Mapping[str, Any]] = {}
    with run.recording(), asyncio.Runner() as runner:
        earlier = list(earlier_answers(directory, work.plain, finished=arguments.eval_use_cache))
        store = AnswerStore(directory / ANSWERS_FILE, earlier)
        try:
            for group in groups:
                with group(runner.run) as respondents:
                    for respondent in respondents:
                        models[respondent.name] = respondent.identity
                        known = Remembering(respondent, store)
                        results += backend.examine(known, runner.run, directory)
        finally:
            store.close()
            _tell_kept(work, store, directory)
        evaluation = Evaluation(tuple(results), models, _setup(work, backend.name), steps)
        comparisons = compare_models(evaluation, work.statistics)
        write_reports(directory, evaluation, comparisons)
    _record(Path(arguments.eval_output_dir).expanduser(), directory, evaluation)
    print_report(evaluation, comparisons)
    print(f"results: {directory}")
    return evaluation


def _tell_kept(work: Work, store: AnswerStore, directory: Path) -> None:
    if store.reused:
        work.say(f"{store.reused:,} answers were known from earlier runs and not asked again")
    if sys.exc_info()[0] is not None and store.kept:
        work.say(
            f"{store.kept:,} answers are kept in {directory / ANSWERS_FILE}; the same command goes on from there"
        )


def _setup(work: Work, backend: str) -> dict[str, Any]:
    return {
        "command": list(work.argv),
        "arguments": dict(work.plain),
        "backend": backend,
        "seed": work.seed,
        "statistics": asdict(work.statistics),
        "versions": dict(versions()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _record(output: Path, directory: Path, evaluation: Evaluation) -> None:
    """Add a line for the run to the history of the output directory."""
    values: dict[str, dict[str, dict[str, float]]] = {}
    for result in evaluation.results:
        numbers = {metric.name: metric.value for metric in result.metrics}
        values.setdefault(result.model, {})[result.title] = numbers
    line = {"time": evaluation.setup["time"], "directory": str(directory), "results": values}
    with (output / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
