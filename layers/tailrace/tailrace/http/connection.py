"""One SSE connection: takes bytes without ever blocking, and sends them as fast as the client reads.

A task sends, so that nobody waits for a client. While that task has nothing to do, what is written leaves at once all
the same: the send is begun by whoever writes, under the task's name, and nearly always that is all of it. If it has to
wait, for a client that does not read, it is the task that does. A turn of the event loop for each chunk costs more than
everything else that is done with it here (``benchmarks/sse_write.py``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, Final

from tailrace.clock import Clock, Timer
from tailrace.http.requests import Send
from tailrace.http.responses import Headers
from tailrace.protocols.sse import KEEP_ALIVE

LARGEST_BACKLOG: Final = 1024 * 1024
"""Bytes that may wait for a client before it counts as behind. Whoever writes then stops, and goes on when the client
has read: it must neither hold up the relay nor fill the memory."""

LARGEST_SEND: Final = 64 * 1024
"""Bytes of one send, unless one write has more: a slow client is seen to read."""

STALLED_SECONDS: Final = 120.0
"""How long a client may take for one send. One that reads nothing for so long is gone."""

DRAIN_SECONDS: Final = 30.0
"""How long the end of the response may take when all of it was sent."""


class _Begun:
    """What is left of a coroutine that was begun by somebody else.

    Args:
        coroutine: it, as it waits.
        waits_for: what it yielded, which a task understands.
        size: how many bytes it sends.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any, size: int) -> None:
        self.size: Final = size
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        """Go on with it, as ``await`` would have."""
        while True:
            answer, failure = None, None
            try:
                answer = yield self._waits_for
            except GeneratorExit:
                self.close()
                raise
            except BaseException as error:
                failure = error
            try:
                if failure is None:
                    self._waits_for = self._coroutine.send(answer)
                else:
                    self._waits_for = self._coroutine.throw(failure)
            except StopIteration:
                return

    def close(self) -> None:
        """End it where it is."""
        self._coroutine.close()


class Connection:
    """Sends what is written to it.

    Args:
        send: the ASGI send of a request whose response has not started.
        headers: of the response.
        keep_alive: seconds of silence after which a comment is sent.
    """

    def __init__(self, send: Send, headers: Headers, *, clock: Clock, keep_alive: float) -> None:
        self._send = send
        self._headers = headers
        self._clock = clock
        self._keep_alive = keep_alive
        self._backlog: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._dropped = False
        self._progress = asyncio.Event()
        self._wake: asyncio.Future[None] | None = None  # while it has nothing to do
        self._task: asyncio.Task[Any] | None = None
        self._begun: _Begun | None = None
        self._timer: Timer | None = None
        self._last_sent = clock.monotonic()

    def write(self, data: bytes) -> None:
        """Take bytes to send, of any length; ``is_behind`` and ``drained`` are for whoever writes much."""
        if self._dropped or self._closed or not data:
            return
        if self._task is not None and self._wake is not None and not self._wake.done():
            self._send_now(data, self._task, self._wake)
        else:
            self._size += len(data)
            self._backlog.append(data)

    def _send_now(self, data: bytes, task: asyncio.Task[Any], wake: asyncio.Future[None]) -> None:
        """Begin to send, since nothing else waits, and leave to the task what is left of it."""
        loop, writer = wake.get_loop(), asyncio.current_task()
        sending = self._body(data)
        # Time-outs and cancel scopes belong to the task that they are begun in, which has to be the one that ends them.
        # These functions are there for whoever runs coroutines in a way of their own
        # (https://docs.python.org/3/library/asyncio-extending.html).
        if writer is not None:
            asyncio._leave_task(loop, writer)
        asyncio._enter_task(loop, task)
        try:
            waits_for = sending.send(None)
        except StopIteration:
            pass
        except BaseException as error:
            wake.set_exception(error)
        else:
            self._size += len(data)
            self._begun = _Begun(sending, waits_for, len(data))
            wake.set_result(None)
        finally:
            asyncio._leave_task(loop, task)
            if writer is not None:
                asyncio._enter_task(loop, writer)

    async def _body(self, data: bytes) -> None:
        self._last_sent = self._clock.monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the client that no more should be written before ``drained``."""
        return self._size >= LARGEST_BACKLOG

    async def drained(self, left: int = LARGEST_BACKLOG // 2) -> bool:
        """Wait until not more than ``left`` bytes wait for the client; return False if it has gone or reads nothing."""
        while self._size > left and not self._dropped:
            self._progress.clear()
            try:
                async with asyncio.timeout(STALLED_SECONDS):
                    await self._progress.wait()
            except TimeoutError:
                self._drop()
        return self._size <= left

    def close(self) -> None:
        """No more is written; ``run`` returns when all is sent."""
        self._closed = True
        self._notify()

    async def run(self) -> None:
        """Send the headers, and what is written until it is closed; then end the response."""
        self._timer = self._clock.call_later(self._keep_alive, self._tick)
        self._task = asyncio.current_task()
        try:
            await self._send({"type": "http.response.start", "status": 200, "headers": list(self._headers)})
            while True:
                if self._begun is not None:
                    begun, self._begun = self._begun, None
                    await begun
                    self._size -= begun.size
                    self._progress.set()
                elif self._backlog:
                    data = self._take()
                    await self._body(data)
                    self._size -= len(data)
                    self._progress.set()
                elif self._closed or self._dropped:
                    break
                else:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                    self._wake = None
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._timer.cancel()
            self._drop()

    def _take(self) -> bytes:
        """Return what waits, up to the length of one send: what has come meanwhile leaves together."""
        if self._size <= LARGEST_SEND:
            data = b"".join(self._backlog)
            self._backlog.clear()
            return data
        taken = [self._backlog.popleft()]
        size = len(taken[0])
        while self._backlog and size + len(self._backlog[0]) <= LARGEST_SEND:
            taken.append(self._backlog.popleft())
            size += len(taken[-1])
        return b"".join(taken)

    def _drop(self) -> None:
        """Take no more, and let nobody wait."""
        self._dropped = True
        self._backlog.clear()
        if self._begun is not None:
            self._begun.close()
            self._begun = None
        self._progress.set()
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _tick(self) -> None:
        # One timer for the whole connection; re-arming it for each chunk would cost more than the chunk.
        wait = self._last_sent + self._keep_alive - self._clock.monotonic()
        if wait < 0.001:  # a timer may be early by a rounding
            wait = self._keep_alive
            if not self._backlog:
                self.write(KEEP_ALIVE)
        self._timer = self._clock.call_later(wait, self._tick)
