"""Limits: exact under races, over days and minutes, and free again with the lease of whoever died."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailrace.backend import Backend
from tailrace.conversation.admission import Admission
from tailrace.conversation.conversation import Conversation
from tailrace.errors import RateLimited
from tailrace.events import Text, Usage
from tailrace.identity.limits import DAY, MINUTE, Held, Limits, admitted, must_look, settled
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import Calls, Store
from tailrace.store.identities import Spent
from tailrace.testing import ManualClock

from tests.broadcast.websocket import Hesitant
from tests.memory_calls import MemoryCalls

NOW = 20_000 * DAY + 5 * MINUTE


@given(st.integers(1, 50), st.lists(st.integers(0, MINUTE // 4), max_size=200))
def test_never_more_starts_than_the_limit_in_any_minute(limit: int, waits: Sequence[int]) -> None:
    """At most twice the limit in a minute that begins with a full bucket, never more than one bucket at once; and who
    comes when the refusal says so is let in."""
    held, now, let_in = Held(), NOW, []
    limits = Limits(starts=limit)
    for number, wait in enumerate(waits):
        now += wait
        try:
            held = admitted(held, limits, str(number), now)
        except RateLimited as refused:
            later = now + refused.retry_after * 1_000_000
            assert admitted(held, limits, "later", later)
            continue
        let_in.append(now)
    for begin in let_in:
        assert sum(begin <= each < begin + MINUTE // limit for each in let_in) <= limit + 1
        assert sum(begin <= each < begin + MINUTE for each in let_in) <= 2 * limit


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000), st.integers(0, DAY // 3)), max_size=40))
def test_tokens_count_for_the_day_they_were_used_in(ends: Sequence[tuple[str, int, int]]) -> None:
    """Once each, whenever somebody looks."""
    held, now = Held(), NOW
    used: dict[int, int] = {}
    for number, (_, tokens, wait) in enumerate(ends):
        held = admitted(held, Limits(tokens=10**9), str(number), now)
        now += wait
        used[now // DAY] = used.get(now // DAY, 0) + tokens
        assert must_look(held, Limits(tokens=1))
        held = settled(held, {str(number): Spent(now, tokens)}, now)
        assert held.tokens == used[now // DAY]
        assert held.replies == {}


def test_what_is_remembered_is_bounded() -> None:
    """Also of somebody without a limit of open replies."""
    held = Held()
    for number in range(500):
        held = admitted(held, Limits(tokens=1), str(number), NOW + number)
    assert len(held.replies) == 100
    assert "499" in held.replies
    assert not must_look(Held(), Limits(tokens=1))


# ---- with a table ----


class World:
    """A backend in memory whose clock stands still."""

    def __init__(self, calls: Calls | None = None, **limits: int) -> None:
        self.clock = ManualClock()
        self.calls = MemoryCalls()
        limited: dict[str, Any] = {f"limit_{name}": value for name, value in limits.items()}
        given = Settings(table="t", broadcast=False, lease=30.0, flush_interval=0.1, **limited)
        self.backend = Backend(given, store=Store(calls or self.calls, "t", clock=self.clock), clock=self.clock)

    async def start(self, owner: str = "u") -> MessageStream:
        """Start a reply in a conversation of its own."""
        conversation = await Conversation.create(owner=owner, backend=self.backend)
        return await conversation.stream_response("?", admission=Admission(self.backend, owner))


@pytest.mark.anyio
async def test_races_are_decided_one_by_one() -> None:
    """Twenty at once: as many as may, and each refused one left nothing."""
    world = World(open=4)
    found = await asyncio.gather(*(world.start() for _ in range(20)), return_exceptions=True)
    streams = [each for each in found if isinstance(each, MessageStream)]
    assert len(streams) == 4
    assert all(isinstance(each, RateLimited) for each in found if not isinstance(each, MessageStream))
    messages = [sk for _, sk in world.calls.items if sk.startswith("M#")]
    assert len(messages) == 8
    for stream in streams:
        await stream.cancel()
    again = await asyncio.gather(*(world.start() for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(each, MessageStream) for each in again) == 4
    for each in again:
        if isinstance(each, MessageStream):
            await each.cancel()


Move = Literal["start", "complete", "cancel", "die", "lease"]


@settings(deadline=None, max_examples=100)
@given(
    most=st.integers(1, 3),
    rounds=st.lists(
        st.lists(st.sampled_from(["start", "start", "complete", "cancel", "die", "lease"]), min_size=1, max_size=5),
        max_size=6,
    ),
    order=st.randoms(use_true_random=False),
)
def test_any_starts_and_ends_at_once(most: int, rounds: list[list[Move]], order: Random) -> None:
    """Starts, ends, stops and deaths in any order, with every call overtaken by others: never are more replies open
    than may be, and in the end there is room for as many again."""

    async def pause() -> None:
        for _ in range(order.randint(0, 3)):
            await asyncio.sleep(0)

    async def play() -> None:
        memory = MemoryCalls()
        world = World(Hesitant(memory, pause), open=most)
        alive: list[MessageStream] = []
        dead: list[MessageStream] = []

        async def make(move: Move) -> None:
            if move == "start":
                try:
                    alive.append(await world.start())
                except RateLimited:
                    return
            elif move != "lease" and alive:
                stream = alive.pop(order.randrange(len(alive)))
                if move == "die":
                    stream._writer._closed = True
                    dead.append(stream)
                else:
                    await (stream.complete() if move == "complete" else stream.cancel())

        for moves in rounds:
            await asyncio.gather(*(make(move) for move in moves))
            assert len(alive) + len(dead) <= most
            if "lease" in moves:
                dead.clear()  # whoever starts next ends them
                await world.clock.advance(31)
        for stream in alive:
            await stream.cancel()
        await world.clock.advance(31)
        for stream in [await world.start() for _ in range(most)]:
            await stream.cancel()

    asyncio.run(play())


@pytest.mark.anyio
async def test_what_a_dead_writer_held_is_free_with_its_lease() -> None:
    """Though no sweep has come; the reply is ended as the sweep would end it."""
    world = World(open=1)
    stream = await world.start()
    stream.push([Text("half")])
    await stream.stored()
    stream._writer._closed = True  # its process is gone
    await world.clock.advance(29)
    with pytest.raises(RateLimited):
        await world.start()
    await world.clock.advance(2)
    after = await world.start()
    assert (await world.backend.store.messages.get(stream.id)).status == "interrupted"
    await after.cancel()


@pytest.mark.anyio
async def test_a_living_writer_holds_its_place() -> None:
    """However long it is silent: it shows a sign of life."""
    world = World(open=1)
    stream = await world.start()
    await world.clock.advance(300)
    with pytest.raises(RateLimited):
        await world.start()
    await stream.cancel()
    await (await world.start()).cancel()


@pytest.mark.anyio
async def test_a_start_costs_one_write_more_and_an_end_none() -> None:
    """An update in the start's transaction; and a read of the record, which goes along with the conversation's."""
    world = World(open=5)
    made: list[str] = []
    call = world.calls.call

    async def counted(operation: str, payload: dict[str, object]) -> object:
        made.append(operation)
        if operation == "TransactWriteItems":
            made.append(f"{len(payload['TransactItems'])} writes")  # type: ignore[arg-type]
        return await call(operation, payload)

    world.calls.call = counted  # type: ignore[method-assign, assignment]
    stream = await world.start()
    assert made == ["PutItem", "GetItem", "TransactWriteItems", "3 writes"]
    made.clear()
    stream.push([Text("x"), Usage(3, 4)])
    await stream.complete()
    assert made == ["TransactWriteItems", "2 writes"]
