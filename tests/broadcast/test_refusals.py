"""An account that makes too many posts: the service refuses anybody's, and everybody gets everything all the same.

Each test is a run in virtual time against a service that takes so many posts a second, and answers the others with
429, as it answers posts to a client that does not read.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tailrace.broadcast.connections import SocketBusy
from tailrace.broadcast.fan_out import FORBEARANCE, PATIENCE, FanOut, Sent
from tailrace.broadcast.feed import DRAIN_SECONDS, LONGER_DRAIN_SECONDS, Feed
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.refusals import FEW, WINDOW, Refusals
from tailrace.broadcast.subscribers import PATIENCE as RELAY_PATIENCE
from tailrace.events import End, Text
from tailrace.store import Store, Subscription
from tailrace.testing import ManualClock

from tests import virtual_time
from tests.broadcast.test_feed import CHANNEL, NONCE, joined
from tests.broadcast.test_frames import message
from tests.memory_calls import MemoryCalls
from tests.token_bucket import TokenBucket
from tests.virtual_time import LoopClock


class Account:
    """Where the posts arrive. A ``tailrace.broadcast.fan_out.Posts``.

    Args:
        rate: posts a second that are taken.

    Attributes:
        deaf: sockets that do not read.
        asked: how often each was posted to.
        got: what each has.
    """

    def __init__(self, rate: float, deaf: Sequence[str] = ()) -> None:
        self._bucket = TokenBucket(rate, max(1.0, rate / 2))
        self.deaf = set(deaf)
        self.asked: defaultdict[str, int] = defaultdict(int)
        self.got: defaultdict[str, list[Any]] = defaultdict(list)

    async def post(self, socket: str, data: bytes) -> None:
        """Take a frame, or refuse it."""
        self.asked[socket] += 1
        await asyncio.sleep(0.01)
        if socket in self.deaf or not self._bucket.take(asyncio.get_running_loop().time()):
            raise SocketBusy("status 429")
        self.got[socket].append(msgspec.json.decode(data))

    def text(self, socket: str) -> str:
        """Return the chunks that a socket joined, which follow on each other."""
        chunks = [frame["data"] for frame in self.got[socket] if frame["event"] == "MessageChunkReceived"]
        for before, after in zip([{"seq": 0}, *chunks], chunks, strict=False):
            assert after["first_seq"] == before["seq"] + 1
        return joined(chunks)


def subscription(socket: str) -> Subscription:
    """Return a plain one."""
    return Subscription(channel=CHANNEL, socket=socket, expires=4_000_000_000, since=1)


@pytest.mark.parametrize("patience", [0.3, PATIENCE])
def test_a_fan_out_blames_nobody_for_what_the_service_refuses(patience: float) -> None:
    """Three times as many posts as are taken while one is tried: all arrive, but for those to who does not read."""
    readers = [f"s{number}" for number in range(300)]
    account = Account(300 / (3 * patience), ["deaf"])

    async def main() -> tuple[Sent, float]:
        clock = LoopClock()
        fan_out = FanOut(
            account,
            Store(MemoryCalls(), "t").subscriptions,
            clock=clock,
            patience=patience,
            jitter=random.Random(1).random,
        )
        sent = await fan_out.post_each([(subscription(socket), [b"{}"]) for socket in ["deaf", *readers]])
        return sent, clock.monotonic()

    sent, seconds = virtual_time.run(main())
    assert (sent.subscribers, sent.posted, list(sent.dropped)) == (301, 300, ["deaf"])
    assert all(account.got[socket] == [{}] for socket in readers)
    assert seconds < 2 * FORBEARANCE * patience


def test_a_page_ends_in_its_time() -> None:
    """However little the service takes: who did not get it is named, and that it was the service."""
    readers = [f"s{number}" for number in range(300)]
    account = Account(60)

    async def main() -> tuple[Sent, float]:
        clock = LoopClock()
        subscriptions = Store(MemoryCalls(), "t").subscriptions
        fan_out = FanOut(account, subscriptions, clock=clock, patience=0.3, jitter=random.Random(1).random)
        sent = await fan_out.post_each([(subscription(socket), [b"{}"]) for socket in readers], seconds=2.0)
        return sent, clock.monotonic()

    sent, seconds = virtual_time.run(main())
    assert sent.refused
    assert seconds < 2.0 + FORBEARANCE * 0.3 + 0.1
    assert sent.posted == len(account.got) == 300 - len(sent.dropped)
    assert 100 < sent.posted < 250
    assert set(account.asked) == set(readers)


def test_many_who_do_not_read_are_no_refusing_service() -> None:
    """Nothing of what they refuse gets through later: they have the usual patience, and keep the others no longer."""
    deaf = [f"d{number}" for number in range(60)]
    account = Account(1e9, deaf)

    async def main() -> tuple[Sent, float]:
        clock = LoopClock()
        fan_out = FanOut(account, Store(MemoryCalls(), "t").subscriptions, clock=clock, jitter=random.Random(1).random)
        sent = await fan_out.post_each([(subscription(socket), [b"{}"]) for socket in [*deaf, "reader"]])
        return sent, clock.monotonic()

    sent, seconds = virtual_time.run(main())
    assert (sent.posted, len(sent.dropped)) == (1, 60)
    assert seconds < PATIENCE + 0.1


@pytest.mark.anyio
async def test_what_is_counted_is_of_the_last_seconds() -> None:
    """One in ten that gets through later is enough, and what was before is forgotten."""
    clock = ManualClock()
    refusals = Refusals(clock)
    assert not refusals.are_the_service_s
    for _ in range(FEW):
        refusals.refused()
    assert not refusals.are_the_service_s
    await clock.advance(WINDOW)
    refusals.recovered()
    assert refusals.are_the_service_s
    refusals.refused()
    assert not refusals.are_the_service_s
    await clock.advance(WINDOW)  # the ten are forgotten
    assert refusals.are_the_service_s
    await clock.advance(WINDOW)
    assert not refusals.are_the_service_s


# ---- a relay ---------------------------------------------------------------------------------------------


class Reply:
    """A reply of ten segments a second, fed to all who subscribe.

    Attributes:
        fed: seconds from its end until it was noted that all is posted.
    """

    def __init__(self, account: Account, *sockets: str) -> None:
        self.account = account
        self.sockets = sockets
        self.text = ""
        self.fed = float("inf")
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, seconds: float) -> None:
        """Write it, in virtual time."""
        virtual_time.run(self._run(seconds))

    async def _run(self, seconds: float) -> None:
        clock = LoopClock()
        store = Store(MemoryCalls(), "t", clock=clock)
        for socket in self.sockets:
            await store.subscriptions.put(CHANNEL, socket)
        feed = Feed(
            message(id="m"),
            CHANNEL,
            None,
            frames=Frames(""),
            fan_out=FanOut(self.account, store.subscriptions, clock=clock, jitter=random.Random(1).random),
            store=store,
            fed=self._note,
            clock=clock,
            limit=100,
            call_function=None,
            tasks=self._tasks,
        )
        feed.start()
        count = round(seconds * 10)
        for number in range(count):
            event = Text(f"{number} ")
            self.text += event.text
            await store.log.append("m", number, number + 1, [event], nonce=NONCE)
            feed.stored(number, number + 1, [event])
            await asyncio.sleep(0.1)
        await store.log.append("m", count, count + 1, [End("completed")], nonce=NONCE)
        feed.stored(count, count + 1, [End("completed")])
        feed.ended()
        self._ended = clock.monotonic()
        await feed.drain()
        assert not self._tasks

    async def _note(self, message_id: str) -> None:
        self.fed = asyncio.get_running_loop().time() - self._ended


@pytest.mark.parametrize("subscribers", [1, 2, 10, 50])
def test_a_relay_makes_fewer_and_larger_posts_and_all_get_all(subscribers: int) -> None:
    """A tenth of what it would post is taken. Nobody misses anything, and few tries are in vain."""
    sockets = [f"s{number}" for number in range(subscribers)]
    reply = Reply(Account(subscribers), *sockets)
    reply.run(20)
    for socket in sockets:
        assert reply.account.text(socket) == reply.text
        assert len(reply.account.got[socket]) < 80
        assert reply.account.asked[socket] < 5 * len(reply.account.got[socket])
    assert reply.fed < LONGER_DRAIN_SECONDS


def test_one_that_does_not_read_changes_nothing_for_the_others() -> None:
    """Not how often they are posted to, and not when they are told of the end."""
    reply = Reply(Account(1e9, ["deaf"]), "deaf", "one", "two")
    reply.run(RELAY_PATIENCE + 10)
    for socket in ("one", "two"):
        assert reply.account.text(socket) == reply.text
        assert len(reply.account.got[socket]) == 401
    assert reply.account.got["deaf"] == []
    assert reply.account.asked["deaf"] < 2 * RELAY_PATIENCE
    assert reply.fed <= DRAIN_SECONDS


def test_the_end_waits_for_none_that_has_been_stuck_for_longer() -> None:
    """Its post is still tried, and the others are told of the end at once."""
    reply = Reply(Account(1e9, ["deaf"]), "deaf", "one", "two")
    reply.run(10)
    assert reply.account.text("one") == reply.account.text("two") == reply.text
    assert reply.fed < 0.1


def test_one_that_reads_again_gets_all_that_it_missed() -> None:
    """Within half a minute, as one frame; later it has to catch up by its cursor."""
    for seconds, whole in ((RELAY_PATIENCE - 2, True), (RELAY_PATIENCE + 2, False)):
        account = Account(1e9, ["away"])

        async def main(reply: Reply, seconds: float) -> None:
            asyncio.get_running_loop().call_later(seconds, reply.account.deaf.clear)
            await reply._run(RELAY_PATIENCE + 5)

        reply = Reply(account, "away", "here")
        virtual_time.run(main(reply, seconds))
        assert account.text("here") == reply.text
        assert (account.got["away"] != []) == whole
        if whole:
            assert account.text("away") == reply.text
