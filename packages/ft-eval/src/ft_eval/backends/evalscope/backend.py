"""The backend evalscope: EvalScope in another interpreter, asking a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ft_core.errors import DependencyError, ModelError, UsageError
from ft_eval.arguments import NO_TOKEN
from ft_eval.backends.evalscope.questions import write_questions
from ft_eval.backends.evalscope.records import read_reviews
from ft_eval.respondents.protocol import Respondent
from ft_eval.respondents.remembered import Remembering
from ft_eval.respondents.url import UrlRespondent
from ft_eval.results import TaskResult
from ft_eval.tasks.names import BENCHMARKS, canonical
from ft_eval.work import Wait, Work

T = TypeVar("T")

LOG = "evalscope.log"
LONGEST_ANSWER = 2048


@dataclass(frozen=True, slots=True)
class EvalScopeBackend:
    """Lets EvalScope ask and grade.

    Attributes:
        work: what is asked.
    """

    work: Work

    @property
    def name(self) -> str:
        """``evalscope``."""
        return "evalscope"

    def examine(self, respondent: Respondent, wait: Wait, directory: Path) -> list[TaskResult]:
        """Run EvalScope against the respondent's server."""
        python = self._python()
        asked = respondent.inner if isinstance(respondent, Remembering) else respondent
        if not isinstance(asked, UrlRespondent) or not asked.chat:
            raise UsageError(
                "--eval_backend evalscope asks a server, in conversations: give --eval_url with "
                "--eval_is_chat_model true, or use ft eval, which starts one"
            )
        home = directory / "evalscope" / respondent.name.replace("/", "-")
        settings, titles = self._settings(home)
        settings |= {"model": asked.served, "api_url": asked.client.url}
        self._run(python, settings, asked.client.token, directory / LOG)
        return read_reviews(home, respondent.name, self.work.statistics, titles)

    def _python(self) -> str:
        python = self.work.arguments.evalscope_python or sys.executable
        try:
            found = subprocess.run(
                [python, "-c", "import evalscope"], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise UsageError(f"--evalscope_python {python}: {error.strerror or error}") from error
        if found.returncode:
            raise DependencyError(
                "--eval_backend evalscope",
                f"EvalScope, which {python} can't import",
                "python -m venv evalscope && evalscope/bin/pip install evalscope, then "
                "--evalscope_python evalscope/bin/python",
            )
        return python

    def _settings(self, home: Path) -> tuple[dict[str, Any], Mapping[tuple[str, str], Any]]:
        arguments = self.work.arguments
        settings: dict[str, Any] = {
            "eval_type": "openai_api",
            "work_dir": str(home),
            "no_timestamp": True,
            "eval_batch_size": arguments.eval_batch_size,
            "seed": self.work.seed,
            "generation_config": {"max_tokens": LONGEST_ANSWER, "temperature": 0},
        }
        if arguments.custom_eval_config is not None:
            given, known = write_questions(
                arguments.custom_eval_config,
                home / "questions",
                self._choose,
                arguments.eval_few_shot,
            )
            titles = {key: (source.entry.name, source.subset) for key, source in known.items()}
            return {**settings, "datasets": list(given), "dataset_args": given}, titles
        names = [self._named(name) for name in arguments.eval_dataset or _all_names()]
        if arguments.eval_few_shot is not None:
            shots = {"few_shot_num": arguments.eval_few_shot}
            settings["dataset_args"] = dict.fromkeys(names, shots)
        if self.work.limit is not None:
            if self.work.limit.count is None:
                raise UsageError(
                    f"--eval_limit {arguments.eval_limit}: EvalScope takes a number only, and asks the first ones"
                )
            settings["limit"] = self.work.limit.count
            self.work.say("--eval_limit: EvalScope asks the first questions of each benchmark")
        return {**settings, "datasets": list(dict.fromkeys(names))}, {}

    def _choose(self, rows: Sequence[T]) -> Sequence[T]:
        limit = self.work.limit
        return rows if limit is None else limit.choose(rows, self.work.seed)

    def _named(self, name: str) -> str:
        benchmark = BENCHMARKS.get(canonical(name))
        if benchmark is None:
            return name
        if benchmark.evalscope is None:
            raise UsageError(f"--eval_dataset {name}: EvalScope has no such benchmark")
        return benchmark.evalscope

    def _run(self, python: str, settings: Mapping[str, Any], token: str | None, log: Path) -> None:
        self.work.say(f"EvalScope asks {', '.join(settings['datasets'])}; its log is {log}")
        child = str(files("ft_eval.backends.evalscope").joinpath("child.py"))
        environment = {**os.environ, "FT_EVAL_TOKEN": token or NO_TOKEN}
        with log.open("w", encoding="utf-8") as out:
            process = subprocess.Popen(
                [python, child],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                text=True,
            )
            try:
                process.communicate(json.dumps(settings))
            finally:
                process.kill()
                process.wait()
        if process.returncode:
            last = [line for line in log.read_text("utf-8").splitlines() if line.strip()][-1:]
            raise ModelError(f"EvalScope failed: {''.join(last)}; all of it is in {log}")


def _all_names() -> list[str]:
    return [name for name, benchmark in BENCHMARKS.items() if benchmark.evalscope is not None]
