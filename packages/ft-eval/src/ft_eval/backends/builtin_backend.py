"""The builtin backend: which tasks it has, and their examination."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ft_core.errors import UsageError, suggest
from ft_eval.arguments import NO_TOKEN
from ft_eval.backends.builtin import Examiner
from ft_eval.reports.lines import HOW
from ft_eval.respondents.protocol import Respondent
from ft_eval.results import TaskResult
from ft_eval.scoring.judge import Judge
from ft_eval.scoring.programs import Sandbox
from ft_eval.tasks.code import human_eval
from ft_eval.tasks.custom import custom_tasks
from ft_eval.tasks.names import BUILTIN, canonical
from ft_eval.tasks.task import Task
from ft_eval.work import Wait, Work


@dataclass(frozen=True, slots=True)
class BuiltinBackend:
    """Asks and grades without any download.

    Attributes:
        work: what is asked.
    """

    work: Work

    @property
    def name(self) -> str:
        """``builtin``."""
        return "builtin"

    def examine(self, respondent: Respondent, wait: Wait, directory: Path) -> list[TaskResult]:
        """Ask all questions of all tasks."""
        arguments = self.work.arguments
        tasks = self.tasks(respondent)
        examiner = Examiner(
            respondent,
            arguments.eval_batch_size,
            self.work.statistics,
            judge=self._judge(wait),
            sandbox=Sandbox() if arguments.run_code else None,
        )
        for task in tasks:
            examiner.check(task)
            self.work.say(describe(task))
        results = [wait(examiner.examine(task)) for task in tasks]
        if examiner.judge is not None:
            wait(examiner.judge.respondent.close())
        return results

    def tasks(self, respondent: Respondent) -> list[Task]:
        """Return what is asked, limited as wanted.

        Raises:
            UsageError: there is no such benchmark here.
            DataError: a file of questions can't be used.
        """
        arguments = self.work.arguments
        if arguments.custom_eval_config is not None:
            tasks = custom_tasks(
                arguments.custom_eval_config,
                shots=arguments.eval_few_shot,
                scores=respondent.scores,
                chat=respondent.chat,
            )
        else:
            tasks = [self._named(name, respondent) for name in arguments.eval_dataset or BUILTIN]
            if arguments.eval_few_shot:
                self.work.say("--eval_few_shot has no effect: humaneval has no solved examples")
        limit = self.work.limit
        if limit is None:
            return tasks
        return [task.with_items(limit.choose(task.items, self.work.seed)) for task in tasks]

    def _named(self, name: str, respondent: Respondent) -> Task:
        known = canonical(name)
        if known not in BUILTIN:
            raise UsageError(
                f"--eval_dataset {name}: the builtin backend has only {', '.join(BUILTIN)} with its data."
                f"{suggest(name, BUILTIN)} --eval_backend lm_eval gets others from the Hugging Face hub, and "
                "--custom_eval_config takes files of your own"
            )
        return human_eval(chat=respondent.chat)

    def _judge(self, wait: Wait) -> Judge | None:
        arguments = self.work.arguments
        if arguments.judge_url is None:
            return None
        from ft_eval.respondents.url import connect

        return Judge(
            wait(
                connect(
                    arguments.judge_url,
                    arguments.judge_model,
                    token=None if arguments.judge_token == NO_TOKEN else arguments.judge_token,
                    chat=True,
                    timeout=arguments.eval_timeout,
                    flags=("judge_url", "judge_model", "judge_token"),
                    say=self.work.say,
                )
            )
        )


def describe(task: Task) -> str:
    """Return a line about a task: its size and how it is asked."""
    of = f" of {task.total:,}" if task.total > len(task.items) else ""
    shots = f", {task.shots} solved examples" if task.shots else ""
    return f"task       {task.title}: {len(task.items):,}{of} questions, {HOW[task.method]}{shots}"
