"""A reply's feed, in any order of what can happen, on a clock turned by hand and a table in memory."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tailrace.aws.invoke import InvokeError, NotCalled
from tailrace.broadcast.connections import SocketBusy, SocketGone
from tailrace.broadcast.fan_out import AT_ONCE, SLOW_SECONDS, FanOut
from tailrace.broadcast.feed import (
    DRAIN_SECONDS,
    IDLE_SECONDS,
    LEAVE_SECONDS,
    LONGER_DRAIN_SECONDS,
    LOOK_SECONDS,
    Feed,
)
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.paged_fan_out import CallFunction
from tailrace.broadcast.segment_queue import LARGEST_QUEUE
from tailrace.errors import StoreError
from tailrace.events import End, Event, Reasoning, Reset, Text, Usage
from tailrace.store import NEVER, Calls, Store
from tailrace.store.dynamodb import Payload
from tailrace.store.segment import text_of
from tailrace.testing import ManualClock

from tests.broadcast.test_frames import message
from tests.faults import FaultyCalls
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio

CHANNEL = "conversation.c"
NONCE = b"12345678"


class Clients:
    """Where the posts arrive. A ``tailrace.broadcast.fan_out.Posts``.

    Attributes:
        takes: socket to how many seconds it takes for each post; None is never.
        fails: socket to the error that it answers with.
        got: socket to the frames that arrived, in order.
        begun: how many posts were begun.
        most: how many were under way at once, at most.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.takes: dict[str, float | None] = {}
        self.fails: dict[str, type[Exception]] = {}
        self.got: dict[str, list[Any]] = defaultdict(list)
        self.begun = 0
        self.most = 0
        self._busy: set[str] = set()

    async def post(self, socket: str, data: bytes) -> None:
        """Take a frame, in time or not, or fail."""
        assert socket not in self._busy, "two posts at once"
        self.begun += 1
        self._busy.add(socket)
        self.most = max(self.most, len(self._busy))
        try:
            if socket in self.fails:
                raise self.fails[socket]("as planned")
            seconds = self.takes.get(socket, 0.0)
            if seconds is None or seconds > 1:
                await self._clock.sleep(1.0)  # the time-out of Connections
                raise SocketBusy("time-out")
            if seconds:
                await self._clock.sleep(seconds)
            self.got[socket].append(msgspec.json.decode(data))
        finally:
            self._busy.discard(socket)

    def chunks(self, socket: str) -> list[dict[str, Any]]:
        """Return the data of the chunks that a socket got."""
        return [frame["data"] for frame in self.got[socket] if frame["event"] == "MessageChunkReceived"]

    def text(self, socket: str) -> str:
        """Return what a socket joined."""
        return joined(self.chunks(socket))

    def names(self, socket: str) -> list[str]:
        """Return which events a socket got."""
        return [frame["event"] for frame in self.got[socket]]


def joined(chunks: Sequence[dict[str, Any]]) -> str:
    """Return the text of chunks."""
    text = ""
    for chunk in chunks:
        text = "" if chunk.get("reset") else text + chunk["chunk"]
    return text


class Reply:
    """A reply whose writer is the test."""

    def __init__(
        self, *, limit: int = 100, call_function: CallFunction | None = None, except_socket: str | None = None
    ) -> None:
        self.clock = ManualClock()
        self.calls = FaultyCalls(MemoryCalls())
        self.store = Store(self.calls, "t", clock=self.clock)
        self.clients = Clients(self.clock)
        self.fed: list[int] = []  # how many posts had been begun when it was noted
        self.log: list[Event] = []
        self.number = -1
        self.tasks: set[asyncio.Task[None]] = set()
        self.feed = Feed(
            message(id="m"),
            CHANNEL,
            except_socket,
            frames=Frames(""),
            fan_out=FanOut(self.clients, self.store.subscriptions, clock=self.clock, jitter=lambda: 0.5),
            store=self.store,
            fed=self._note,
            clock=self.clock,
            limit=limit,
            call_function=call_function,
            tasks=self.tasks,
        )

    async def _note(self, message_id: str) -> None:
        assert message_id == "m"
        self.fed.append(self.clients.begun)

    async def subscribe(self, *sockets: str) -> None:
        """Put plain subscriptions."""
        for socket in sockets:
            await self.store.subscriptions.put(CHANNEL, socket)

    async def append(self, *events: Event) -> None:
        """Store a segment, as a writer does: first the table, then the feed."""
        self.number += 1
        first_seq = len(self.log) + 1
        await self.store.log.append("m", self.number, first_seq, events, nonce=NONCE)
        self.log += events
        self.feed.stored(self.number, first_seq, events)

    async def end(self, *events: Event) -> None:
        """Store the terminal segment."""
        await self.append(*events, End("completed"))
        self.log.pop()
        self.feed.ended()

    async def pass_time(self, seconds: float = 0.0) -> None:
        """Let the clock go on, and everything happen that is due."""
        await self.clock.advance(seconds)


def _values(payload: Payload) -> list[Any]:
    return list(payload.get("ExpressionAttributeValues", {}).values())


def queries(reply: Reply) -> int:
    """Return how often the subscriptions were looked at."""
    return sum(operation == "Query" for operation, _ in reply.calls.made)


# ---- the ordinary life -----------------------------------------------------------------------------


async def test_a_subscriber_gets_the_beginning_and_every_chunk() -> None:
    """First MessageCreated, then the chunks as they are stored; toOthers is left out; then it is noted, once."""
    reply = Reply(except_socket="me")
    await reply.subscribe("one", "two", "me")
    reply.feed.start()
    await reply.pass_time()
    assert reply.clients.names("one") == ["MessageCreated"]
    await reply.append(Text("Once"), Text(" upon"))
    await reply.pass_time()
    await reply.append(Text(" a time"))
    await reply.pass_time()
    assert reply.fed == []
    await reply.end(Usage(1, 2))
    await reply.pass_time()
    for socket in ("one", "two"):
        assert reply.clients.names(socket) == ["MessageCreated", "MessageChunkReceived", "MessageChunkReceived"]
        assert reply.clients.chunks(socket) == [
            {"message_id": "m", "chunk": "Once upon", "first_seq": 1, "seq": 2, "chunk_count": 2},
            {"message_id": "m", "chunk": " a time", "first_seq": 3, "seq": 3, "chunk_count": 1},
        ]
    assert reply.clients.got["me"] == []
    assert reply.fed == [6]
    assert reply.tasks == set()


async def test_while_nobody_listens_it_looks_once_a_second() -> None:
    """Ten segments a second, one look; who comes then gets what was kept, from the beginning."""
    reply = Reply()
    reply.feed.start()
    await reply.pass_time()
    assert queries(reply) == 1
    for number in range(25):
        await reply.append(Text(f"{number} "))
        await reply.pass_time(0.1)
    assert queries(reply) == 3
    await reply.subscribe("one")
    await reply.append(Text("seen"))
    await reply.pass_time(IDLE_SECONDS)
    assert reply.clients.names("one") == ["MessageCreated", "MessageChunkReceived"]
    assert reply.clients.text("one") == text_of(reply.log)
    await reply.append(Text("at once"))
    await reply.pass_time()
    assert reply.clients.text("one") == text_of(reply.log)


async def test_a_feed_with_nothing_to_do_does_nothing() -> None:
    """No look, no timer and no task while the provider is silent, also when the lease is renewed."""
    reply = Reply()
    reply.feed.start()
    await reply.pass_time(10)
    before = len(reply.calls.made)
    await reply.append()
    await reply.append(Reasoning("hm"))
    await reply.pass_time(600)
    assert queries(reply) == 1
    assert len(reply.calls.made) == before + 2
    assert reply.tasks == set()


async def test_what_tells_nothing_goes_with_what_comes_next() -> None:
    """Reasoning takes its numbers and is no gap."""
    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    await reply.append(Reasoning("hm"), Reasoning("so"))
    await reply.pass_time()
    assert reply.clients.chunks("one") == []
    await reply.append(Text("a"))
    await reply.pass_time()
    await reply.append(Reset(), Text("b"))
    await reply.pass_time()
    numbers = [(chunk["first_seq"], chunk["seq"]) for chunk in reply.clients.chunks("one")]
    assert numbers == [(1, 3), (4, 4), (5, 5)]
    assert reply.clients.text("one") == "b"


async def test_a_later_subscriber_gets_what_comes_then() -> None:
    """While somebody listens nothing is kept for those who come later; the numbers say what they missed."""
    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    await reply.subscribe("two")
    await reply.append(Text("b"))
    await reply.pass_time(LOOK_SECONDS)
    assert reply.clients.names("two") == ["MessageChunkReceived"]
    assert reply.clients.chunks("two")[0]["first_seq"] == 2


async def test_between_two_looks_those_who_are_known_are_served() -> None:
    """Ten segments a second, three looks: nobody waits for them, and whoever comes gets what was stored since."""
    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    looks = queries(reply)
    for number in range(29):
        await reply.append(Text(f"{number} "))
        await reply.pass_time(0.1)
        assert reply.clients.text("one") == text_of(reply.log)
    assert queries(reply) - looks <= 10
    await reply.pass_time(10)
    looks = queries(reply)
    await reply.append(Text("a"))
    await reply.pass_time(0.1)  # a look that tells of nobody new
    await reply.store.subscriptions.put(CHANNEL, "two", starts={"m": reply.number + 1})
    await reply.append(Text("b"))
    await reply.append(Text("c"))
    await reply.pass_time(LOOK_SECONDS - 0.11)
    assert reply.clients.text("one").endswith("abc")
    assert reply.clients.chunks("two") == []
    await reply.pass_time(0.01)  # nothing more is stored, and yet there is a look
    assert reply.clients.text("two") == "bc"
    await reply.pass_time(10)
    assert queries(reply) == looks + 2
    assert reply.clients.text("one") == text_of(reply.log)


async def test_who_has_unsubscribed_gets_nothing_after_the_next_look() -> None:
    reply = Reply()
    await reply.subscribe("one", "two")
    reply.feed.start()
    await reply.pass_time()
    await reply.append(Text("a"))
    await reply.pass_time()
    await reply.store.subscriptions.remove(CHANNEL, "two")
    await reply.pass_time(LOOK_SECONDS)
    await reply.append(Text("b"))
    await reply.pass_time()
    assert (reply.clients.text("one"), reply.clients.text("two")) == ("ab", "a")


async def test_whoever_subscribes_anew_gets_nothing_twice() -> None:
    """It has what was given to it since the last look."""
    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    for text in "abc":
        await reply.append(Text(text))
        await reply.pass_time(0.01)
    await reply.subscribe("one")
    await reply.append(Text("d"))
    await reply.pass_time(LOOK_SECONDS)
    assert reply.clients.text("one") == "abcd"


async def test_an_end_that_tells_nothing_needs_no_look() -> None:
    """Everybody who was to get something has it."""
    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    looks = queries(reply)
    await reply.end(Usage(1, 2))
    await reply.pass_time()
    assert queries(reply) == looks
    assert len(reply.fed) == 1


# ---- those who do not get along ----------------------------------------------------------------------


async def test_a_slow_subscriber_gets_fewer_and_larger_frames() -> None:
    """What is stored while a post is under way goes together in the next; the others do not notice."""
    reply = Reply()
    await reply.subscribe("slow", "quick")
    reply.clients.takes["slow"] = 0.5
    reply.feed.start()
    for number in range(20):
        await reply.append(Text(f"{number} "))
        await reply.pass_time(0.1)
        assert reply.clients.text("quick") == text_of(reply.log)
    assert len(reply.clients.chunks("slow")) <= 4
    await reply.end()
    await reply.pass_time(1)
    assert reply.clients.text("slow") == reply.clients.text("quick") == text_of(reply.log)
    assert len(reply.clients.chunks("quick")) == 20


@pytest.mark.parametrize("error", [SocketBusy, SocketGone])
async def test_one_that_fails_is_left_behind(error: type[Exception]) -> None:
    """After half a minute of tries it gets nothing more of this reply; a socket that is gone loses its subscription."""
    reply = Reply()
    await reply.subscribe("bad", "good")
    reply.clients.fails["bad"] = error
    reply.feed.start()
    for _ in range(320):
        await reply.append(Text("x"))
        await reply.pass_time(0.1)
        assert reply.clients.text("good") == text_of(reply.log)
    good = len(reply.clients.got["good"])
    tries = reply.clients.begun - good
    assert tries == 1 if error is SocketGone else 30 <= tries <= 40
    assert (await reply.store.subscriptions.get(CHANNEL, "bad") is None) == (error is SocketGone)
    del reply.clients.fails["bad"]
    await reply.append(Text("y"))
    await reply.pass_time(LOOK_SECONDS)
    assert reply.clients.got["bad"] == []
    await reply.subscribe("bad")  # it subscribes again, and is served again
    await reply.append(Text("z"))
    await reply.pass_time(LOOK_SECONDS)
    assert reply.clients.text("bad") == "z"
    await reply.end()
    await reply.pass_time()
    assert len(reply.fed) == 1


async def test_what_is_kept_is_bounded() -> None:
    """A subscriber that is far behind is served from the log: it gets all of it, and not the memory of the relay."""
    reply = Reply()
    await reply.subscribe("slow")
    reply.clients.takes["slow"] = 0.6
    reply.feed.start()
    await reply.pass_time()
    for number in range(100):
        await reply.append(*[Text(f"{number} ")] * 200, Text("x" * 10_000))
        await reply.pass_time(0.02)
        assert reply.feed._queue._size <= LARGEST_QUEUE
    assert reply.feed._queue.dropped > 10
    await reply.pass_time(20)
    await reply.end()
    await reply.pass_time(2)
    created, *rest = reply.clients.got["slow"]
    assert created["event"] == "MessageCreated"
    seq = 0
    for each in rest:
        assert each["data"]["first_seq"] == seq + 1
        seq = each["data"]["seq"]
    assert reply.clients.text("slow") == "".join(f"{number} " * 200 + "x" * 10_000 for number in range(100))


async def test_a_log_that_cannot_be_read_is_a_gap() -> None:
    """Which the subscriber sees; it is served on with what there is."""
    reply = Reply()
    await reply.subscribe("slow")
    reply.feed.start()
    await reply.pass_time()
    reply.clients.takes["slow"] = 0.6
    for _ in range(100):
        await reply.append(Text("x" * 10_000))
        await reply.pass_time(0.002)
    reply.calls.choose = lambda operation, payload: "refused" if {"S": "S#m"} in _values(payload) else None
    await reply.pass_time(3)
    await reply.end()
    await reply.pass_time(2)
    numbers = [(each["first_seq"], each["seq"]) for each in reply.clients.chunks("slow")]
    assert any(first > before + 1 for (_, before), (first, _) in pairwise(numbers))
    assert numbers[-1][1] == 100


async def test_the_end_does_not_wait_for_one_that_is_stuck() -> None:
    """A second after the end it is given up, and those who wait for the end are told."""
    reply = Reply()
    await reply.subscribe("stuck")
    reply.feed.start()
    await reply.pass_time()
    reply.clients.takes["stuck"] = 1.0
    for _ in range(3):
        await reply.append(Text("x"))
        await reply.pass_time(0.3)
    await reply.end(Text("y"))
    drained = asyncio.create_task(reply.feed.drain())
    await reply.pass_time(DRAIN_SECONDS - 0.01)
    assert not drained.done()
    assert reply.fed == []
    await reply.pass_time(0.01)
    await drained
    assert len(reply.fed) == 1
    await reply.pass_time(10)
    assert reply.clients.begun == reply.fed[0]
    assert reply.tasks == set()


async def test_the_last_chunks_are_left_when_the_process_is_about_to_go() -> None:
    """Lambda kills it, whatever API Gateway says: then the end is noted, and whoever reads on sees the gap."""
    function = Function()
    reply = Reply(limit=0, call_function=function.call)
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    function.gate.clear()
    await reply.end(Text("a"))
    drained = asyncio.create_task(reply.feed.drain(3.0))
    await reply.pass_time(2.99)
    assert not drained.done()
    await reply.pass_time(0.01)
    await drained
    assert len(reply.fed) == 1
    assert reply.tasks == set()


async def test_nothing_is_waited_for_when_the_process_has_no_time_left() -> None:
    reply = Reply()
    await reply.subscribe("stuck")
    reply.feed.start()
    await reply.pass_time()
    reply.clients.takes["stuck"] = 1.0
    await reply.end(Text("a"))
    drained = asyncio.create_task(reply.feed.drain(-1.0))
    await reply.pass_time(0.0)
    await drained
    assert len(reply.fed) == 1


async def test_so_many_posts_at_once_and_the_rest_wait_with_their_patience_untouched() -> None:
    """Five hundred who each take half a second are more than a second of posts. Nobody is dropped for having waited,
    and what was stored meanwhile goes together."""
    reply = Reply()
    sockets = [f"s{number}" for number in range(4 * AT_ONCE)]
    await reply.subscribe(*sockets)
    reply.feed.start()
    while reply.tasks:
        await reply.pass_time()
    reply.clients.takes.update(dict.fromkeys(sockets, SLOW_SECONDS * 0.9))
    for number in range(10):
        await reply.append(Text(f"{number} "))
        await reply.pass_time(0.2)
    assert reply.clients.most == AT_ONCE
    await reply.pass_time(4)
    assert {reply.clients.text(socket) for socket in sockets} == {text_of(reply.log)}
    assert max(len(reply.clients.chunks(socket)) for socket in sockets) <= 3
    await reply.end()
    await reply.pass_time(1)
    assert len(reply.fed) == 1
    assert reply.tasks == set()


async def test_more_who_never_read_than_there_is_room_keep_nobody_waiting_for_long() -> None:
    """They take room for half a second, once, and then they are left behind."""
    reply = Reply()
    stuck = [f"a{number}" for number in range(AT_ONCE)]  # the table gives them first
    await reply.subscribe(*stuck, "good")
    reply.clients.takes.update(dict.fromkeys(stuck))
    reply.feed.start()
    await reply.append(Text("x"))
    await reply.pass_time(SLOW_SECONDS - 0.01)
    assert reply.clients.got["good"] == []
    await reply.pass_time(0.02)
    assert reply.clients.text("good") == "x"
    for _ in range(10):
        await reply.append(Text("y"))
        await reply.pass_time(0.1)
        assert reply.clients.text("good") == text_of(reply.log)
    assert reply.clients.begun == 2 * AT_ONCE + len(reply.clients.got["good"])  # a second try each
    await reply.end()
    await reply.pass_time(1)
    assert reply.tasks == set()


async def test_a_writer_that_lost_its_log_drops_what_it_has() -> None:
    """Somebody else ended the reply, and its subscribers may know already."""
    reply = Reply()
    await reply.subscribe("one")
    reply.clients.takes["one"] = 0.5
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    await reply.append(Text("b"))
    reply.feed.lost()
    await reply.pass_time(10)
    assert reply.clients.got["one"] == []
    assert reply.fed == []
    assert reply.tasks == set()
    await reply.feed.drain()


async def test_a_bug_of_ours_ends_the_feed_and_not_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever writes the log is told nothing; who listens catches up, and the sweep tells of the end."""

    def fail(upto: int) -> None:
        raise KeyError("a prompt")

    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    reply.feed._subscribers.go_on = fail  # type: ignore[method-assign]
    await reply.append(Text("a"))
    await reply.append(Text("b"))
    await reply.end()
    await reply.pass_time(10)
    assert [record.message for record in caplog.records] == ["feed failed"]
    assert "a prompt" not in str(caplog.records[0].__dict__)
    assert reply.clients.chunks("one") == []
    assert reply.tasks == set()


async def test_a_table_that_cannot_be_read_is_asked_again() -> None:
    """What was stored meanwhile is kept."""
    reply = Reply()
    await reply.subscribe("one")
    reply.calls.choose = lambda operation, payload: "refused" if operation == "Query" else None
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time(2.5)
    assert queries(reply) == 3
    reply.calls.choose = lambda operation, payload: None
    await reply.pass_time(1)
    assert reply.clients.text("one") == "a"


async def test_the_end_is_noted_also_when_nobody_can_be_looked_for() -> None:
    """Otherwise the subscribers would wait for the sweep to be told of the end."""
    reply = Reply()
    reply.calls.choose = lambda operation, payload: "refused" if operation == "Query" else None
    reply.feed.start()
    await reply.pass_time()
    await reply.end(Text("a"))
    await reply.pass_time()
    await reply.feed.drain()
    assert len(reply.fed) == 1


async def test_a_feed_whose_end_cannot_be_noted_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The reply has ended all the same."""
    reply = Reply()

    async def refuse(message_id: str) -> None:
        raise StoreError("The store is not available.")

    reply.feed._fed = refuse
    reply.feed.start()
    await reply.end()
    await reply.pass_time()
    await reply.feed.drain()
    assert [record.message for record in caplog.records] == ["feed not noted"]


# ---- catching up ----------------------------------------------------------------------------------


async def test_one_that_is_caught_up_gets_its_segments_and_no_other() -> None:
    """Nothing while the subscription is closed, then from the segment on that the transaction named."""
    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    await reply.store.subscriptions.put(CHANNEL, "two", starts={"m": NEVER})
    await reply.append(Text("b"))
    await reply.pass_time()
    assert not await reply.store.subscriptions.open_from(CHANNEL, "two", "m", 1)
    assert await reply.store.subscriptions.open_from(CHANNEL, "two", "m", 2)
    await reply.append(Text("c"))
    await reply.append(Text("d"))
    await reply.pass_time(LOOK_SECONDS)
    assert reply.clients.names("two")[0] == "MessageChunkReceived"
    assert joined(reply.clients.chunks("two")) == "cd"
    assert reply.clients.text("one") == "abcd"


class SlowQueries:
    """Passes calls on, and holds back the answers of queries while the gate is closed."""

    def __init__(self, inner: Calls) -> None:
        self._inner = inner
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        answer = await self._inner.call(operation, payload)
        if operation == "Query":
            await self.gate.wait()
        return answer


async def test_a_segment_that_is_stored_during_a_look_gets_a_look_of_its_own() -> None:
    """A look says who gets what was stored before it, and nothing of later segments: a catch-up relies on that."""
    reply = Reply()
    slow = SlowQueries(reply.calls.inner)
    reply.calls.inner = slow
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time(LOOK_SECONDS)
    slow.gate.clear()
    await reply.append(Text("a"))
    await reply.pass_time()  # now there is an answer, under way, without the subscription that comes now
    await reply.store.subscriptions.put(CHANNEL, "two", starts={"m": NEVER})
    assert await reply.store.subscriptions.open_from(CHANNEL, "two", "m", 1)
    await reply.append(Text("b"))
    slow.gate.set()
    await reply.pass_time()
    await reply.append(Text("c"))
    await reply.pass_time(LOOK_SECONDS)
    assert reply.clients.text("one") == "abc"
    assert reply.clients.text("two") == "bc"


async def test_subscribing_again_waits_for_the_post_under_way() -> None:
    """Also then there is one post at a time for a socket; what the old subscription had left is the catch-up's."""
    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    reply.clients.takes["one"] = 0.5
    await reply.append(Text("a"))
    await reply.pass_time(0.1)
    await reply.append(Text("b"))
    await reply.pass_time(0.1)
    await reply.store.subscriptions.put(CHANNEL, "one", starts={"m": 2})
    await reply.append(Text("c"))
    await reply.pass_time(2)
    assert reply.clients.text("one") == "ac"


# ---- many subscribers -----------------------------------------------------------------------------


class Function:
    """The broadcast function, as far as the feed sees it."""

    def __init__(self, subscribers: int = 3) -> None:
        self.subscribers = subscribers
        self.requests: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        self.refused = False
        self.error: InvokeError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, payload: Any) -> dict[str, Any]:
        """Take a batch."""
        self.requests.append(msgspec.json.decode(msgspec.json.encode(payload["fan_out"])))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {"subscribers": self.subscribers, "dropped": self.dropped, "refused": self.refused}


async def test_many_subscribers_are_handed_over_and_taken_back() -> None:
    """Above the limit the function posts, one batch at a time, without a look; at the limit the relay does again. Who
    did not get a batch has it with the next one, and is left out after that."""
    function = Function()
    reply = Reply(limit=2, call_function=function.call)
    await reply.subscribe("one", "two")
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    assert function.requests == []
    await reply.subscribe("three")
    await reply.append(Reasoning("hm"))
    await reply.pass_time(LOOK_SECONDS)
    await reply.append(Text("b"))
    await reply.pass_time()
    looks = queries(reply)
    assert [(each["first"], each["last"]) for each in function.requests] == [(1, 2)]
    assert function.requests[0]["created"] is None
    function.gate.clear()
    function.dropped = ["two"]
    for text in "cde":
        await reply.append(Text(text))
        await reply.pass_time()
    assert [(each["first"], each["last"]) for each in function.requests[1:]] == [(3, 3)]
    function.gate.set()
    await reply.pass_time()
    assert [(each["first"], each["last"]) for each in function.requests[2:]] == [(4, 5)]
    assert [each["behind"] for each in function.requests] == [{}, {}, {"two": 3}]
    await reply.append(Text("."))
    await reply.pass_time()
    assert [(each["skip"], each["behind"]) for each in function.requests[2:]] == [([], {"two": 3}), (["two"], {})]
    function.dropped = []
    assert queries(reply) == looks
    function.subscribers = 2
    await reply.append(Text("f"))
    await reply.pass_time()
    assert len(function.requests) == 5
    await reply.store.subscriptions.remove(CHANNEL, "three")
    await reply.append(Text("g"))
    await reply.end()
    await reply.pass_time()
    assert len(function.requests) == 5
    assert reply.clients.text("one") == "ag"
    assert len(reply.fed) == 1


async def test_a_call_function_waits_for_the_posts_before_it() -> None:
    """Otherwise the function might overtake them."""
    function = Function()
    reply = Reply(limit=1, call_function=function.call)
    await reply.subscribe("one")
    reply.clients.takes["one"] = 0.5
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    await reply.pass_time(LOOK_SECONDS)
    await reply.subscribe("two")
    reply.clients.takes["one"] = 0.5
    await reply.append(Text("b"))
    await reply.pass_time(0.2)
    assert function.requests == []
    await reply.pass_time(1)
    assert reply.clients.text("one") == "a"
    assert [(each["first"], each["last"]) for each in function.requests] == [(1, 1)]


async def test_a_hand_over_does_not_wait_for_one_that_is_stuck() -> None:
    """The function gets it as one that is behind, from the first segment that it has not got. Whoever has come since
    the last look is given what the others have already."""
    function = Function()
    reply = Reply(limit=2, call_function=function.call)
    await reply.subscribe("one", "two")
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    reply.clients.takes["two"] = None
    for text in "bc":
        await reply.append(Text(text))
        await reply.pass_time()
    await reply.pass_time(LOOK_SECONDS)
    await reply.subscribe("three")
    await reply.append(Text("d"))
    await reply.pass_time(LOOK_SECONDS + LEAVE_SECONDS - 0.01)
    assert function.requests == []
    await reply.pass_time(0.01)
    (request,) = function.requests
    assert (request["first"], request["last"], request["behind"]) == (3, 3, {"one": 4, "two": 1})
    assert (reply.clients.text("one"), reply.clients.text("two")) == ("abcd", "a")
    begun = reply.clients.begun
    await reply.append(Text("e"))
    await reply.pass_time(10)
    assert [each["behind"] for each in function.requests] == [{"one": 4, "two": 1}, {}]
    assert reply.clients.begun == begun


async def test_who_had_a_part_of_the_first_batch_and_did_not_get_the_rest_has_the_rest_with_the_next() -> None:
    function = Function()
    function.dropped = ["one"]
    reply = Reply(limit=1, call_function=function.call)
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    await reply.append(Text("a"))
    await reply.pass_time(LOOK_SECONDS - 0.0005)
    await reply.subscribe("two")
    await reply.append(Text("b"))
    await reply.pass_time()
    await reply.append(Text("c"))
    await reply.pass_time()
    assert [(each["first"], each["last"], each["behind"]) for each in function.requests] == [
        (0, 1, {"one": 1}),
        (2, 2, {"one": 1}),
    ]
    assert reply.clients.text("one") == "a"


async def test_many_who_come_later_are_heard_of() -> None:
    """So that what they get is written as often as for few."""
    reply = Reply(limit=1, call_function=Function().call)
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time(IDLE_SECONDS)
    assert not reply.feed.is_heard
    await reply.subscribe("one", "two")
    await reply.append(Text("b"))
    await reply.pass_time(IDLE_SECONDS)
    assert reply.feed.is_heard


async def test_the_first_call_function_has_the_beginning() -> None:
    """MessageCreated goes with it, as it was created."""
    function = Function()
    reply = Reply(limit=2, call_function=function.call, except_socket="me")
    await reply.subscribe("one", "two", "three", "me")
    reply.feed.start()
    await reply.pass_time()
    (request,) = function.requests
    assert request["created"]["id"] == request["message_id"] == "m"
    assert request["created"]["content"] == ""
    assert (request["channel"], request["except_socket"], request["first"], request["last"]) == (CHANNEL, "me", 0, -1)


async def test_a_call_function_that_fails_leaves_a_gap() -> None:
    """The next batch goes on after it: whether it was posted is not known."""
    function = Function()
    function.error = InvokeError("as planned")
    reply = Reply(limit=0, call_function=function.call)
    await reply.subscribe("one")
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    function.error = None
    await reply.append(Text("b"))
    await reply.pass_time()
    assert [(each["first"], each["last"]) for each in function.requests] == [(0, 0), (1, 1)]


async def test_who_is_behind_at_the_end_has_a_call_of_its_own() -> None:
    """There is no next batch; and while somebody is behind, the relay does not take over again."""
    function = Function(subscribers=1)
    function.dropped = ["one"]
    reply = Reply(limit=0, call_function=function.call)
    await reply.subscribe("one")
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.end(Text("b"))
    await reply.pass_time()
    asked = [(each["first"], each["last"], each["behind"]) for each in function.requests]
    assert asked == [(0, 1, {}), (2, 1, {"one": -1})]
    assert [each["created"] is not None for each in function.requests] == [True, True]
    assert [each["begins"] for each in function.requests] == [True, False]
    assert len(reply.fed) == 1


async def test_who_is_refused_by_the_service_is_behind_for_as_long_as_that() -> None:
    """It is not left out, and gets everything from where it is."""
    function = Function()
    function.dropped, function.refused = ["one"], True
    reply = Reply(limit=0, call_function=function.call)
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    for text in "abcd":
        await reply.append(Text(text))
        await reply.pass_time()
    assert [each["behind"] for each in function.requests] == [{}, *[{"one": -1}] * 4]
    assert function.requests[-1]["skip"] == []
    function.refused = False
    for text in "ef":
        await reply.append(Text(text))
        await reply.pass_time()
    assert [(each["behind"], each["skip"]) for each in function.requests[5:]] == [({"one": -1}, []), ({}, ["one"])]


async def test_a_function_that_is_not_called_has_a_larger_batch_later() -> None:
    """No environment is free, as when a thousand replies are written at once: nothing is lost, and it is asked for
    ever more seldom."""
    function = Function()
    function.error = NotCalled("status 429")
    reply = Reply(limit=0, call_function=function.call)
    await reply.subscribe("one")
    reply.feed.start()
    for text in "abcdefghij" * 5:
        await reply.append(Text(text))
        await reply.pass_time(0.1)
    assert 5 < len(function.requests) < 15
    function.error = None
    await reply.pass_time(1.5)
    await reply.append(Text("z"))
    await reply.end()
    await reply.pass_time()
    *vain, first, second = [(each["first"], each["last"]) for each in function.requests]
    assert {first for first, _ in vain} == {0}
    assert (first, second) == ((0, 49), (50, 51))
    assert function.requests[-2]["created"]["id"] == "m"
    assert len(reply.fed) == 1
    assert reply.tasks == set()


async def test_the_end_does_not_wait_for_a_function_that_is_stuck() -> None:
    """It has a little longer than the relay's own posts."""
    function = Function()
    reply = Reply(limit=0, call_function=function.call)
    await reply.subscribe("one")
    reply.feed.start()
    await reply.pass_time()
    function.gate.clear()
    await reply.end(Text("a"))
    await reply.pass_time(LONGER_DRAIN_SECONDS - 0.01)
    assert reply.fed == []
    await reply.pass_time(0.01)
    await reply.feed.drain()
    assert len(reply.fed) == 1


# ---- anything, in any order -------------------------------------------------------------------------

texts = st.text("ab \n", min_size=1, max_size=5)
segments = st.lists(
    st.one_of(texts.map(Text), texts.map(Reasoning), st.just(Reset()), st.just(Usage(1, 1))), max_size=4
).map(tuple)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), segments),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.03, 0.3, 1.0])),
        st.tuples(st.just("subscribe"), st.sampled_from("abcdef")),
        st.tuples(st.just("catch up"), st.sampled_from("abcdef")),
        st.tuples(st.just("unsubscribe"), st.sampled_from("abcdef")),
    ),
    max_size=40,
)
# a and b are quick; c and d slow, but not too slow; e never reads; f is gone.
TAKES = {"c": 0.2, "d": 0.7, "e": None}
HEALTHY = "abcd"


class Watched:
    """What a client joins: catch-ups and live chunks alike, by the rule of chunk_frames.py."""

    def __init__(self) -> None:
        self.cursor: int | None = None

    def take(self, chunk: dict[str, Any], healthy: bool) -> None:
        """Take a chunk: never one that was there before, and no gap for one who reads."""
        if self.cursor is not None:
            assert chunk["first_seq"] > self.cursor
            assert not healthy or chunk["first_seq"] == self.cursor + 1
        self.cursor = chunk["seq"]


@hypothesis_settings(max_examples=300, deadline=None)
@given(steps, segments)
def test_every_reader_gets_everything_in_order_once(program: list[tuple[str, Any]], last: tuple[Event, ...]) -> None:
    """Whatever happens in which order: no subscriber gets an entry twice or late, those who read get all from
    where they begin, those who do not are in nobody's way, and the end is noted once, after the last post."""
    asyncio.run(_run(program, last))


async def _run(program: list[tuple[str, Any]], last: tuple[Event, ...]) -> None:
    reply = Reply()
    reply.clients.takes.update(TAKES)
    reply.clients.fails["f"] = SocketGone
    begins: dict[str, tuple[int, int | None]] = {}  # socket to how much it had, and from which seq it gets all
    before: set[str] = set()
    reply.feed.start()
    for step, argument in program:
        match step:
            case "append":
                await reply.append(*argument)
            case "advance":
                await reply.pass_time(argument)
            case "unsubscribe":
                await reply.store.subscriptions.remove(CHANNEL, argument)
                begins.pop(argument, None)
            case "subscribe" | "catch up":
                if argument in begins:
                    continue  # how it is to subscribe again with posts under way has a test of its own
                if argument in before:
                    await reply.pass_time(3)
                before.add(argument)
                had = len(reply.clients.got[argument])
                if step == "subscribe":
                    await reply.subscribe(argument)
                    begins[argument] = (had, None)
                else:
                    starts = {"m": reply.number + 1}
                    await reply.store.subscriptions.put(CHANNEL, argument, starts=starts)
                    begins[argument] = (had, len(reply.log) + 1)
    await reply.end(*last)
    await reply.pass_time(5)
    await reply.feed.drain()
    assert len(reply.fed) == 1
    assert reply.fed[0] == reply.clients.begun
    assert reply.tasks == set()
    for socket, (had, first) in begins.items():
        got = reply.clients.got[socket][had:]
        names = [frame["event"] for frame in got]
        chunks = [frame["data"] for frame in got if frame["event"] == "MessageChunkReceived"]
        watched = Watched()
        for chunk in chunks:
            watched.take(chunk, socket in HEALTHY)
        if first is not None:
            assert "MessageCreated" not in names
            if chunks:
                assert chunks[0]["first_seq"] == first
        if socket in "ab":
            first = chunks[0]["first_seq"] if first is None and chunks else first or len(reply.log) + 1
            assert joined(chunks) == text_of(reply.log[first - 1 :])
    assert reply.clients.got["e"] == reply.clients.got["f"] == []
