"""What all requests and answers share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A piece of a request; fields it doesn't know are left aside."""

    model_config = ConfigDict(
        strict=True, extra="ignore", protected_namespaces=(), use_attribute_docstrings=True
    )


class ApiRequest(BaseModel):
    """A whole request; fields it doesn't know are kept in ``model_extra``, where they can be told of."""

    model_config = ConfigDict(
        strict=True, extra="allow", protected_namespaces=(), use_attribute_docstrings=True
    )


class Answer(BaseModel):
    """A piece of an answer, made by this server alone."""

    model_config = ConfigDict(
        extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )


def absent(value: Any) -> bool:
    """Whether an optional field of an answer is left out."""
    return value is None


Finite = Field(allow_inf_nan=False)

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
"""An id; whether the model has it is checked with the model."""
