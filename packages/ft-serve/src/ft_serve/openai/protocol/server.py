"""Cards of models, and what the server says of itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ft_serve.openai.protocol.messages import Answer


class ModelCard(Answer):
    """A model or an adapter that answers by its name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ft"
    root: str
    parent: str | None = None
    max_model_len: int | None = None
    permission: list[str] = Field(default_factory=list)


class ModelList(Answer):
    """All of them, the one that answers requests without a name first."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Version(Answer):
    """What runs."""

    version: str
    engine: str


class Health(Answer):
    """Whether the server lives, or takes requests."""

    status: Literal["ok", "loading", "draining", "recovering", "dead"]


class ErrorDetail(Answer):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """The body of every error."""

    error: ErrorDetail
