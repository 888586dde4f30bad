"""Errors in the shape that OpenAI's SDKs read: https://platform.openai.com/docs/guides/error-codes"""

from __future__ import annotations

import re
from typing import Final

from tailrace.errors import Conflict, RequestError, TailraceError
from tailrace.events import Message
from tailrace.http.requests import Send
from tailrace.http.responses import error_content, respond_json
from tailrace.protocols.reader import ENDED_EARLY

TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
"""By the status; every other is a ``server_error``."""

STATUSES: Final = {422: 400, 413: 400, 415: 400}
"""What a request that cannot be served has there, where it differs from ours."""

NO_RETRY: Final = (b"x-should-retry", b"false")
"""Keeps the SDKs from asking again, as they do after 409 and every 5xx (``_should_retry`` of openai-python 3.54,
``shouldRetry`` of openai-node 7.59)."""

_PARAM: Final = re.compile(r"at `\$\.?([^`]*)`|unknown field `([^`]+)`|^Bad options: .*?\b(tools|tool_choice)\b")
"""Where msgspec, or who reads options, says that the fault is."""


class BadParameter(RequestError):
    """A field of the body cannot be honoured.

    Args:
        param: the field, such as ``input[0].content``; None where it is no single one's fault.
        code: a stable word for programs.
    """

    def __init__(self, message: str, param: str | None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


async def respond_error(send: Send, error: TailraceError) -> None:
    """Send an error response."""
    status, content, headers = error_content(error)
    status = STATUSES.get(status, status)
    said = content["error"]
    found = _PARAM.search(said["message"])
    bad = error if isinstance(error, BadParameter) else None
    body = {
        "error": {
            "message": said["message"],
            "type": TYPES.get(status, "server_error"),
            "param": bad.param if bad else (found and next(filter(None, found.groups()), None)),
            "code": bad.code if bad else said["type"],
        }
    }
    more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    if isinstance(error, Conflict):
        more.append(NO_RETRY)
    await respond_json(send, status, body, more)


async def respond_failure(send: Send, message: Message) -> None:
    """Send what a reply came to that did not complete.

    It is stored, and whoever answers was asked as often as the start allowed (``options.retries``): were it asked again
    by the SDK, it would be another start.
    """
    error = message.error or {}
    code = str(error.get("type", "general_error"))
    body = {
        "error": {
            "message": str(error.get("message", ENDED_EARLY)),
            "type": "server_error",
            "param": None,
            "code": code,
        }
    }
    status = 504 if code.startswith("timeout") else 502
    await respond_json(send, status, body, [(b"x-message-id", message.id.encode()), NO_RETRY])
