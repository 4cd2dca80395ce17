"""What the OpenAPI description says beyond types, and how bodies are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ft_serve.openai.errors import ApiError
from ft_serve.openai.limits import MOST_JSON_DEPTH
from ft_serve.openai.protocol.server import ErrorAnswer

_ERRORS = {
    400: "The request can't be answered as it is.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    500: "The model or the server failed.",
    501: "The engine behind this server can't do it.",
    503: "Overloaded, loading or stopping; send it again after Retry-After.",
    504: "Not done within the time that a request gets.",
}


def described(
    *statuses: int, streams: type[BaseModel] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the answers of a route for its description.

    Args:
        *statuses: errors it may answer with; by default all that work for the model has.
        streams: what its events hold, if it can stream.
    """
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": _ERRORS[status], "model": ErrorAnswer}
        for status in statuses or tuple(_ERRORS)
    }
    if streams is not None:
        answers[200] = {
            "description": f"The answer, or with stream events of {streams.__name__} and [DONE].",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    return answers


class StrictRequest(Request):
    """A request whose body is JSON by the standard: no NaN, no lone surrogates, no bottomless nesting."""

    async def json(self) -> Any:
        """Return the body's value.

        Raises:
            ApiError: it is no JSON that is taken.
        """
        return read_json(await self.body())


class StrictRoute(APIRoute):
    """A route that reads its body strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def read_json(body: bytes) -> Any:
    """Return the value of a body.

    Raises:
        ApiError: it is no JSON that is taken.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise ApiError(
            400, f"the body is no JSON: {error.msg} at character {error.pos}", code="invalid_json"
        ) from None
    except UnicodeError:
        raise ApiError(400, "the body is no UTF-8 text", code="invalid_json") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a number with thousands of digits
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_json") from None
    _check_depth(value)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ApiError(400, f"the body is no JSON: {name} is no number of JSON", code="invalid_json")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_JSON_DEPTH):
        items = [item for item in level if isinstance(item, dict | list)]
        if not items:
            return
        level = []
        for item in items:
            inner = item.values() if isinstance(item, dict) else item
            level += [entry for entry in inner if isinstance(entry, dict | list)]
    raise _too_deep()


def _too_deep() -> ApiError:
    return ApiError(
        400,
        f"the body nests lists and objects more than {MOST_JSON_DEPTH} deep",
        code="invalid_json",
    )
