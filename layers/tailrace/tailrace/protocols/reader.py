"""What a wire format for readers has to say: how the entries of a reply's log look to whoever reads it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from tailrace.delivery import Piece, Progress, Voided
from tailrace.events import Event, Message
from tailrace.protocols import sse

_encode = msgspec.json.Encoder().encode

Object = dict[str, Any]
"""One event as JSON; under ``id``, if it has one, the cursor after it."""


class ReaderProtocol(ABC):
    """Encodes one reply for one reader: as objects for one that polls, as server-sent events for one that listens.

    A wire format needs the four methods that return objects; a server-sent event is the object without its ``id``,
    which goes into the event's own. Override ``events`` where that is too slow.

    Args:
        message_id: whose events these are.
        progress: counts for the reader, or None when it did not ask.
        monotonic: the clock that progress is measured with, in seconds.

    Attributes:
        headers: of a streamed response, beside those that every stream has.
    """

    headers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()

    def __init__(self, message_id: str, progress: Progress | None, monotonic: Callable[[], float]) -> None:
        self.message_id = message_id
        self.progress = progress
        self.monotonic = monotonic

    @abstractmethod
    def objects(self, first_seq: int, events: Sequence[Event]) -> list[Object]:
        """Return what consecutive entries of the log are to the reader; one that has no shape here is left out."""

    @abstractmethod
    def piece_objects(self, pieces: Sequence[Piece | Voided]) -> list[Object]:
        """Return the same of what a delivery made of the entries."""

    @abstractmethod
    def end_objects(self, message: Message) -> list[Object]:
        """Return the reply's end."""

    @abstractmethod
    def failure_objects(self, seq: int, text: str, error_type: str) -> list[Object]:
        """Return an end for a reply whose end could not be stored; ``seq`` is the last one sent."""

    def events(self, first_seq: int, events: Sequence[Event]) -> bytes:
        """Return ``objects`` as server-sent events; empty when there is nothing to show."""
        return encode(self.objects(first_seq, events))

    def pieces(self, pieces: Sequence[Piece | Voided]) -> bytes:
        """Return ``piece_objects`` as server-sent events."""
        return encode(self.piece_objects(pieces))

    def end(self, message: Message) -> bytes:
        """Return ``end_objects`` as server-sent events."""
        return encode(self.end_objects(message))

    def failure(self, seq: int, text: str, error_type: str) -> bytes:
        """Return ``failure_objects`` as server-sent events."""
        return encode(self.failure_objects(seq, text, error_type))


def encode(objects: Sequence[Object]) -> bytes:
    """Return objects as server-sent events."""
    return b"".join(
        sse.encode(_encode({name: value for name, value in each.items() if name != "id"}), str(each["id"]).encode())
        if "id" in each
        else sse.encode(_encode(each))
        for each in objects
    )
