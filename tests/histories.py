"""The checker: what every reader of one reply saw, held against what is stored and against each other.

A history is what one reader observed, in order. A reader that is cut and resumes from its own cursor, on whatever
transport, goes on with its history. Entries of the log that the wire does not show (usage, reasoning) have a seq
that readers skip, so the stored log says what there was to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import msgspec
from tailrace.events import TERMINAL, End, Event, Message, Reset, Text
from tailrace.store import Store

Kind = Literal["starting", "resumed", "polling", "snapshots", "message"]
"""``starting`` sees chunks before they are in the log, until it is first cut; all others read the log."""


class Shown(msgspec.Struct, frozen=True):
    """A piece of text, or a reset."""

    seq: int
    text: str | None
    """None is a reset."""


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """The terminal event; what it did not tell is None."""

    seq: int
    status: str | None = None
    content: str | None = None
    error: Mapping[str, Any] | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The message, asked for while it was being written or after."""

    seq: int
    status: str
    content: str
    error: Mapping[str, Any] | None = None


class Cut(msgspec.Struct, frozen=True):
    """The connection ended without a terminal event."""


class Nothing(msgspec.Struct, frozen=True):
    """204: the server said that the reader has the terminal event."""


Entry = Shown | Terminal | Snapshot | Cut | Nothing


class History(msgspec.Struct):
    """What one reader saw.

    Attributes:
        after: the cursor it began with.
        left: whether it stopped before the end because it wanted to.
    """

    reader: str
    kind: Kind
    after: int = 0
    seen: list[Entry] = msgspec.field(default_factory=list)
    left: bool = False

    @property
    def cursor(self) -> int:
        """The seq of the last event it got: what it resumes from."""
        return next((entry.seq for entry in reversed(self.seen) if isinstance(entry, Shown | Terminal)), self.after)

    @property
    def ended(self) -> bool:
        """Whether it knows how the reply ended."""
        return any(_is_end(entry) for entry in self.seen)


class Final(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored, in the end or so far.

    Attributes:
        seq: of the terminal event; of the last event while there is none.
        log: what its log has to show.
        wrong: what is wrong with the log itself.
    """

    seq: int
    status: str
    content: str
    error: Mapping[str, Any] | None = None
    log: Sequence[Shown]
    wrong: Sequence[str] = ()


def shown(first_seq: int, events: Sequence[Event]) -> list[Shown]:
    """Return what the wire shows of consecutive events."""
    return [
        Shown(seq, event.text if isinstance(event, Text) else None)
        for seq, event in enumerate(events, first_seq)
        if isinstance(event, Text | Reset)
    ]


def observed(data: Mapping[str, Any], event_id: str) -> Shown | Terminal:
    """Return the entry for one event of the simple protocol."""
    seq = int(event_id.rpartition(":")[2].partition(".")[0])
    if "chunk" in data:
        return Shown(seq, data["chunk"])
    if "reset" in data:
        return Shown(seq, None)
    if "done" in data:
        message = data["message"]
        return Terminal(seq=seq, status=message["status"], content=message["content"])
    return Terminal(seq=seq, error={"type": data["error_type"], "message": data["message"]})


def snapshot(message: Message) -> Snapshot:
    """Return the entry for a message that was read."""
    return Snapshot(seq=message.seq, status=message.status, content=message.content, error=message.error)


async def read_final(store: Store, message_id: str) -> Final:
    """Return what is stored, read from the table itself."""
    events: list[Event] = []
    wrong: list[str] = []
    async for segment in store.log.read(message_id):
        if segment.first_seq != len(events) + 1:
            wrong.append(f"segment {segment.number} begins with seq {segment.first_seq}, not {len(events) + 1}")
        events += segment.events
    message = await store.messages.get(message_id)
    ends = [(seq, event) for seq, event in enumerate(events, 1) if isinstance(event, End)]
    expected = [] if message.status not in TERMINAL else [(message.seq, message.status)]
    if [(seq, end.status) for seq, end in ends] != expected or len(events) != message.seq:
        wrong.append(f"the log has {len(events)} events with the ends {ends}; the message is {message}")
    return Final(
        seq=message.seq,
        status=message.status,
        content=message.content,
        error=message.error,
        log=shown(1, events),
        wrong=wrong,
    )


def check(histories: Sequence[History], final: Final) -> list[str]:
    """Return what breaks a promise (P1, P2, P4, P8), one sentence each; nothing if all is well."""
    wrong = [f"stored: {what}" for what in final.wrong]
    if _text(final.log) != final.content:
        wrong.append("stored: the content is not the log's text")
    if any(one.seq >= other.seq for one, other in pairwise(final.log)):
        wrong.append("stored: the log is not in order")
    said: dict[int, tuple[str, str | None]] = {}
    for history in histories:
        wrong += [f"{history.reader} ({history.kind}): {what}" for what in _violations(history, final)]
        for entry in history.seen:
            if isinstance(entry, Shown):
                reader, text = said.setdefault(entry.seq, (history.reader, entry.text))
                if text != entry.text:
                    wrong.append(f"{history.reader} and {reader} disagree about seq {entry.seq}")
    return wrong


def ahead(history: History, final: Final) -> int:
    """Return how many events the starting connection saw that are not in the log."""
    in_log = {entry.seq for entry in final.log}
    return sum(isinstance(entry, Shown) and entry.seq not in in_log for entry in history.seen)


def _violations(history: History, final: Final) -> Iterator[str]:
    over = final.status in TERMINAL
    last_logged = final.seq - 1 if over else final.seq
    log = {entry.seq: entry.text for entry in final.log}
    cursor = history.after
    own: list[Shown] = []
    ended: Entry | None = None
    live = history.kind == "starting"
    previous = Snapshot(seq=0, status="pending", content="")
    for entry in history.seen:
        if ended is not None and entry != ended:
            yield f"{entry} after the terminal event"
        match entry:
            case Shown():
                if entry.seq <= cursor:
                    yield f"double: seq {entry.seq} after {cursor}"
                if entry.seq in log:
                    if log[entry.seq] != entry.text:
                        yield f"seq {entry.seq} is {entry.text!r}, stored is {log[entry.seq]!r}"
                elif not (live and entry.seq > last_logged):
                    yield f"seq {entry.seq} is not in the log"
                yield from _gaps(log, cursor, entry.seq)
                cursor = max(cursor, entry.seq)
                own.append(entry)
            case Terminal():
                if ended is not None:
                    yield "two terminal events"
                if not over:
                    yield "a terminal event, and the reply goes on"
                yield from _gaps(log, cursor, final.seq)
                if cursor >= final.seq and final.status == "completed":
                    yield "it was ahead of the log of a reply that completed"
                yield from _differs(entry, final)
                if not history.after and cursor < final.seq and _text(own) != final.content:
                    yield "its text is not the final content"
            case Snapshot():
                if entry.seq < previous.seq:
                    yield f"a snapshot at seq {entry.seq} after one at {previous.seq}"
                if entry.status in TERMINAL:
                    yield from _differs(entry, final)
                elif entry.seq > last_logged or entry.content != _text([e for e in final.log if e.seq <= entry.seq]):
                    yield f"a snapshot at seq {entry.seq} has other content than the log"
                elif (entry.status == "streaming") != (entry.seq > 0):
                    yield f"a snapshot at seq {entry.seq} says {entry.status}"
                previous = entry
            case Cut():
                live = False  # it goes on as a reader of the log
            case Nothing() if ended is None:
                yield "it was told that it has the terminal event, and has none"
        if _is_end(entry):
            ended = entry
    if over and ended is None and not history.left:
        yield "it has no end"
    if over and history.left and own and entry is own[-1] and entry.seq > last_logged:
        yield "it is ahead of the log, and nothing tells it so"


def _gaps(log: Mapping[int, str | None], after: int, before: int) -> Iterator[str]:
    missing = [seq for seq in log if after < seq < before]
    if missing:
        yield f"gap: seq {missing} between {after} and {before}"


def _differs(entry: Terminal | Snapshot, final: Final) -> Iterator[str]:
    """Say where an end is not the stored one, byte for byte."""
    for name in ("seq", "status", "content", "error"):
        told, stored = getattr(entry, name), getattr(final, name)
        if told is not None and told != stored:
            yield f"its end has the {name} {told!r}, stored is {stored!r}"


def _is_end(entry: Entry) -> bool:
    return isinstance(entry, Terminal) or (isinstance(entry, Snapshot) and entry.status in TERMINAL)


def _text(entries: Sequence[Shown]) -> str:
    pieces: list[str] = []
    for entry in entries:
        if entry.text is None:
            pieces.clear()
        else:
            pieces.append(entry.text)
    return "".join(pieces)
