"""Answering rows: many at a time, written and shown in their order."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from ft_core.agents import AGENTS
from ft_core.engine import Engine, GenerationRequest, Sampling
from ft_core.errors import FtError, UsageError
from ft_core.examples import Example
from ft_core.media import encode_question, has_media
from ft_core.samples import Tokens
from ft_core.templates import truncate
from ft_core.templates.template import Template
from ft_serve.infer.results import (
    AnswerFile,
    answer_row,
    question_key,
    read_answers,
    rewrite,
)

Summarise = Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]
"""Compares answers with labels and returns named scores."""

IN_FLIGHT = 64
"""Requests given to the engine at the same time; it batches what fits."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """How prompts are made of rows.

    Attributes:
        template: the chat format.
        max_length: longest prompt in tokens; ``None`` sets no limit.
        truncate: cut longer prompts on the left instead of leaving their rows out.
    """

    template: Template
    max_length: int | None = None
    truncate: bool = False

    def pauses(self, example: Example) -> tuple[str, ...]:
        """Return the texts at which an answer waits for a tool's result, which no row has."""
        name = self.template.tools_prompt
        return AGENTS.get(name).stop if example.tools and name is not None else ()

    def question(self, example: Example) -> Tokens:
        """Return what the engine is fed.

        Raises:
            FtError: the row doesn't fit the template, or is too long.
        """
        tokens = encode_question(self.template, example)
        if self.max_length is None or len(tokens) <= self.max_length:
            return tokens
        if self.truncate:
            return truncate(tokens, self.max_length, "truncation_left")[0]
        raise FtError(
            f"the prompt has {len(tokens)} tokens, more than --max_length {self.max_length}; raise it, or use "
            "--truncation_strategy truncation_left"
        )


@dataclass(frozen=True, slots=True)
class InferReport:
    """How answering rows ended.

    Attributes:
        file: the answers.
        answered: rows with an answer.
        failed: rows without, with the reason of each.
        tokens: generated tokens.
        seconds: of all of it.
        reused: rows whose answers the file had already.
        scores: how the answers compare with the labels, where there are any.
    """

    file: Path
    answered: int
    failed: tuple[str, ...]
    tokens: int
    seconds: float
    reused: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Row:
    """A row under way: pieces of its answer arrive in the queue, ``None`` ends them."""

    index: int
    example: Example
    pieces: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    text: str = ""
    tokens: int = 0
    error: str | None = None
    done: bool = False
    written: bool = False

    def result(self) -> dict[str, Any]:
        """Return what is written of it."""
        if self.error is None:
            return answer_row(self.example, self.text)
        return answer_row(self.example, None, error=self.error)


def answer_dataset(
    engine: Engine,
    prompting: Prompting,
    examples: Sequence[Example],
    sampling: Sampling,
    file: Path,
    *,
    seed: int = 42,
    verbose: bool = False,
    stream: bool = True,
    out: TextIO | None = None,
    adapter: str | None = None,
    summarise: Summarise | None = None,
) -> InferReport:
    """Answer rows and write them to ``file`` in their order.

    A row that can't be answered is written with its ``error`` and hurts no other. When interrupted, all
    finished answers are written; called again with the same file, those are kept and the others answered.

    Args:
        engine: answers.
        prompting: makes prompts of rows.
        examples: the rows; a closing assistant turn is kept as the label.
        sampling: how to choose tokens.
        file: JSON lines; answers that it holds already are not generated again.
        seed: of the first row; each row has its own, so an answer depends on nothing else in the batch.
        verbose: show question, answer and label of each row instead of progress.
        stream: while verbose, show an answer as it is generated.
        out: where that is shown; standard output if ``None``.
        adapter: which of the engine's adapters answers.
        summarise: compares the answers with the labels of rows that have one.
    """
    known = read_answers(file) if file.exists() else []
    rows = [_Row(index, example) for index, example in enumerate(examples)]
    reused = _take_known(rows, known)
    start = time.monotonic()
    answers = AnswerFile(file)
    work = _Work(
        engine, prompting, sampling, seed, answers, verbose, stream, out or sys.stdout, adapter
    )
    try:
        asyncio.run(work.run([row for row in rows if not row.done]))
    finally:
        answers.close()
    if known:
        rewrite(file, (row.result() for row in rows))
    failed = tuple(row.error for row in rows if row.error is not None)
    tokens = sum(row.tokens for row in rows)
    seconds = time.monotonic() - start
    scores = _scores(rows, summarise)
    return InferReport(file, len(rows) - len(failed), failed, tokens, seconds, reused, scores)


def _take_known(rows: Sequence[_Row], known: Sequence[Mapping[str, Any]]) -> int:
    """Give rows the answers that the file has; return how many.

    Raises:
        UsageError: the file has answers to other rows.
    """
    answers: dict[str, list[str]] = {}
    for item in known:
        if item["response"] is not None:
            answers.setdefault(question_key(item), []).append(str(item["response"]))
    reused = 0
    for row in rows:
        if found := answers.get(question_key(answer_row(row.example, None))):
            row.text, row.done, row.written = found.pop(0), True, True
            reused += 1
    if left := sum(map(len, answers.values())):
        raise UsageError(
            f"the file of answers has {left:,} rows that aren't asked now; give another file, or the same rows"
        )
    return reused


def _scores(rows: Sequence[_Row], summarise: Summarise | None) -> Mapping[str, float]:
    labelled = [row for row in rows if row.error is None and row.example.answer is not None]
    if summarise is None or not labelled:
        return {}
    return summarise([row.text for row in labelled], [row.example.answer or "" for row in labelled])


@dataclass(slots=True)
class _Work:
    engine: Engine
    prompting: Prompting
    sampling: Sampling
    seed: int
    answers: AnswerFile
    verbose: bool
    stream: bool
    out: TextIO
    adapter: str | None

    async def run(self, rows: Sequence[_Row]) -> None:
        gate = asyncio.Semaphore(IN_FLIGHT)
        tasks = [asyncio.create_task(self._answer(row, gate)) for row in rows]
        progress = _Progress(len(rows), self.out if not self.verbose else None)
        try:
            for row in rows:
                await self._show(row)
                self._write(row)
                progress.advance(row.tokens)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for row in rows:
                if row.done:
                    self._write(row)
            progress.close()

    async def _answer(self, row: _Row, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                stop = (*self.sampling.stop, *self.prompting.pauses(row.example))
                question = await self._question(row.example)
                request = GenerationRequest(
                    question.input_ids,
                    replace(self.sampling, seed=self.seed + row.index, stop=stop),
                    self.adapter,
                    question.media,
                )
                async for event in self.engine.generate(request):
                    row.text += event.text
                    row.tokens = event.generated_tokens
                    if event.text:
                        row.pieces.put_nowait(event.text)
            except FtError as error:
                row.error = str(error)
            row.done = True
            row.pieces.put_nowait(None)

    async def _question(self, example: Example) -> Tokens:
        if not has_media(example):
            return self.prompting.question(example)
        # Pictures take their time to be read, and answers go on meanwhile.
        return await asyncio.to_thread(self.prompting.question, example)

    async def _show(self, row: _Row) -> None:
        if self.verbose:
            system = "" if row.example.system is None else f"[SYSTEM] {row.example.system}\n"
            query = answer_row(row.example, None)["query"]
            self.out.write(f"{system}[QUERY] {query}\n[RESPONSE] ")
        while (piece := await row.pieces.get()) is not None:
            if self.verbose and self.stream:
                self.out.write(piece)
                self.out.flush()
        if self.verbose:
            shown = "" if self.stream else row.text
            failed = "" if row.error is None else f"(no answer: {row.error})"
            label = "" if row.example.answer is None else f"\n[LABEL] {row.example.answer}"
            self.out.write(f"{shown}{failed}{label}\n{'-' * 60}\n")
            self.out.flush()

    def _write(self, row: _Row) -> None:
        if row.written:
            return
        row.written = True
        self.answers.write(row.result())


class _Progress:
    """One line that is rewritten in a terminal, a line every ten seconds elsewhere."""

    def __init__(self, total: int, out: TextIO | None) -> None:
        self._total, self._out = total, out
        self._done = self._tokens = 0
        self._start = self._said = time.monotonic()
        self._live = out is not None and out.isatty()

    def advance(self, tokens: int) -> None:
        self._done += 1
        self._tokens += tokens
        now = time.monotonic()
        last = self._done == self._total
        if self._out is None or not (self._live or last or now - self._said >= 10):
            return
        self._said = now
        rate = self._tokens / max(now - self._start, 1e-9)
        left = (now - self._start) / self._done * (self._total - self._done)
        line = f"{self._done:,} of {self._total:,} rows, {rate:.1f} tokens/s, {left:.0f} s left"
        self._out.write(f"\r{line}  " if self._live else f"{line}\n")
        self._out.flush()

    def close(self) -> None:
        if self._live and self._out is not None and self._done:
            self._out.write("\n")
