"""Where messages go: the order of a conversation, pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

ROOM: Final = 1000
"""Positions (microseconds) left free before a reply, for the question that may come after it was opened."""


class Positions:
    """Hands out positions of one conversation: each once, later ones higher, however the clock goes.

    The one exception is meant: what is added while a reply is open and has no chunk yet is the question it
    will answer, and goes before it.
    """

    def __init__(self) -> None:
        self._last = 0
        self._before_reply = 0
        self._reply = 0
        self._waiting: Callable[[], bool] = lambda: False

    def seen(self, position: int) -> None:
        """Go after a position that somebody else handed out."""
        self._last = max(self._last, position)

    def take(self, now: int) -> int:
        """Return the next message's position.

        Args:
            now: microseconds since 1970.
        """
        if self._waiting() and self._before_reply < self._reply - 1:
            self._before_reply += 1
            return self._before_reply
        self._last = max(now, self._last + 1)
        return self._last

    def open_reply(self, now: int, waiting: Callable[[], bool]) -> int:
        """Return a reply's position.

        Args:
            waiting: whether the reply still has no chunk.
        """
        self._before_reply = max(now, self._last + 1)
        self._reply = self._last = self._before_reply + ROOM
        self._waiting = waiting
        return self._reply
