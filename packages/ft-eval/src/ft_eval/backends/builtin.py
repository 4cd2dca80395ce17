"""ft's own evaluator: it downloads nothing."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ft_core.engine import Sampling
from ft_core.errors import DataError, ModelError, UsageError
from ft_eval.measures import MEASURES
from ft_eval.progress import Progress
from ft_eval.respondents.protocol import Answer, Likelihood, Question, Respondent
from ft_eval.results import SampleResult, Statistics, TaskResult, summarise
from ft_eval.scoring.choices import chosen_letter
from ft_eval.scoring.judge import Judge
from ft_eval.scoring.programs import Sandbox, pass_at_k
from ft_eval.tasks.task import Item, Task

JUDGED = ("judge", "judge_agrees")
"""Metrics that a judge gives."""


@dataclass(frozen=True, slots=True)
class Examiner:
    """Asks the questions of tasks and grades the answers.

    Attributes:
        respondent: who is asked.
        batch_size: questions asked at the same time.
        statistics: how intervals are made.
        sampling: how answers are generated; a task's lengths and stops replace those in it.
        judge: compares answers where a task asks for it.
        sandbox: runs programs; ``None`` refuses tasks that need it.
    """

    respondent: Respondent
    batch_size: int = 8
    statistics: Statistics = field(default_factory=Statistics)
    sampling: Sampling = field(default_factory=Sampling)
    judge: Judge | None = None
    sandbox: Sandbox | None = None

    async def examine(self, task: Task) -> TaskResult:
        """Ask all questions of a task.

        A question that can't be asked, for example since it is too long, is counted as failed and hurts no
        other.

        Raises:
            UsageError: none of the questions could be asked, or the task needs what isn't there.
            ModelError: the model or its server failed.
        """
        self.check(task)
        start = time.monotonic()
        methods: Mapping[str, Callable[[Task, Progress], Awaitable[list[SampleResult]]]] = {
            "likelihood": self._by_likelihood,
            "letter": self._by_answer,
            "generation": self._by_answer,
            "perplexity": self._by_likelihood,
            "program": self._by_programs,
        }
        progress = Progress(f"{self.respondent.name} {task.title}", len(task.items))
        samples = await methods[task.method](task, progress)
        failed = [sample.error for sample in samples if sample.error is not None]
        if len(failed) == len(samples):
            raise UsageError(
                f"{task.title}: none of {len(samples)} questions was answered: {failed[0]}"
            )
        return TaskResult(
            model=self.respondent.name,
            task=task.name,
            subset=task.subset,
            method=task.method,
            backend="builtin",
            metrics=summarise(samples, self._measures(task), self.statistics),
            samples=tuple(samples),
            shots=task.shots,
            version=task.version,
            digest=task.digest,
            total=task.total or len(task.items),
            seconds=time.monotonic() - start,
        )

    def check(self, task: Task) -> None:
        """Refuse a task that can't be done, before anything is asked.

        Raises:
            UsageError: it needs likelihoods, a judge or a sandbox that aren't there.
        """
        if task.method in ("likelihood", "perplexity") and not self.respondent.scores:
            raise UsageError(
                f"{task.title}: {self.respondent.name} gives no likelihoods; "
                'write "method": "letter" into its entry'
            )
        if set(task.measures) & set(JUDGED) and self.judge is None:
            raise UsageError(f"{task.title}: the metric judge needs --judge_url and --judge_model")
        if task.method == "program" and self.sandbox is None:
            raise UsageError(
                f"{task.title} runs programs that the model writes; say so with --run_code true. "
                "They run in a sandbox without network, with limits of time and memory"
            )

    def _measures(self, task: Task) -> tuple[str, ...]:
        if "judge" in task.measures and "judge_agrees" not in task.measures:
            return (*task.measures, "judge_agrees")
        return task.measures

    async def _by_likelihood(self, task: Task, progress: Progress) -> list[SampleResult]:
        grade = _grade_choice if task.method == "likelihood" else _grade_text
        order = sorted(task.items, key=lambda item: item.prompt.size, reverse=True)
        results: dict[str, SampleResult] = {}
        for begin in range(0, len(order), self.batch_size):
            batch = order[begin : begin + self.batch_size]
            found = await self._likelihoods([_question(item, task) for item in batch])
            for item, values in zip(batch, found, strict=True):
                if isinstance(values, str):
                    results[item.id] = _failed(item, values)
                else:
                    results[item.id] = grade(item, values)
            progress.advance(len(batch))
        return [results[item.id] for item in task.items]

    async def _likelihoods(self, questions: Sequence[Question]) -> list[list[Likelihood] | str]:
        """Return likelihoods, or the reason why a question can't be scored."""
        try:
            return [*await self.respondent.likelihoods(questions)]
        except (UsageError, DataError) as error:
            if len(questions) == 1:
                return [str(error)]
        return [(await self._likelihoods([question]))[0] for question in questions]

    async def _by_answer(self, task: Task, progress: Progress) -> list[SampleResult]:
        gate = asyncio.Semaphore(self.batch_size)

        async def one(item: Item, index: int) -> SampleResult:
            async with gate:
                try:
                    answer = await self.respondent.answer(item.prompt, self._sampling(task, index))
                    return await self._grade_answer(task, item, answer)
                except (UsageError, DataError) as error:
                    return _failed(item, str(error))
                finally:
                    progress.advance()

        return await _all(one(item, index) for index, item in enumerate(task.items))

    async def _grade_answer(self, task: Task, item: Item, answer: Answer) -> SampleResult:
        if task.method == "letter":
            letter = chosen_letter(answer.text, item.choices)
            right = float(letter in item.references)
            result = _answered(item, answer, {"accuracy": (right, 1.0)})
            return replace(result, shown={**result.shown, "chosen": letter})
        graded = replace(item, extra={**item.extra, "agent": self.respondent.agent})
        scores = {
            name: grade(graded, answer)
            for name in task.measures
            if (grade := MEASURES.get(name).grade) is not None
        }
        result = _answered(item, answer, scores)
        if self.judge is None or "judge" not in task.measures:
            return result
        verdict = await self.judge.compare(item, answer.text)
        shown = {**result.shown, "judge": list(verdict.said)}
        return replace(result, scores={**scores, **verdict.scores}, shown=shown)

    async def _by_programs(self, task: Task, progress: Progress) -> list[SampleResult]:
        sandbox, gate = self.sandbox, asyncio.Semaphore(self.batch_size)
        if sandbox is None:
            raise UsageError("no sandbox")

        async def one(item: Item, index: int) -> SampleResult:
            async with gate:
                answers = []
                for draw in range(task.samples):
                    sampling = self._sampling(task, index * task.samples + draw)
                    answers.append(await self.respondent.answer(item.prompt, sampling))
                verdicts = [
                    await asyncio.to_thread(sandbox.run, item, answer.text) for answer in answers
                ]
                passed = sum(verdict.passed for verdict in verdicts)
                scores = {
                    name: (pass_at_k(task.samples, passed, int(name.removeprefix("pass@"))), 1.0)
                    for name in task.measures
                }
                result = _answered(item, answers[0], scores)
                progress.advance()
                shown = [{"program": verdict.program, "said": verdict.said} for verdict in verdicts]
                return replace(result, shown={**result.shown, "runs": shown})

        return await _all(one(item, index) for index, item in enumerate(task.items))

    def _sampling(self, task: Task, index: int) -> Sampling:
        drawn = task.samples > 1
        return replace(
            self.sampling,
            max_new_tokens=task.max_new_tokens,
            stop=(*self.sampling.stop, *task.stop),
            temperature=self.sampling.temperature or (0.8 if drawn else 0.0),
            top_p=0.95 if drawn and self.sampling.top_p == 1 else self.sampling.top_p,
            seed=self.statistics.seed + index,
        )


async def _all(work: Iterable[Coroutine[Any, Any, SampleResult]]) -> list[SampleResult]:
    """Wait for all; where one fails, stop the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(item) for item in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _question(item: Item, task: Task) -> Question:
    if task.method == "perplexity":
        return Question(item.prompt, item.references)
    before = str(item.extra.get("before", ""))
    return Question(item.prompt, tuple(before + choice for choice in item.choices))


def _grade_choice(item: Item, values: Sequence[Likelihood]) -> SampleResult:
    best = max(range(len(values)), key=lambda place: values[place].logprob)
    chosen = item.choices[best]
    logprobs = {
        choice: round(value.logprob, 4) for choice, value in zip(item.choices, values, strict=True)
    }
    scores = {"accuracy": (float(chosen in item.references), 1.0)}
    return _result(item, chosen, scores, shown={"logprobs": logprobs})


def _grade_text(item: Item, values: Sequence[Likelihood]) -> SampleResult:
    (value,) = values
    if math.isnan(value.logprob):
        raise ModelError(
            f"the log-probabilities of {item.place or item.id} are not numbers; the model's weights are "
            "broken, or --dtype is too narrow for it"
        )
    size = len(item.references[0].encode())
    scores = {
        "perplexity": (-value.logprob, float(value.tokens)),
        "bits_per_byte": (-value.logprob / math.log(2), float(size)),
    }
    return _result(item, None, scores, shown={"tokens": value.tokens})


def _answered(item: Item, answer: Answer, scores: Mapping[str, Sequence[float]]) -> SampleResult:
    shown = {"tokens": answer.generated_tokens}
    result = _result(item, answer.text, scores, shown=shown)
    if answer.tool_calls:
        result = replace(result, shown={**shown, "calls": [dict(c) for c in answer.tool_calls]})
    return replace(result, cut=answer.finish_reason == "length")


def _failed(item: Item, reason: str) -> SampleResult:
    return replace(_result(item, None, {}), error=reason)


def _result(
    item: Item,
    answer: str | None,
    scores: Mapping[str, Sequence[float]],
    *,
    shown: Mapping[str, object] | None = None,
) -> SampleResult:
    place = None if item.place is None else str(item.place)
    return SampleResult(
        item.id, item.prompt, item.references, answer, scores, shown or {}, place=place
    )
