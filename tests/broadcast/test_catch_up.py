"""Catching up: what a subscriber missed comes from the log, in order, before what is live."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailrace.backend import Backend
from tailrace.broadcast.catch_up import SECONDS
from tailrace.broadcast.feed import Feed
from tailrace.broadcast.lifecycle import Announcement
from tailrace.conversation.conversation import Conversation
from tailrace.events import End, Event, Message, Reasoning, Reset, Text, ToolCall
from tailrace.ids import new_conversation_id, new_message_id
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import NEVER, Draft, Outcome
from tailrace.store.dynamodb import Payload
from tailrace.store.segment import text_of
from tailrace.testing import ManualClock

from tests.broadcast import websocket
from tests.broadcast.websocket import Frame, Hesitant, WebSocketApi
from tests.memory_calls import MemoryCalls

CHUNK, COMPLETED, FAILED = "MessageChunkReceived", "MessageCompleted", "MessageFailed"


def chunks(frames: Sequence[Frame]) -> list[tuple[int, int, str]]:
    """Return the chunks among frames: from which entry to which, and the text."""
    return [
        (frame["data"]["first_seq"], frame["data"]["seq"], frame["data"]["chunk"])
        for frame in frames
        if frame["event"] == CHUNK
    ]


def names(frames: Sequence[Frame]) -> list[str]:
    return [frame["event"] for frame in frames]


def stream_backend(api: WebSocketApi) -> Backend:
    return Backend(Settings(flush_interval=0.1), store=api.store, clock=api.clock)


async def opened(api: WebSocketApi, *pieces: str, metadata: Frame | None = None) -> tuple[MessageStream, str]:
    """Return a reply that is being written, each piece a segment of its own, and its channel."""
    conversation = await Conversation.create(backend=stream_backend(api))
    stream = await conversation.stream_response("question", metadata=metadata)
    for piece in pieces:
        await stream.append(piece)
        await api.clock.advance(0.2)  # it is stored
    return stream, f"conversation.{conversation.id}"


async def reply(api: WebSocketApi, pieces: Sequence[str], **more: Any) -> tuple[str, str]:
    """Return the id and the channel of a reply whose log the test itself writes."""
    conversation = await Conversation.create(backend=stream_backend(api))
    draft = Draft(
        id=new_message_id(conversation.id, api.clock.now(), os.urandom),
        conversation_id=conversation.id,
        role="assistant",
        content="",
        status="pending",
        created=api.clock.now(),
        **more,
    )
    await api.store.messages.put([draft], nonce=b"n" * 16)
    for number, piece in enumerate(pieces):
        await api.store.log.append(draft.id, number, number + 1, [Text(piece)], nonce=b"n" * 8)
    return draft.id, draft.channel or f"conversation.{conversation.id}"


# ---- one by one ----


@pytest.mark.anyio
async def test_what_was_missed() -> None:
    """Of a reply that goes on: what lies beyond the cursor, then what comes, and nothing before it is asked for."""
    api = WebSocketApi()
    stream, channel = await opened(api, "a", "b", "c")
    frames = await api.subscribe("s1", channel, after={stream.id: 1})
    assert names(frames) == ["subscription_succeeded", CHUNK]
    assert frames[1] == {
        "event": CHUNK,
        "channel": channel,
        "data": {"message_id": stream.id, "chunk": "bc", "seq": 3, "first_seq": 2, "chunk_count": 2},
    }
    (subscription,) = [each async for each in api.store.subscriptions.of_channel(channel)]
    assert subscription.starts == {stream.id: 3}


@pytest.mark.anyio
async def test_a_reply_that_has_ended() -> None:
    """What was missed, and the end with the whole message; the subscription stays closed, so nobody tells it again."""
    api = WebSocketApi(namespace="App\\Events\\")
    stream, channel = await opened(api, "a", "b", metadata={"shown": 1, "private": {"hidden": "a secret"}})
    message = await stream.complete()
    frames = await api.subscribe("s1", channel, after={stream.id: 1})
    assert names(frames) == ["subscription_succeeded", f"App\\Events\\{CHUNK}", f"App\\Events\\{COMPLETED}"]
    assert frames[1]["data"]["chunk"] == "b"
    assert frames[2]["data"]["message"] == msgspec.to_builtins(message)
    assert "a secret" not in str(frames)
    (subscription,) = [each async for each in api.store.subscriptions.of_channel(channel)]
    assert subscription.starts == {stream.id: NEVER}
    ended = Announcement(channel=channel, what="ended", subject=message)
    assert not ended.is_for(subscription)


@pytest.mark.anyio
async def test_a_long_reply_comes_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one page has is posted before the next one is read: no more is held than that."""
    api = WebSocketApi()
    pieces = [f"{number:10000}" for number in range(100)]
    message_id, channel = await reply(api, pieces)
    held: list[int] = []
    post, read = api.clients.post, 0

    async def counting(socket: str, data: bytes) -> None:
        held.append(read)
        await post(socket, data)

    real = api.store.log.read

    async def reading(*args: Any, **options: Any) -> Any:
        nonlocal read
        async for segment in real(*args, **options):
            read += 1
            yield segment

    monkeypatch.setattr(api.clients, "post", counting)
    monkeypatch.setattr(api.store.log, "read", reading)
    frames = await api.subscribe("s1", channel, after={message_id: 0})
    found = chunks(frames)
    assert "".join(text for _, _, text in found) == "".join(pieces)
    assert [first for first, _, _ in found] == [1, *(last + 1 for _, last, _ in found[:-1])]
    assert held[1] < 40  # the first page's, when its first frame was posted
    assert held[-1] == 100


@pytest.mark.anyio
async def test_a_reply_that_failed() -> None:
    """Ends with MessageFailed."""
    api = WebSocketApi()
    stream, channel = await opened(api, "a")
    await stream.fail("why")
    frames = await api.subscribe("s1", channel, after={stream.id: 1})
    assert names(frames) == ["subscription_succeeded", FAILED]


@pytest.mark.anyio
async def test_who_has_everything() -> None:
    """Gets nothing, not even the end again; but for an end that others gave, whose number a chunk may have had."""
    api = WebSocketApi()
    stream, channel = await opened(api, "a")
    message = await stream.complete()
    assert names(await api.subscribe("s1", channel, after={stream.id: message.seq})) == ["subscription_succeeded"]

    stream, channel = await opened(api, "a")
    message = await Backend(Settings(), store=api.store, clock=api.clock).open_replies.cancel(stream.id)
    frames = await api.subscribe("s1", channel, after={stream.id: message.seq})
    assert names(frames) == ["subscription_succeeded", FAILED]


@pytest.mark.anyio
async def test_nothing_was_missed_and_nothing_is_there() -> None:
    """A reply that has no segment yet comes live from its first."""
    api = WebSocketApi()
    stream, channel = await opened(api)
    assert names(await api.subscribe("s1", channel, after={stream.id: 0})) == ["subscription_succeeded"]
    (subscription,) = [each async for each in api.store.subscriptions.of_channel(channel)]
    assert subscription.starts == {stream.id: 0}


@pytest.mark.anyio
async def test_messages_that_are_none_of_this_channel() -> None:
    """Another conversation's, a question, no message at all, a deleted one: as if they had not been named."""
    api = WebSocketApi()
    stream, channel = await opened(api, "a")
    other, _ = await opened(api, "b")
    elsewhere, _ = await reply(api, ["c"], channel="lobby")
    conversation = await Conversation.load(channel.removeprefix("conversation."), backend=stream_backend(api))
    question, _ = await conversation.messages()
    after = dict.fromkeys((other.id, elsewhere, question.id, "no such message", "x" * 2000, ""), 0)
    assert names(await api.subscribe("s1", channel, after=after)) == ["subscription_succeeded"]
    (subscription,) = [each async for each in api.store.subscriptions.of_channel(channel)]
    assert subscription.starts == {}

    await api.store.conversations.delete(conversation.id, now=api.clock.now())
    assert names(await api.subscribe("s1", channel, after={stream.id: 0})) == ["subscription_succeeded"]


@pytest.mark.anyio
async def test_several_replies() -> None:
    """One after the other, in the order of the conversation, whatever order they are named in."""
    api = WebSocketApi()
    first, _ = await reply(api, ["a"], channel="lobby")
    await stream_backend(api).open_replies.cancel(first)
    await api.clock.advance(1.0)
    second, _ = await reply(api, ["b"], channel="lobby")
    frames = await api.subscribe("s1", "lobby", after={second: 0, first: 0})
    assert [frame["data"]["message_id"] for frame in frames[1:]] == [first, first, second]
    assert names(frames[1:]) == [CHUNK, FAILED, CHUNK]


@pytest.mark.anyio
async def test_a_reader_that_is_ahead_of_the_log() -> None:
    """The starting connection sees chunks before they are stored. The catch-up waits for them, and sends none again."""
    api = WebSocketApi()
    stream, channel = await reply(api, ["a"])
    subscribed = asyncio.create_task(api.subscribe("s1", channel, after={stream: 2}))
    await api.clock.advance(0.2)
    assert not subscribed.done()
    await api.store.log.append(stream, 1, 2, [Text("b"), Text("c")], nonce=b"n" * 8)
    await api.clock.advance(0.1)
    assert chunks(await subscribed) == [(3, 3, "c")]


@pytest.mark.anyio
async def test_a_cursor_that_is_never_reached() -> None:
    """Of a reply whose writer died, or made up: after a while it is let go on from where the log is."""
    api = WebSocketApi()
    stream, channel = await opened(api, "a")
    subscribed = asyncio.create_task(api.subscribe("s1", channel, after={stream.id: 10**30}))
    await api.clock.advance(1.9)
    assert not subscribed.done()
    await api.clock.advance(0.2)
    assert names(await subscribed) == ["subscription_succeeded"]
    (subscription,) = [each async for each in api.store.subscriptions.of_channel(channel)]
    assert subscription.starts == {stream.id: 1}


@pytest.mark.anyio
@pytest.mark.parametrize(("after", "told"), [(0, [(1, 1, "abc")]), (1, [])])
async def test_a_log_that_has_expired(after: int, told: list[Any]) -> None:
    """The message is all there is to tell: who has nothing gets its content, and everybody the end, which has it."""
    api = WebSocketApi()
    stream, channel = await opened(api, "a", "bc")
    await stream.complete()
    await api.clock.advance(26 * 3600)
    frames = await api.subscribe("s1", channel, after={stream.id: after})
    assert chunks(frames) == told
    assert names(frames)[-1] == COMPLETED
    assert frames[-1]["data"]["message"]["content"] == "abc"


@pytest.mark.anyio
async def test_a_socket_that_is_left_out() -> None:
    """toOthers leaves the starting socket out while the reply is written, so it is not caught up either, and is told
    why. What has ended can be had again."""
    api = WebSocketApi()
    stream, channel = await reply(api, ["a"], except_socket="s1")
    frames = await api.subscribe("s1", channel, after={stream: 0})
    said = "This socket is left out of the reply (X-Socket-ID). Follow it by HTTP."
    assert frames == [{"event": "error", "channel": channel, "data": {"message": said}}]
    assert chunks(await api.subscribe("s2", channel, after={stream: 0})) == [(1, 1, "a")]
    await stream_backend(api).open_replies.cancel(stream)
    assert names(await api.subscribe("s1", channel, after={stream: 0})) == ["subscription_succeeded", CHUNK, FAILED]


@pytest.mark.anyio
async def test_entries_that_are_no_text() -> None:
    """Take their numbers, so that what is live follows on without a gap."""
    api = WebSocketApi()
    stream, channel = await reply(api, ["a"])
    await api.store.log.append(stream, 1, 2, [Reasoning("hm"), ToolCall("1", "f", "{}")], nonce=b"n" * 8)
    assert chunks(await api.subscribe("s1", channel, after={stream: 0})) == [(1, 3, "a")]
    assert chunks(await api.subscribe("s2", channel, after={stream: 1})) == [(2, 3, "")]
    await api.store.log.append(stream, 2, 4, [Text("b"), Reset(), Reasoning("hm")], nonce=b"n" * 8)
    frames = await api.subscribe("s3", channel, after={stream: 2})
    assert chunks(frames) == [(3, 4, "b"), (5, 5, ""), (6, 6, "")]
    assert frames[2]["data"]["reset"] is True


@pytest.mark.anyio
async def test_more_than_fits_into_a_frame() -> None:
    """Comes in several, none over 128 KB, and together they are the text."""
    api = WebSocketApi()
    stream, channel = await opened(api, *("ü" * 50_000 for _ in range(5)))
    message = await stream.complete()
    frames = await api.subscribe("s1", channel, after={stream.id: 0})
    assert "".join(text for *_, text in chunks(frames)) == message.content
    assert all(len(msgspec.json.encode(frame)) <= 131_072 for frame in frames)
    assert names(frames)[-1] == COMPLETED


@pytest.mark.anyio
async def test_a_subscriber_that_does_not_read() -> None:
    """After the first frame that did not arrive comes none of the missed ones, but what is live: it sees the gap."""
    api = WebSocketApi()
    stream, channel = await opened(api, *("ü" * 50_000 for _ in range(3)))
    posted = 0

    async def busy_from_the_second_chunk_on() -> None:
        nonlocal posted
        posted += 1
        if posted == 3:
            api.clients.busy.add("s1")

    api.clients.before_post = busy_from_the_second_chunk_on
    frames = await api.subscribe("s1", channel, after={stream.id: 0})
    assert names(frames) == ["subscription_succeeded", CHUNK]
    (subscription,) = [each async for each in api.store.subscriptions.of_channel(channel)]
    assert subscription.starts == {stream.id: 3}


@pytest.mark.anyio
async def test_a_subscriber_that_is_gone() -> None:
    """Loses its subscription, and nothing waits for it."""
    api = WebSocketApi()
    stream, channel = await opened(api, "a")
    api.clients.before_post = None

    async def gone_at_the_chunk() -> None:
        if api.clients.got["s1"]:
            api.clients.gone.add("s1")

    api.clients.before_post = gone_at_the_chunk
    assert names(await api.subscribe("s1", channel, after={stream.id: 0})) == ["subscription_succeeded"]
    assert [each async for each in api.store.subscriptions.of_channel(channel)] == []


class Outrun:
    """A table to whose log somebody puts a segment whenever a catch-up is about to go live."""

    def __init__(self, clock: ManualClock) -> None:
        self.inner = MemoryCalls()
        self._clock = clock

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        if operation == "TransactWriteItems" and "ConditionCheck" in payload["TransactItems"][0]:
            key = payload["TransactItems"][0]["ConditionCheck"]["Key"]
            number = int(key["sk"]["S"][2:])
            item = {**self.inner.items[key["pk"]["S"], "L#00000000"], "sk": key["sk"], "f": {"N": str(number + 1)}}
            await self.inner.call("PutItem", {"Item": item})
            await self._clock.advance(1.0)
        return await self.inner.call(operation, payload)


@pytest.mark.anyio
async def test_a_reply_that_outruns_the_catch_up() -> None:
    """It gives up before API Gateway does, and says what to do."""
    clock = ManualClock()
    api = WebSocketApi(clock=clock, calls=Outrun(clock))
    stream, channel = await reply(api, ["a"])
    frames = await api.subscribe("s1", channel, after={stream: 0})
    assert names(frames) == ["subscription_succeeded", *[CHUNK] * round(SECONDS), "error"]
    assert frames[-1]["data"]["message"] == "The reply could not be caught up with. Please subscribe again."


@pytest.mark.anyio
async def test_what_a_catch_up_costs() -> None:
    """One write for the subscription, and one transaction for a reply that goes on; none for one that has ended."""
    api = WebSocketApi()
    goes_on, _ = await reply(api, ["a"], channel="lobby")
    ended, _ = await reply(api, ["b"], channel="lobby")
    await stream_backend(api).open_replies.cancel(ended)
    api.calls.made.clear()
    await api.subscribe("s1", "lobby", after={goes_on: 0, ended: 0})
    writes = [operation for operation, _ in api.calls.made if operation not in ("GetItem", "Query")]
    assert writes == ["PutItem", "TransactWriteItems"]


# ---- against a writer and its feed, however they overtake each other ----

EVENTS = st.one_of(
    st.text("abü", min_size=1, max_size=3).map(Text),
    st.sampled_from(["A. B", ". C. D", "! ", "Yes. "]).map(Text),
    st.just(Reset()),
    st.just(Reasoning("hm")),
)
SEGMENTS = st.lists(st.lists(EVENTS, max_size=3), min_size=1, max_size=8)


DELIVERIES = st.sampled_from(
    [
        None,
        None,
        {"by": "sentence"},
        {"by": "sentence", "progress": True},
        {"interval_ms": 80},
        {"by": "sentence", "interval_ms": 80},
        {"by": "sentence", "interval_ms": 60_000},
        {"progress": True},
    ]
)


class Subscriber:
    """Reads frames as a client does, and objects to a gap, to a double, and to anything after the end.

    Attributes:
        offset: how many characters it has of the entry after the cursor.
    """

    def __init__(self, events: Sequence[Event], after: int | None, taken: int = 0) -> None:
        self.first = 1 if after is not None else None
        self.cursor = after
        self.offset = taken
        self.text = text_of(events[: after or 0])
        if taken and after is not None:
            self.text += text_of(events[after : after + 1])[:taken]
        self.ends: list[Message] = []

    def hear(self, frame: Frame) -> None:
        data = frame["data"]
        if frame["event"] == "subscription_succeeded":
            return  # others may be quicker than the answer
        assert not self.ends, f"{frame} after the end"
        if frame["event"] == CHUNK:
            if self.cursor is not None:  # who asked for nothing begins anywhere
                assert (data["first_seq"], data.get("offset", 0)) == (self.cursor + 1, self.offset), frame
            self.first = self.first or data["first_seq"]
            self.cursor = data["seq"]
            self.offset = int(data.get("cursor", ".0").partition(".")[2])
            self.text = "" if data.get("reset") else self.text + data["chunk"]
        elif frame["event"] == COMPLETED:
            self.ends.append(msgspec.convert(data["message"], Message))
        else:
            assert frame["event"] == "MessageCreated", frame
            assert self.cursor is None, "who has a part knows of the beginning"


@settings(deadline=None, max_examples=300)
@given(
    segments=SEGMENTS,
    subscribers=st.lists(
        st.tuples(st.integers(0, 60), st.one_of(st.none(), st.floats(0, 1.3)), DELIVERIES), min_size=1, max_size=4
    ),
    seed=st.integers(0, 2**32),
)
def test_neither_gap_nor_double_nor_disorder(
    segments: list[list[Event]], subscribers: list[tuple[int, float | None, Frame | None]], seed: int
) -> None:
    """Whenever somebody subscribes, with whatever delivery, and however calls, posts and the writer overtake each
    other: together with what it had, a subscriber gets all of the reply, in order, nothing twice, and one end."""
    asyncio.run(Race(segments, seed).run(subscribers))


class Race:
    """A reply that is written and fed while others subscribe."""

    def __init__(self, segments: list[list[Event]], seed: int) -> None:
        self.segments = segments
        self.events = [event for segment in segments for event in segment]
        self.stored = 0  # events
        self.chance = random.Random(seed)
        self.api = WebSocketApi(calls=Hesitant(MemoryCalls(), self.pause))
        self.api.clients.before_post = self.pause
        conversation = new_conversation_id(self.chance.randbytes)
        self.channel = f"conversation.{conversation}"
        self.draft = Draft(
            id=new_message_id(conversation, 7, self.chance.randbytes),
            conversation_id=conversation,
            role="assistant",
            content="",
            status="pending",
            created=7,
            feeding=True,
        )

    async def pause(self) -> None:
        for _ in range(self.chance.choice((0, 0, 1, 2, 5, 20))):
            await asyncio.sleep(0)

    async def run(self, subscribers: Sequence[tuple[int, float | None, Frame | None]]) -> None:
        backend = stream_backend(self.api)
        record = (await Conversation.create(backend=backend)).record
        record = msgspec.structs.replace(record, id=self.draft.conversation_id)
        await self.api.store.conversations.put(record)
        (message,) = await self.api.store.messages.put([self.draft], nonce=b"n" * 16)
        working: set[asyncio.Task[None]] = set()
        feed = Feed(
            message,
            self.channel,
            None,
            frames=self.api.frames,
            fan_out=self.api.fan_out,
            store=self.api.store,
            fed=self.announce_end,
            clock=self.api.clock,
            limit=100,
            call_function=None,
            tasks=working,
        )
        feed.start()
        everyone: list[tuple[str, asyncio.Task[Subscriber]]] = []
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            written = tasks.create_task(self.write(feed))
            for number, (moment, share, delivery) in enumerate(subscribers):
                task = tasks.create_task(self.subscribe(f"s{number}", moment, share, delivery))
                everyone.append((f"s{number}", task))
            while not (written.done() and all(task.done() for _, task in everyone)):
                await self.api.clock.advance(0.05)  # the feed looks, and catch-ups that wait look again
        for socket, task in everyone:
            subscriber = task.result()
            for frame in self.api.clients.take(socket):
                subscriber.hear(frame)
            self.check(subscriber)

    async def write(self, feed: Feed) -> None:
        log, seq = self.api.store.log, 1
        for number, events in enumerate(self.segments):
            await self.pause()
            await log.append(self.draft.id, number, seq, events, nonce=b"n" * 8)
            self.stored += len(events)
            feed.stored(number, seq, events)
            seq += len(events)
        await self.pause()
        outcome = Outcome(status="completed", content=text_of(self.events), seq=seq, metadata={}, completed=8)
        last = len(self.segments)
        await log.end(self.draft.id, last, seq, [End("completed")], outcome, nonce=b"e" * 8, feeding=True)
        feed.ended()
        await feed.drain()

    async def announce_end(self, message_id: str) -> None:
        """Do what functions/broadcast does when the feed is through."""
        await self.api.store.messages.fed(message_id)
        message = await self.api.store.messages.get(message_id)
        told = Announcement(channel=self.channel, what="ended", subject=message)
        await self.api.fan_out.send(self.channel, [told.frame(self.api.frames)], wants=told.is_for)

    async def subscribe(self, socket: str, moment: int, share: float | None, delivery: Frame | None) -> Subscriber:
        for _ in range(moment):
            await asyncio.sleep(0)
        # Up to a little more than is stored: what the starting connection may have seen.
        after = None if share is None else min(round(share * self.stored), len(self.events))
        more: Frame = {} if delivery is None else {"delivery": delivery}
        taken = 0
        if after is not None:
            following = text_of(self.events[after : after + 1])
            taken = self.chance.randrange(len(following)) if following else 0  # what a piece before left it with
            more["after"] = {self.draft.id: f"{after + 1}.{taken}" if taken else after}
        await self.api.receive(socket, websocket.subscribing(socket, self.channel, **more))
        return Subscriber(self.events, after, taken)

    def check(self, subscriber: Subscriber) -> None:
        if subscriber.first is None and not subscriber.ends:
            return  # came when all was over, and had not asked for anything
        (end,) = subscriber.ends
        assert end.content == text_of(self.events)
        if subscriber.first is not None and subscriber.cursor is not None:
            rest = self.events[subscriber.cursor :]
            assert not any(isinstance(event, Text | Reset) for event in rest), "not all of it came"
            assert subscriber.text == text_of(self.events[subscriber.first - 1 :])
            assert subscriber.offset == 0
