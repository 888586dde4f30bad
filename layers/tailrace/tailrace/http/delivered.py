"""A reader's delivery over HTTP: how it asks for one, and what turns a reply's events into its bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Literal

from tailrace.clock import Clock
from tailrace.delivery import Delivery, Paced, Pieces
from tailrace.errors import RequestError, StoreError, Unprocessable
from tailrace.events import Event, Message
from tailrace.http.connection import Connection
from tailrace.http.cursor import query
from tailrace.http.requests import Scope
from tailrace.protocols import DEFAULT, find_protocol
from tailrace.protocols.reader import ReaderProtocol
from tailrace.reply.follow import Batch, Follower

_YES_OR_NO = {"true": True, "1": True, "false": False, "0": False}


def asked_delivery(scope: Scope) -> Delivery:
    """Return the delivery that a GET asks for: ``by``, ``interval_ms``, ``progress`` and ``parts`` in its query.

    A reader that resumes asks again, since a cursor says where it is and not how it reads.

    Raises:
        RequestError: one of them cannot be; the message names it.
    """
    parameters = query(scope)
    by: Literal["chunk", "sentence"] = "chunk"
    if (text := parameters.get("by", by)) != by:
        if text != "sentence":
            raise RequestError("by must be chunk or sentence.")
        by = "sentence"
    interval = parameters.get("interval_ms")
    if interval is not None and not (interval.isascii() and interval.isdigit() and len(interval) < 10):
        raise RequestError("interval_ms must be a whole number of milliseconds.")
    progress, parts = (_switch(name, parameters.get(name, "false")) for name in ("progress", "parts"))
    delivery = Delivery(by, None if interval is None else int(interval), progress, parts)
    try:
        delivery.check()
    except Unprocessable as error:
        raise RequestError(error.message.removeprefix("delivery.")) from error
    return delivery


def _switch(name: str, text: str) -> bool:
    if text not in _YES_OR_NO:
        raise RequestError(f"{name} must be true or false.")
    return _YES_OR_NO[text]


def asked_protocol(scope: Scope) -> str:
    """Return the name of the wire format that a request asks for: ``protocol`` in its query.

    Raises:
        RequestError: there is none of that name.
    """
    name = query(scope).get("protocol", DEFAULT)
    find_protocol(name)
    return name


class Delivered:
    """Writes one reply for one reader, as it asked for it.

    Args:
        pieces: what cuts the reply, or None for every chunk as it comes.
        write: takes bytes to send; must not block.
    """

    def __init__(
        self, protocol: ReaderProtocol, pieces: Pieces | None, write: Callable[[bytes], object], *, clock: Clock
    ) -> None:
        self._protocol = protocol
        self._write = write
        self._paced = (
            None if pieces is None else Paced(pieces, lambda found: write(protocol.pieces(found)), clock=clock)
        )

    def events(self, first_seq: int, events: Sequence[Event]) -> None:
        """Write consecutive events, now or when they are due."""
        if self._paced is None:
            self._write(self._protocol.events(first_seq, events))
        else:
            self._paced.feed(first_seq, events)

    def end(self, message: Message) -> None:
        """Write what waits, and the terminal event."""
        self.flush()
        self._write(self._protocol.end(message))

    def failure(self, seq: int, text: str, error_type: str) -> None:
        """Write what waits, and a terminal event for a reply whose end could not be stored."""
        self.flush()
        self._write(self._protocol.failure(seq, text, error_type))

    def flush(self) -> None:
        """Write what waits."""
        if self._paced is not None:
            self._paced.flush()

    def close(self) -> None:
        """Write nothing more."""
        if self._paced is not None:
            self._paced.close()


async def follow_into(reader: Delivered, connection: Connection, follower: Follower) -> None:
    """Give a reader what a follower finds, as fast as its client reads, until the reply's end.

    It stops without an end when the client reads nothing or the log cannot be read now: a reader that is cut without a
    terminal event knows that there is more, and resumes.
    """
    try:
        if not await connection.drained():
            return
        await follower.open()
        async with aclosing(follower.follow()) as pages:
            async for batches in pages:
                for first_seq, events in joined(batches):
                    reader.events(first_seq, events)
                if not await connection.drained():
                    return
        reader.end(await follower.message())
    except StoreError:
        pass


def joined(batches: Sequence[Batch]) -> list[Batch]:
    """Return what was read at once as one batch: it is delivered at once."""
    if len(batches) < 2:
        return list(batches)
    return [(batches[0][0], [event for _, events in batches for event in events])]
