"""One of a kind for each event loop: the buffered function may run each request in another loop, and a connection
belongs to the loop it was made in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class PerLoop(Generic[Made]):
    """What is made when a loop first asks for it, and dropped with it.

    Args:
        make: makes one in the running loop.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: dict[asyncio.AbstractEventLoop, Made] = {}

    def current(self) -> Made:
        """Return the running loop's."""
        loop = asyncio.get_running_loop()
        made = self._made.get(loop)
        if made is None:
            for old in [old for old in self._made if old.is_closed()]:
                del self._made[old]
            made = self._made[loop] = self._make()
        return made

    def take(self) -> Made | None:
        """Return the running loop's, if there is one, and forget it."""
        return self._made.pop(asyncio.get_running_loop(), None)
