"""``POST /conversations/{id}/stream``: start a reply, and show it as it arrives or whole at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

import msgspec

from tailrace import telemetry
from tailrace.auth import identify
from tailrace.backend import Backend
from tailrace.conversation import Conversation
from tailrace.delivery import Delivery, Progress
from tailrace.errors import StoreError, TailraceError, Unprocessable, where
from tailrace.events import TERMINAL, Event, Message, ProviderEvent
from tailrace.http.connection import DRAIN_SECONDS, Connection
from tailrace.http.requests import ClientGone, Receive, Scope, Send, correlation_id, header, parse, read_body
from tailrace.http.responses import respond_error, respond_json
from tailrace.protocols.simple import SimpleProtocol
from tailrace.relay import Deliver, relay
from tailrace.request import provider_request
from tailrace.stream import MessageStream

SETTLE_SECONDS = 20.0
"""How long a reply whose end could not be stored keeps trying after its reader was told."""


UNSTORED = StoreError("The reply could not be stored.")


class Fallback(msgspec.Struct, frozen=True):
    """A provider to ask when the one before it fails."""

    provider: str
    model: str | None = None


class StartBody(msgspec.Struct, frozen=True):
    """The body of a start (docs/http.md)."""

    input: str | None = None
    provider: str | None = None
    model: str | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    fallbacks: list[Fallback] = msgspec.field(default_factory=list)
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    delivery: Delivery = Delivery()
    on_disconnect: Literal["continue", "cancel"] = "continue"
    channel: str | None = None

    def check(self) -> None:
        """Refuse what would be ignored.

        Raises:
            Unprocessable: the message says what.
        """
        self.delivery.check()
        if self.input is not None and not self.input.strip():
            raise Unprocessable("input must not be blank; leave it out to answer the conversation as it stands.")
        if self.fallbacks:
            raise Unprocessable("fallbacks are not available yet.")
        if self.on_disconnect != "continue":
            raise Unprocessable('on_disconnect: only "continue" is available yet.')


class Started(msgspec.Struct, frozen=True):
    """A reply that is stored and about to be relayed."""

    stream: MessageStream
    source: AsyncGenerator[Sequence[ProviderEvent], None]
    body: StartBody


class StartReply:
    """The route, as an ASGI application: nothing between it and the server."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = self._backend.clock.monotonic()
        try:
            started = await self._start(scope, receive)
        except ClientGone:
            return
        except Exception as error:
            if not isinstance(error, TailraceError):
                telemetry.logger.error("start failed", extra=where(error))
            await respond_error(send, error)
            return
        correlation = correlation_id(scope)
        accept = header(scope, b"accept") or ""
        if "application/json" in accept and "text/event-stream" not in accept:
            await self._whole(started, send, correlation)
        else:
            await self._streamed(started, send, correlation, started_at)

    async def _start(self, scope: Scope, receive: Receive) -> Started:
        """Check everything that can be refused, then store the start; the provider is not called yet."""
        backend = self._backend
        owner = identify(scope, backend.settings)
        body = parse(await read_body(scope, receive, backend.settings.body_limit), StartBody)
        body.check()
        name = body.provider or backend.settings.provider
        provider = await backend.provider(name)
        conversation = await Conversation.load(scope["path_params"]["conversation_id"], owner=owner, backend=backend)
        history = await conversation.to_messages()
        request = provider_request(conversation.record, history, body.input, body.model, body.options)
        source = provider.stream(request)
        stream = await conversation.stream_response(
            body.input, metadata=body.metadata, channel=body.channel, provider=name, model=body.model
        )
        return Started(stream, source, body)

    async def _streamed(self, started: Started, send: Send, correlation: str, started_at: float) -> None:
        backend, stream = self._backend, started.stream
        clock = backend.clock
        protocol = SimpleProtocol(
            stream.id, Progress(started_at) if started.body.delivery.progress else None, clock.monotonic
        )
        headers = [
            (b"content-type", protocol.media_type.encode()),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            (b"x-message-id", stream.id.encode()),
        ]
        connection = Connection(send, headers, clock=clock, keep_alive=backend.settings.keep_alive)

        def deliver(first_seq: int, events: Sequence[Event]) -> None:
            connection.write(protocol.events(first_seq, events))

        relaying = asyncio.create_task(self._relay(started, deliver, correlation))
        sending = asyncio.create_task(connection.run())
        try:
            try:
                connection.write(protocol.end(await relaying))
            except StoreError as error:
                connection.write(protocol.failure(stream.seq, error.message, error.error_type))
                await self._settle(stream, correlation)  # before the response ends: Lambda freezes after it
            connection.close()
            # A client that left or does not read is no reason to fail: the reply is in the log.
            await asyncio.wait((sending,), timeout=DRAIN_SECONDS)
        finally:
            for task in (relaying, sending):
                task.cancel()
            await asyncio.gather(relaying, sending, return_exceptions=True)

    async def _whole(self, started: Started, send: Send, correlation: str) -> None:
        headers = [(b"x-message-id", started.stream.id.encode())]
        try:
            message = await self._relay(started, lambda first_seq, events: None, correlation)
        except StoreError as error:
            await self._settle(started.stream, correlation)
            await respond_error(send, error)
            return
        content: dict[str, Any] = {"message": message, "streamed": False}
        status = 200
        if message.status != "completed":
            status = 504 if (message.error or {}).get("type") == "timeout" else 502
            content = {"error": message.error, **content}
        await respond_json(send, status, content, headers)

    async def _relay(self, started: Started, deliver: Deliver, correlation: str) -> Message:
        message = await relay(started.stream, started.source, deliver)
        telemetry.reply_ended(message, correlation)
        return message

    async def _settle(self, stream: MessageStream, correlation: str) -> None:
        """Go on trying to store the end of a reply that the table refused, for a while."""
        clock = self._backend.clock
        give_up = clock.monotonic() + SETTLE_SECONDS
        while stream.message.status not in TERMINAL and clock.monotonic() < give_up:
            try:
                telemetry.reply_ended(await stream.fail(UNSTORED), correlation)
            except StoreError:
                await clock.sleep(1.0)
