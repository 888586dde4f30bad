"""The relay with its stream and its log writer, step by step as ``relay.py``, ``stream.py`` and ``log_writer.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from tests.model.table import ENDS, Answer, Fault, Message, Request, Segment, Table

Doing = Literal["streaming", "closing", "ending", "reading", "done"]


class Writer(NamedTuple):
    """A relay. ``taken`` chunks were delivered to the connection that started it.

    Attributes:
        sending: what was taken from the buffer for segment ``number`` and is not acknowledged; None for nothing.
        nonces: how many it has drawn for segment ``number``; the number makes them unlike all others.
        refused: whether the store gave no answer before the deadline, so that nothing more is taken.
        closed: whether an end was tried, after which nothing is flushed but by the end.
        told: the message as it reports it.
    """

    name: str
    text: str
    beats: int
    doing: Doing = "streaming"
    end: str = ""
    taken: int = 0
    buffer: str = ""
    sending: str | None = None
    nonce: str = ""
    nonces: int = 0
    number: int = 0
    refused: bool = False
    closed: bool = False
    waits: Request | None = None
    told: Message | None = None

    @property
    def delivered(self) -> str:
        """What the starting connection has."""
        return self.text[: self.taken]

    # ---- what it may do next ----

    def steps(self, table: Table, faults: frozenset[Fault]) -> Iterator[tuple[str, Writer]]:
        """Yield what it may do when it does not wait for the table; a chunk may come while it does."""
        if self.doing == "streaming":
            if self.taken < len(self.text) and not self.refused:
                chunk = self.text[self.taken]
                yield (f"takes and delivers {chunk}", self._replace(taken=self.taken + 1, buffer=self.buffer + chunk))
            if self.waits is None and not self.refused and not self.closed:
                if self.buffer:
                    yield "flushes", self._flush(faults)
                elif self.beats:
                    yield "puts an empty segment", self._replace(beats=self.beats - 1)._flush(faults)
            if self.taken == len(self.text):
                yield "begins to complete", self._replace(doing="closing", end="completed", closed=True)
            yield "begins to fail", self._replace(doing="closing", end="failed", closed=True)
        elif self.doing == "closing" and self.waits is None:
            if self._lost(faults) is not None and not faults & {
                "the end takes the place of a lost flush",
                "the end takes the nonce of a lost flush",
            }:
                yield "sends the lost flush again", self._flush(faults)
            else:
                yield f"ends it as {self.end}", self._end(faults)
        elif self.doing == "reading":
            yield "reads the message", self._reported(table.message, faults)

    def _lost(self, faults: frozenset[Fault]) -> str | None:
        return self.sending or None if "a lost empty segment is forgotten" in faults else self.sending

    def _flush(self, faults: frozenset[Fault]) -> Writer:
        sending, nonce, nonces, buffer = self._lost(faults), self.nonce, self.nonces, self.buffer
        if sending is None:
            sending, buffer, nonce = buffer, "", ""
        if not nonce or "a lost flush is sent again under a fresh nonce" in faults:
            nonce, nonces = self._fresh(), nonces + 1
        segment = Segment(self.taken - len(buffer) - len(sending) + 1, sending, nonce)
        request = Request(self.name, self.number, segment)
        return self._replace(sending=sending, buffer=buffer, nonce=nonce, nonces=nonces, waits=request)

    def _end(self, faults: frozenset[Fault]) -> Writer:
        events = (self.sending or "") + self.buffer
        nonce, nonces = self._fresh(), self.nonces + 1
        if self.sending is not None and "the end takes the nonce of a lost flush" in faults:
            nonce, nonces = self.nonce, self.nonces
        elif "an end tried again keeps its nonce" in faults:
            nonces = self.nonces
        segment = Segment(self.taken - len(events) + 1, events + ENDS[self.end], nonce)
        request = Request(self.name, self.number, segment, Message(self.end, self.delivered))
        return self._replace(doing="ending", nonces=nonces, waits=request)

    def _fresh(self) -> str:
        return f"{self.name}{self.number}{'abcdefgh'[self.nonces]}"

    # ---- what comes back ----

    def answered(self, answer: Answer, faults: frozenset[Fault]) -> Writer:
        """Take the answer it waits for."""
        request = self.waits
        assert request is not None
        writer = self._replace(waits=None)
        assert request.segment is not None
        stored = answer.ok or answer.nonce == request.segment.nonce
        if request.message is not None:
            return writer._reported(request.message, faults) if stored else writer._replace(doing="reading")
        if "a flush that finds its own segment there is a conflict" in faults:
            stored = answer.ok
        if stored or "a flush that finds any segment there counts as stored" in faults:
            return writer._stored()
        if "a writer that lost goes on at the next number" in faults:
            return writer._replace(number=self.number + 1)._flush(faults)
        return writer._replace(doing="reading")

    def _stored(self) -> Writer:
        return self._replace(sending=None, nonce="", nonces=0, number=self.number + 1)

    def unanswered(self, faults: frozenset[Fault]) -> Iterator[tuple[str, Writer]]:
        """Yield what it may do when no answer came: the store tries again, or gives up at its deadline."""
        assert self.waits is not None
        yield "sends it again", self
        writer = self._replace(waits=None)
        if self.doing != "streaming":
            yield "gives up its end for now", writer._replace(doing="streaming", end="")
        elif self.waits.segment is not None and "a lost flush is dropped" in faults:
            yield "drops the flush", writer._replace(sending=None, nonce="")
        elif self.waits.segment is not None and "a flush without an answer counts as stored" in faults:
            yield "goes on", writer._stored()
        else:
            yield "takes the store for gone", writer._replace(refused=True)

    def _reported(self, message: Message, faults: frozenset[Fault]) -> Writer:
        # Nothing of what it knew matters any more, and the search need not tell apart what does not matter.
        done = Writer(self.name, self.text, beats=0, doing="done", taken=self.taken)
        if message.status not in ENDS and "a writer that lost reports whatever it reads" not in faults:
            return done
        return done._replace(told=message)
