"""A reply as its starting connection gets it: live from the provider, or whole at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace import telemetry
from tailrace.backend import Backend
from tailrace.delivery import Delivery, Progress
from tailrace.errors import StoreError
from tailrace.events import TERMINAL, Event, Json, Message
from tailrace.http.connection import DRAIN_SECONDS, Connection
from tailrace.http.delivered import Delivered, follow_into
from tailrace.http.requests import DEADLINE_MARGIN, Receive, Send, client_gone
from tailrace.http.responses import RespondWhole, respond_message, stream_headers
from tailrace.protocols import find_protocol
from tailrace.protocols.reader import Opening, Reading
from tailrace.reply.ending import CANCELLED
from tailrace.reply.follow import LONGEST_PAGE, Follower
from tailrace.reply.relay import Deliver, Relay, Source
from tailrace.reply.stream import MessageStream

SETTLE_SECONDS = 20.0
"""How long a reply whose end could not be stored keeps trying after its reader was told."""

FAREWELL_SECONDS = 2.0
"""How long a reader may take to get the terminal event when the server shuts down."""

LAST_SECONDS = 2.0
"""What is left until Lambda kills the process when subscribers are left without their last chunks: to note that, and to
end the answer."""

UNSTORED = StoreError("The reply could not be stored.")


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A reply that is stored and about to be relayed.

    Attributes:
        protocol: the wire format that the reader wants.
        delivery: how it wants it.
        progress: counts for the reader, or None when it did not ask.
        cancel_on_disconnect: whether the reply ends when this reader leaves, where that can be seen.
        gone_at: when this process will be gone, by the monotonic clock, less DEADLINE_MARGIN; or None.
        correlation: ties the log lines of the request together.
        opening: what is known of the reply.
        wants: what the protocol's own request asked for.
    """

    stream: MessageStream
    source: Source
    protocol: str
    delivery: Delivery
    progress: Progress | None
    cancel_on_disconnect: bool
    gone_at: float | None
    correlation: str
    opening: Opening
    wants: Json = msgspec.field(default_factory=dict)


class Live:
    """Serves the connection that started a reply."""

    def __init__(self, backend: Backend, started: Started) -> None:
        self._backend = backend
        self._started = started

    async def stream(self, receive: Receive, send: Send, first: bytes = b"") -> None:
        """Send the reply as it arrives, to a reader that falls behind from the log.

        Args:
            first: sent before everything else.
        """
        with self._backend.writing():
            await self._stream(receive, send, first)

    async def _stream(self, receive: Receive, send: Send, first: bytes) -> None:
        backend, started, stream = self._backend, self._started, self._started.stream
        protocol = find_protocol(started.protocol)(
            started.opening,
            Reading(
                monotonic=backend.clock.monotonic,
                progress=started.progress,
                parts=started.delivery.parts,
                wants=started.wants,
            ),
        )
        connection = Connection(
            send,
            [*stream_headers(stream.id), *protocol.headers],
            clock=backend.clock,
            keep_alive=backend.settings.keep_alive,
        )
        connection.write(first + protocol.begin())
        pieces = started.delivery.open() if started.delivery.is_paced else None
        reader = Delivered(protocol, pieces, connection.write, clock=backend.clock)
        catching_up: asyncio.Task[None] | None = None

        def deliver(first_seq: int, events: Sequence[Event]) -> None:
            nonlocal catching_up
            for place in range(0, len(events), LONGEST_PAGE):
                if catching_up is not None:
                    return
                if connection.is_behind:
                    # From here on the log serves it, at its own speed: the relay waits for nobody.
                    catching_up = asyncio.create_task(self._catch_up(reader, connection, first_seq + place - 1))
                    tasks.append(catching_up)
                else:
                    reader.events(first_seq + place, events[place : place + LONGEST_PAGE])

        relay = self._relay(deliver)
        relaying = asyncio.create_task(self._run(relay))
        sending = asyncio.create_task(connection.run())
        tasks: list[asyncio.Task[Any]] = [relaying, sending]
        if started.cancel_on_disconnect:
            tasks.append(asyncio.create_task(self._cancel_when_gone(relay, receive)))
        try:
            try:
                message = await asyncio.shield(relaying)
                if catching_up is None:
                    reader.end(message)
            except StoreError as error:
                if catching_up is None:
                    reader.failure(stream.seq, error.message, error.error_type)
                await self._settle()  # before the response ends: Lambda freezes after it
            await self._drain()  # likewise; the reader has its end by now
            # A client that left or does not read is no reason to fail: the reply is in the log.
            if catching_up is not None:
                await asyncio.wait((catching_up,), timeout=self._left())
            connection.close()
            await connection.drained(0)
            await asyncio.wait((sending,), timeout=DRAIN_SECONDS)
        except asyncio.CancelledError:
            # The server shuts down. The relay ends its stream, and the reader is told.
            relaying.cancel()
            await asyncio.wait((relaying,))
            if stream.message.status in TERMINAL and catching_up is None:
                reader.end(stream.message)
            connection.close()
            await asyncio.wait((sending,), timeout=FAREWELL_SECONDS)
            raise
        finally:
            reader.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _catch_up(self, reader: Delivered, connection: Connection, after: int) -> None:
        """Give the reader what comes after a cursor from the log, until the reply's end."""
        backend = self._backend
        follower = Follower(
            backend.store,
            backend.open_replies,
            self._started.stream.id,
            after,
            clock=backend.clock,
            lease=backend.settings.lease,
        )
        await follow_into(reader, connection, follower)

    async def whole(self, send: Send, respond: RespondWhole = respond_message) -> None:
        """Send the message at the reply's end, as ``respond`` does."""
        with self._backend.writing():
            await self._whole(send, respond)

    async def _whole(self, send: Send, respond: RespondWhole) -> None:
        try:
            message = await self._run(self._relay(lambda first_seq, events: None))
        except StoreError as error:
            await self._settle()
            raise error from None  # nothing was sent yet
        await self._drain()
        await respond(send, message)

    async def _drain(self) -> None:
        """Wait until subscribers have the end's last chunks, as long as the process lives."""
        await self._started.stream.drain(self._left(DEADLINE_MARGIN - LAST_SECONDS))

    def _left(self, beyond: float = 0.0) -> float | None:
        """Return the seconds until this process's time is up, and so many beyond; None where it never is."""
        gone_at = self._started.gone_at
        return None if gone_at is None else max(0.0, gone_at + beyond - self._backend.clock.monotonic())

    def _relay(self, deliver: Deliver) -> Relay:
        started = self._started
        return Relay(started.stream, started.source, deliver, clock=self._backend.clock, deadline=self._left())

    async def _run(self, relay: Relay) -> Message:
        message = await relay.run()
        telemetry.reply_ended(message, self._started.correlation)
        return message

    async def _cancel_when_gone(self, relay: Relay, receive: Receive) -> None:
        await client_gone(receive)
        relay.stop(CANCELLED)

    async def _settle(self) -> None:
        """Go on trying to store the end of a reply that the table refused, for a while."""
        clock, stream = self._backend.clock, self._started.stream
        give_up = clock.monotonic() + SETTLE_SECONDS
        while stream.message.status not in TERMINAL and clock.monotonic() < give_up:
            try:
                telemetry.reply_ended(await stream.fail(UNSTORED), self._started.correlation)
            except StoreError:
                await clock.sleep(1.0)
