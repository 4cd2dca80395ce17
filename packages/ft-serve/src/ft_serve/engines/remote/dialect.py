"""What servers have in common: a request goes out as JSON, pieces of an answer come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ft_core.engine import (
    Capability,
    FinishReason,
    GenerationRequest,
    Sampling,
    TokenLogprob,
    TokenScores,
)
from ft_core.errors import ModelError, UsageError

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a server says.

    Attributes:
        text: the text since the last one.
        token_ids: the tokens since the last one.
        finish_reason: why the answer ended; ``None`` before its end.
        logprobs: of ``token_ids``, where they were asked for.
        stop_reason: the string or token that ended it, where the server tells.
        generated_tokens: of the whole answer, where the server tells this instead of ``token_ids``.
    """

    text: str = ""
    token_ids: Sequence[int] = ()
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_reason: str | int | None = None
    generated_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request with what the engine knows beside it.

    Attributes:
        request: the request.
        model: what the server calls the model or the adapter.
        stop_token_ids: tokens that end the answer, all of them.
        max_tokens: length that the model has room for.
    """

    request: GenerationRequest
    model: str
    stop_token_ids: Sequence[int]
    max_tokens: int

    @property
    def sampling(self) -> Sampling:
        """How to choose tokens."""
        return self.request.sampling


class Dialect(Protocol):
    """How one kind of server is spoken to."""

    @property
    def name(self) -> str:
        """For messages: ``vLLM``."""
        ...

    @property
    def path(self) -> str:
        """Where requests go, such as ``/v1/completions``."""
        ...

    @property
    def finds_stop_strings(self) -> bool:
        """Whether it ends an answer at a stop string itself, and only there."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do beyond generating text; adapters are asked for."""
        ...

    def body(self, wanted: Wanted) -> Json:
        """Return the request as the server takes it.

        Raises:
            UsageError: it can't express the request.
        """
        ...

    def read(self, data: Json) -> Piece | None:
        """Return what an event of an answer says, ``None`` if nothing of interest."""
        ...

    def score_body(self, token_ids: Sequence[int], model: str, top: int) -> Json:
        """Return a request for the log-probabilities of these tokens."""
        ...

    def read_scores(self, data: Json, token_ids: Sequence[int], top: int) -> TokenScores:
        """Return them."""
        ...


def refuse(name: str, sampling: Sampling, unknown: Sequence[str]) -> None:
    """Refuse what a server has no word for.

    Args:
        name: the server's.
        sampling: of the request.
        unknown: fields of ``Sampling`` that it doesn't know.

    Raises:
        UsageError: one of them differs from its default.
    """
    plain = Sampling()
    for field in unknown:
        value = getattr(sampling, field)
        if value != getattr(plain, field):
            raise UsageError(
                f"{field} {value}: {name} can't do that; leave it out, or answer with --infer_backend pt"
            )


def finish_reason(value: object) -> FinishReason | None:
    """Translate a server's reason.

    Raises:
        ModelError: the server failed on the request.
    """
    if value is None:
        return None
    if value == "error":
        raise ModelError("the server failed on this request; its log says why")
    return "length" if value == "length" else "aborted" if value == "abort" else "stop"
