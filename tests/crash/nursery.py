"""The servers' side of a crash run: the one that serves, and the next, which is ready before it is needed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Self

from local.child import ROOT
from tests.crash.server import SERVING

READY_SECONDS: Final = 60.0


class Nursery:
    """Has a server at hand, and kills it when told to.

    Attributes:
        url: the root of the server that serves now.
        generation: how many were killed before it.
        said: what the servers wrote to their standard output: warnings and errors of their log.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.url = ""
        self.generation = 0
        self.said: list[str] = []
        self._process = process
        self._pid = 0
        self._following: tuple[int, int] | None = None
        self._ready: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self._moved = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def open(cls, environment: Mapping[str, str]) -> AsyncIterator[Self]:
        """Start the servers' parent and the first of them; end them all in the end."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.crash.server"),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        nursery = cls(process)
        listening = asyncio.create_task(nursery._listen())
        try:
            nursery._spawn()
            await nursery._use(await nursery._born())
            yield nursery
        finally:
            process.stdin.close()
            await process.wait()
            await listening

    async def prepare(self) -> None:
        """Have the next server made, and wait until it could serve: a kill that had to wait for it would come late."""
        self._spawn()
        self._following = await self._born()

    async def kill(self) -> None:
        """Kill the server, and let the next one, which must have been prepared, take its place."""
        assert self._following is not None
        os.kill(self._pid, signal.SIGKILL)
        self.generation += 1
        following, self._following = self._following, None
        await self._use(following)

    async def next(self, generation: int, seconds: float) -> None:
        """Wait until the server of ``generation`` was replaced, or for some seconds."""
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self.generation > generation)
        except TimeoutError:
            pass

    def _spawn(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def _born(self) -> tuple[int, int]:
        async with asyncio.timeout(READY_SECONDS):
            return await self._ready.get()

    async def _use(self, server: tuple[int, int]) -> None:
        self._pid, port = server
        self.url = f"http://127.0.0.1:{port}"
        async with self._moved:
            self._moved.notify_all()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode().strip()
            if text.startswith(SERVING):
                pid, port = text.removeprefix(SERVING).split()
                self._ready.put_nowait((int(pid), int(port)))
            elif text:
                self.said.append(text)
