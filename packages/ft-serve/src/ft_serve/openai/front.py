"""What all routes share: the model once it is there, what is under way, and whether more is taken."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, ParamSpec, TypeVar

from starlette.requests import Request

from ft_serve.openai.answering import Answering
from ft_serve.openai.errors import overloaded
from ft_serve.openai.limits import Limits
from ft_serve.openai.metrics import Metrics
from ft_serve.openai.protocol.messages import ApiRequest
from ft_serve.openai.served import Served

P = ParamSpec("P")
T = TypeVar("T")

GIVEN_UP_SECONDS = 60.0
"""An engine that doesn't come back for so long is dead: whoever watches the process should start it again."""

MOST_FIELDS_TOLD = 200

State = Literal["ok", "loading", "draining", "recovering", "dead"]

logger = logging.getLogger("ft_serve")


class Front:
    """The state of one server. Everything but ``serve`` belongs to the server's event loop.

    Args:
        limits: what it takes on.

    Attributes:
        in_flight: requests that have no complete answer yet.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.answering = Answering(self.limits, self.metrics)
        self.in_flight = 0
        self._served: Served | None = None
        self._draining = False
        self._unready_since: float | None = None
        self._fields_told: set[str] = set()
        # Rendering and tokenizing long texts takes seconds, in which the loop has answers to send.
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="ft-render")

    def serve(self, served: Served) -> None:
        """Begin to answer with this model."""
        self._served = served

    @property
    def state(self) -> State:
        """Whether requests are taken, and why not."""
        if self._draining:
            return "draining"
        if self._served is None:
            return "loading"
        if self._served.engine.ready:
            self._unready_since = None
            return "ok"
        now = time.monotonic()
        if self._unready_since is None:
            self._unready_since = now
        return "dead" if now - self._unready_since > GIVEN_UP_SECONDS else "recovering"

    def open(self) -> Served:
        """Return the model.

        Raises:
            ApiError: it can't answer at the moment.
        """
        state = self.state
        if self._served is not None and state == "ok":
            return self._served
        reason = "recovering" if state == "dead" else state
        self.metrics.rejected.labels(reason).inc()
        raise overloaded(f"the server is {state}; send the request again in a moment", code=state)

    def card(self) -> Served:
        """Return the model whether it can answer or not.

        Raises:
            ApiError: it isn't loaded yet.
        """
        return self.open() if self._served is None else self._served

    async def off_loop(
        self, deadline: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do work of the processor beside the event loop."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._renderer, lambda: work(*args, **kwargs))
        return await self.answering.within(deadline, future)

    def tell_extras(self, body: ApiRequest) -> None:
        """Say once for each field that requests have and this server doesn't look at."""
        for name in body.model_extra or ():
            if name not in self._fields_told and len(self._fields_told) < MOST_FIELDS_TOLD:
                self._fields_told.add(name)
                logger.info("requests have a field %.60r, which has no effect here", name)

    async def drain(self) -> None:
        """Take no more requests, wait for those under way, and end what takes too long."""
        self._draining = True
        end = time.monotonic() + self.limits.drain_seconds
        while self.in_flight and time.monotonic() < end:
            await asyncio.sleep(0.05)
        self.answering.abort()
        for _ in range(40):
            if not self.in_flight:
                return
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Let go of the model."""
        self._renderer.shutdown(wait=False, cancel_futures=True)
        if self._served is not None:
            await self._served.engine.close()


def front_of(request: Request) -> Front:
    """Return the state of the server that got a request."""
    front: Front = request.app.state.front
    return front
