"""Bounds that keep one client from taking the server from the others."""

from __future__ import annotations

from dataclasses import dataclass

MOST_STOPS = 64
"""Stop strings of one request."""

MOST_JSON_DEPTH = 64
"""Lists and objects within each other in a request."""

KEEP_ALIVE_SECONDS = 15.0
"""A streamed answer that is silent for so long sends a comment, so that proxies keep the connection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes on.

    Attributes:
        requests: answers that wait or are under way; more are refused for the moment.
        queued_tokens: tokens of prompts that wait.
        body: bytes of a request.
        choices: answers to one prompt (``n``).
        prompts: prompts of one request.
        seconds: from a request's arrival to the end of its answer.
        body_seconds: until a request's body has arrived.
        drain_seconds: that answers under way get when the server is told to stop.
    """

    requests: int = 256
    queued_tokens: int = 1_000_000
    body: int = 4 * 2**20
    choices: int = 32
    prompts: int = 256
    seconds: float = 600.0
    body_seconds: float = 30.0
    drain_seconds: float = 30.0
