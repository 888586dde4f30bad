"""A reply as everybody else gets it: from the log, from any cursor, then live until its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tailrace.backend import Backend
from tailrace.delivery import Delivery, Progress
from tailrace.errors import NotFound, RequestError
from tailrace.events import ENDED_BY_OTHERS, TERMINAL, Event, Json
from tailrace.http.connection import DRAIN_SECONDS, Connection
from tailrace.http.cursor import NOT_OURS, Cursor, last_event_id, query
from tailrace.http.delivered import Delivered, asked_delivery, asked_protocol, follow_into, joined
from tailrace.http.requests import Receive, Scope, Send, client_gone, time_left
from tailrace.http.responses import RespondWhole, respond_empty, respond_json, respond_message, stream_headers
from tailrace.protocols import find_protocol
from tailrace.protocols.bounded import bounded
from tailrace.protocols.reader import Opening, Reading, Shown, check_by_chunk
from tailrace.reply.follow import Batch, Follower

LONGEST_WAIT: Final = 25
"""Seconds a long poll may last: API Gateway ends an integration after 29 or 30
(https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html)."""


async def check_owner(backend: Backend, scope: Scope, message_id: str, *, may_be_shared: bool = False) -> None:
    """Let only the owner of a message's conversation through; or those too with whom it is shared.

    Raises:
        NotFound: there is no such message, or it is somebody else's.
    """
    owner = await backend.identify(scope)
    record = await backend.store.conversations.of_message(message_id)
    if record.owner == owner:
        return
    if not may_be_shared or await backend.grants.for_reader(record, owner, message_id) is None:
        raise NotFound("No such message.")


PLAIN: Final = Delivery()


class Replay:
    """Serves one reader of one reply.

    Args:
        protocol: the wire format it wants.
        delivery: how it wants it. Where a sentence ends and what progress counts depends on all of the log, so for
            those, for a protocol that needs it, and for a cursor inside an entry, the follower reads the log from its
            beginning; it pays for that anyway.
        skip: how many events of the wire the reader has already, for protocols whose clients count them.
        wants: what the protocol's own request asked for.

    Raises:
        RequestError: the protocol has no form for the delivery or the cursor.
    """

    def __init__(
        self,
        backend: Backend,
        cursor: Cursor,
        protocol: str,
        delivery: Delivery = PLAIN,
        *,
        skip: int = 0,
        wants: Json | None = None,
    ) -> None:
        self._backend = backend
        self._cursor = cursor
        self._id = cursor.message_id
        self._kind = find_protocol(protocol)
        check_by_chunk(self._kind, is_paced=delivery.is_paced)
        if self._kind.needs_beginning and cursor.taken:
            raise RequestError(NOT_OURS)
        plain = (delivery == PLAIN and not cursor.taken) or self._kind.needs_beginning
        self._pieces = None if plain else delivery.open(after=cursor.seq, taken=cursor.taken)
        self._follower = self._follow_from(cursor.seq if plain and not self._kind.needs_beginning else 0)
        self._delivery = delivery
        self._reading = Reading(
            monotonic=backend.clock.monotonic,
            parts=delivery.parts,
            after=cursor.seq if plain else 0,
            skip=skip,
            wants=wants or {},
        )
        self._protocol = self._kind(Opening(message_id=self._id, conversation_id=""), self._reading)

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes after the cursor, then what comes live, then the terminal event; 204 when the reader
        has that already."""
        backend = self._backend
        if await self._open():
            await respond_empty(send, self._id)
            return
        connection = Connection(
            send,
            [*stream_headers(self._id), *self._protocol.headers],
            clock=backend.clock,
            keep_alive=backend.settings.keep_alive,
        )
        beginning = self._protocol.begin()
        if not self._cursor.seq:
            connection.write(beginning)
        reader = Delivered(self._protocol, self._pieces, connection.write, clock=backend.clock)
        sending = asyncio.create_task(connection.run())
        following = asyncio.create_task(follow_into(reader, connection, self._follower))
        leaving = asyncio.create_task(client_gone(receive))
        tasks = (sending, following, leaving)
        try:
            # A reader that is cut without a terminal event knows that there is more, and resumes.
            await asyncio.wait(tasks, timeout=time_left(scope, backend), return_when=asyncio.FIRST_COMPLETED)
            connection.close()
            if following.done():
                await connection.drained(0)
            await asyncio.wait((sending,), timeout=DRAIN_SECONDS if following.done() else 0.0)
        finally:
            reader.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def whole(self, send: Send, respond: RespondWhole = respond_message) -> None:
        """Send the message once the reply has ended, as ``respond`` does."""
        await self._open()
        async for _ in self._follower.follow():
            pass
        await respond(send, await self._follower.message())

    async def count(self) -> int:
        """Return how many events of the wire there are now, from the beginning on."""
        await self._open()
        found = len(self._protocol.first())
        while not self._follower.ended:
            found += len(self._objects(await self._follower.read()))
            if not self._follower.has_more:
                break
        if self._follower.ended:
            found += len(self._protocol.end_objects(await self._follower.message()))
        return found

    async def events(self, wait: float) -> list[dict[str, Any]]:
        """Return a page of what comes after the cursor; wait for it if there is nothing yet.

        Args:
            wait: seconds.
        """
        if await self._open():
            return []
        beginning = self._protocol.first()
        found: list[Shown] = []
        try:
            async with asyncio.timeout(wait or None):
                while not (found or self._follower.ended):
                    found = self._objects(await self._follower.read())
                    if self._follower.has_more or found or self._follower.ended:
                        continue
                    if not wait:
                        break
                    await self._follower.pause()
        except TimeoutError:
            return []
        if self._follower.ended:
            if self._pieces is not None:
                found += self._protocol.piece_objects(self._pieces.flush())
            found += self._protocol.end_objects(await self._follower.message())
        if found and not self._cursor.seq:
            found = [*beginning, *found]
        return self._protocol.polled(found)

    async def _open(self) -> bool:
        """Look at the message; return whether the reader has its terminal event already."""
        stored = await self._follower.open()
        if stored.role == "system":
            raise NotFound("No such message.")
        # A cursor beyond the end is of a starting connection that saw what a crash took back, and has no end yet.
        if stored.status in TERMINAL and self._cursor.is_of_end(stored.seq, stored.status):
            return True
        reading = self._reading
        if self._delivery.progress:
            # By the log's own time, so that it goes on where the connection was that was cut.
            reading = msgspec.structs.replace(
                reading,
                progress=Progress(stored.created / 1_000_000),
                monotonic=lambda: self._follower.written / 1_000_000,
            )
        self._protocol = self._kind(
            Opening(
                message_id=self._id,
                conversation_id=stored.conversation_id,
                created=stored.created,
                provider=stored.provider,
                model=stored.model,
                metadata=stored.metadata,
                private=stored.private,
            ),
            reading,
        )
        if self._cursor.taken and stored.seq == self._cursor.seq and stored.status not in ENDED_BY_OTHERS:
            raise RequestError(NOT_OURS)  # the terminal event has no characters
        if self._cursor.taken and not self._follower.ended:
            entry = await self._entry()
            if entry is not None and not self._cursor.could_be_ours(entry):
                raise RequestError(NOT_OURS)
        return False

    async def _entry(self) -> Event | None:
        """Return the entry of the log that the cursor is inside of; None when it is not there yet."""
        looking = self._follow_from(self._cursor.seq - 1)
        while not (batches := await looking.read()) and looking.has_more:
            pass
        return batches[0][1][0] if batches else None

    def _follow_from(self, after: int) -> Follower:
        backend = self._backend
        return Follower(
            backend.store, backend.open_replies, self._id, after, clock=backend.clock, lease=backend.settings.lease
        )

    def _objects(self, batches: Sequence[Batch]) -> list[Shown]:
        found: list[Shown] = []
        now = self._backend.clock.monotonic()
        for first_seq, events in joined(batches):
            if self._pieces is None:
                found += self._protocol.after(first_seq, events)
            else:
                found += self._protocol.piece_objects(self._pieces.feed(first_seq, events, now))
        if self._pieces is not None:
            found += self._protocol.piece_objects(self._pieces.release(now))
        return found


async def message_stream(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """``GET /messages/{id}/stream``: replay after the cursor, then live until the terminal event."""
    message_id = scope["path_params"]["message_id"]
    await check_owner(backend, scope, message_id, may_be_shared=True)
    cursor = last_event_id(scope, message_id) or Cursor(message_id, 0)
    await Replay(backend, cursor, asked_protocol(scope), asked_delivery(scope)).stream(scope, receive, send)


async def message_events(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """``GET /messages/{id}/events``: the same events as a JSON array, after a wait if there are none yet."""
    message_id = scope["path_params"]["message_id"]
    await check_owner(backend, scope, message_id, may_be_shared=True)
    cursor = last_event_id(scope, message_id) or Cursor(message_id, 0)
    wait = query(scope).get("wait", "0")
    if not (wait.isascii() and wait.isdigit() and len(wait) <= 2 and int(wait) <= LONGEST_WAIT):
        raise RequestError(f"wait must be a whole number of seconds from 0 to {LONGEST_WAIT}.")
    events = await Replay(backend, cursor, asked_protocol(scope), asked_delivery(scope)).events(int(wait))
    await respond_json(send, 200, events, [(b"cache-control", b"no-store")])


async def message_cancel(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """``POST /messages/{id}/cancel``: end the reply and keep its text; from any device, any number of times."""
    message_id = scope["path_params"]["message_id"]
    await check_owner(backend, scope, message_id)
    message = await backend.open_replies.cancel(message_id)
    if message.role == "system":
        raise NotFound("No such message.")
    await respond_json(send, 200, bounded(message))
