"""Pieces on a timer: what a connection or a channel delivers through."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tailrace.clock import Clock, Timer
from tailrace.delivery.pieces import Found, Pieces
from tailrace.events import Event

Deliver = Callable[[Sequence[Found]], object]
"""Takes pieces that may go now, never none; must not block."""


class Paced:
    """Delivers one reply's pieces to one reader when they are due.

    Args:
        pieces: what cuts the reply.
        deliver: called with the pieces that are due, never none; must not block.
    """

    def __init__(self, pieces: Pieces, deliver: Deliver, *, clock: Clock) -> None:
        self._pieces = pieces
        self._deliver = deliver
        self._clock = clock
        self._timer: Timer | None = None
        self._set_for = 0.0

    def feed(self, first_seq: int, events: Sequence[Event]) -> None:
        """Take consecutive events of the reply."""
        self._give(self._pieces.feed(first_seq, events, self._clock.monotonic()))
        self._schedule()

    def flush(self) -> None:
        """Deliver all that waits: the reply is over."""
        self.close()
        self._give(self._pieces.flush())

    def close(self) -> None:
        """Deliver nothing more by itself; what waits is in the log, and whoever resumes gets it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give(self, found: Sequence[Found]) -> None:
        if found:
            self._deliver(found)

    def _schedule(self) -> None:
        due = self._pieces.due
        if due is None:
            return  # a timer that is set finds nothing to do
        if self._timer is not None:
            if self._set_for <= due:
                return  # it finds that it was early, and is set anew: cheaper than setting it for each chunk
            self._timer.cancel()
        self._set_for = due
        self._timer = self._clock.call_later(max(due - self._clock.monotonic(), 0.0), self._fire)

    def _fire(self) -> None:
        self._timer = None
        # A timer may be early by a rounding.
        self._give(self._pieces.release(max(self._clock.monotonic(), self._set_for)))
        self._schedule()
