"""Whom a refused post is to be blamed on: a client that does not read, or the service, which refuses anybody's posts
when an account makes too many (10,000 requests a second, of all its APIs:
https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html).

Both are a 429, and nothing in it tells them apart. But a client that does not read goes on like that, while a post that
the service refused gets through a little later. So those that did are what tells.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

from tailrace.clock import Clock

WINDOW: Final = 2.0
"""Seconds that are looked back at least; at most twice as many."""

FEW: Final = 10
"""It is the service while one in so many refused posts gets through later."""


class Refusals:
    """Counts the refused posts of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._now: Counter[Literal["refused", "recovered"]] = Counter()
        self._before = self._now.copy()

    def refused(self) -> None:
        """Count a post whose first try was refused."""
        self._turn()
        self._now["refused"] += 1

    def recovered(self) -> None:
        """Count one of these that got through."""
        self._turn()
        self._now["recovered"] += 1

    @property
    def are_the_service_s(self) -> bool:
        """Whether what is refused is likely to get through later."""
        self._turn()
        counted = self._now + self._before
        return 0 < counted["refused"] <= FEW * counted["recovered"]

    def _turn(self) -> None:
        passed = self._clock.monotonic() - self._since
        if passed >= WINDOW:
            self._before = self._now if passed < 2 * WINDOW else Counter()
            self._now = Counter()
            self._since += passed
