"""The hot loop: everything is delivered and logged, and each ending is the right one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.errors import ProviderError, StoreError
from tailrace.events import Event, Message, ProviderEvent, ResponseInfo, Text, Usage
from tailrace.reply.ending import CANCELLED
from tailrace.reply.relay import Deliver, Relay
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store

from tests.faults import FaultyCalls, is_append, once

pytestmark = pytest.mark.anyio


class Delivered:
    """A reader that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, first_seq: int, events: Sequence[Event]) -> None:
        assert first_seq == len(self.events) + 1
        self.events += events


class Source:
    """A provider that says what it is told, then ends, fails or is silent."""

    def __init__(self, *batches: Sequence[ProviderEvent], then: Exception | None = None, silent: bool = False) -> None:
        self.batches = batches
        self.then = then
        self.silent = silent
        self.closed = asyncio.Event()

    async def stream(self) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """Yield the batches."""
        try:
            for batch in self.batches:
                yield batch
            if self.silent:
                await asyncio.Event().wait()
            if self.then is not None:
                raise self.then
        finally:
            self.closed.set()


async def relay(stream: MessageStream, source: Source, deliver: Deliver, deadline: float | None = None) -> Message:
    """Relay a source until its end."""
    return await Relay(stream, source.stream(), deliver, clock=SystemClock(), deadline=deadline).run()


async def open_stream(backend: Backend) -> MessageStream:
    """Return a stream in a new conversation."""
    return await (await Conversation.create(backend=backend)).stream_response("question")


async def test_a_whole_answer(backend: Backend) -> None:
    """What is delivered has the seq of the log; what is no entry of the log is not delivered."""
    delivered, stream = Delivered(), await open_stream(backend)
    batches: list[list[ProviderEvent]] = [
        [ResponseInfo(model="m"), Text("a"), Text("b")],
        [ResponseInfo(finish_reason="stop")],
        [Usage(1, 2)],
    ]
    message = await relay(stream, Source(*batches), delivered)
    assert delivered.events == [Text("a"), Text("b"), Usage(1, 2)]
    assert (message.content, message.seq, message.model, message.finish_reason) == ("ab", 4, "m", "stop")


async def test_a_provider_s_failure(backend: Backend) -> None:
    """The stream fails with it and keeps the text."""
    stream = await open_stream(backend)
    error = ProviderError("It broke off.", provider="p")
    message = await relay(stream, Source([Text("a")], then=error), Delivered())
    assert (message.status, message.content) == ("failed", "a")
    assert message.error == {"type": "api_error", "message": "It broke off."}


async def test_an_end_from_elsewhere_stops_the_provider(backend: Backend) -> None:
    """While the provider is silent, a flush finds the end that somebody else put: the relay returns it and the
    provider is closed."""
    stream = await open_stream(backend)
    other = MessageStream(
        backend.store, stream.message, clock=backend.clock, random_bytes=backend.random_bytes, flush_interval=0.1
    )
    ended = await other.cancel()
    source = Source([Text("a")], silent=True)
    async with asyncio.timeout(10):
        assert await relay(stream, source, Delivered()) == ended
    assert source.closed.is_set()


async def test_a_lost_table_stops_the_provider(backend: Backend, settings: Settings) -> None:
    """While the provider is silent, a flush fails for good: the relay says so and the provider is closed."""
    inner = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=backend.clock)
    backend.on_close(inner.close)
    backend.store = Store(FaultyCalls(inner, once("refused", is_append)), settings.table, clock=backend.clock)
    stream = await open_stream(backend)
    source = Source([Text("a")], silent=True)
    async with asyncio.timeout(10):
        with pytest.raises(StoreError, match="not available"):
            await relay(stream, source, Delivered())
    assert source.closed.is_set()
    assert (await stream.fail("later")).content == "a"


async def test_a_cancelled_relay_ends_its_stream(backend: Backend) -> None:
    """A server that shuts down leaves ``interrupted`` behind, with the text, and closes the provider."""
    stream = await open_stream(backend)
    source = Source([Text("a")], silent=True)
    first = asyncio.Event()
    relaying = asyncio.create_task(relay(stream, source, lambda first_seq, events: first.set()))
    await asyncio.wait_for(first.wait(), 10)
    relaying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await relaying
    message = await backend.store.messages.get(stream.id)
    assert (message.status, message.content) == ("interrupted", "a")
    assert source.closed.is_set()


async def test_a_deadline_ends_it_in_time(backend: Backend) -> None:
    """Before Lambda would kill the function, the reply ends as timed out, with its text."""
    stream = await open_stream(backend)
    source = Source([Text("a")], silent=True)
    message = await relay(stream, source, Delivered(), deadline=0.05)
    assert (message.status, message.content) == ("timed_out", "a")
    assert message.error == {"type": "timeout", "message": "The reply took too long."}
    assert source.closed.is_set()


@pytest.mark.parametrize("when", ["before", "during"])
async def test_it_can_be_stopped(backend: Backend, when: str) -> None:
    """A reader that leaves may end the reply; the provider is closed at once."""
    stream = await open_stream(backend)
    source = Source([Text("a")], silent=True)
    first = asyncio.Event()
    running = Relay(stream, source.stream(), lambda first_seq, events: first.set(), clock=SystemClock())
    if when == "before":
        running.stop(CANCELLED)
    relaying = asyncio.create_task(running.run())
    if when == "during":
        await asyncio.wait_for(first.wait(), 10)
        running.stop(CANCELLED)
    message = await asyncio.wait_for(relaying, 10)
    assert (message.status, message.content) == ("cancelled", "" if when == "before" else "a")
