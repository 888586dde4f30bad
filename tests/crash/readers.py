"""The readers of a crash run: real HTTP clients that write down what they see, and go on after every cut."""

from __future__ import annotations

import asyncio
import codecs
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
import msgspec

from tests.crash.nursery import Nursery
from tests.histories import Cut, History, Nothing, Snapshot, observed
from tests.test_sse import JUDGE

Json = dict[str, Any]

RETRY_SECONDS: Final = 0.2
"""After a cut without a kill, the pause before the next try."""

TRANSPORTS: Final = ("message", "conversation", "post", "poll")


class Refused(Exception):
    """An answer that no reader should get."""


class Unavailable(Exception):
    """503: the table was too slow. The reader tries again."""


class Reply:
    """One reply as its clients know it.

    Attributes:
        body: of its start, sent again whenever the start must be repeated.
        message_id: known once the headers of a start have come.
    """

    def __init__(self, name: str, conversation_id: str, body: Json) -> None:
        self.name = name
        self.conversation_id = conversation_id
        self.body = body
        self._message_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.histories: list[History] = []

    @property
    def is_known(self) -> bool:
        """Whether a start was ever answered."""
        return self._message_id.done()

    async def message_id(self) -> str:
        """Return its id once it is known."""
        return await asyncio.shield(self._message_id)

    def is_known_as(self, message_id: str) -> None:
        """A start has answered. However often it is repeated, it is the same reply."""
        if not self._message_id.done():
            self._message_id.set_result(message_id)
        elif self._message_id.result() != message_id:
            raise Refused(f"the start was repeated and made another reply: {message_id}")


class Reader:
    """One client. It takes another transport each time it comes back.

    Attributes:
        cuts: connections that ended without a terminal event.
        unexplained: those of them where no server had been killed.
        unavailable: answers that asked it to try again.
        received: the moments at which the events came.
        cut_at: the moment of the first cut.
    """

    def __init__(self, nursery: Nursery, session: aiohttp.ClientSession, reply: Reply, history: History, seed: int):
        self.history = history
        self.cuts = self.unexplained = self.unavailable = 0
        self.received: list[float] = []
        self.cut_at: float | None = None
        self._nursery = nursery
        self._session = session
        self._reply = reply
        self._random = random.Random(seed)
        reply.histories.append(history)

    async def start(self, heard: asyncio.Semaphore) -> None:
        """Start the reply and read it to its end.

        Args:
            heard: released for each event.
        """
        while not self.history.ended:
            transport = "post" if not self.history.seen else self._random.choice(TRANSPORTS)
            await self._attempt(transport, heard)

    async def resume(self, known: History) -> None:
        """Come from somewhere in the log, and read on from there to the end.

        Args:
            known: of the reader of snapshots, who knows how far the log is.
        """
        await self._reply.message_id()
        await asyncio.sleep(self._random.uniform(0.0, 1.0))
        seqs = [entry.seq for entry in known.seen if isinstance(entry, Snapshot)]
        self.history.after = self._random.randint(0, max(0, seqs[-1] - 1)) if seqs else 0
        while not self.history.ended:
            await self._attempt(self._random.choice(TRANSPORTS[:2]))

    async def poll(self) -> None:
        """Ask for events, with long polls, to the end."""
        await self._reply.message_id()
        while not self.history.ended:
            await self._attempt("poll")
            await asyncio.sleep(self._random.uniform(0.0, 0.9))

    async def look(self) -> None:
        """Ask for the message again and again to the end."""
        await self._reply.message_id()
        while not self.history.ended:
            await self._attempt("snapshot")
            await asyncio.sleep(self._random.uniform(0.4, 1.4))

    async def _attempt(self, transport: str, heard: asyncio.Semaphore | None = None) -> None:
        generation = self._nursery.generation
        try:
            if transport == "snapshot":
                self._saw_message(await self._json(f"/messages/{await self._reply.message_id()}"))
            elif transport == "poll":
                path = f"/messages/{await self._reply.message_id()}/events?after={self.history.cursor}&wait=2"
                for entry in await self._json(path):
                    self._saw(entry, entry["id"], heard)
            else:
                async for data, event_id in self._events(transport):
                    self._saw(data, event_id, heard)
                    if self.history.ended:
                        return
                await self._was_cut(generation)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            await self._was_cut(generation)
        except Unavailable:
            self.unavailable += 1
            await asyncio.sleep(RETRY_SECONDS)

    def _saw(self, data: Mapping[str, Any], event_id: str, heard: asyncio.Semaphore | None) -> None:
        self.history.seen.append(observed(data, event_id))
        self.received.append(time.monotonic())
        if heard is not None:
            heard.release()

    def _saw_message(self, message: Json) -> None:
        names = ("seq", "status", "content", "error")
        self.history.seen.append(Snapshot(**{name: message[name] for name in names}))

    async def _was_cut(self, generation: int) -> None:
        self.cuts += 1
        self.cut_at = self.cut_at or time.monotonic()
        if self.history.seen and not isinstance(self.history.seen[-1], Cut):
            self.history.seen.append(Cut())
        if self._nursery.generation == generation:
            # The cut may be noticed here before it is known there.
            await self._nursery.next(generation, RETRY_SECONDS)
            self.unexplained += self._nursery.generation == generation

    async def _json(self, path: str) -> Any:
        async with self._session.get(self._nursery.url + path) as response:
            return msgspec.json.decode(_accepted(response, await response.read()))

    async def _events(self, transport: str) -> AsyncIterator[tuple[Json, str]]:
        """Yield the data and the ids of one answer's events, as another SSE decoder than ours sees them."""
        reply, headers = self._reply, {}
        if self.history.cursor:
            headers["Last-Event-ID"] = f"{await reply.message_id()}:{self.history.cursor}"
        if transport == "message":
            request = self._session.get(
                f"{self._nursery.url}/messages/{await reply.message_id()}/stream", headers=headers
            )
        elif transport == "conversation":
            url = f"{self._nursery.url}/conversations/{reply.conversation_id}/stream"
            request = self._session.get(url, headers=headers)
        else:
            url = f"{self._nursery.url}/conversations/{reply.conversation_id}/stream"
            headers["Idempotency-Key"] = reply.name
            request = self._session.post(url, json=reply.body, headers=headers)
        async with request as response:
            if response.status != 200:
                _accepted(response, await response.read())
            if response.status == 204:
                self.history.seen.append(Nothing())
                raise Refused("204, and the terminal event never came")
            reply.is_known_as(response.headers["X-Message-Id"])
            text = codecs.getincrementaldecoder("utf-8")()
            lines, decoder = JUDGE.SSELineDecoder(), JUDGE.SSEDecoder()
            async for data in response.content.iter_any():
                for line in lines.decode(text.decode(data)):
                    event = decoder.decode(line)
                    if event is not None and event.data:
                        yield msgspec.json.decode(event.data), event.id


def _accepted(response: aiohttp.ClientResponse, body: bytes) -> bytes:
    if response.status == 503:
        raise Unavailable
    if response.status >= 400:
        raise Refused(f"{response.status} {body[:300]!r} for {response.method} {response.url.path_qs}")
    return body
