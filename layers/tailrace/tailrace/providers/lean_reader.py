"""A leaner way out of aiohttp for a body that comes in thousands of small HTTP chunks.

aiohttp's ``StreamReader`` keeps a list of where each HTTP chunk ended, which nobody here asks, and at each chunk that
leaves its buffer it resumes the connection, which runs the parser once more on nothing (3.14). From socket to event
``benchmarks/provider_read.py`` shows 5.4 to 6.5 µs a chunk with it, 3.0 to 4.1 without, at a floor of 1.8 to 3.0.

Beside other answers it also gives no more than some at a time. The event loop reads a quarter of a megabyte from a
socket, which is a thousand chunks and several ms of work; with twenty such replies all others would have their turn
five times a second (``benchmarks/many_streams.py``). Each piece has its own way to the client, so an answer that is
read alone is not cut. Nor is more taken from the socket then, which costs no CPU and is a seventh of the memory after
fifty replies that came as fast as they could (``benchmarks/peers``: 58 MB instead of 66).

A deliberate oddity: the reader of a response is made by aiohttp's parser, so it cannot be replaced, and its class is
exchanged instead. This leans on attributes that aiohttp calls private, so ``lean`` looks first whether they are
there and otherwise leaves the reader as it is, which is slower and no less right. A test says which of the two it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

import aiohttp

AT_ONCE: Final = 32 * 1024
"""Bytes that one read gives while other answers are read in this process."""

ALONE: Final = 256 * 1024
"""Bytes that asyncio takes from a socket at a time (``max_size`` of its transports)."""

_read_now = 0
"""How many answers are read in this process."""

_NEEDED = (
    "_buffer",
    "_eof",
    "_exception",
    "_high_water",
    "_http_chunk_splits",
    "_loop",
    "_protocol",
    "_size",
    "_waiter",
)


class LeanReader(aiohttp.StreamReader):
    """A ``StreamReader`` of which only ``readany`` may be called."""

    __slots__ = ()

    def begin_http_chunk_receiving(self) -> None:
        """Nobody asks."""

    def end_http_chunk_receiving(self) -> None:
        """Nobody asks."""

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        """Called by aiohttp's parser for each HTTP chunk."""
        if data:
            self._buffer.append(data)
            self._size += len(data)
            waiter = self._waiter
            if waiter is not None:
                self._waiter = None
                if not waiter.done():
                    waiter.set_result(None)
            if self._size > self._high_water:
                self._protocol.pause_reading()
        return False

    async def readany(self) -> bytes:
        """What is here, or what comes next, up to ``AT_ONCE`` beside others; empty at the body's end. Unlike aiohttp's
        own it gives what came before a failure first."""
        buffer = self._buffer
        if buffer and _read_now > 1:
            await asyncio.sleep(0)  # what the last read left: now it is the others' turn
        while not buffer:
            if self._exception is not None:
                raise self._exception
            if self._eof:
                return b""
            if not self._protocol.connected:
                raise aiohttp.ClientConnectionError("closed on our side")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        was_paused = self._size > self._high_water
        data = self._take(buffer)
        self._size -= len(data)
        if was_paused and self._size <= self._high_water:
            self._protocol.resume_reading()
        return data

    def _take(self, buffer: deque[bytes]) -> bytes:
        if self._size <= AT_ONCE or _read_now < 2:
            data = b"".join(buffer)
            buffer.clear()
            return data
        taken = [buffer.popleft()]
        size = len(taken[0])
        while size < AT_ONCE:
            taken.append(buffer.popleft())
            size += len(taken[-1])
        if size > AT_ONCE:
            keep = len(taken[-1]) - (size - AT_ONCE)
            buffer.appendleft(taken[-1][keep:])
            taken[-1] = taken[-1][:keep]
        return b"".join(taken)


def lean(reader: aiohttp.StreamReader) -> None:
    """Make ``reader``, from which nothing has been read, a ``LeanReader`` if this aiohttp allows it. Whoever calls this
    calls ``read_no_more`` in the end."""
    global _read_now  # one per process, as its core is that they share
    _read_now += 1
    if type(reader) is aiohttp.StreamReader and all(hasattr(reader, name) for name in _NEEDED):
        object.__setattr__(reader, "__class__", LeanReader)
        if reader._http_chunk_splits:  # the old class may have paused for their number, the new one never does
            reader._http_chunk_splits.clear()
            reader._protocol.resume_reading()
        transport: Any = reader._protocol.transport
        if hasattr(transport, "max_size"):  # not with TLS, and not uvloop's
            transport.max_size = AT_ONCE if _read_now > 1 else ALONE


def read_no_more() -> None:
    """An answer is not read any more."""
    global _read_now
    _read_now -= 1
