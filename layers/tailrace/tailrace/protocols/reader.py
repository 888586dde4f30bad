"""What a wire format for readers has to say: how the entries of a reply's log look to whoever reads it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from tailrace.delivery import Found, Progress
from tailrace.errors import RequestError
from tailrace.events import ENDED_BY_OTHERS, Event, Json, Message
from tailrace.protocols import sse

_encode = msgspec.json.Encoder().encode

ENDED_EARLY = "The reply ended early."
"""What is said of an end that says nothing itself."""

Object = dict[str, Any]
"""One event of the wire format, as JSON."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a reply before its first entry.

    Attributes:
        created: microseconds since 1970.
        provider, model: who was asked, where that is known.
        metadata: what was given at the start.
        private: what was given and no client is shown; what a protocol keeps with a reply lies there.
    """

    message_id: str
    conversation_id: str
    created: int = 0
    provider: str | None = None
    model: str | None = None
    metadata: Json = msgspec.field(default_factory=dict)
    private: Json = msgspec.field(default_factory=dict)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How one reader reads a reply.

    Attributes:
        monotonic: the clock that progress is measured with, in seconds.
        progress: counts for the reader, or None when it did not ask.
        parts: whether it asked for what lies between the text.
        after: the seq of the last entry that it has already. A protocol that needs the beginning is given that too.
        skip: how many events of the wire it has already, for those whose clients count them.
        wants: what the protocol's own request asked for.
    """

    monotonic: Callable[[], float]
    progress: Progress | None = None
    parts: bool = False
    after: int = 0
    skip: int = 0
    wants: Json = msgspec.field(default_factory=dict)


class Shown(msgspec.Struct, frozen=True, gc=False):
    """One event of the wire format.

    Attributes:
        cursor: the reader's, once it has this event.
        name: the server-sent event's, for those wires that name them.
    """

    data: Object
    cursor: str
    name: str | None = None


class ReaderProtocol(ABC):
    """Encodes one reply for one reader: as objects for one that polls, as server-sent events for one that listens.

    A wire format needs the methods that return what is shown; each entry's depends on the entries before it and never
    on how many came at once. Override ``events`` where that is too slow.

    Args:
        opening: whose events these are.
        reading: how they are read.

    Attributes:
        headers: of a streamed response, beside those that every stream has.
        has_ids: whether its server-sent events carry the cursor.
        needs_beginning: whether what an entry looks like depends on those before it: then a reader that resumes has all
            of the log read for it, and there is no form for sentences and intervals (``from_beginning.py``).
        trailer: what comes after the end.
    """

    headers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()
    has_ids: ClassVar[bool] = True
    needs_beginning: ClassVar[bool] = False
    trailer: ClassVar[bytes] = b""

    def __init__(self, opening: Opening, reading: Reading) -> None:
        self.opening = opening
        self.message_id = opening.message_id
        self.progress = reading.progress
        self.monotonic = reading.monotonic
        self.wants = reading.wants
        self._after = reading.after
        self._skip = reading.skip

    def first(self) -> list[Shown]:
        """Return what comes before all entries."""
        return []

    @abstractmethod
    def objects(self, first_seq: int, events: Sequence[Event]) -> list[Shown]:
        """Return what consecutive entries of the log are to the reader; one that has no shape here is left out."""

    def piece_objects(self, pieces: Sequence[Found]) -> list[Shown]:
        """Return the same of what a delivery made of the entries; never called where ``needs_beginning``."""
        raise NotImplementedError

    @abstractmethod
    def end_objects(self, message: Message) -> list[Shown]:
        """Return the reply's end."""

    @abstractmethod
    def failure_objects(self, seq: int, text: str, error_type: str) -> list[Shown]:
        """Return an end for a reply whose end could not be stored; ``seq`` is the last one sent."""

    # ---- as server-sent events ----

    def begin(self) -> bytes:
        """Return ``first`` as server-sent events."""
        return self._encode(self.first())

    def events(self, first_seq: int, events: Sequence[Event]) -> bytes:
        """Return entries as server-sent events; empty when there is nothing to show."""
        return self._encode(self.after(first_seq, events))

    def pieces(self, pieces: Sequence[Found]) -> bytes:
        """Return ``piece_objects`` as server-sent events."""
        return self._encode(self.piece_objects(pieces))

    def end(self, message: Message) -> bytes:
        """Return ``end_objects`` as server-sent events."""
        return self._encode(self.end_objects(message)) + self.trailer

    def failure(self, seq: int, text: str, error_type: str) -> bytes:
        """Return ``failure_objects`` as server-sent events."""
        return self._encode(self.failure_objects(seq, text, error_type)) + self.trailer

    # ---- for a reader that polls ----

    def polled(self, shown: Sequence[Shown]) -> list[Object]:
        """Return events as a poll answers with them: each beside the cursor after it."""
        return [{"id": each.cursor, "data": each.data} for each in shown]

    # ---- from where on ----

    def after(self, first_seq: int, events: Sequence[Event]) -> list[Shown]:
        """Return ``objects`` of those entries that the reader does not have."""
        known = self._after + 1 - first_seq
        if known <= 0:
            return self.objects(first_seq, events)
        self.objects(first_seq, events[:known])
        return self.objects(first_seq + known, events[known:])

    def is_new(self, first_seq: int) -> bool:
        """Whether the reader has nothing of this entry, nor of what comes after it."""
        return first_seq > self._after and not self._skip

    def cursor(self, seq: int) -> str:
        """Return the cursor after an entry."""
        return f"{self.message_id}:{seq}"

    def end_cursor(self, message: Message) -> str:
        """Return the cursor of a reader that has the end.

        Where others than the writer may have chosen its number, it is an id that no chunk can have (http/cursor.py).
        """
        return self.cursor(message.seq) + (".0" if message.status in ENDED_BY_OTHERS else "")

    def _encode(self, shown: Sequence[Shown]) -> bytes:
        if self._skip:
            skipped = min(self._skip, len(shown))
            self._skip -= skipped
            shown = shown[skipped:]
        return b"".join(self._block(each) for each in shown)

    def _block(self, shown: Shown) -> bytes:
        block = sse.encode(_encode(shown.data), shown.cursor.encode() if self.has_ids else None)
        return block if shown.name is None else b"event: %b\n%b" % (shown.name.encode(), block)


def check_by_chunk(protocol: type[ReaderProtocol], *, is_paced: bool) -> None:
    """Pass unless a reader wants sentences or an interval where a protocol has no form for them.

    Raises:
        RequestError: it does.
    """
    if protocol.needs_beginning and is_paced:
        raise RequestError("This protocol sends every chunk as it comes: by and interval_ms are not for it.")
