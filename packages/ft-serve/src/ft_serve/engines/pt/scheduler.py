"""Which requests run: admission by tokens, prompts in pieces between decode steps, retreat on failure.

One ``advance`` runs at most one piece of prompts and one decode step, so a long prompt holds the running
answers up for one piece at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ft_core.engine import GenerationEvent, TokenLogprob
from ft_core.errors import FtError, ModelError
from ft_serve.engines.pt.adapters import RowAdapters
from ft_serve.engines.pt.answer import Answer, Delivery, as_failure
from ft_serve.engines.pt.batch.prefixes import PrefixStore
from ft_serve.engines.pt.batch.rows import Prefill, Rows
from ft_serve.engines.pt.logprobs import LogprobTable
from ft_serve.engines.pt.sampling import pick

HEADROOM = 64
"""Columns a newcomer must leave free, so that it isn't sent back after a few steps."""

MOST_PADDING = 1.5
"""Prompts share a forward pass while padding makes it at most this many times larger."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds of a batch.

    Attributes:
        rows: requests that generate at the same time.
        cached_tokens: rows times columns of the cache.
        prefill_tokens: prompt tokens of one forward pass.
        kept_tokens: tokens of earlier requests whose keys and values are kept for prompts that begin alike.
    """

    rows: int
    cached_tokens: int
    prefill_tokens: int
    kept_tokens: int = 0


class Scheduler:
    """Runs answers in one batch. All methods are called from one thread.

    Args:
        adapters: a model for which ``can_batch`` holds, with its adapters.
        budget: bounds of the batch.
        emit: takes the events of answers, and the failure of one.
    """

    def __init__(
        self, adapters: RowAdapters, budget: Budget, emit: Callable[[Answer, Delivery], None]
    ) -> None:
        self._adapters = adapters
        self._budget = budget
        self._emit = emit
        self._waiting: deque[Answer] = deque()
        self._entering: list[Answer] = []
        self._places: list[int] = []
        self._prefill: Prefill | None = None
        self._prefixes = PrefixStore(budget.kept_tokens)
        self._running: list[Answer] = []
        self._rows = Rows(adapters)
        self._row_limit = budget.rows

    def __len__(self) -> int:
        return len(self._waiting) + len(self._entering) + len(self._running)

    def add(self, answer: Answer) -> None:
        """Queue an answer."""
        self._waiting.append(answer)

    def fail_all(self, error: FtError) -> None:
        """Fail every answer and forget it."""
        for answer in (*self._running, *self._entering, *self._waiting):
            self._fail(answer, error)
        self._running, self._entering, self._prefill = [], [], None
        self._waiting.clear()
        self._rows = Rows(self._adapters)

    def take_in(self) -> None:
        """Run one piece of the prompts that wait."""
        self._drop_cancelled()
        if self._prefill is None:
            self._open_prefill()
        if self._prefill is not None:
            self._run_prefill(self._prefill)

    def step(self) -> None:
        """Run one decode step of the answers under way."""
        self._make_room()
        if self._running:
            self._decode()

    def _drop_cancelled(self) -> None:
        for row in reversed(range(len(self._running))):
            if self._running[row].cancelled:
                self._leave(row)
        self._waiting = deque(answer for answer in self._waiting if not answer.cancelled)
        if self._entering and all(answer.cancelled for answer in self._entering):
            self._entering, self._prefill = [], None

    def _open_prefill(self) -> None:
        """Take the next answers that fit, in the order of their arrival; equal prompts run once."""
        prompts: dict[tuple[str | None, tuple[int, ...]], int] = {}
        self._places = []
        while self._waiting:
            answer = self._waiting[0]
            key = (answer.adapter, tuple(answer.tokens))
            shared = bool(self._entering) and (answer.alone or self._entering[-1].alone)
            lengths = [len(tokens) for _, tokens in (*prompts, *(() if key in prompts else (key,)))]
            if shared or not self._goes_with(answer) or not self._fits(lengths):
                break
            self._places.append(prompts.setdefault(key, len(prompts)))
            self._entering.append(self._waiting.popleft())
        if self._entering:
            names = [name for name, _ in prompts]
            ids = [tokens for _, tokens in prompts]
            prefixes = [self._prefixes.find(tokens, name) for name, tokens in prompts]
            chunk = max(1, self._budget.prefill_tokens // len(ids))
            self._prefill = Prefill(self._adapters, ids, names, chunk, prefixes)

    def _goes_with(self, answer: Answer) -> bool:
        """Whether the answer's adapter can run beside those of the batch."""
        others = self._running or self._entering
        return self._adapters.mixes or not others or others[0].adapter == answer.adapter

    def _fits(self, lengths: Sequence[int]) -> bool:
        """Whether one more newcomer may enter with prompts of these lengths, its own being among them."""
        cells = len(lengths) * max(lengths)
        if len(lengths) > 1 and cells > min(
            self._budget.prefill_tokens, MOST_PADDING * sum(lengths)
        ):
            return False
        rows = len(self._running) + len(self._entering) + 1
        if rows == 1:
            return True
        columns = max(self._rows.columns, *lengths) + HEADROOM
        return rows <= self._row_limit and rows * columns <= self._budget.cached_tokens

    def _run_prefill(self, prefill: Prefill) -> None:
        entering = self._entering
        try:
            logits = prefill.advance()
        except Exception as error:  # a failing prompt must not end the others' answers
            self._turn_away(error)
            return
        if logits is None:
            return
        try:
            for answer, place in zip(entering, self._places, strict=True):
                self._rows.admit(prefill, place, answer.adapter)
                if not answer.generated:
                    answer.cached_tokens = prefill.known[place]
        except Exception as error:  # no memory for the rows: run them again, fewer at a time
            self._retreat(error)
            return
        self._running += entering
        self._entering, self._prefill = [], None
        rows = range(len(self._running) - len(entering), len(self._running))
        self._take(logits[self._places], rows)

    def _decode(self) -> None:
        try:
            logits = self._rows.step([answer.generated[-1] for answer in self._running])
        except Exception as error:  # the rows are run again, fewer at a time
            self._retreat(error)
            return
        self._take(logits, range(len(self._running)))

    def _take(self, logits: torch.Tensor, rows: range) -> None:
        """Choose the next token of these running rows and give out what became of it."""
        answers = self._running[rows.start : rows.stop]
        broken = (~logits.amax(-1).isfinite()).tolist()
        if any(broken):
            logits[broken] = 0
        logprobs = LogprobTable(logits, [answer.sampling.logprobs for answer in answers])
        for row, answer in enumerate(answers):
            self._penalise(answer, logits[row], broken=broken[row])
        tokens = pick(logits, [answer.sampler for answer in answers])
        for row, (answer, token) in enumerate(zip(answers, tokens, strict=True)):
            if not answer.finished:
                self._accept(answer, token, logprobs.of(row, token))
        for row in reversed(rows):
            if self._running[row].finished:
                self._leave(row)

    def _penalise(self, answer: Answer, logits: torch.Tensor, *, broken: bool) -> None:
        if broken:
            self._fail(answer, ModelError(_BROKEN_LOGITS))
            return
        try:
            answer.sampler.penalise(logits)
        except (
            Exception
        ) as error:  # say, a constraint that can't be followed; it concerns this answer only
            self._fail(answer, as_failure(error))

    def _accept(self, answer: Answer, token: int, logprob: TokenLogprob | None) -> None:
        try:
            event: GenerationEvent | None = answer.accept(token, logprob)
        except Exception as error:  # say, a tokenizer that can't decode
            self._fail(answer, as_failure(error))
            return
        if event is not None:
            self._emit(answer, event)
        if answer.finished:
            self._row_limit = min(self._budget.rows, 2 * self._row_limit)

    def _leave(self, row: int) -> None:
        answer = self._running[row]
        if self._budget.kept_tokens:
            known = self._rows.cache.end - self._rows.cache.starts[row]
            self._prefixes.keep(self._rows.cache, row, answer.tokens[:known], answer.adapter)
        self._rows.remove(row)
        self._running[row] = self._running[-1]
        self._running.pop()

    def _make_room(self) -> None:
        """Send the youngest answers back to the queue while the cache is larger than its budget."""
        while len(self._running) > 1:
            cells = len(self._running) * (self._rows.columns + 1)
            if cells <= self._budget.cached_tokens:
                return
            youngest = min(range(len(self._running)), key=lambda i: len(self._running[i].generated))
            self._waiting.appendleft(self._running[youngest])
            self._leave(youngest)

    def _turn_away(self, error: Exception) -> None:
        """After a failed pass of prompts: one prompt fails; several are run again, each on its own."""
        entering, self._entering, self._prefill = self._entering, [], None
        crowded = isinstance(error, torch.OutOfMemoryError) and bool(self._running)
        if len(entering) == 1 and not crowded:
            self._fail(entering[0], as_failure(error))
            return
        if crowded:
            self._prefixes.clear()
            self._row_limit = len(self._running)
        for answer in reversed(entering):
            answer.alone = True
            self._waiting.appendleft(answer)

    def _retreat(self, error: Exception) -> None:
        """After a failed step: an answer that ran alone fails; several run again, fewer at once."""
        answers: Sequence[Answer] = (*self._running, *self._entering)
        self._running, self._entering, self._prefill = [], [], None
        self._rows = Rows(self._adapters)
        self._prefixes.clear()
        if len(answers) == 1:
            self._fail(answers[0], as_failure(error))
            return
        self._row_limit = max(1, len(answers) // 2)
        self._waiting.extendleft(reversed(answers))

    def _fail(self, answer: Answer, error: FtError) -> None:
        answer.finished = True
        self._emit(answer, error)


_BROKEN_LOGITS = (
    "the model gave numbers that are not finite (NaN or infinity); its weights are broken or its dtype "
    "is too narrow: try --dtype fp32 or bf16"
)
