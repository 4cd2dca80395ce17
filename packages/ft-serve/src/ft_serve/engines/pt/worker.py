"""The thread that owns the model: it takes requests from any event loop and gives events back to it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import torch

from ft_core.errors import FtError, ModelError
from ft_serve.engines.pt.adapters import RowAdapters
from ft_serve.engines.pt.answer import Answer, Delivery, as_failure
from ft_serve.engines.pt.scheduler import Budget, Scheduler
from ft_serve.engines.pt.static import generate_alone

Work = Generator[None, None, Any]
"""What pauses after each forward pass and returns a result."""

Job = tuple[Work, "Future[Any]"]

logger = logging.getLogger(__name__)


class _Crash(BaseException):
    """Carries an error of the batch out of a request that ran alone beside it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Worker:
    """Runs answers and other work on one model, in a thread of its own.

    After a crash of its loop whatever was under way fails, and the worker begins again with an empty
    batch, unless the model itself doesn't run any more.

    Args:
        adapters: the model with its adapters; nobody else may run it until ``close``.
        budget: bounds of the batch; ``None`` runs every answer alone.
    """

    def __init__(self, adapters: RowAdapters, budget: Budget | None) -> None:
        self._adapters = adapters
        self._budget = budget
        self._scheduler = self._new_scheduler()
        self._alone: deque[Answer] = deque()
        self._wake = threading.Condition()
        self._arrived: deque[Answer] = deque()
        self._jobs: deque[Job] = deque()
        self._closing = False
        self._recovering = False
        self._dead: FtError | None = None
        self._outbox: list[tuple[Answer, Delivery]] = []
        self._thread = threading.Thread(target=self._main, name="ft-pt-engine", daemon=True)
        self._thread.start()

    def _new_scheduler(self) -> Scheduler | None:
        return None if self._budget is None else Scheduler(self._adapters, self._budget, self._emit)

    @property
    def ready(self) -> bool:
        """Whether it takes answers on."""
        return self._dead is None and not self._closing and not self._recovering

    @property
    def active(self) -> int:
        """Answers that are waiting or under way."""
        batch = len(self._scheduler) if self._scheduler else 0
        return len(self._arrived) + len(self._alone) + batch

    def submit(self, answer: Answer) -> None:
        """Queue an answer.

        Raises:
            ModelError: the worker has stopped.
        """
        with self._wake:
            self._check_alive()
            self._arrived.append(answer)
            self._wake.notify()

    def call(self, work: Work) -> Future[Any]:
        """Run something with the model, one piece of it between two steps.

        Raises:
            ModelError: the worker has stopped.
        """
        future: Future[Any] = Future()
        with self._wake:
            self._check_alive()
            self._jobs.append((work, future))
            self._wake.notify()
        return future

    def cancel(self, answer: Answer) -> None:
        """Give up an answer; its place is free before the next step."""
        answer.cancelled = True
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """Stop after the current step, fail what is under way, and wait for the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise ModelError(str(self._dead))

    @torch.inference_mode()
    def _main(self) -> None:
        reason = ModelError("the engine was closed")
        while True:
            try:
                while self._next():
                    self._turn()
                    if self._alone:
                        self._run_alone(self._alone.popleft())
                break
            except Exception as error:  # whoever waits must hear of it
                reason = ModelError(f"the engine stopped: {type(error).__name__}: {error}")
                reason.__cause__ = error
            except _Crash as crash:
                reason = ModelError(
                    f"the engine stopped: {type(crash.error).__name__}: {crash.error}"
                )
            if not self._recover(reason):
                break
        self._shut_down(reason)

    def _turn(self) -> None:
        """Run one piece of other work and one step of the batch, and hand over what became of them."""
        self._run_job()
        if self._scheduler:
            self._scheduler.take_in()
            self._deliver()  # first tokens don't wait for the step
            self._scheduler.step()
        self._deliver()

    def _recover(self, reason: FtError) -> bool:
        """Fail what is under way and begin again; false if the model doesn't run any more."""
        self._recovering = True
        self._fail_all(reason)
        self._scheduler = self._new_scheduler()
        try:
            model = self._adapters.model
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device))
        except (
            Exception
        ) as error:  # say, a GPU in an unusable state; ``reason`` tells what led to it
            logger.error(
                "the model doesn't run any more (%s), so the engine ends: %s", error, reason
            )
            return False
        self._recovering = False
        return True

    def _next(self) -> bool:
        """Wait for something to do; take new answers in. False when the worker is to close."""
        with self._wake:
            self._wake.wait_for(self._has_work)
            self._take_arrived()
            return not self._closing

    def _take_arrived(self) -> None:
        while self._arrived:
            answer = self._arrived.popleft()
            if self._scheduler is None or answer.features or answer.sampling.num_beams > 1:
                self._alone.append(answer)
            else:
                self._scheduler.add(answer)

    def _has_work(self) -> bool:
        waiting = self._arrived or self._jobs or self._alone or self._scheduler
        return bool(self._closing or waiting)

    def _run_job(self) -> None:
        if not self._jobs:
            return
        work, future = self._jobs[0]
        if not future.running() and not future.set_running_or_notify_cancel():
            self._jobs.popleft()
            return
        try:
            next(work)
        except StopIteration as end:
            self._jobs.popleft()
            future.set_result(end.value)
        except Exception as error:  # belongs to whoever asked for the work
            self._jobs.popleft()
            future.set_exception(as_failure(error))

    def _run_alone(self, answer: Answer) -> None:
        if answer.cancelled:
            return
        try:
            generate_alone(self._adapters, answer, self._emit_now, lambda: self._beside(answer))
        except _Crash as crash:
            answer.finished = True
            self._emit(answer, as_failure(crash.error))
            raise
        except Exception as error:  # a failing request must not end the others' answers
            answer.finished = True
            self._emit(answer, as_failure(error))

    def _beside(self, answer: Answer) -> None:
        """Let the batch go on between two tokens of an answer that runs alone."""
        with self._wake:
            if self._closing:
                raise ModelError("the engine was closed")
            self._take_arrived()
        try:
            self._turn()
        except Exception as error:
            raise _Crash(error) from error

    def _emit(self, answer: Answer, item: Delivery) -> None:
        self._outbox.append((answer, item))

    def _emit_now(self, answer: Answer, item: Delivery) -> None:
        self._emit(answer, item)
        self._deliver()

    def _deliver(self) -> None:
        """Hand the step's events over, with one call for each event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Answer, Delivery]]] = {}
        for answer, item in self._outbox:
            by_loop.setdefault(answer.loop, []).append((answer, item))
        self._outbox = []
        for loop, items in by_loop.items():
            try:
                loop.call_soon_threadsafe(_arrive, items)
            except RuntimeError:  # the loop was closed: nobody waits for these answers
                for answer, _ in items:
                    answer.cancelled = True

    def _shut_down(self, reason: FtError) -> None:
        with self._wake:
            self._dead = reason
        self._fail_all(reason)

    def _fail_all(self, reason: FtError) -> None:
        with self._wake:
            left = [*self._arrived, *self._alone]
            jobs = [future for _, future in self._jobs]
            self._arrived.clear()
            self._alone.clear()
            self._jobs.clear()
        for answer in left:
            answer.finished = True
            self._emit(answer, reason)
        if self._scheduler is not None:
            self._scheduler.fail_all(reason)
        self._deliver()
        for future in jobs:
            if future.running() or future.set_running_or_notify_cancel():
                future.set_exception(reason)


def _arrive(items: list[tuple[Answer, Delivery]]) -> None:
    for answer, item in items:
        answer.arrive(item)
