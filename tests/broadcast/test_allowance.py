"""What one identity and one connection may use over WebSocket."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailrace.broadcast.allowance import Allowance
from tailrace.events import ConversationRecord
from tailrace.identity.limits import SocketLimits
from tailrace.store import Caller, Store
from tailrace.testing import ManualClock

from tests.broadcast.test_chats import SEND, ChatApi, failed
from tests.broadcast.test_socket import CONVERSATION, listeners, refused, succeeded
from tests.broadcast.websocket import Hesitant, WebSocketApi
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio

ADA = Caller(owner="ada")
OVER = "At most 2 connections may be open at once: close another one, and connect again."


async def test_channels_of_one_connection() -> None:
    """One too many is refused with a sentence, whatever kind it is; another connection has its own, and whoever leaves
    a channel may have another."""
    api = WebSocketApi(limits=SocketLimits(channels=2))
    assert await api.subscribe("s1", "a") == succeeded("a")
    assert await api.subscribe("s1", "private-b") == succeeded("private-b")
    for channel in ("c", "private-c"):
        assert await api.subscribe("s1", channel) == refused(
            channel, "At most 2 channels may be subscribed to at once."
        )
        assert await listeners(api, channel) == set()
    assert await api.subscribe("s1", "a") == succeeded("a")
    assert await api.subscribe("s2", "c") == succeeded("c")
    await api.send("s1", {"event": "unsubscribe", "data": {"channel": "a"}})
    assert await api.subscribe("s1", "c") == succeeded("c")


async def test_a_channel_that_is_refused_does_not_count() -> None:
    """Nobody loses room by asking for what they may not have."""
    api = WebSocketApi(limits=SocketLimits(channels=1))
    for _ in range(3):
        await api.subscribe("s1", "private-a", auth="forged")
    assert await api.subscribe("s1", "a") == succeeded("a")


async def test_whispers_of_one_connection() -> None:
    """What is too much reaches nobody, and whoever whispers is told."""
    api = WebSocketApi(limits=SocketLimits(whispers=3))
    for socket in ("s1", "s2"):
        await api.subscribe(socket, "private-a")
        api.clients.take(socket)
    whisper = {"event": "client-typing", "data": {}, "channel": "private-a"}
    answers = [await api.send("s1", whisper) for _ in range(5)]
    assert answers == [[], [], []] + [refused("private-a", "At most 3 whispers may be sent a second.")] * 2
    assert len(api.clients.take("s2")) == 3
    assert await api.send("s2", whisper) == []
    await api.clock.advance(1)
    assert await api.send("s1", whisper) == []


async def test_connections_of_one_identity() -> None:
    """One too many is let in, and then everything that it asks for is refused; when another has gone, the next one may
    have it. Others have their own, and nobody's are not counted."""
    api = ChatApi(limits=SocketLimits(sockets=2))
    await api.store.conversations.put(ConversationRecord(id=CONVERSATION, owner="ada", created=1, updated=1))
    channel = f"conversation.{CONVERSATION}"
    for socket, owner in (("s1", "ada"), ("s2", "ada"), ("s3", "ada"), ("s4", "bob"), ("s5", None)):
        await api.connect(socket, owner)
    assert await api.subscribe("s2", channel) == succeeded(channel)
    assert await api.subscribe("s3", channel) == refused(channel, OVER)
    assert await api.subscribe("s3", "news") == refused("news", OVER)
    assert await api.send("s3", SEND) == failed(OVER)
    assert await api.subscribe("s4", "news") == await api.subscribe("s5", "news") == succeeded("news")
    await api.disconnect("s3")
    await api.connect("s6", "ada")
    assert await api.subscribe("s6", "news") == refused("news", OVER)
    await api.disconnect("s1")
    await api.connect("s7", "ada")
    assert await api.subscribe("s7", channel) == succeeded(channel)


async def test_a_connection_that_went_without_a_word() -> None:
    """It counts for as long as API Gateway may have kept it."""
    api = WebSocketApi(limits=SocketLimits(sockets=1))
    await api.connect("s1", "ada")
    await api.clock.advance(2 * 3600 + 599)
    await api.connect("s2", "ada")
    assert (await api.store.sockets.caller("s2")) == Caller(owner="ada", is_over=True)
    await api.clock.advance(1)
    await api.connect("s3", "ada")
    assert (await api.store.sockets.caller("s3")) == ADA


async def test_what_is_not_limited_costs_nothing() -> None:
    """No read and no write more than without."""
    api = WebSocketApi()
    await api.connect("s1", "ada")
    await api.subscribe("s1", "a")
    await api.disconnect("s1")
    assert [operation for operation, _ in api.calls.made] == ["PutItem", "PutItem", "Query", "DeleteItem", "DeleteItem"]


@settings(deadline=None, max_examples=150)
@given(
    most=st.integers(1, 3),
    moves=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_connections_that_come_and_go_at_once(most: int, moves: list[list[int]], order: Any) -> None:
    """In any order, with every call overtaken by others: never are more let in than may be, none that has room is kept
    out for good, and when all have gone nothing is left open."""

    async def play() -> None:
        async def pause() -> None:
            for _ in range(order.randint(0, 3)):
                await asyncio.sleep(0)

        memory = MemoryCalls()
        store = Store(Hesitant(memory, pause), "table", clock=ManualClock())
        allowance = Allowance(store, SocketLimits(sockets=most), ManualClock(), os.urandom)
        names = (f"s{number}" for number in itertools.count())
        there: dict[int, str] = {}

        async def move(place: int) -> None:
            if place in there:
                await allowance.disconnect(there.pop(place))
            else:
                there[place] = next(names)
                await allowance.connect(there[place], ADA)

        for at_once in moves:
            await asyncio.gather(*(move(place) for place in {*at_once}))
            let_in = [
                socket
                for socket in there.values()
                if (caller := await store.sockets.caller(socket)) and not caller.is_over
            ]
            assert len(let_in) <= most
        for socket in there.values():
            await allowance.disconnect(socket)
        for number in range(most):
            await allowance.connect(f"last-{number}", ADA)
            assert await store.sockets.caller(f"last-{number}") == ADA

    asyncio.run(play())
