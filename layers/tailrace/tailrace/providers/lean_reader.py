"""A leaner way out of aiohttp for a body that comes in thousands of small HTTP chunks.

aiohttp's ``StreamReader`` keeps a list of where each HTTP chunk ended, which nobody here asks, and at each chunk that
leaves its buffer it resumes the connection, which runs the parser once more on nothing (3.14). From socket to event
``benchmarks/provider_read.py`` shows 5.4 to 6.5 µs a chunk with it, 3.0 to 4.1 without, at a floor of 1.8 to 3.0.

A deliberate oddity: the reader of a response is made by aiohttp's parser, so it cannot be replaced, and its class is
exchanged instead. This leans on attributes that aiohttp calls private, so ``lean`` looks first whether they are
there and otherwise leaves the reader as it is, which is slower and no less right. A test says which of the two it is.
"""

from __future__ import annotations

import aiohttp

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
        """Everything that is here, or what comes next; empty at the body's end. Unlike aiohttp's own it gives what came
        before a failure first."""
        buffer = self._buffer
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
        if len(buffer) == 1:
            data = buffer.popleft()
        else:
            data = b"".join(buffer)
            buffer.clear()
        was_paused = self._size > self._high_water
        self._size = 0
        if was_paused:
            self._protocol.resume_reading()
        return data


def lean(reader: aiohttp.StreamReader) -> None:
    """Make ``reader``, from which nothing has been read, a ``LeanReader`` if this aiohttp allows it."""
    if type(reader) is aiohttp.StreamReader and all(hasattr(reader, name) for name in _NEEDED):
        object.__setattr__(reader, "__class__", LeanReader)
        if reader._http_chunk_splits:  # the old class may have paused for their number, the new one never does
            reader._http_chunk_splits.clear()
            reader._protocol.resume_reading()
