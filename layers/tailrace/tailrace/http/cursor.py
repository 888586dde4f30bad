"""Cursors: ``<message id>:<seq>``, the ids of the events that a reader got. Opaque to clients."""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec

from tailrace.errors import NotFound, RequestError
from tailrace.http.requests import Scope, header
from tailrace.ids import message_address

LARGEST_SEQ = 10**12


class Cursor(msgspec.Struct, frozen=True):
    """How far a reader is: the last seq it has of a message; 0 is the beginning."""

    message_id: str
    seq: int


def query(scope: Scope) -> dict[str, str]:
    """Return the parameters of the query, the last of a name."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def parse_cursor(text: str, message_id: str | None = None) -> Cursor:
    """Return the cursor that a client sent.

    Args:
        message_id: whose cursor it must be; then the seq alone will do.

    Raises:
        RequestError: it is not one of ours, or another message's.
    """
    owner, colon, number = text.rpartition(":")
    if not colon and message_id is not None:
        owner = message_id
    refused = RequestError("The cursor is not one of ours.")
    if not (number.isascii() and number.isdigit() and int(number) <= LARGEST_SEQ):
        raise refused
    if message_id is not None and owner != message_id:
        raise refused
    try:
        message_address(owner)
    except NotFound:
        raise refused from None
    return Cursor(owner, int(number))


def last_event_id(scope: Scope, message_id: str | None = None) -> Cursor | None:
    """Return the cursor of a request: ``Last-Event-ID``, which a browser sends when it reconnects, before
    ``?after=``, which stays in the URL.

    Raises:
        RequestError: it is not one of ours, or another message's.
    """
    text = header(scope, b"last-event-id") or query(scope).get("after")
    return None if not text else parse_cursor(text, message_id)
