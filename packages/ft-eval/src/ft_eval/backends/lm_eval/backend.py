"""The backend lm_eval: which tasks are asked, and their evaluation by lm-eval."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.errors import FtError, UsageError
from ft_eval.backends.lm_eval.data import missing_data, no_waiting
from ft_eval.reports.lines import HOW
from ft_eval.respondents.protocol import Respondent
from ft_eval.results import TaskResult
from ft_eval.tasks.custom import custom_tasks
from ft_eval.tasks.names import BENCHMARKS, canonical, unknown
from ft_eval.work import Wait, Work


@dataclass(frozen=True, slots=True)
class Chosen:
    """A task of lm-eval that will be asked.

    Attributes:
        task: lm-eval's own task.
        title: its name and subset in reports.
        indices: which of its questions.
        total: how many it has.
        conversation: whether its prompts become conversations; those of local tasks are ones already.
    """

    task: Any
    title: tuple[str, str | None]
    indices: tuple[int, ...]
    total: int
    conversation: bool


@dataclass(frozen=True, slots=True)
class LmEvalBackend:
    """Asks and grades with lm-eval, in this process.

    Attributes:
        work: what is asked.
    """

    work: Work

    @property
    def name(self) -> str:
        """``lm_eval``."""
        return "lm_eval"

    def examine(self, respondent: Respondent, wait: Wait, directory: Path) -> list[TaskResult]:
        """Ask all questions of all tasks."""
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        with no_waiting():
            chosen = self._chosen(respondent)
        for item in chosen:
            self.work.say(_describe(item))
        return [self._examine(item, respondent, wait) for item in chosen]

    def _examine(self, chosen: Chosen, respondent: Respondent, wait: Wait) -> TaskResult:
        from lm_eval.evaluator import evaluate

        from ft_eval.backends.lm_eval.model import RespondentLM
        from ft_eval.backends.lm_eval.records import task_result

        arguments, name = self.work.arguments, chosen.task.task_name
        model = RespondentLM(
            respondent,
            wait,
            batch_size=arguments.eval_batch_size,
            seed=self.work.seed,
            out=sys.stderr,
        )
        own = chosen.task.get_config("num_fewshot")
        if own is None or (own != 0 and arguments.eval_few_shot is not None):
            chosen.task.set_config(key="num_fewshot", value=arguments.eval_few_shot or 0)
        chosen.task.set_fewshot_seed(seed=self.work.seed)
        start = time.monotonic()
        chatter = io.StringIO()
        try:
            with redirect_stdout(chatter), redirect_stderr(chatter):
                found = evaluate(
                    model,
                    {"tasks": {name: chosen.task}, "groups": {}, "group_map": {}},
                    samples={name: list(chosen.indices)},
                    apply_chat_template=chosen.conversation and respondent.chat,
                    bootstrap_iters=1000,
                )
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        if found is None:
            raise UsageError(f"lm-eval gave no result for {name}")
        cut = {number for task, number in model.cut if task == name}
        return task_result(
            found,
            name,
            respondent.name,
            self.work.statistics,
            title=chosen.title,
            total=chosen.total,
            cut=cut,
            seconds=time.monotonic() - start,
        )

    def _chosen(self, respondent: Respondent) -> list[Chosen]:
        if self.work.arguments.custom_eval_config is not None:
            return self._local(respondent)
        names = self.work.arguments.eval_dataset
        return self._all() if names is None else self._named(names)

    def _local(self, respondent: Respondent) -> list[Chosen]:
        from lm_eval.api.task import ConfigurableTask

        from ft_eval.backends.lm_eval.local import local_task

        arguments = self.work.arguments
        tasks = custom_tasks(
            str(arguments.custom_eval_config),
            shots=arguments.eval_few_shot,
            scores=respondent.scores,
            chat=respondent.chat,
        )
        chosen = []
        for task in tasks:
            made = ConfigurableTask(config=local_task(task))
            indices = self._indices(len(task.items))
            chosen.append(
                Chosen(made, (task.name, task.subset), indices, len(task.items), conversation=False)
            )
        return chosen

    def _named(self, names: list[str]) -> list[Chosen]:
        manager = _manager()
        chosen: list[Chosen] = []
        for name in names:
            benchmark = BENCHMARKS.get(canonical(name))
            task = name if benchmark is None else benchmark.lm_eval
            if task is None:
                raise UsageError(f"--eval_dataset {name}: lm-eval has no such benchmark")
            if task not in manager.task_index:
                raise unknown(name, "lm-eval", tuple(manager.all_tasks))
            chosen += self._load(manager, name, task)
        return chosen

    def _all(self) -> list[Chosen]:
        """Return all benchmarks of the specification whose data can be had; say which can't."""
        manager, chosen, lacking = _manager(), [], []
        for name, benchmark in BENCHMARKS.items():
            if benchmark.lm_eval is None:
                continue
            try:
                chosen += self._load(manager, name, benchmark.lm_eval)
            except FtError:
                lacking.append(name)
        if lacking:
            self.work.say(f"left out   {', '.join(lacking)}: their data can't be had")
        if not chosen:
            raise UsageError(
                "--eval_dataset none: the data of no benchmark can be had; name one to see which file to put where, "
                "or give --custom_eval_config"
            )
        return chosen

    def _load(self, manager: Any, name: str, task: str) -> list[Chosen]:
        try:
            tasks = manager.load([task])["tasks"]
        except (OSError, ValueError, ImportError) as error:
            raise missing_data(name, _dataset(manager, task), error) from error
        chosen = []
        for title, made in tasks.items():
            if getattr(made, "UNSAFE_CODE", False):
                raise UsageError(
                    f"--eval_dataset {name}: lm-eval would run the model's programs without a sandbox; use "
                    "--eval_backend builtin --run_code true where it has them"
                )
            size = len(made.eval_docs)
            subset = None if len(tasks) == 1 else title.removeprefix(f"{task}_")
            chosen.append(
                Chosen(
                    made, (canonical(name), subset), self._indices(size), size, conversation=True
                )
            )
        return chosen

    def _indices(self, size: int) -> tuple[int, ...]:
        limit = self.work.limit
        return tuple(range(size) if limit is None else limit.indices(size, self.work.seed))


def _manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _dataset(manager: Any, task: str) -> str:
    """Return the data set of a task, or of the first one in a group."""
    entry = manager.task_index.get(task)
    config: Mapping[str, Any] = (entry.cfg or {}) if entry is not None else {}
    if path := config.get("dataset_path"):
        return str(path)
    for child in config.get("task", ()):
        name = child if isinstance(child, str) else child.get("task") or child.get("group")
        if name in manager.task_index and name != task:
            return _dataset(manager, name)
    tagged = (other for other, item in manager.task_index.items() if task in item.tags)
    child = next(tagged, None)
    return f"that of {task}" if child is None else _dataset(manager, child)


def _describe(chosen: Chosen) -> str:
    from ft_eval.backends.lm_eval.records import METHODS

    title = "/".join(part for part in chosen.title if part)
    count, of = len(chosen.indices), ""
    if count < chosen.total:
        of = f" of {chosen.total:,}"
    how = HOW[METHODS[chosen.task.OUTPUT_TYPE]]
    return f"task       {title}: {count:,}{of} questions, {how}"
