"""Flags of deploy: where it listens, who gets in, and how much it takes on."""

from __future__ import annotations

from typing import ClassVar

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError
from ft_serve.openai.limits import Limits


class DeployArguments(ArgumentGroup):
    """Where the server listens and who gets in."""

    title: ClassVar[str] = "server"

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 takes requests from the network."""

    port: int = flag(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and prints it."""

    api_key: str | None = flag(None, env="FT_API_KEY", secret=True)
    """Key that clients must send; several with commas between, or @FILE with one a line. Other users of the machine see flags, so prefer the variable FT_API_KEY or a file."""

    ssl_keyfile: str | None = None
    """Private key for HTTPS, with ssl_certfile."""

    ssl_certfile: str | None = None
    """Certificate for HTTPS, with ssl_keyfile."""

    log_interval: int = flag(10, ge=-1)
    """Seconds between lines that say how much is being answered; -1 writes none."""

    served_model_name: str | None = None
    """Name that requests give for the model; none takes the model's own."""

    allowed_hosts: list[str] = flag([], commas=True)
    """Further Host names by which the server may be asked. On a loopback address others are refused."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse half of a pair, and a pause of no length."""
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            there, missing = ("ssl_keyfile", "ssl_certfile")
            if self.ssl_keyfile is None:
                there, missing = missing, there
            raise UsageError(f"--{there} needs --{missing}: HTTPS takes a key and a certificate")
        if self.log_interval == 0:
            raise UsageError("--log_interval 0: give seconds, or -1 for no such lines")


class LimitArguments(ArgumentGroup):
    """How much the server takes on."""

    title: ClassVar[str] = "limits"

    max_requests: int = flag(256, ge=1)
    """Answers that wait or are under way; further requests get 503 with Retry-After."""

    max_queued_tokens: int = flag(1_000_000, ge=1)
    """Tokens of prompts that wait; further requests get 503 with Retry-After."""

    max_body_bytes: int = flag(4 * 2**20, ge=1024)
    """Largest request."""

    max_choices: int = flag(32, ge=1, le=128)
    """Most answers to one prompt (n)."""

    max_prompts: int = flag(256, ge=1)
    """Most prompts of one request."""

    request_timeout: float = flag(600.0, gt=0)
    """Seconds that a request gets from its arrival to the end of its answer."""

    drain_timeout: float = flag(30.0, ge=0)
    """Seconds that answers under way get when the server is told to stop."""

    def limits(self) -> Limits:
        """Return them as the server takes them."""
        return Limits(
            requests=self.max_requests,
            queued_tokens=self.max_queued_tokens,
            body=self.max_body_bytes,
            choices=self.max_choices,
            prompts=self.max_prompts,
            seconds=self.request_timeout,
            drain_seconds=self.drain_timeout,
        )
