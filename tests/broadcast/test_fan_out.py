"""Fan-out to sockets that are gone, stuck, busy, refused or slow: nobody waits for somebody else."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
from tailrace.backend import Backend
from tailrace.broadcast.connections import Connections
from tailrace.broadcast.fan_out import FanOut
from tailrace.clock import SystemClock
from tailrace.errors import ConfigurationError, RequestError, StoreError, TooLarge
from tailrace.settings import Settings
from tailrace.store import Store, Subscription

from tests.broadcast.fake_management import STUCK, FakeManagement
from tests.faults import FaultyCalls
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio


async def subscribe(backend: Backend, channel: str, *sockets: str) -> None:
    """Put plain subscriptions."""
    for socket in sockets:
        await backend.store.subscriptions.put(channel, socket)


async def test_everybody_but_one_gets_it(broadcaster: Backend, management: FakeManagement) -> None:
    """A user's own event goes to all of the channel, under the namespace, and not to the socket left out."""
    await subscribe(broadcaster, "news", "one", "two", "three")
    await subscribe(broadcaster, "other", "four")
    await broadcaster.broadcast("Typing", {"who": "ü"}, "news", except_socket="two")
    expected = [{"event": "App\\Events\\Typing", "channel": "news", "data": {"who": "ü"}}]
    assert management.events("one") == management.events("three") == expected
    assert set(management.frames) == {"one", "three"}


async def test_each_gets_its_frames_in_order(broadcaster: Backend, management: FakeManagement) -> None:
    """One post at a time for a socket, also when one has to be made again."""
    await subscribe(broadcaster, "a", *"xyz")
    management.answers["y"].extend([200, 429, 500, 200, 429])
    frames = [str(number).encode() for number in range(10)]
    sent = await broadcaster.broadcast.fan_out.send("a", frames)
    assert (sent.subscribers, sent.posted, sent.dropped) == (3, 3, [])
    for socket in "xyz":
        assert management.frames[socket] == frames
        assert management.flights[socket] == 1


async def test_one_that_is_gone_loses_its_subscription(broadcaster: Backend, management: FakeManagement) -> None:
    """And whoever asked for it is told of a member; the others get everything."""
    gone: list[Subscription] = []

    async def when_gone(subscription: Subscription) -> None:
        gone.append(subscription)

    fan_out = broadcaster.broadcast.fan_out
    fan_out.when_gone = when_gone
    await subscribe(broadcaster, "presence-a", "here", "plain")
    await broadcaster.store.subscriptions.put("presence-a", "member", member={"user_id": "u"})
    management.always |= {"plain": 410, "member": 410}
    sent = await fan_out.send("presence-a", [b"1", b"2"])
    assert (sent.subscribers, sent.posted, sent.dropped) == (3, 1, [])
    assert management.frames["here"] == [b"1", b"2"]
    assert [found.socket async for found in broadcaster.store.subscriptions.of_channel("presence-a")] == ["here"]
    assert [(found.socket, found.member) for found in gone] == [("member", {"user_id": "u"})]
    assert len(management.requests) == 4


async def test_what_only_one_client_is_told_removes_nothing(broadcaster: Backend, management: FakeManagement) -> None:
    """An answer on no channel, to a client that has left meanwhile."""
    management.always["s"] = 410
    assert not await broadcaster.broadcast.fan_out.post("s", None, b"{}")
    assert await broadcaster.broadcast.fan_out.post("t", None, b"{}")


@pytest.mark.parametrize("status", [429, 500, STUCK])
async def test_one_that_stays_busy_is_dropped(broadcaster: Backend, management: FakeManagement, status: int) -> None:
    """After a second or two; its subscription stays, and so do the others'."""
    await subscribe(broadcaster, "a", "bad", "good")
    management.always["bad"] = status
    before = time.monotonic()
    sent = await broadcaster.broadcast.fan_out.send("a", [b"1", b"2"])
    assert 0.3 < time.monotonic() - before < 5
    assert (sent.subscribers, sent.posted, sent.dropped) == (2, 1, ["bad"])
    assert management.frames["good"] == [b"1", b"2"]
    assert await broadcaster.store.subscriptions.get("a", "bad") is not None


async def test_one_that_times_out_once_gets_everything(broadcaster: Backend, management: FakeManagement) -> None:
    """As all of them do when this process stands still for a second; no frame is missing and the order is kept."""
    await subscribe(broadcaster, "a", "one", "two")
    management.answers["one"].append(STUCK)
    sent = await broadcaster.broadcast.fan_out.send("a", [b"1", b"2"])
    assert (sent.subscribers, sent.posted, sent.dropped) == (2, 2, [])
    assert management.frames["one"] == management.frames["two"] == [b"1", b"2"]


async def test_what_the_service_refuses_is_said_once(
    broadcaster: Backend, management: FakeManagement, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing permission is ours to see, in the log, without the frame."""
    await subscribe(broadcaster, "a", "one")
    management.always["one"] = 403
    sent = await broadcaster.broadcast.fan_out.send("a", [b"secret"])
    assert sent.dropped == ["one"]
    records: list[Any] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [(record.message, record.reason) for record in records] == [("post refused", "status 403")]
    assert len(management.requests) == 1


async def test_some_can_be_left_out(broadcaster: Backend, management: FakeManagement) -> None:
    """By name, or by what is known of their subscription; these are subscribers all the same."""
    await subscribe(broadcaster, "a", "one", "two", "three", "four")
    fan_out = broadcaster.broadcast.fan_out
    sent = await fan_out.send(
        "a", [b"1"], except_socket="one", wants=lambda subscription: subscription.socket not in ("two", "three")
    )
    assert (sent.subscribers, sent.posted) == (3, 1)
    assert set(management.frames) == {"four"}
    found = [found async for found in broadcaster.store.subscriptions.of_channel("a")]
    targets = [(each, [each.socket.encode()]) for each in found if each.socket != "four"]
    assert (await fan_out.post_each([*targets, (found[0], ())])).posted == 3
    assert management.frames["two"] == [b"two"]


async def test_a_hundred_with_one_stuck_and_ten_gone(broadcaster: Backend, management: FakeManagement) -> None:
    """All healthy ones have every frame while the stuck one still has none."""
    sockets = [f"socket{number}" for number in range(100)]
    await subscribe(broadcaster, "a", *sockets)
    management.always |= {"socket7": STUCK} | {f"socket{number}": 410 for number in range(20, 30)}
    frames = [str(number).encode() for number in range(5)]
    healthy = [socket for socket in sockets if socket not in management.always]
    settings = broadcaster.settings
    # More patient than ours: on a busy machine a second is little for a hundred, and nobody here measures time.
    connections = Connections(settings.websocket_url or "", region=settings.region, attempt_timeout=5.0)
    fan_out = FanOut(connections, broadcaster.store.subscriptions, clock=SystemClock(), patience=5.0)
    sending = asyncio.create_task(fan_out.send("a", frames))
    await management.until(lambda: all(management.frames[socket] == frames for socket in healthy))
    assert not sending.done()
    sent = await sending
    await connections.close()
    assert (sent.subscribers, sent.posted, sent.dropped) == (100, 89, ["socket7"])


async def test_a_bug_takes_nobody_with_it(broadcaster: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """What is not foreseen is logged by its place, and the others are posted to."""

    class Odd:
        """A client that fails in a way of its own."""

        async def post(self, socket: str, data: bytes) -> None:
            """Fail for one socket."""
            if socket == "one":
                raise KeyError("a secret")

    await subscribe(broadcaster, "a", "one", "two")
    fan_out = FanOut(Odd(), broadcaster.store.subscriptions, clock=SystemClock())
    assert (await fan_out.send("a", [b"1"])).posted == 1
    (record,) = caplog.records
    assert record.message == "post failed"
    assert "secret" not in str(record.__dict__)


async def test_a_table_that_fails_while_a_subscription_is_removed(
    broadcaster: Backend, management: FakeManagement, settings: Settings
) -> None:
    """The post has failed anyway; the next one finds out again."""
    calls = FaultyCalls(MemoryCalls(), lambda operation, payload: "refused" if operation == "DeleteItem" else None)
    store = Store(calls, "t")
    await store.subscriptions.put("a", "one")
    management.always["one"] = 410
    fan_out = FanOut(broadcaster.broadcast.connections, store.subscriptions, clock=SystemClock())
    assert (await fan_out.send("a", [b"1"])).posted == 0
    calls.choose = lambda operation, payload: "refused"
    with pytest.raises(StoreError):
        await fan_out.send("a", [b"1"])


# ---- users' own events ------------------------------------------------------------------------------


async def test_an_event_that_cannot_be_sent_says_why(broadcaster: Backend) -> None:
    """A bad channel, or more than a frame can hold."""
    with pytest.raises(RequestError, match="channel's name"):
        await broadcaster.broadcast("Mine", {}, "a b")
    with pytest.raises(TooLarge, match="more than 131072 bytes"):
        await broadcaster.broadcast("Mine", "x" * 200_000, "a")


@pytest.mark.parametrize("off", ["no address", "switched off"])
async def test_when_it_is_off_nothing_is_done(settings: Settings, off: str) -> None:
    """No look and no post; and whoever needs the management API is told what is missing."""
    environment = {"TAILRACE_BROADCAST": "off", "TAILRACE_WEBSOCKET_URL": "wss://x/live"} if off != "no address" else {}
    calls = FaultyCalls(MemoryCalls())
    backend = Backend(Settings.from_environment(environment), store=Store(calls, "t"))
    assert not backend.broadcast.on
    await backend.broadcast("Mine", {}, "a")
    assert calls.made == []
    if off == "no address":
        with pytest.raises(ConfigurationError, match=r"^TAILRACE_WEBSOCKET_URL is not set\.$"):
            _ = backend.broadcast.connections
    else:
        assert isinstance(backend.broadcast.connections, Connections)
    await backend.close()
