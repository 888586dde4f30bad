"""Subscriptions in the table: one write each, found by channel and by socket, and gone when their time is up."""

from __future__ import annotations

import asyncio

import pytest
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.events import Text
from tailrace.settings import Settings
from tailrace.store import NEVER, Caller, DynamoDB, Store
from tailrace.testing import ManualClock

from tests.broadcast.fake_management import FakeManagement
from tests.faults import FaultyCalls
from tests.memory_calls import MemoryCalls
from tests.write_units import CountingCalls

pytestmark = pytest.mark.anyio

NONCE = b"12345678"


async def sockets(store: Store, channel: str, limit: int | None = None) -> list[str]:
    """Return who listens to a channel."""
    return [found.socket async for found in store.subscriptions.of_channel(channel, limit=limit)]


async def test_a_subscription_is_found_both_ways(backend: Backend) -> None:
    """By its channel, and all of a socket's by the socket; removing tells what was there, once."""
    subscriptions = backend.store.subscriptions
    member = {"user_id": "u", "user_info": {"name": "ü"}}
    assert await subscriptions.put("presence-a", "one", member=member, starts={"m": NEVER}) is None
    await subscriptions.put("presence-a", "two")
    await subscriptions.put("b", "one")
    found = await subscriptions.get("presence-a", "one")
    assert found is not None
    assert (found.channel, found.socket, found.member, dict(found.starts)) == (
        "presence-a",
        "one",
        member,
        {"m": NEVER},
    )
    assert sorted(await sockets(backend.store, "presence-a")) == ["one", "two"]
    assert sorted(await subscriptions.of_socket("one")) == ["b", "presence-a"]
    assert await subscriptions.remove("presence-a", "one") == found
    assert await subscriptions.remove("presence-a", "one") is None
    assert await sockets(backend.store, "presence-a") == ["two"]
    removed = await subscriptions.remove_socket("one")
    assert [(each.channel, each.socket) for each in removed] == [("b", "one")]
    assert await sockets(backend.store, "b") == []


async def test_subscribing_again_takes_the_place(backend: Backend) -> None:
    """The earlier one is returned, and the later one can be told from it."""
    subscriptions = backend.store.subscriptions
    await subscriptions.put("a", "one", starts={"m": 3})
    earlier = await subscriptions.get("a", "one")
    assert await subscriptions.put("a", "one") == earlier
    later = await subscriptions.get("a", "one")
    assert earlier is not None
    assert later is not None
    assert later.since > earlier.since
    assert later.starts == {}


async def test_a_socket_s_owner(backend: Backend) -> None:
    """It is known until the socket goes."""
    sockets = backend.store.sockets
    await sockets.put("one", Caller(owner="arn:me"))
    assert await sockets.caller("one") == Caller(owner="arn:me")
    assert await sockets.caller("two") is None
    assert await sockets.remove("one") == Caller(owner="arn:me")
    assert await sockets.caller("one") is None
    assert await sockets.remove("one") is None


async def test_a_socket_s_channels(backend: Backend) -> None:
    """So many and no more, however many come at once; one that is there counts once, one that is dropped no more."""
    sockets = backend.store.sockets
    found = await asyncio.gather(*(sockets.add_channel("one", f"channel-{number}", 5) for number in range(12)))
    assert found.count(True) == 5
    there = f"channel-{found.index(True)}"
    assert await sockets.add_channel("one", there, 5)
    assert not await sockets.add_channel("one", "more", 5)
    await sockets.drop_channel("one", "never there")
    assert not await sockets.add_channel("one", "more", 5)
    await sockets.drop_channel("one", there)
    assert await sockets.add_channel("one", "more", 5)
    assert await sockets.caller("one") is None  # it is nobody's all the same
    assert await sockets.add_channel("two", "more", 5)


async def test_a_socket_s_whispers(settings: Settings, dynamodb_url: str) -> None:
    """So many at once, then they come back evenly."""
    clock = ManualClock()
    dynamodb = DynamoDB(region=settings.region, endpoint_url=dynamodb_url, clock=SystemClock())
    sockets = Store(dynamodb, settings.table, clock=clock).sockets
    try:
        found = await asyncio.gather(*(sockets.whispered("one", 4) for _ in range(12)))
        assert found.count(True) == 4
        assert not await sockets.whispered("one", 4)
        await clock.advance(0.25)
        assert [await sockets.whispered("one", 4) for _ in range(2)] == [True, False]
        await clock.advance(10)
        assert [await sockets.whispered("one", 4) for _ in range(5)] == [True] * 4 + [False]
        assert await sockets.whispered("two", 4)
    finally:
        await dynamodb.close()


async def test_what_has_expired_is_not_there() -> None:
    """TTL deletes hours late: two hours and ten minutes after the subscribe nobody sees it any more."""
    clock = ManualClock()
    store = Store(MemoryCalls(), "t", clock=clock)
    await store.subscriptions.put("a", "one")
    await store.sockets.put("one", Caller(owner="me"))
    await clock.advance(2 * 3600 + 599)
    await store.subscriptions.put("a", "two")
    assert await sockets(store, "a") == ["one", "two"]
    assert await store.sockets.caller("one") == Caller(owner="me")
    await clock.advance(2)
    assert await sockets(store, "a") == ["two"]
    assert await store.subscriptions.get("a", "one") is None
    assert await store.sockets.caller("one") is None
    assert await store.subscriptions.put("a", "one") is None  # nobody was there


async def test_a_channel_of_many_pages(settings: Settings, dynamodb_url: str) -> None:
    """A page of a query holds 1 MB; a limit stops it early, and does not count those that have expired."""
    dynamodb = DynamoDB(region=settings.region, endpoint_url=dynamodb_url, clock=SystemClock())
    calls = FaultyCalls(dynamodb)
    clock = ManualClock()
    store = Store(calls, settings.table, clock=clock)
    member = {"user_id": "x" * 150_000}
    for number in range(10):
        await store.subscriptions.put("presence-a", f"socket-{number}", member=member)
    calls.made.clear()
    assert len(await sockets(store, "presence-a")) == 10
    assert [operation for operation, _ in calls.made] == ["Query", "Query"]
    assert all(payload["ConsistentRead"] for _, payload in calls.made)
    calls.made.clear()
    assert len(await sockets(store, "presence-a", limit=3)) == 3
    assert len(calls.made) == 1
    await clock.advance(3 * 3600)
    await store.subscriptions.put("presence-a", "the-last")
    assert await sockets(store, "presence-a", limit=3) == ["the-last"]
    await dynamodb.close()


@pytest.mark.parametrize("emulated", [False, True])
async def test_what_it_costs(settings: Settings, dynamodb_url: str, emulated: bool) -> None:
    """One write unit to subscribe and one of the index, whatever is there before; in memory as in the emulator."""
    dynamodb = DynamoDB(region=settings.region, endpoint_url=dynamodb_url, clock=SystemClock())
    calls = CountingCalls(dynamodb if emulated else MemoryCalls())
    store = Store(calls, settings.table)
    await store.subscriptions.put("conversation.c", "one", starts={"m": NEVER})
    assert calls.units == {"PutItem": 1, "indexes": 1}
    await store.subscriptions.put("conversation.c", "one")
    assert calls.units == {"PutItem": 2, "indexes": 1}
    await store.subscriptions.remove("conversation.c", "one")
    assert calls.units == {"PutItem": 2, "indexes": 2, "DeleteItem": 1}
    await dynamodb.close()


class TestOpening:
    """``open_from``: fan-outs send from a segment on, or somebody else does, never both."""

    @pytest.fixture(params=["memory", "moto"])
    async def store(self, request: pytest.FixtureRequest, backend: Backend) -> Store:
        """A store of each kind."""
        return backend.store if request.param == "moto" else Store(MemoryCalls(), "t")

    async def test_before_the_segment(self, store: Store) -> None:
        """It is not there yet: from it on the fan-outs send."""
        await store.subscriptions.put("a", "one", starts={"m": NEVER, "other": NEVER})
        assert await store.subscriptions.open_from("a", "one", "m", 0)
        found = await store.subscriptions.get("a", "one")
        assert found is not None
        assert found.starts == {"m": 0, "other": NEVER}

    async def test_after_the_segment(self, store: Store) -> None:
        """It is there: whoever asks has to read it first."""
        await store.log.append("m", 0, 1, [Text("a")], nonce=NONCE)
        await store.subscriptions.put("a", "one", starts={"m": NEVER})
        assert not await store.subscriptions.open_from("a", "one", "m", 0)
        assert await store.subscriptions.open_from("a", "one", "m", 1)

    async def test_a_subscription_that_is_not_there_any_more(self, store: Store) -> None:
        """Removed, put again without the message, or opened by somebody else: nothing is changed, nothing is made."""
        assert not await store.subscriptions.open_from("a", "one", "m", 0)
        assert await store.subscriptions.get("a", "one") is None
        await store.subscriptions.put("a", "one")
        assert not await store.subscriptions.open_from("a", "one", "m", 0)
        await store.subscriptions.put("a", "one", starts={"m": 7})
        assert not await store.subscriptions.open_from("a", "one", "m", 8)
        found = await store.subscriptions.get("a", "one")
        assert found is not None
        assert found.starts == {"m": 7}


async def test_a_subscriber_of_a_moment_ago_is_seen(broadcaster: Backend, management: FakeManagement) -> None:
    """Reads for a fan-out are consistent: who has subscribed gets the next event."""
    for number in range(20):
        await broadcaster.store.subscriptions.put("a", f"socket{number}")
        await broadcaster.broadcast("Mine", number, "a")
        assert [event["data"] for event in management.events(f"socket{number}")] == [number]
    await asyncio.gather(*(broadcaster.store.subscriptions.remove("a", f"socket{number}") for number in range(20)))
    await broadcaster.broadcast("Mine", "nobody", "a")
    assert all(event["data"] != "nobody" for number in range(20) for event in management.events(f"socket{number}"))
