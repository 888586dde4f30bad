"""The frames that clients send, as npm ``laravel-echo-api-gateway`` 0.5.5 makes them; and what was added: ``after``
and ``delivery``."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Final, TypeVar

import msgspec

from tailrace.delivery import Delivery
from tailrace.errors import RequestError
from tailrace.protocols.strict_json import check_json

Kind = TypeVar("Kind")


class UnknownFrame(Exception):
    """It is none of ours."""


class ClientFrame(msgspec.Struct, frozen=True):
    """Any frame. ``data`` is what it says, not parsed yet; a whisper has ``channel`` beside it."""

    event: str
    channel: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")

    def about(self) -> str | None:
        """Return the channel that it is about, so that an error can say so."""
        with suppress(UnknownFrame):
            return channel_named(self.data) if self.channel is None else self.channel
        return None


_CURSOR: Final = re.compile(r"([0-9]{1,19})|([1-9][0-9]{0,11})[.]([1-9][0-9]{0,11})")
Seq = Annotated[int, msgspec.Meta(ge=0)]


class SubscribeFrame(msgspec.Struct, frozen=True):
    """What a ``subscribe`` says.

    Attributes:
        auth, channel_data: what ``POST /broadcasting/auth`` has answered.
        after: message id to the last seq that the client has of that reply, or to the ``cursor`` of its last chunk.
        delivery: how it wants chunks; None for every one.
    """

    channel: str
    auth: str | None = None
    channel_data: str | None = None
    after: dict[str, Seq | str] = {}
    delivery: Delivery | None = None


class _Named(msgspec.Struct):
    channel: str


def event_body(event: Mapping[str, Any]) -> bytes:
    """Return what a client sent, from the event that API Gateway makes of it: binary frames come as base64."""
    body: str = event.get("body") or ""
    return b64decode(body) if event.get("isBase64Encoded") else body.encode(errors="replace")


def client_frame(body: bytes) -> ClientFrame:
    """Return a frame.

    Raises:
        UnknownFrame: it is not one.
    """
    try:
        check_json(body, is_kept=False)
    except RequestError as error:
        raise UnknownFrame from error
    return _decode(body, ClientFrame)


def channel_named(data: msgspec.Raw) -> str:
    """Return the channel in a frame's data.

    Raises:
        UnknownFrame: there is none.
    """
    return _decode(data, _Named).channel


def subscribe_frame(data: msgspec.Raw) -> SubscribeFrame:
    """Return what a ``subscribe`` says.

    Raises:
        RequestError: it does not validate; the message names the field.
    """
    try:
        asked = _decode(data, SubscribeFrame)
    except UnknownFrame as error:
        raise RequestError(f"The subscription does not validate: {error.__cause__}.") from error
    if asked.delivery is not None:
        asked.delivery.check()
    return asked


def place_of(cursor: int | str) -> tuple[int, int]:
    """Return the last entry that a client has, and how many characters of it; 0 is all of them.

    Args:
        cursor: a chunk's ``seq``, or its ``cursor``.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(cursor, int):
        return cursor, 0
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise RequestError("The subscription does not validate: after has, for each message, a chunk's seq or cursor.")
    return (int(found[1]), 0) if found[1] else (int(found[2]), int(found[3]))


def _decode(text: bytes | msgspec.Raw, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnknownFrame from error
