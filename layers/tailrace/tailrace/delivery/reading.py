"""Pieces of a provider's answer, for a function that relays it itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import Final, Protocol

from tailrace.clock import Clock, SystemClock
from tailrace.delivery.pieces import Found, Pieces
from tailrace.events import Event, ProviderEvent, Reset, ResponseInfo, Text

MOST_CHUNKS: Final = 64
"""Chunks that may wait for whoever iterates; then the source waits."""

Chunk = str | ProviderEvent | Reset


class Log(Protocol):
    """What numbers chunks and keeps them: a ``MessageStream``."""

    def push(self, events: Sequence[ProviderEvent | Reset]) -> tuple[int, list[Event]]:
        """Number events; return the first one's seq and what is logged."""
        ...

    async def room(self) -> None:
        """Wait while too much is waiting to be stored."""
        ...


class _Counted:
    """Numbers chunks that nobody keeps."""

    def __init__(self) -> None:
        self._seq = 0

    def push(self, events: Sequence[ProviderEvent | Reset]) -> tuple[int, list[Event | ProviderEvent]]:
        first = self._seq + 1
        logged: list[Event | ProviderEvent] = [
            event
            for event in events
            if not isinstance(event, ResponseInfo) and not (isinstance(event, Text) and not event.text)
        ]
        self._seq += len(logged)
        return first, logged


async def read(
    pieces: Pieces, source: AsyncIterable[Chunk], into: Log | None, clock: Clock | None
) -> AsyncGenerator[Found, None]:
    """Yield the pieces of a source (see ``Delivery.pieces``)."""
    clock = clock or SystemClock()
    counted = _Counted()
    came: deque[Chunk] = deque()
    room = asyncio.Semaphore(MOST_CHUNKS)
    wake = asyncio.Event()

    async def take() -> None:
        # A task of its own reads all of the source: a time-out inside of it must not change hands between tasks.
        chunks = aiter(source)
        try:
            async for chunk in chunks:
                await room.acquire()
                came.append(chunk)
                wake.set()
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    taking = asyncio.ensure_future(take())
    taking.add_done_callback(lambda task: wake.set())
    timer = None
    try:
        while not taking.done() or came:
            await wake.wait()
            wake.clear()
            while came:
                chunk = came.popleft()
                room.release()
                event = Text(chunk) if isinstance(chunk, str) else chunk
                if into is None:
                    first_seq, logged = counted.push((event,))
                    found = pieces.feed(first_seq, logged, clock.monotonic())
                else:
                    first_seq, kept = into.push((event,))
                    await into.room()
                    found = pieces.feed(first_seq, kept, clock.monotonic())
                for piece in found:
                    yield piece
            for piece in pieces.release(clock.monotonic()):
                yield piece
            if timer is not None:
                timer.cancel()
            timer = None
            if pieces.due is not None:
                timer = clock.call_later(max(pieces.due - clock.monotonic(), 0.0), wake.set)
        for piece in pieces.flush():
            yield piece
        taking.result()  # the source's own error
    finally:
        if timer is not None:
            timer.cancel()
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
