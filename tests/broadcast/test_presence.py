"""Presence channels: the list of members, who joins and who leaves."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailrace.testing import ManualClock

from tests.broadcast import websocket
from tests.broadcast.websocket import Frame, Hesitant, WebSocketApi
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio

CHANNEL = "presence-room"


def member(user_id: str | int) -> Frame:
    return {"user_id": user_id, "user_info": {"name": f"N{user_id}"}}


def here(*users: str | int) -> list[Frame]:
    return [{"event": "subscription_succeeded", "channel": CHANNEL, "data": [member(user) for user in users]}]


def joining(user: str | int) -> list[Frame]:
    return [{"event": "presence:joining", "channel": CHANNEL, "data": member(user)}]


def leaving(user: str | int) -> list[Frame]:
    return [{"event": "presence:leaving", "channel": CHANNEL, "data": member(user)}]


async def room(*users: str | int, clock: ManualClock | None = None) -> WebSocketApi:
    """Return an API whose sockets s1, s2... are these users', one after the other."""
    api = WebSocketApi(clock=clock)
    for number, user in enumerate(users, 1):
        await api.join(f"s{number}", user)
        await api.clock.advance(0.001)
    api.clients.got.clear()
    return api


async def test_joining_and_leaving() -> None:
    """Who joins gets the list, in the order in which they came, and the others hear of it; likewise of who leaves."""
    api = await room()
    assert await api.join("s1", "ada") == here("ada")
    await api.clock.advance(0.001)
    assert await api.join("s2", 7) == here("ada", 7)
    assert api.clients.take("s1") == joining(7)
    await api.clock.advance(0.001)
    assert await api.join("s3", "bob") == here("ada", 7, "bob")
    assert api.clients.take("s1") == api.clients.take("s2") == joining("bob")

    frames = await api.send("s2", {"event": "unsubscribe", "data": {"channel": CHANNEL}})
    assert [frame["event"] for frame in frames] == ["unsubscription_succeeded"]
    assert api.clients.take("s1") == api.clients.take("s3") == leaving(7)
    await api.disconnect("s1")
    assert api.clients.take("s3") == leaving("ada")
    assert api.clients.take("s2") == []


async def test_two_sockets_of_one_user() -> None:
    """A user joins with the first of them and leaves with the last, and is in the list once."""
    api = await room("ada", "bob")
    assert await api.join("s3", "bob") == here("ada", "bob")
    assert api.clients.take("s1") == api.clients.take("s2") == []
    await api.disconnect("s2")
    assert api.clients.take("s1") == api.clients.take("s3") == []
    await api.disconnect("s3")
    assert api.clients.take("s1") == leaving("bob")


async def test_subscribing_again() -> None:
    """Is no second joining."""
    api = await room("ada", "bob")
    assert await api.join("s2", "bob") == here("ada", "bob")
    assert api.clients.take("s1") == []


async def test_subscribing_again_as_somebody_else() -> None:
    """A page that logs in anew on the same socket: the others hear of the new one."""
    api = await room("ada", "bob")
    await api.join("s2", "eve")
    assert api.clients.take("s1") == joining("eve")


async def test_a_member_who_is_gone() -> None:
    """No $disconnect is sure. The next frame that does not arrive takes the subscription away, and it is told."""
    api = await room("ada", "bob", "eve")
    api.clients.gone.add("s2")
    await api.receive("s1", {"event": "client-typing", "channel": CHANNEL, "data": {}})
    assert api.clients.take("s1") == leaving("bob")
    assert api.clients.take("s3") == [{"event": "client-typing", "channel": CHANNEL, "data": {}}, *leaving("bob")]
    assert await api.join("s4", "tim") == here("ada", "eve", "tim")


async def test_all_who_are_gone_at_once() -> None:
    """Each is found out by the news of another; it ends, and the one who is left hears of all."""
    api = await room(*range(8))
    api.clients.gone |= {f"s{number}" for number in range(2, 9)}
    await api.receive("s1", {"event": "client-typing", "channel": CHANNEL, "data": {}})
    heard = api.clients.take("s1")
    assert {frame["event"] for frame in heard} == {"presence:leaving"}
    assert {frame["data"]["user_id"] for frame in heard} == set(range(1, 8))
    assert [each.socket async for each in api.store.subscriptions.of_channel(CHANNEL)] == ["s1"]


async def test_a_subscription_that_expired() -> None:
    """Is nobody any more, although the item may still be there: neither in the list nor a reason not to join."""
    clock = ManualClock()
    api = await room("ada", clock=clock)
    await clock.advance(3 * 3600)
    assert await api.join("s2", "bob") == here("bob")
    await clock.advance(0.001)
    assert await api.join("s1", "ada") == here("bob", "ada")
    assert api.clients.take("s2") == joining("ada")


async def test_a_member_who_does_not_read() -> None:
    """Keeps nobody from hearing."""
    api = await room("ada", "bob")
    api.clients.busy.add("s1")
    await api.join("s3", "eve")
    assert api.clients.take("s2") == joining("eve")


async def test_a_socket_that_goes_while_it_joins() -> None:
    """Its $disconnect may have come before its subscription was there. It leaves no ghost, and nobody hears it join
    after it has left."""
    api = await room("ada")
    await api.disconnect("s2")
    await api.receive("s2", websocket.joining("s2", "bob"))
    assert [frame["event"] for frame in api.clients.take("s1")] in (["presence:leaving"], [])
    assert [each.socket async for each in api.store.subscriptions.of_channel(CHANNEL)] == ["s1"]


async def test_more_members_than_fit_into_a_frame() -> None:
    """The list has as many as fit; the others come as if they were just joining."""
    api = await room()
    for number in range(40):
        member = {"user_id": number, "user_info": "x" * 5000}
        await api.store.subscriptions.put(CHANNEL, f"s{number}", member=member)
        await api.clock.advance(0.001)
    answer, *rest = await api.join("new", "ada")
    assert answer["event"] == "subscription_succeeded"
    assert {frame["event"] for frame in rest} == {"presence:joining"}
    users = [each["user_id"] for each in answer["data"]] + [frame["data"]["user_id"] for frame in rest]
    assert users == [*range(40), "ada"]


class Watcher:
    """A page: what it thinks who is there, from the frames that it gets."""

    def __init__(self) -> None:
        self.here: set[str] = set()

    def hear(self, frame: Frame) -> None:
        match frame["event"]:
            case "subscription_succeeded":
                self.here = {each["user_id"] for each in frame["data"]}
            case "presence:joining":
                self.here.add(frame["data"]["user_id"])
            case "presence:leaving":
                self.here.discard(frame["data"]["user_id"])


class Overtaking:
    """An API whose calls and posts overtake each other, and the pages of its users."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.api = WebSocketApi(calls=Hesitant(MemoryCalls(), self.pause))
        self.api.clients.before_post = self.pause

    async def pause(self) -> None:
        for _ in range(self._chance.choice((0, 0, 0, 1, 3, 10, 40))):
            await asyncio.sleep(0)

    async def join(self, user: str, socket: str) -> None:
        await self.api.receive(socket, websocket.joining(socket, user))

    def seen_by(self, socket: str) -> set[str]:
        """Return who is there, for a page that read all frames in their order."""
        watcher = Watcher()
        for frame in self.api.clients.take(socket):
            watcher.hear(frame)
        return watcher.here


@settings(deadline=None)
@given(users=st.lists(st.sampled_from("abc"), min_size=2, max_size=5), seed=st.integers(0, 2**32))
def test_all_join_at_once(users: list[str], seed: int) -> None:
    """However calls and posts overtake each other, everybody ends up knowing everybody, and so does who was there
    before."""

    async def run() -> None:
        room = Overtaking(seed)
        await room.join("old", "s")
        sockets = {f"s{number}": user for number, user in enumerate(users)}
        async with asyncio.TaskGroup() as tasks:
            for socket, user in sockets.items():
                tasks.create_task(room.join(user, socket))
        for socket in ("s", *sockets):
            assert room.seen_by(socket) == {"old", *users}, socket

    asyncio.run(run())


@settings(deadline=None)
@given(stays=st.integers(1, 3), leaves=st.integers(1, 3), joins=st.integers(0, 2), seed=st.integers(0, 2**32))
def test_some_leave_while_others_join(stays: int, leaves: int, joins: int, seed: int) -> None:
    """Whoever is there in the end knows who is."""

    async def run() -> None:
        room = Overtaking(seed)
        there = [f"stays{n}" for n in range(stays)] + [f"joins{n}" for n in range(joins)]
        gone = [f"leaves{n}" for n in range(leaves)]
        for user in (*there[:stays], *gone):
            await room.join(user, user)
        async with asyncio.TaskGroup() as tasks:
            for user in gone:
                tasks.create_task(room.api.disconnect(user))
            for user in there[stays:]:
                tasks.create_task(room.join(user, user))
        for socket in there:
            assert room.seen_by(socket) == set(there), socket

    asyncio.run(run())
