"""The application: routes, the guard in front of them, and errors in one form."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ft_serve.openai import chat, completions, embeddings, operations, tokens
from ft_serve.openai.errors import ApiError
from ft_serve.openai.front import Front
from ft_serve.openai.guard import Access, Guard

MOST_FAULTS = 5
"""Faults of a request that are told; a body can be made to have millions."""

_KINDS = frozenset({"str", "int", "float", "bool", "function-after", "list", "constrained-str"})

logger = logging.getLogger("ft_serve")


class _Application(FastAPI):
    """FastAPI, without the answers to faulty requests that it describes and this server never gives."""

    def openapi(self) -> dict[str, Any]:
        """Return the description of all routes."""
        description = super().openapi()
        for methods in description["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            description["components"]["schemas"].pop(name, None)
        return description


def make_app(front: Front, access: Access | None = None) -> Guard:
    """Return the application.

    Args:
        front: its state; answers begin once ``front.serve`` was called.
        access: who gets in.
    """
    app = _Application(
        title="ft",
        version=version("ft-serve"),
        description="OpenAI's interface to one model.",
        docs_url=None,  # its page would load scripts from another site
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.front = front
    for module in (chat, completions, embeddings, tokens, operations):
        app.include_router(module.router)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _faulty_request)
    app.add_exception_handler(Exception, _raise_on)
    return Guard(app, front, access or Access())


async def _http_error(_request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error.response()
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = "there is nothing at this address; /openapi.json lists what there is"
    else:
        message = str(error.detail)
    return ApiError(error.status_code, message, headers=error.headers).response()


async def _faulty_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = _deepest(error.errors())
    told = [f"{_place(fault['loc'])}: {_sentence(fault)}" for fault in faults[:MOST_FAULTS]]
    if len(faults) > MOST_FAULTS:
        told.append(f"and {len(faults) - MOST_FAULTS:,} more")
    param = next((str(part) for part in faults[0]["loc"][1:2]), None)
    return ApiError(400, "; ".join(told), param=param).response()


async def _raise_on(_request: Request, error: Exception) -> Response:
    # The guard, which is outside, logs it and tells the client no more than the request's id.
    raise error


def _deepest(faults: Sequence[Any]) -> list[Any]:
    """Leave out the faults of alternatives that a value clearly wasn't meant to be."""
    by_field: dict[Any, list[Any]] = {}
    for fault in faults:
        by_field.setdefault(fault["loc"][1:2], []).append(fault)
    found = []
    for group in by_field.values():
        longest = max(len(fault["loc"]) for fault in group)
        found += [fault for fault in group if len(fault["loc"]) == longest]
    return found


def _place(location: Sequence[Any]) -> str:
    text = ""
    for part in location[1:]:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _is_alternative(str(part)):
            text += f".{str(part)[:60]}" if text else str(part)[:60]
    return text or "body"


def _is_alternative(part: str) -> bool:
    """Whether a part of a place names a type that was tried instead of a field."""
    return part in _KINDS or "[" in part


def _sentence(fault: Any) -> str:
    message = str(fault["msg"])
    if fault["type"] == "missing":
        message = "is missing"
    return message.removeprefix("Value error, ")[:200]
