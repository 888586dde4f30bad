"""Writing responses that are not streams."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tailrace.errors import ProviderError, TailraceError
from tailrace.http.requests import Send

Headers = Iterable[tuple[bytes, bytes]]

MASKED = "Something went wrong on our side."
"""What a client learns of an unexpected error."""


async def respond_json(send: Send, status: int, content: object, headers: Headers = ()) -> None:
    """Send a JSON response."""
    body = msgspec.json.encode(content)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def error_content(error: Exception) -> tuple[int, dict[str, dict[str, str]], dict[str, str]]:
    """Return the status, body and headers that say what went wrong; unexpected errors are masked."""
    if not isinstance(error, TailraceError):
        return 500, {"error": {"type": "general_error", "message": MASKED}}, {}
    headers = {}
    if isinstance(error, ProviderError) and error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return error.status, {"error": {"type": error.error_type, "message": error.message}}, headers


async def respond_error(send: Send, error: Exception) -> None:
    """Send an error response."""
    status, content, headers = error_content(error)
    await respond_json(send, status, content, [(k.lower().encode(), v.encode()) for k, v in headers.items()])
