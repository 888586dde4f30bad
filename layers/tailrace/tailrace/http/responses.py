"""Writing responses that are not streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import msgspec

from tailrace.errors import (
    ConfigurationError,
    InsufficientScope,
    ProviderError,
    RateLimited,
    StoreError,
    TailraceError,
    TooLarge,
    Unauthenticated,
)
from tailrace.events import Message
from tailrace.http.requests import Scope, Send, header
from tailrace.telemetry import logger

Headers = Iterable[tuple[bytes, bytes]]

RespondWhole = Callable[[Send, Message], Awaitable[None]]
"""Sends a reply that has ended, not streamed."""

UNCONFIGURED = "This is not set up on the server."
"""What a client learns when the deployment lacks something, such as a provider's key."""

MASKED = "Something went wrong on our side."
"""What a client learns of an unexpected error."""


LARGEST_ANSWER: Final = 6_000_000
"""Bytes of a JSON answer, as Lambda carries it: at most 6 MB, as text in JSON of its own
(https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html). What is streamed has no such limit."""


def is_too_large(body: bytes) -> bool:
    """Return whether Lambda could not carry an answer."""
    return len(body) > LARGEST_ANSWER // 2 and len(body) + body.count(b'"') + body.count(b"\\") > LARGEST_ANSWER


def too_large(message_id: str) -> TooLarge:
    """Return the error that says how a message is to be read that is too long for an answer."""
    return TooLarge(
        f"The message is too long for one answer, which may have {LARGEST_ANSWER} bytes. Read it as a stream, "
        f"GET /messages/{message_id}/stream, or in pages, GET /messages/{message_id}/events."
    )


async def respond_json(send: Send, status: int, content: object, headers: Headers = ()) -> None:
    """Send a JSON response.

    Raises:
        TooLarge: Lambda could not carry it; nothing was sent.
    """
    body = msgspec.json.encode(content)
    if is_too_large(body):
        raise TooLarge(f"The answer is too long: it may have {LARGEST_ANSWER} bytes.")
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


_TYPE: Final = (b"content-type", b"text/event-stream; charset=utf-8")
"""Events are always UTF-8, and yet there are clients that read text as Latin-1 unless they are told (requests)."""

_BARE_TYPE: Final = (b"content-type", b"text/event-stream")

_STREAM: Final = (
    _TYPE,
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


def stream_headers(message_id: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a stream of server-sent events."""
    return [*_STREAM, (b"x-message-id", message_id.encode())]


def telling(send: Send, name: bytes, tell: Callable[[dict[bytes, bytes]], bytes | None]) -> Send:
    """Return a ``send`` that adds a header to the response.

    Args:
        tell: returns its value, by the response's other headers; None for none.
    """

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"]]
            if (value := tell(dict(headers))) is not None:
                message = {**message, "headers": [*headers, (name, value)]}
        await send(message)

    return sent


def bare_type(scope: Scope, send: Send) -> Send:
    """Return a ``send`` that gives a page the type of a stream without its charset.

    What @microsoft/fetch-event-source has as its example of an ``onopen`` compares the type with the bare one, takes
    everything else for a failure and asks again, for ever: each time a start. Those who fetch as browsers do say so in
    ``Sec-Fetch-Mode``, and none of them needs the charset.
    """
    if header(scope, b"sec-fetch-mode") is None:
        return send

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [_BARE_TYPE if each == _TYPE else each for each in message["headers"]]
        await send(message)

    return sent


async def respond_empty_stream(send: Send) -> None:
    """Send the headers of a stream that has no message."""
    await send({"type": "http.response.start", "status": 200, "headers": list(_STREAM)})
    await send({"type": "http.response.body", "body": b""})


async def respond_empty(send: Send, message_id: str) -> None:
    """Send 204: the reader has everything. A browser's EventSource does not reconnect after it."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"x-message-id", message_id.encode())]})
    await send({"type": "http.response.body", "body": b""})


async def respond_message(send: Send, message: Message) -> None:
    """Send a reply that has ended, not streamed; one that did not complete with the status of its failure."""
    content: dict[str, object] = {"message": message, "streamed": False}
    status = 200
    if message.status in ("failed", "timed_out", "interrupted"):
        status = 504 if str((message.error or {}).get("type")).startswith("timeout") else 502
        content = {"error": message.error, **content}
    headers = [(b"x-message-id", message.id.encode())]
    try:
        await respond_json(send, status, content, headers)
    except TooLarge:
        await respond_error(send, too_large(message.id), headers)


def error_content(error: Exception) -> tuple[int, dict[str, dict[str, str]], dict[str, str]]:
    """Return the status, body and headers that say what went wrong; unexpected errors are masked."""
    if not isinstance(error, TailraceError):
        return 500, {"error": {"type": "general_error", "message": MASKED}}, {}
    if isinstance(error, ConfigurationError):
        # What is missing is for the operator, who finds it in the log, not for a client.
        logger.error("not configured", extra={"missing": error.message})
        return 503, {"error": {"type": error.error_type, "message": UNCONFIGURED}}, {}
    headers = {}
    if isinstance(error, ProviderError | RateLimited) and error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if isinstance(error, StoreError):  # its own tries took seconds already
        headers["Retry-After"] = "1"
    if isinstance(error, Unauthenticated) and error.challenge is not None:
        headers["WWW-Authenticate"] = f'Bearer error="{error.challenge}"' if error.challenge else "Bearer"
    if isinstance(error, InsufficientScope):
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return error.status, {"error": {"type": error.error_type, "message": error.message}}, headers


async def respond_error(send: Send, error: Exception, headers: Headers = ()) -> None:
    """Send an error response."""
    status, content, more = error_content(error)
    await respond_json(send, status, content, [*headers, *((k.lower().encode(), v.encode()) for k, v in more.items())])
