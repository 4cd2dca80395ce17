"""What a client is told when a request can't be answered, in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ft_core.errors import DataError, DependencyError, FtError, UsageError

RETRY_AFTER_SECONDS = 2
"""What an overloaded server asks clients to wait."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    501: "not_supported_error",
    503: "overloaded_error",
    504: "timeout_error",
}

_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    500: "internal_error",
    501: "not_supported",
    503: "overloaded",
}

SETTLED = {"x-should-retry": "false"}
"""Tells OpenAI's clients that the same request would fail again."""


class ApiError(HTTPException):
    """A request that is answered with an error.

    Args:
        status: of the answer.
        message: what was given, why it can't work and what to do.
        code: short and stable, for programs.
        param: the field of the request.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code = code or _CODES.get(status, "invalid_request")
        self.param = param

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON that is sent."""
        return {
            "error": {
                "message": self.detail,
                "type": _type(self.status_code),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """Return it as an answer."""
        return Response(
            json.dumps(self.body, ensure_ascii=False),
            self.status_code,
            dict(self.headers or {}),
            media_type="application/json",
        )


def _type(status: int) -> str:
    if status in _TYPES:
        return _TYPES[status]
    return "invalid_request_error" if status < 500 else "server_error"


def overloaded(message: str, *, code: str = "overloaded") -> ApiError:
    """Return the answer to a request that may be sent again in a moment."""
    return ApiError(503, message, code=code, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def unsupported(message: str, *, param: str | None = None) -> ApiError:
    """Return the answer to a request that this server can't do at all."""
    return ApiError(501, message, param=param, headers=SETTLED)


def from_failure(failure: FtError, *, ready: bool) -> ApiError:
    """Return what a client is told of an engine's or a template's failure.

    Args:
        failure: the error.
        ready: whether the engine goes on; if it doesn't, the request may be sent again.
    """
    if isinstance(failure, DependencyError):
        return unsupported(str(failure))
    if isinstance(failure, UsageError | DataError):
        return ApiError(400, str(failure))
    if not ready:
        return overloaded(
            "the engine failed and is starting again; send the request again", code="engine_failed"
        )
    return ApiError(
        500, "the model failed on this request; the server's log says more", code="engine_failed"
    )
