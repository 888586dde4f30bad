"""Virtual time: an event loop whose clock jumps to the next timer when nothing is ready.

Ten thousand subscribers of a reply of 30 s pass in the time that their code takes, and what each waited for is exact.
Nothing in such a loop may wait for anything but timers, tasks and futures: a socket or a thread would be overtaken.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from tailrace.clock import Timer

START: Final = 1_767_225_600_000_000
"""What a ``LoopClock`` shows at first, in microseconds since 1970: 2026-01-01T00:00:00Z."""

Result = TypeVar("Result")


class NothingLeft(Exception):
    """Everybody waits, and for no timer: it would be for ever."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Begins at second 0."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumping(self._jump))

    def time(self) -> float:
        """Return the seconds that have passed in this loop."""
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds


class _Jumping(selectors.SelectSelector):
    """Does not wait as long as it is asked to, but says so."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass. Sockets and threads are not looked at: there are none."""
        if timeout is None:
            raise NothingLeft
        self._jump(timeout)
        return []


class LoopClock:
    """The running loop's time as a ``tailrace.clock.Clock``."""

    def now(self) -> int:
        return START + round(self.monotonic() * 1_000_000)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in virtual time, as ``asyncio.run`` does in real time.

    Raises:
        NothingLeft: it waits for what will never come.
    """
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        # Not asyncio.Runner: it would wait for a thread, and for tasks that nothing wakes any more.
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
