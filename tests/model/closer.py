"""Whoever ends a reply that somebody else writes, step by step as ``open_replies.py``: a cancel, the sweep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from tests.model.table import ENDS, WORDS, Answer, Fault, Message, Request, Segment, Table, text_of


class Closer(NamedTuple):
    """A cancel, or a sweep that thinks that the lease has run out, which it may think at any time.

    Attributes:
        end: the status it wants.
        given_up: how often; with the number of the segment it makes each nonce unlike all others.
        told: the message as it reports it.
    """

    name: str
    end: str
    doing: Literal["asked", "ending", "reading", "done"] = "asked"
    waits: Request | None = None
    given_up: int = 0
    told: Message | None = None

    def steps(self, table: Table, faults: frozenset[Fault]) -> Iterator[tuple[str, Closer]]:
        """Yield what it may do when it does not wait for the table."""
        if self.doing == "asked":
            events = text_of(table.log)
            if events[-1:] in WORDS:
                yield "reads the log and finds the end", self._replace(doing="reading")
            else:
                yield f"reads the log and ends it as {self.end}", self._end(len(table.log), events, faults)
        elif self.doing == "reading":
            yield "reads the message", Closer(self.name, self.end, "done", told=table.message)

    def _end(self, number: int, events: str, faults: frozenset[Fault]) -> Closer:
        segment = Segment(len(events) + 1, ENDS[self.end], f"{self.name}{number}{'abcdefgh'[self.given_up]}")
        blindly = self.end == "interrupted" and "the sweep puts without a condition" in faults
        request = Request(self.name, number, segment, Message(self.end, events), blindly)
        return self._replace(doing="ending", waits=request)

    def answered(self, answer: Answer, faults: frozenset[Fault]) -> Closer:
        """Take the answer it waits for."""
        request = self.waits
        assert request is not None
        assert request.segment is not None
        if answer.ok or answer.nonce == request.segment.nonce:
            return Closer(self.name, self.end, "done", told=request.message)
        return self._replace(waits=None, doing="asked")  # somebody was quicker: read on

    def unanswered(self, faults: frozenset[Fault]) -> Iterator[tuple[str, Closer]]:
        """Yield what it may do when no answer came: the store tries again, or gives up and is asked again."""
        yield "sends it again", self
        yield "gives up, and is asked again", self._replace(waits=None, doing="asked", given_up=self.given_up + 1)
