"""Batches of the table's stream, delivered as Lambda delivers them: in order, repeated from where it failed."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tailrace.backend import Backend
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.lifecycle import Announced, Announcer
from tailrace.clock import Clock, SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.testing import ManualClock

from tests.broadcast.table_stream import Record, records
from tests.broadcast.test_lifecycle import image, record
from tests.broadcast.websocket import Clients
from tests.faults import FaultyCalls
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio


class Listeners(Clients):
    """Clients that can be waited for.

    Attributes:
        silent: sockets that take nothing until ``release`` is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.silent: set[str] = set()
        self.release = asyncio.Event()
        self._arrived = asyncio.Condition()

    async def post(self, socket: str, data: bytes) -> None:
        """Take a frame."""
        if socket in self.silent:
            await self.release.wait()
        await super().post(socket, data)
        async with self._arrived:
            self._arrived.notify_all()

    async def have(self, frames: Mapping[str, int]) -> None:
        """Wait until each socket has so many frames."""
        async with asyncio.timeout(20), self._arrived:
            await self._arrived.wait_for(lambda: all(len(self.got[socket]) == n for socket, n in frames.items()))

    def events(self, socket: str) -> list[tuple[str, str]]:
        """Return which events a socket got, and of which message."""
        return [(frame["event"], frame["data"]["message_id"]) for frame in self.got[socket]]


def announcer(store: Store, clients: Listeners, clock: Clock | None = None) -> Announcer:
    """Return one that posts to the clients."""
    clock = clock or SystemClock()
    return Announcer(FanOut(clients, store.subscriptions, clock=clock), Frames(""), store.messages, clock=clock)


def created(number: int, channel: str, **more: str) -> Record:
    """Return the record of a new message, with its number."""
    attributes: dict[str, Any] = {"channel": channel, "id": f"m{number}", **more}
    found = record(None, image("completed", **attributes))
    return {**found, "eventID": f"e{number}", "dynamodb": {**found["dynamodb"], "SequenceNumber": str(number)}}


async def test_subscribers_hear_of_what_is_done(backend: Backend, settings: Settings) -> None:
    """Each subscriber of the conversation gets each event once, in order, with the whole text; others nothing."""
    conversation = await Conversation.create(backend=backend)
    channel = f"conversation.{conversation.id}"
    for socket in ("one", "two"):
        await backend.store.subscriptions.put(channel, socket)
    await backend.store.subscriptions.put("conversation.another", "three")
    stream = await conversation.stream_response("hello")
    await stream.append("x" * 5000)
    message = await stream.complete()

    clients = Listeners()
    done = await announcer(backend.store, clients).announce(records(settings), seconds=20)
    assert done == Announced(events=4, posts=6, again_from=None)
    assert clients.got.keys() == {"one", "two"}
    assert clients.got["one"] == clients.got["two"]
    question, reply, end = clients.got["one"]
    assert [question["event"], reply["event"], end["event"]] == ["MessageCreated", "MessageCreated", "MessageCompleted"]
    assert question["data"]["message"]["content"] == "hello"
    assert (reply["data"]["message_id"], reply["data"]["message"]["content"]) == (message.id, "")
    assert end["data"]["message"] == msgspec.to_builtins(message)


async def test_the_socket_of_a_start_is_left_out() -> None:
    """Echo's toOthers."""
    store, clients = Store(MemoryCalls(), "table"), Listeners()
    for socket in ("mine", "yours"):
        await store.subscriptions.put("c", socket)
    await announcer(store, clients).announce([created(1, "c", except_socket="mine")], seconds=20)
    assert clients.got.keys() == {"yours"}


async def test_a_message_that_was_pruned_since(backend: Backend, settings: Settings) -> None:
    """Its content cannot be had any more: there is nothing to tell, and nothing to try again."""
    conversation = await Conversation.create(backend=backend)
    await conversation.add_assistant_message("x" * 5000)
    found = records(settings)
    await backend.store.conversations.delete(conversation.id, now=backend.clock.now())
    await backend.store.prune(backend.clock.now())
    await backend.store.subscriptions.put(f"conversation.{conversation.id}", "one")
    clients = Listeners()
    done = await announcer(backend.store, clients).announce(found, seconds=20)
    assert (done.posts, done.again_from) == (0, None)


@given(
    channels=st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    faults=st.sets(st.integers(0, 30)),
    data=st.data(),
)
@hypothesis_settings(max_examples=200, deadline=None)
def test_exactly_once_and_in_order_whatever_fails(channels: list[str], faults: set[int], data: st.DataObject) -> None:
    """The table fails now and then, Lambda repeats from the record it is told, in batches of any size: each
    subscriber gets each event of its channel once, in order."""
    asyncio.run(deliver(channels, faults, data))


async def deliver(channels: list[str], faults: set[int], data: st.DataObject) -> None:
    """Be Lambda."""
    queries = itertools.count()
    calls = FaultyCalls(MemoryCalls())
    store, clients = Store(calls, "table"), Listeners()
    for channel in "abc":
        for socket in (f"{channel}1", f"{channel}2"):
            await store.subscriptions.put(channel, socket)
    calls.choose = lambda operation, payload: "refused" if next(queries) in faults else None
    subject = announcer(store, clients)
    waiting = [created(number, channel) for number, channel in enumerate(channels)]
    while waiting:
        batch = waiting[: data.draw(st.integers(1, len(waiting)))]
        again = (await subject.announce(batch, seconds=20)).again_from
        numbers = [found["dynamodb"]["SequenceNumber"] for found in batch]
        waiting = waiting[len(batch) if again is None else numbers.index(again) :]
    for channel in "abc":
        expected = [("MessageCreated", f"m{number}") for number, found in enumerate(channels) if found == channel]
        assert clients.events(f"{channel}1") == clients.events(f"{channel}2") == expected


async def test_nothing_is_begun_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """What comes after it in its channel would be out of order; what is in another one would come twice, if another
    process gets the repetition."""
    calls = FaultyCalls(MemoryCalls())
    store, clients = Store(calls, "table"), Listeners()
    await store.subscriptions.put("a", "one")
    calls.choose = lambda operation, payload: "refused" if operation == "Query" else None
    done = await announcer(store, clients).announce([created(7, "a"), created(8, "a")], seconds=20)
    assert done == Announced(events=0, posts=0, again_from="7")
    assert [operation for operation, _ in calls.made].count("Query") == 1
    assert [found.getMessage() for found in caplog.records] == ["record comes again"]


async def test_a_batch_that_is_delivered_twice() -> None:
    """Lambda delivers at least once; a process does not announce the same record again."""
    store, clients = Store(MemoryCalls(), "table"), Listeners()
    await store.subscriptions.put("a", "one")
    subject = announcer(store, clients)
    batch = [created(1, "a"), created(2, "a")]
    assert (await subject.announce(batch, seconds=20)).events == 2
    assert (await subject.announce(batch, seconds=20)).events == 0
    assert clients.events("one") == [("MessageCreated", "m1"), ("MessageCreated", "m2")]


async def test_when_the_time_is_up() -> None:
    """Nothing else is begun, and the rest comes again: Lambda would kill the call without asking."""

    class Slow(Listeners):
        async def post(self, socket: str, data: bytes) -> None:
            await super().post(socket, data)
            await clock.advance(3)

    clock = ManualClock()
    store, clients = Store(MemoryCalls(), "table", clock=clock), Slow()
    await store.subscriptions.put("a", "one")
    subject = announcer(store, clients, clock)
    batch = [created(number, "a") for number in range(5)]
    assert await subject.announce(batch, seconds=5) == Announced(events=2, posts=2, again_from="2")
    assert await subject.announce(batch[2:], seconds=20) == Announced(events=3, posts=3, again_from=None)
    assert [message for _, message in clients.events("one")] == ["m0", "m1", "m2", "m3", "m4"]


@pytest.mark.parametrize(
    "poison",
    [{"eventID": "e5", "dynamodb": {}}, created(5, "a", metadata="[")],
    ids=["no record", "no JSON in it"],
)
async def test_a_record_that_cannot_be_announced(poison: Record, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged by its id and passed over, so that it does not hold up all that comes after it."""
    store, clients = Store(MemoryCalls(), "table"), Listeners()
    await store.subscriptions.put("a", "one")
    done = await announcer(store, clients).announce([created(4, "a"), poison, created(6, "a")], seconds=20)
    assert done == Announced(events=2, posts=2, again_from=None)
    assert [message for _, message in clients.events("one")] == ["m4", "m6"]
    (logged,) = caplog.records
    assert (logged.getMessage(), vars(logged)["record"], logged.levelno) == ("record passed over", "e5", logging.ERROR)


async def test_a_subscriber_that_does_not_read_keeps_nobody_waiting() -> None:
    """Other channels go on, and in its own channel the other subscribers have had theirs."""
    store, clients = Store(MemoryCalls(), "table"), Listeners()
    for channel, socket in (("a", "deaf"), ("a", "one"), ("b", "two")):
        await store.subscriptions.put(channel, socket)
    clients.silent.add("deaf")
    batch = [created(1, "a"), created(2, "b"), created(3, "b")]
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        announcing = tasks.create_task(announcer(store, clients).announce(batch, seconds=20))
        await clients.have({"one": 1, "two": 2})
        assert not announcing.done()
        clients.release.set()
    assert announcing.result() == Announced(events=3, posts=4, again_from=None)


async def test_a_subscriber_that_cannot_be_posted_to_is_no_failure() -> None:
    """It is dropped for this event; nothing is tried again for it and nobody else hears anything twice."""

    clock = ManualClock()
    store, clients = Store(MemoryCalls(), "table", clock=clock), Listeners()
    clients.busy.add("busy")
    for socket in ("busy", "one"):
        await store.subscriptions.put("a", socket)
    announcing = asyncio.ensure_future(announcer(store, clients, clock).announce([created(1, "a")], seconds=20))
    while not announcing.done():
        await clock.advance(0.1)
    assert await announcing == Announced(events=1, posts=1, again_from=None)
    assert clients.events("one") == [("MessageCreated", "m1")]
