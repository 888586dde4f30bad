"""What passes on the Runtime API, piece by piece: a proxy between a function and the emulator.

The emulator hands a streamed response out only when it is whole, so whether it streams is seen here, as the pieces
leave the Web Adapter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

PIECE = 65536


class Recording:
    """What a function has sent to its Runtime API.

    Attributes:
        address: where it listens, as ``AWS_LAMBDA_RUNTIME_API`` has it.
        sent: the bytes so far.
    """

    def __init__(self) -> None:
        self.address = ""
        self.sent = b""
        self._more = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def between(cls, target: str) -> AsyncIterator[Self]:
        """Record what is sent to ``target``, a host and a port with a colon between them."""
        host, _, port = target.partition(":")
        recording = cls()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            recording._tasks.add(task)
            there, back = await asyncio.open_connection(host, int(port))
            try:
                await asyncio.gather(recording._pass(reader, back, is_sent=True), recording._pass(there, writer))
            except asyncio.CancelledError:
                pass  # at the end, and asyncio would print it
            finally:
                recording._tasks.discard(task)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        recording.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield recording
        finally:
            server.close()
            for task in recording._tasks:
                task.cancel()
            await asyncio.gather(*recording._tasks, return_exceptions=True)

    async def until(self, text: bytes, count: int) -> None:
        """Wait until a text was sent so many times."""
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: self.sent.count(text) >= count)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, is_sent: bool = False) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(PIECE):
                target.write(piece)
                await target.drain()
                if is_sent:
                    async with self._more:
                        self.sent += piece
                        self._more.notify_all()
        target.close()
