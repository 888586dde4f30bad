"""Cursors: ``<message id>:<seq>``, the ids of the events that a reader got. Opaque to clients.

The terminal event of a reply that others may end (``ENDED_BY_OTHERS``) has ``.0`` after its seq. Whoever ends it
knows the log alone, so the seq may be one that the starting connection, which is a flush ahead, has seen as a chunk's.
With an id that no chunk has, a reader that has this end can be told from one that was cut before it.

``.n``, with n from 1, says that the reader has n characters of that entry: a sentence may end inside of one.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec

from tailrace.errors import NotFound, RequestError
from tailrace.events import ENDED_BY_OTHERS, Event, Status, Text
from tailrace.http.requests import Scope, header
from tailrace.ids import message_address

LARGEST_SEQ = 10**12

NOT_OURS = "The cursor is not one of ours."


class Cursor(msgspec.Struct, frozen=True):
    """How far a reader is.

    Attributes:
        seq: the last it has of the message; 0 is the beginning.
        end: whether it is the id of an end that others may have given.
        taken: how many characters it has of that entry, if it has not all of it; otherwise 0.
    """

    message_id: str
    seq: int
    end: bool = False
    taken: int = 0

    def is_of_end(self, seq: int, status: Status) -> bool:
        """Return whether it is the id of the terminal event of a reply that ended so, with this seq."""
        return 0 < seq == self.seq and not self.taken and self.end == (status in ENDED_BY_OTHERS)

    def could_be_ours(self, entry: Event) -> bool:
        """Return whether a reader of the log can be where this says, if this is the entry of its seq."""
        return not self.taken or (isinstance(entry, Text) and self.taken < len(entry.text))


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
    number, dot, part = number.partition(".")
    refused = RequestError(NOT_OURS)
    if not _is_number(number) or (dot and not (_is_number(part) and str(int(part)) == part and int(number))):
        raise refused
    if message_id is not None and owner != message_id:
        raise refused
    try:
        message_address(owner)
    except NotFound:
        raise refused from None
    return Cursor(owner, int(number), end=part == "0", taken=int(part or 0))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_SEQ)) and int(text) <= LARGEST_SEQ


def last_event_id(scope: Scope, message_id: str | None = None) -> Cursor | None:
    """Return the cursor of a request: ``Last-Event-ID``, which a browser sends when it reconnects, before
    ``?after=``, which stays in the URL.

    Raises:
        RequestError: it is not one of ours, or another message's.
    """
    text = header(scope, b"last-event-id") or query(scope).get("after")
    return None if not text else parse_cursor(text, message_id)
