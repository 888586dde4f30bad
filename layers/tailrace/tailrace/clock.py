"""Time, passed in: the real clock here, a clock that tests turn by hand in ``testing.py``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Forget the call; without effect when it was made already."""
        ...


class Clock(Protocol):
    """What the library knows of time."""

    def now(self) -> int:
        """Return the wall clock, in microseconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back."""
        ...

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Make ``call`` from the event loop once ``seconds`` have passed."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def rfc3339(microseconds: int) -> str:
    """Return a moment as UTC text, such as ``2026-11-22T09:30:00.000123Z``."""
    moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000:06d}Z"


def microseconds(text: str) -> int:
    """Return what ``rfc3339`` made the text of: microseconds since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)
