"""Ending a reply from outside its writer: cancel, sweep, and what is left after the retention."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import NotFound, StoreError, StreamEnded
from tailrace.events import End, Event, Message, Text, Usage
from tailrace.ids import new_conversation_id, new_message_id
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store
from tailrace.store.dynamodb import Payload
from tailrace.store.items import OPEN_SHARDS, MessageItem, message_key, open_shard, segment_sort_key
from tailrace.testing import ManualClock

from tests.faults import Fault, FaultyCalls, is_append, is_end, once

pytestmark = pytest.mark.anyio

LEASE = 30.0


@pytest.fixture
def clock() -> ManualClock:
    """Turned by hand."""
    return ManualClock()


@pytest.fixture
async def calls(settings: Settings, clock: ManualClock) -> FaultyCalls:
    """What lies between the store and DynamoDB."""
    return FaultyCalls(DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=clock))


@pytest.fixture
async def backend(settings: Settings, clock: ManualClock, calls: FaultyCalls) -> AsyncIterator[Backend]:
    """A backend of one clock."""
    assert isinstance(calls.inner, DynamoDB)
    backend = Backend(settings, store=Store(calls, settings.table, clock=clock), clock=clock)
    backend.on_close(calls.inner.close)
    yield backend
    await backend.close()


async def open_stream(backend: Backend) -> MessageStream:
    """Return a stream in a new conversation."""
    return await (await Conversation.create(backend=backend)).stream_response("question")


async def flush(stream: MessageStream, clock: ManualClock, calls: FaultyCalls, *chunks: str) -> None:
    """Append chunks and wait until they are in the log."""
    before = len(calls.made)
    for chunk in chunks:
        await stream.append(chunk)
    await clock.advance(0.1)
    await calls.finished(before + 1)


async def log_of(backend: Backend, message_id: str) -> list[Event]:
    """Return the stored events."""
    return [event async for segment in backend.store.log.read(message_id) for event in segment.events]


async def test_cancel_keeps_what_the_log_has(backend: Backend, clock: ManualClock, calls: FaultyCalls) -> None:
    """Text, counts and usage are those of the log; the writer finds out at its next flush and reports the same."""
    stream = await open_stream(backend)
    await stream.append(Usage(prompt_tokens=7))
    await flush(stream, clock, calls, "eight ch", "aracters")
    cancelled = await backend.open_replies.cancel(stream.id)
    assert (cancelled.status, cancelled.content, cancelled.seq) == ("cancelled", "eight characters", 4)
    assert cancelled.usage == Usage(7, 4, "estimate")
    assert cancelled.metadata["stream_chunks"] == 2
    assert cancelled.metadata["time_to_first_chunk"] == pytest.approx(0.1)
    lost = asyncio.Event()
    stream.when_lost(lost.set)
    await stream.append("too late")
    await clock.advance(0.1)
    await asyncio.wait_for(lost.wait(), 10)
    with pytest.raises(StreamEnded):
        await stream.append("never")
    assert await stream.complete() == cancelled == await backend.open_replies.cancel(stream.id)


async def test_a_silent_writer_finds_out_by_its_heartbeat(
    backend: Backend, clock: ManualClock, calls: FaultyCalls
) -> None:
    """Also while the provider says nothing, within a sixth of the lease."""
    stream = await open_stream(backend)
    await flush(stream, clock, calls, "a")
    await backend.open_replies.cancel(stream.id)
    lost = asyncio.Event()
    stream.when_lost(lost.set)
    await clock.advance(LEASE / 6)
    await asyncio.wait_for(lost.wait(), 10)


async def test_heartbeats_renew_the_lease(backend: Backend, clock: ManualClock, calls: FaultyCalls) -> None:
    """A writer whose provider thinks for minutes is not swept; its readers see no event for it."""
    stream = await open_stream(backend)
    await flush(stream, clock, calls, "a")
    for _ in range(24):
        before = len(calls.made)
        await clock.advance(5)
        await calls.finished(before + 1)
    assert (await backend.open_replies.sweep()).ended == 0
    await stream.append("b")
    message = await stream.complete()
    assert (message.content, message.seq) == ("ab", 3)
    assert await log_of(backend, stream.id) == [Text("a"), Text("b"), End("completed")]
    assert len([segment async for segment in backend.store.log.read(stream.id)]) == 26


async def test_a_forgotten_stream_does_not_live_for_ever(
    backend: Backend, clock: ManualClock, calls: FaultyCalls
) -> None:
    """A stream that its owner dropped shows no sign of life, and the sweep ends it."""
    message = (await open_stream(backend)).id  # and the stream itself is gone
    await clock.advance(2 * LEASE)
    await calls.finished(len(calls.made))
    assert (await backend.open_replies.sweep()).ended == 1
    assert (await backend.store.messages.get(message)).status == "interrupted"


def die(stream: MessageStream) -> None:
    """Let a writer die: it neither writes nor shows a sign of life from now on."""
    stream._writer._closed = True


@pytest.mark.parametrize("chunks", [[], ["partial "], ["partial ", "text"]])
async def test_the_sweep_ends_orphans(
    backend: Backend, clock: ManualClock, calls: FaultyCalls, chunks: list[str]
) -> None:
    """Also one that died before its first chunk; not before the lease has run out; with text and counts."""
    stream = await open_stream(backend)
    if chunks:
        await flush(stream, clock, calls, *chunks)
    die(stream)
    await clock.advance(LEASE - 1)
    assert (await backend.open_replies.sweep()).ended == 0
    await clock.advance(2)
    swept = await backend.open_replies.sweep()
    assert (swept.looked_at, swept.ended, swept.failed) == (1, 1, 0)
    message = await backend.store.messages.get(stream.id)
    assert (message.status, message.content) == ("interrupted", "".join(chunks))
    assert message.error == {"type": "interrupted", "message": "The reply was interrupted."}
    assert message.metadata["stream_chunks"] == len(chunks)
    assert (await backend.open_replies.sweep()).looked_at == 0


async def test_two_sweeps_at_once(backend: Backend, clock: ManualClock, calls: FaultyCalls) -> None:
    """Each orphan ends once."""
    streams = [await open_stream(backend) for _ in range(5)]
    for stream in streams:
        die(stream)
    await clock.advance(LEASE + 1)
    swept = await asyncio.gather(*(backend.open_replies.sweep() for _ in range(3)))
    assert sum(each.ended for each in swept) == 5
    for stream in streams:
        assert await log_of(backend, stream.id) == [End("interrupted", "interrupted", "The reply was interrupted.")]


async def test_one_that_cannot_be_ended_keeps_no_other_waiting(
    backend: Backend, clock: ManualClock, calls: FaultyCalls
) -> None:
    """The sweep goes on, says so, and the next one ends it."""
    for _ in range(3):
        die(await open_stream(backend))
    await clock.advance(LEASE + 1)
    calls.choose = once("refused", is_end)
    swept = await backend.open_replies.sweep()
    assert (swept.looked_at, swept.ended, swept.failed) == (3, 2, 1)
    assert (await backend.open_replies.sweep()).ended == 1


async def test_a_shard_that_cannot_be_read_keeps_no_other_waiting(
    backend: Backend, clock: ManualClock, calls: FaultyCalls
) -> None:
    """A hot shard may be throttled: the replies in the others are ended, and then the sweep says that it failed."""
    ids = [stream.id for stream in [await open_stream(backend) for _ in range(12)]]
    await clock.advance(LEASE + 1)
    hot = min(map(open_shard, ids))

    def choose(operation: str, request: Payload) -> Fault | None:
        return "refused" if operation == "Query" and hot in str(request["ExpressionAttributeValues"]) else None

    calls.choose = choose
    with pytest.raises(StoreError):
        await backend.open_replies.sweep()
    calls.choose = lambda *_: None
    for each in ids:
        status = "pending" if open_shard(each) == hot else "interrupted"
        assert (await backend.store.messages.peek(each)).status == status
    assert (await backend.open_replies.sweep()).ended == sum(open_shard(each) == hot for each in ids)


def test_replies_are_spread_over_the_shards() -> None:
    """Each has about its eighth: the busiest decides how many replies may start a second. Ids differ in their last two
    characters by four bits only, and none of these was in two of the shards."""
    dice = random.Random(1)
    conversation = new_conversation_id(dice.randbytes)
    ids = [new_message_id(conversation, number, dice.randbytes) for number in range(8_000)]
    found = Counter(map(open_shard, ids))
    assert len(found) == OPEN_SHARDS
    assert max(found.values()) <= 1_150


async def test_replies_that_an_earlier_release_began_are_swept(
    backend: Backend, clock: ManualClock, calls: FaultyCalls
) -> None:
    """It chose another shard for the same id; which one an item is in is written there."""
    stream = await open_stream(backend)
    shard = int(open_shard(stream.id).removeprefix("open "))
    for number in range(OPEN_SHARDS):
        moved = MessageItem.sweep.set(f"open {(shard + number) % OPEN_SHARDS}")
        await backend.store.messages._table.update(message_key(stream.id), MessageItem.pk.exists(), [moved])
        assert (await backend.open_replies.sweep()).looked_at == 0
        before = backend.clock.now() + 1
        assert [each for ids in backend.store.messages.open_ids(before) async for each in ids] == [stream.id]
    die(stream)
    await clock.advance(LEASE + 1)
    assert (await backend.open_replies.sweep()).ended == 1


async def test_a_zombie_that_wakes_after_its_lease(backend: Backend, clock: ManualClock, calls: FaultyCalls) -> None:
    """It is fenced out and told how the reply ended."""
    stream = await open_stream(backend)
    await flush(stream, clock, calls, "a")
    die(stream)
    await clock.advance(LEASE + 1)
    await backend.open_replies.sweep()
    stream._writer._closed = False
    await stream.append("b")
    message = await stream.complete()
    assert (message.status, message.content) == ("interrupted", "a")
    assert (await log_of(backend, stream.id))[:-1] == [Text("a")]


WAYS = ("complete", "fail", "cancel", "close", "sweep")


async def end(backend: Backend, stream: MessageStream, how: str) -> Message:
    """End the stream in one of the ways there are."""
    if how == "complete":
        return await stream.complete()
    if how == "fail":
        return await stream.fail("no")
    if how == "cancel":
        return await stream.cancel("Enough.")
    if how == "close":
        return await backend.open_replies.cancel(stream.id)
    backend.open_replies._lease = 0
    await backend.open_replies.sweep()
    return await backend.store.messages.get(stream.id)


@pytest.mark.parametrize("ways", list(itertools.combinations(WAYS, 2)))
async def test_races_end_in_one_state(
    backend: Backend, clock: ManualClock, calls: FaultyCalls, ways: tuple[str, str]
) -> None:
    """Whoever comes first, everybody reports the same message, and the log has one end as its last entry."""
    stream = await open_stream(backend)
    await flush(stream, clock, calls, "a")
    await clock.advance(0.01)
    first, second = await asyncio.gather(*(end(backend, stream, how) for how in ways))
    stored = await backend.store.messages.get(stream.id)
    events = await log_of(backend, stream.id)
    assert first == second == stored
    assert [type(event) for event in events] == [Text, End]


async def test_cancel_while_the_writer_writes(backend: Backend, clock: ManualClock, calls: FaultyCalls) -> None:
    """The writer may be quicker again and again; the cancel reads on until it is its turn, no segment twice."""
    stream = await open_stream(backend)
    await flush(stream, clock, calls, "0")
    wins = iter(range(3))
    read: list[str] = []

    class Quick(FaultyCalls):
        """Lets the writer win before each of the first ends."""

        async def call(self, operation: str, payload: Payload) -> Payload:
            if is_end(operation, payload) and next(wins, None) is not None:
                await flush(stream, clock, calls, "x")
            answer = await self.inner.call(operation, payload)
            if operation == "Query":
                read.extend(item["sk"]["S"] for item in answer["Items"])
            return answer

    backend.open_replies._store = Store(Quick(calls), backend.settings.table, clock=clock)
    message = await backend.open_replies.cancel(stream.id)
    assert (message.status, message.content) == ("cancelled", "0xxx")
    assert len(read) == len(set(read)) == 4


async def test_a_loser_never_reports_an_open_message(backend: Backend, clock: ManualClock, calls: FaultyCalls) -> None:
    """A segment that is neither ours nor an end means that somebody else writes: that is an error, not an end."""
    stream = await open_stream(backend)
    await backend.store.log.append(stream.id, 0, 1, [Text("another's")], nonce=b"another")
    with pytest.raises(StoreError, match=r"^The reply is being written by somebody else\.$"):
        await stream.complete()


async def test_two_that_wait_for_one_end_that_fails(backend: Backend, clock: ManualClock, calls: FaultyCalls) -> None:
    """One tries again, and nothing can be appended to a stream whose second end is under way."""
    stream = await open_stream(backend)
    await stream.append("hello")
    calls.choose = once("refused", is_end)

    async def insist() -> Message:
        try:
            return await stream.complete()
        except StoreError:
            return await stream.complete()

    async def chatter() -> bool:
        try:
            await stream.complete()
        except StoreError:
            await asyncio.sleep(0)
            try:
                stream.push([Text(" more")])
            except StreamEnded:
                return False
        return True

    message, pushed = await asyncio.gather(insist(), chatter())
    assert not pushed
    assert message.content == "hello" == (await backend.store.messages.get(stream.id)).content


@pytest.mark.parametrize("fault", ["refused", "applied, answer lost"])
async def test_a_heartbeat_that_fails(backend: Backend, clock: ManualClock, calls: FaultyCalls, fault: str) -> None:
    """An empty segment that may or may not be there does not get in the way of the end."""
    stream = await open_stream(backend)
    calls.choose = once(fault, is_append)  # type: ignore[arg-type]
    lost = asyncio.Event()
    stream.when_lost(lost.set)
    await clock.advance(5)
    await asyncio.wait_for(lost.wait(), 10)
    message = await stream.fail("the table was gone")
    assert message == await backend.store.messages.get(stream.id)
    assert [type(event) for event in await log_of(backend, stream.id)] == [End]


# ---- after the retention -----------------------------------------------------------------------------------------


async def test_pruning_removes_every_trace(
    backend: Backend, clock: ManualClock, calls: FaultyCalls, settings: Settings
) -> None:
    """A deleted conversation goes for good after its time, with messages, logs and long content; others stay."""
    stays: list[int] = []  # items after each; how a reply is cut into segments depends on how fast the table is
    kept, deleted = [await Conversation.create(owner="o", backend=backend) for _ in range(2)]
    for conversation in (kept, deleted):
        stream = await conversation.stream_response("x" * 5000)
        for _ in range(3):
            await flush(stream, clock, calls, "y" * 400_000)
        await stream.complete()
        stays.append(len(await scan(calls, settings)))
    await backend.store.conversations.delete(deleted.id, now=clock.now())
    await clock.advance(10)
    assert await backend.store.prune(clock.now() - 20_000_000) == 0
    assert await backend.store.prune(clock.now()) == 1
    assert len(await scan(calls, settings)) == stays[0] - 1  # the other conversation's own item was there already
    with pytest.raises(NotFound):
        await Conversation.load(deleted.id, backend=backend)
    assert len(await (await Conversation.load(kept.id, backend=backend)).messages()) == 2
    assert await backend.store.prune(clock.now()) == 0


async def scan(calls: FaultyCalls, settings: Settings) -> list[object]:
    """Return every item of the table."""
    found: list[object] = []
    request: dict[str, object] = {"TableName": settings.table}
    while True:
        answer = await calls.inner.call("Scan", request)
        found += answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return found
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


@pytest.mark.parametrize("deleted", [0, 1, 2])
async def test_the_sweep_ends_what_was_orphaned_for_longer_than_the_retention(
    backend: Backend, clock: ManualClock, calls: FaultyCalls, deleted: int
) -> None:
    """Whether DynamoDB has deleted the expired log, or a part of it, or nothing yet."""
    stream = await open_stream(backend)
    await flush(stream, clock, calls, "expired ")
    await flush(stream, clock, calls, "text")
    die(stream)
    await clock.advance(backend.settings.retention + 2 * 3600)
    for number in range(deleted):
        key = {"pk": {"S": f"S#{stream.id}"}, "sk": {"S": segment_sort_key(number)}}
        await calls.call("DeleteItem", {"TableName": backend.settings.table, "Key": key})
    swept = await backend.open_replies.sweep()
    assert (swept.ended, swept.failed) == (1, 0)
    message = await backend.store.messages.get(stream.id)
    assert (message.status, message.content) == ("interrupted", "")
    assert (await backend.open_replies.sweep()).looked_at == 0
