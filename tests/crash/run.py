"""A crash run: replies are started, the server is killed in the middle of them, the next one takes over; again."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import aiohttp
import msgspec
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.settings import Settings

from tests import histories
from tests.crash.database import forget, patient_backend, without_stream
from tests.crash.nursery import Nursery
from tests.crash.readers import Json, Reader, Reply
from tests.histories import History, Kind, ahead, check, read_final

LEASE_SECONDS: Final = 2
"""The least that can be set."""

SWEEP_SECONDS: Final = 2.0

REPLIES_A_KILL: Final = 2

MOST_OPEN: Final = 6
"""Replies that may be open when others are started. The emulator makes about a hundred calls a second, and what is
tested here is dying, not drowning."""

PATIENCE_SECONDS: Final = 30.0
"""What has not ended this long after the last kill is stuck."""

PIECES: Final = (
    "the ",
    "wheel ",
    "🌊",
    "水が",
    "流れる ",
    "naïve ",
    "\n\n",
    '"',
    "e\u0301",
    "👩‍👩‍👧 ",
    "\u2028",
    "a" * 40,
)


class Report(msgspec.Struct):
    """What came of a run."""

    seed: int
    kills: int = 0
    replies: int = 0
    statuses: Counter[str] = msgspec.field(default_factory=Counter)
    events: int = 0
    readers: Counter[str] = msgspec.field(default_factory=Counter)
    resumes: int = 0
    unexplained: int = 0
    unavailable: int = 0
    ahead_of_log: list[int] = msgspec.field(default_factory=list)
    ahead_seconds: float = 0.0
    swept: int = 0
    orphaned: list[float] = msgspec.field(default_factory=list)
    stuck: list[str] = msgspec.field(default_factory=list)
    violations: list[str] = msgspec.field(default_factory=list)
    said: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        ended = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.readers.items()))
        return (
            f"seed {self.seed}: {self.kills} kills in {self.seconds:.0f} s\n"
            f"  replies     {self.replies}: {ended}; {self.events} events in their logs\n"
            f"  readers     {self.readers.total()}: {kinds}; {self.resumes} resumes after a cut\n"
            f"  ahead       {len(self.ahead_of_log)} starting connections were ahead of the log when the server died, "
            f"by at most {max(self.ahead_of_log, default=0)} events or {self.ahead_seconds * 1000:.0f} ms\n"
            f"  orphans     ended at most {max(self.orphaned, default=0):.1f} s after the kill "
            f"(lease {LEASE_SECONDS} s); {self.swept} by the sweep, the others by their readers\n"
            f"  stuck       {len(self.stuck)}\n"
            f"  violations  {len(self.violations)}; cuts that no kill explains: {self.unexplained}; "
            f"answers to try again: {self.unavailable}"
        )


class Run:
    """Kills servers; ``report`` tells what came of it.

    Args:
        settings: of the servers; their table exists.
    """

    def __init__(self, settings: Settings, kills: int, seed: int) -> None:
        self.report = Report(seed)
        self._settings = settings
        self._kills = kills
        self._random = random.Random(seed)
        self._open: set[asyncio.Task[None]] = set()
        self._killed_at: list[float] = []

    async def run(self) -> Report:
        """Do it."""
        began = time.monotonic()
        table = await without_stream(self._settings)
        backend = patient_backend(msgspec.structs.replace(self._settings, table=table, lease=float(LEASE_SECONDS)))
        environment = {
            **os.environ,
            "TAILRACE_TABLE": table,
            "TAILRACE_LEASE_S": str(LEASE_SECONDS),
            "AWS_ENDPOINT_URL_DYNAMODB": self._settings.dynamodb_endpoint or "",
            "POWERTOOLS_LOG_LEVEL": "WARNING",
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        async with (
            Nursery.open(environment) as nursery,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
        ):
            sweeping = asyncio.create_task(self._sweep(backend))
            for _ in range(self._kills):
                await self._kill_once(nursery, session, backend)
            await self._until_open(0, PATIENCE_SECONDS)
            for task in self._open:
                task.cancel()
            self.report.stuck += [task.get_name() for task in self._open]
            sweeping.cancel()
            await asyncio.gather(sweeping, *self._open, return_exceptions=True)
            self.report.said = nursery.said
        await backend.close()
        self.report.seconds = time.monotonic() - began
        return self.report

    async def _kill_once(self, nursery: Nursery, session: aiohttp.ClientSession, backend: Backend) -> None:
        await self._until_open(MOST_OPEN - REPLIES_A_KILL, PATIENCE_SECONDS)
        await nursery.prepare()
        heard = asyncio.Semaphore(0)
        for _ in range(REPLIES_A_KILL):
            conversation = await Conversation.create(backend=backend)
            reply = Reply(f"reply {self.report.replies}", conversation.id, self._body())
            self._open.add(asyncio.create_task(self._live(reply, nursery, session, heard, backend), name=reply.name))
            self.report.replies += 1
        if self._random.random() < 0.6:
            await self._hear(heard, self._random.randint(1, 90))
        else:
            await asyncio.sleep(self._random.uniform(0.0, 1.2))
        await nursery.kill()
        self.report.kills += 1
        self._killed_at.append(time.time())

    async def _hear(self, heard: asyncio.Semaphore, events: int) -> None:
        """Wait until the starting connections have got so many events, or all they ever will."""
        try:
            async with asyncio.timeout(3):
                for _ in range(events):
                    await heard.acquire()
        except TimeoutError:
            pass

    def _body(self) -> Json:
        pick = self._random
        chunks = [pick.choice(PIECES) for _ in range(pick.randint(1, 120))]
        script = {"chunks": chunks, "every": pick.choice((0.004, 0.01, 0.03)), "batch": pick.randint(1, 4)}
        return {"input": "Tell me.", "model": "fast", "options": {"script": script}}

    async def _live(
        self,
        reply: Reply,
        nursery: Nursery,
        session: aiohttp.ClientSession,
        heard: asyncio.Semaphore,
        backend: Backend,
    ) -> None:
        """Have a reply read to its end by all kinds of readers, then judge what they saw."""

        def reader(kind: Kind) -> Reader:
            return Reader(nursery, session, reply, History(reply.name, kind), self._random.getrandbits(32))

        starting, looking = reader("starting"), reader("snapshots")
        readers, work = [starting, looking], [starting.start(heard), looking.look()]
        kinds = self._random.choice((("resumed",), ("polling",), ("resumed", "polling")))
        if "resumed" in kinds:
            readers.append(resuming := reader("resumed"))
            work.append(resuming.resume(looking.history))
        if "polling" in kinds:
            readers.append(polling := reader("polling"))
            work.append(polling.poll())
        for problem in await asyncio.gather(*work, return_exceptions=True):
            if problem is not None:
                self.report.violations.append(f"{reply.name}: {problem!r}")
        await self._judge(reply, readers, backend)
        await forget(backend.settings, await reply.message_id())

    async def _until_open(self, most: int, seconds: float) -> None:
        """Wait until no more than so many replies have readers that wait for the end."""
        give_up = time.monotonic() + seconds
        while (left := give_up - time.monotonic()) > 0:
            self._open = {task for task in self._open if not task.done()}
            if len(self._open) <= most:
                return
            await asyncio.wait(self._open, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _sweep(self, backend: Backend) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.report.swept += (await backend.open_replies.sweep()).ended

    async def _judge(self, reply: Reply, readers: Iterable[Reader], backend: Backend) -> None:
        report = self.report
        message_id = await reply.message_id()
        stored = await read_final(backend.store, message_id)
        report.statuses[stored.status] += 1
        report.events += stored.seq
        report.violations += check(reply.histories, stored)
        if stored.status == "interrupted":
            report.orphaned.append(await self._orphaned(backend, message_id))
        for reader in readers:
            self._count(reader, stored)

    def _count(self, reader: Reader, stored: histories.Final) -> None:
        report, history = self.report, reader.history
        report.readers[history.kind] += 1
        report.resumes += reader.cuts
        report.unexplained += reader.unexplained
        report.unavailable += reader.unavailable
        if beyond := ahead(history, stored):
            report.ahead_of_log.append(beyond)
            if reader.cut_at is not None:
                first = reader.received[-beyond - 1] if history.ended else reader.received[-beyond]
                report.ahead_seconds = max(report.ahead_seconds, reader.cut_at - first)

    async def _orphaned(self, backend: Backend, message_id: str) -> float:
        """Return how long after the kill of its writer an orphan ended: the first kill after its creation."""
        message = await backend.store.messages.get(message_id)
        created, ended = (
            datetime.fromisoformat(at or "").timestamp() for at in (message.created_at, message.completed_at)
        )
        return ended - min(kill for kill in self._killed_at if kill > created)
