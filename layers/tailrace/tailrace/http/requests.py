"""Reading requests: the body under a limit, its JSON, and who sent it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

import msgspec

from tailrace.backend import Backend
from tailrace.errors import RequestError, TooLarge, Unprocessable, UnsupportedType
from tailrace.protocols.strict_json import NOT_JSON, check_json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DEADLINE_MARGIN = 5.0
"""Seconds kept for ending a reply before Lambda kills its function without a word."""

LONGEST_SOCKET_ID = 128
"""Characters; API Gateway's have about 16."""

Body = TypeVar("Body")


class ClientGone(Exception):
    """The client left before its request was whole; there is nobody to answer."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return a request header's value, its first if it came twice."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def correlation_id(scope: Scope) -> str:
    """Return what ties the log lines of a request together: the client's id, AWS's trace, or a fresh one."""
    given = header(scope, b"x-correlation-id") or header(scope, b"x-amzn-trace-id")
    return given[:128] if given else os.urandom(8).hex()


def socket_id(scope: Scope) -> str | None:
    """Return the socket that is not to hear of what the request does (``X-Socket-ID``, Echo's ``toOthers``).

    It is only ever compared, so a wrong one does no harm and is no reason to refuse the request.
    """
    given = header(scope, b"x-socket-id")
    return given if given and len(given) <= LONGEST_SOCKET_ID else None


def _is_over(declared: str, limit: int) -> bool:
    digits = declared.strip()
    return digits.isascii() and digits.isdigit() and (len(digits) > len(str(limit)) + 8 or int(digits) > limit)


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the request's body.

    Raises:
        TooLarge: it has more than ``limit`` bytes; no more than that was kept.
        ClientGone: the client left.
    """
    declared = header(scope, b"content-length")
    if declared is not None and _is_over(declared, limit):
        raise TooLarge(f"The body has more than {limit} bytes.")
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise TooLarge(f"The body has more than {limit} bytes.")
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


async def read_json(scope: Scope, receive: Receive, limit: int, kind: type[Body], *, is_optional: bool = False) -> Body:
    """Return a request's JSON body as ``kind``.

    Args:
        limit: bytes that it may have.
        is_optional: whether there may be none, which is as good as an empty object.

    Raises:
        TooLarge, ClientGone: as ``read_body`` does.
        UnsupportedType: it does not say that it is JSON.
        RequestError, Unprocessable: as ``parse`` does.
    """
    given = await read_body(scope, receive, limit)
    if given or not is_optional:
        check_type(scope)
    return parse(given, kind)


def is_form(scope: Scope) -> bool:
    """Return whether a request's body says that it is a form."""
    return _media_type(scope) == "application/x-www-form-urlencoded"


def check_type(scope: Scope) -> None:
    """Pass if a request's body says that it is JSON.

    Raises:
        UnsupportedType: it says something else, or nothing.
    """
    kind = _media_type(scope)
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedType("The Content-Type of the body must be application/json.")


def _media_type(scope: Scope) -> str:
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


def parse(body: bytes, kind: type[Body]) -> Body:
    """Return the body as ``kind``.

    Raises:
        RequestError: it is not JSON.
        Unprocessable: it is, but not of that kind, and the message names the field; or it holds what cannot be kept.
    """
    check_json(body)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"The body does not validate: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(NOT_JSON) from error


async def client_gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _LambdaContext(msgspec.Struct):
    deadline: int | None = None


def time_left(scope: Scope, backend: Backend) -> float | None:
    """Return the seconds until Lambda kills this invocation, less a margin to end in; None elsewhere.

    Mangum hands over the invocation's context. The Lambda Web Adapter passes it in a header, with the deadline in
    milliseconds since 1970; that is believed only inside Lambda, where the adapter sets it whatever a client sent
    (https://github.com/awslabs/aws-lambda-web-adapter#lambda-context).
    """
    context = scope.get("aws.context")
    if context is not None:
        remaining: int = context.get_remaining_time_in_millis()
        return max(0.0, remaining / 1000 - DEADLINE_MARGIN)
    text = header(scope, b"x-amzn-lambda-context") if backend.settings.in_lambda else None
    if text is None:
        return None
    try:
        deadline = msgspec.json.decode(text, type=_LambdaContext).deadline
    except msgspec.MsgspecError:
        return None
    if deadline is None:
        return None
    return max(0.0, deadline / 1000 - backend.clock.now() / 1_000_000 - DEADLINE_MARGIN)
