"""The table as the model has it: one log, one message, and the two writes that there are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Final, Literal, NamedTuple

Fault = Literal[
    "a flush that finds its own segment there is a conflict",
    "a flush that finds any segment there counts as stored",
    "a lost flush is dropped",
    "a lost flush is sent again under a fresh nonce",
    "a lost empty segment is forgotten",
    "a flush without an answer counts as stored",
    "the end takes the place of a lost flush",
    "the end takes the nonce of a lost flush",
    "an end tried again keeps its nonce",
    "a writer that lost goes on at the next number",
    "a writer that lost reports whatever it reads",
    "segment and status are two writes",
    "the sweep puts without a condition",
    "a reader takes segments beyond a gap",
]
"""What a careless implementation would do. Each is planted on purpose, to see that the search finds it."""

ENDS: Final = {"completed": "C", "failed": "F", "cancelled": "X", "interrupted": "I"}
"""Terminal events, as they stand in a segment; the events before it are chunks, one small letter each."""

WORDS: Final = {letter: status for status, letter in ENDS.items()}


class Segment(NamedTuple):
    """One item of the log. ``events`` has a letter for each."""

    first_seq: int
    events: str
    nonce: str

    def __str__(self) -> str:
        text = "".join(f" {WORDS[event]}" if event in WORDS else event for event in self.events)
        return f'"{text}" by {self.nonce}'


class Message(NamedTuple):
    """The message's item, or what a process says that it is."""

    status: str
    content: str

    def __str__(self) -> str:
        return f'{self.status} "{self.content}"'


class Table(NamedTuple):
    """All that is stored. A number that was skipped is None."""

    log: tuple[Segment | None, ...] = ()
    message: Message = Message("pending", "")

    def __str__(self) -> str:
        log = ", ".join(f"{number}: {segment or 'nothing'}" for number, segment in enumerate(self.log))
        return f"[{log}] {self.message}"


class Request(NamedTuple):
    """A write on its way.

    Attributes:
        by: who sent it.
        segment: to be put at ``number``, or None.
        message: to be set. With a segment: in one transaction, if the message is still open.
        blindly: without a condition, which only a planted fault does.
    """

    by: str
    number: int = -1
    segment: Segment | None = None
    message: Message | None = None
    blindly: bool = False

    def __str__(self) -> str:
        what = [f"segment {self.number}" if self.segment else "", f"message {self.message}" if self.message else ""]
        return f"{self.by}'s {' and '.join(filter(None, what))}"


class Answer(NamedTuple):
    """What DynamoDB says: done, or whose segment was there, if one was."""

    ok: bool
    nonce: str = ""


def apply(table: Table, request: Request) -> tuple[Table, Answer]:
    """Do a write, at once and whole or not at all."""
    log, message = table
    segment = request.segment
    if segment is None:
        assert request.message is not None
        if message.status != "pending" and not request.blindly:
            return table, Answer(False)
        return Table(log, request.message), Answer(True)
    there = log[request.number] if request.number < len(log) else None
    if there is not None and not request.blindly:
        return table, Answer(False, there.nonce)
    if request.message is not None:
        if message.status in ENDS and not request.blindly:
            return table, Answer(False)
        message = request.message
    padded = [*log, *[None] * (request.number + 1 - len(log))]
    padded[request.number] = segment
    return Table(tuple(padded), message), Answer(True)


def in_vain(table: Table, request: Request) -> bool:
    """Whether the write fails now and for ever, so that without its writer waiting it is as good as gone."""
    if request.blindly:
        return False
    if request.segment is None:
        return table.message.status != "pending"
    return request.number < len(table.log) and table.log[request.number] is not None


def text_of(log: Sequence[Segment | None]) -> str:
    """Return all events of some segments."""
    return "".join(segment.events for segment in log if segment is not None)


@lru_cache(maxsize=1 << 16)
def wrong_with(table: Table, faults: frozenset[Fault]) -> str | None:
    """Say what is wrong with what is stored, or None."""
    log, message = table
    seq = 1
    for number, segment in enumerate(log):
        if segment is None:
            return f"P1: a hole in the log at segment {number}"
        if segment.first_seq != seq:
            return f"P1: segment {number} starts at seq {segment.first_seq}, not {seq}"
        seq += len(segment.events)
    events = text_of(log)
    ends = [event for event in events if event in WORDS]
    if len(ends) > 1:
        return "P4: two terminal events"
    if ends and not (log[-1] and log[-1].events[-1:] in WORDS):
        return "P4: something after the terminal event"
    if ends != ([ENDS[message.status]] if message.status in ENDS else []):
        return f"P4: the message is {message.status}, the log is {WORDS[ends[0]] if ends else 'open'}"
    if ends and message.content != events[:-1]:
        return f'P1: the message has "{message.content}", the log "{events[:-1]}"'
    return _wrong_reads(log, events, faults)


def _wrong_reads(log: tuple[Segment | None, ...], events: str, faults: frozenset[Fault]) -> str | None:
    """Let every reader read: from each cursor, and an eventually consistent read may miss any of the items."""
    for count in range(len(log) + 1):
        for seen in combinations(range(len(log)), count):
            for cursor in range(len(events) + 1):
                read = _read(log, seen, cursor, faults)
                if not events[cursor:].startswith(read):
                    return f'P1: a reader at cursor {cursor} that sees segments {seen} gets "{read}"'
    return None


def _read(log: tuple[Segment | None, ...], seen: tuple[int, ...], cursor: int, faults: frozenset[Fault]) -> str:
    after, got = -1, ""
    for number in seen:
        segment = log[number]
        assert segment is not None
        if number != after + 1 and "a reader takes segments beyond a gap" not in faults:
            break
        after = number
        got += segment.events[max(0, cursor + 1 - segment.first_seq) :]
    return got
