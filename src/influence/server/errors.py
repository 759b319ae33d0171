"""From what went wrong to a status and words for the client: the one table.

A message says what to change. It never carries a path, a value's repr or an
address: what only the operator may read goes to the log, under the request's
id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from influence.errors import (
    ContextFull,
    InfluenceError,
    InvalidParameter,
    NumericError,
    OutOfMemory,
    ServerBusy,
    TokenizerError,
)

# What each protocol maps to its own word.
Kind = Literal["invalid_request", "authentication", "permission", "not_found", "too_large", "busy", "server"]

_KINDS: dict[int, Kind] = {
    401: "authentication",
    403: "permission",
    404: "not_found",
    413: "too_large",
    503: "busy",
    500: "server",
}


# The words of OpenAI's protocol and of our own.
_TYPES: dict[Kind, str] = {
    "invalid_request": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "too_large": "invalid_request_error",
    "server": "server_error",
}


@dataclass(eq=False)
class ApiError(Exception):
    """An answer that is an error. `message` is for the client; `param` names the field at fault."""

    status: int
    kind: Kind
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    allow: str | None = None  # methods, for a 405

    def __str__(self) -> str:
        return self.message


class ClientGone(Exception):
    """The client left before its answer was ready; there is nobody to tell."""


def invalid(message: str, param: str | None = None, *, code: str | None = None) -> ApiError:
    """A request that can't be done as it is: 400."""
    return ApiError(400, "invalid_request", message, param, code)


def refused(status: int, message: str, *, code: str | None = None) -> ApiError:
    """Another status, of the kind that goes with it."""
    return ApiError(status, _KINDS.get(status, "invalid_request"), message, None, code)


def ending(retry_after_s: float = 30.0) -> ApiError:
    """What a request gets that comes, or still runs, when the server ends."""
    message = "the server is shutting down: try again later"
    return ApiError(503, "busy", message, code="shutting_down", retry_after_s=retry_after_s)


def error_fields(error: ApiError, *, busy: str) -> dict[str, Any]:
    """{message, type, param, code}; `busy` is the type of an error that says to come back later."""
    return {
        "message": error.message,
        "type": _TYPES.get(error.kind, busy),
        "param": error.param,
        "code": error.code,
    }


def api_error(error: BaseException) -> ApiError:
    """What the client is told of any exception."""
    match error:
        case ApiError():
            return error
        case ContextFull():
            message = (
                f"the prompt has {error.n_tokens} tokens and at least {error.n_wanted} more are needed, "
                f"but the context is {error.context}: shorten the prompt"
            )
            return invalid(message, "messages", code="context_length_exceeded")
        case InvalidParameter():
            return invalid(f"{error.name} must be {error.expected}", error.name, code="invalid_value")
        case ServerBusy():
            message = f"{error.message}: try again later"
            return ApiError(503, "busy", message, code="server_busy", retry_after_s=error.retry_after_s)
        case TokenizerError():
            return invalid(error.message.removeprefix(f"{error.path}: "), code="template_error")
        case _:
            return _failure(error)


def _failure(error: BaseException) -> ApiError:
    """A fault of ours; the request's id leads from the answer to the log."""
    match error:
        case NumericError():
            return ApiError(500, "server", "the model computed NaN or infinity", code="numeric_error")
        case OutOfMemory():
            return ApiError(
                500, "server", "there is not enough memory for this request", code="out_of_memory"
            )
        case InfluenceError():
            return ApiError(500, "server", "running the model failed", code="engine_error")
        case _:
            return ApiError(500, "server", "the server failed", code="internal_error")
