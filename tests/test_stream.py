"""A stream: gapless order, exact counts, one end, and no fault that loses or doubles a character."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import ProviderError, StoreError, StreamEnded, TailraceError
from tailrace.events import TERMINAL, End, Event, Message, Reasoning, Reset, ResponseInfo, Text, Usage
from tailrace.reply.stream import TRANSITIONS, MessageStream
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store
from tailrace.testing import ManualClock

from tests.faults import Fault, FaultyCalls, is_append, is_end, once

pytestmark = pytest.mark.anyio


@pytest.fixture
async def calls(backend: Backend, settings: Settings) -> FaultyCalls:
    """What lies between the backend's store and DynamoDB."""
    inner = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=backend.clock)
    calls = FaultyCalls(inner)
    backend.store = Store(calls, settings.table)
    backend.on_close(inner.close)
    return calls


@pytest.fixture
async def clock(backend: Backend) -> ManualClock:
    """The backend's clock, turned by hand."""
    backend.clock = ManualClock()
    return backend.clock


async def open_stream(backend: Backend, **options: object) -> MessageStream:
    """Return a stream in a new conversation."""
    conversation = await Conversation.create(backend=backend)
    return await conversation.stream_response("question", **options)  # type: ignore[arg-type]


async def log_of(backend: Backend, stream: MessageStream) -> list[Event]:
    """Return the stored events; every seq from 1 is there once."""
    events: list[Event] = []
    async for segment in backend.store.log.read(stream.id):
        assert segment.first_seq == len(events) + 1
        events += segment.events
    return events


# ---- the ordinary life -----------------------------------------------------------------------------


async def test_the_log_the_message_and_the_writer_agree(backend: Backend, calls: FaultyCalls) -> None:
    """After the end all three have the same text, counts and seq."""
    stream = await open_stream(backend)
    chunks = [f"{number} ünï😀 " for number in range(500)]
    for chunk in chunks:
        await stream.append(chunk)
    message = await stream.complete()
    events = await log_of(backend, stream)
    assert events == [*map(Text, chunks), End("completed")]
    assert message == await backend.store.messages.get(stream.id)
    assert message.content == "".join(chunks)
    assert message.seq == 501
    assert message.metadata["stream_chunks"] == message.metadata["chunks"] == 500


async def test_a_flush_waits_for_its_interval(backend: Backend, calls: FaultyCalls, clock: ManualClock) -> None:
    """What comes within 100 ms goes into one segment."""
    stream = await open_stream(backend)
    before = len(calls.made)
    for chunk in "abc":
        await stream.append(chunk)
    await clock.advance(0.099)
    assert calls.appends == []
    await clock.advance(0.002)
    await calls.finished(before + 1)
    for chunk in "def":
        await stream.append(chunk)
    await clock.advance(0.1)
    await calls.finished(before + 2)
    assert len(calls.appends) == 2
    snapshot = await backend.store.messages.get(stream.id)
    assert (snapshot.content, snapshot.seq, snapshot.status) == ("abcdef", 6, "streaming")
    await stream.complete()


async def test_a_full_buffer_does_not_wait(backend: Backend, calls: FaultyCalls, clock: ManualClock) -> None:
    """About 1 KB is flushed at once, with one write in flight: the rest makes a larger segment."""
    stream = await open_stream(backend)
    before = len(calls.made)
    stream.push([Text("x" * 100)] * 10)
    await calls.started(before + 1)
    stream.push([Text("x" * 100)] * 90)
    await calls.finished(before + 2)
    assert [int(payload["Item"]["f"]["N"]) for payload in calls.appends] == [1, 11]
    assert (await backend.store.messages.get(stream.id)).seq == 100
    await stream.complete()


async def test_an_empty_chunk_is_nothing(backend: Backend) -> None:
    """It has no seq and does not count."""
    stream = await open_stream(backend)
    await (await (await stream.append("")).append("a")).append("")
    message = await stream.complete()
    assert (message.seq, message.metadata["stream_chunks"]) == (2, 1)


async def test_what_came_at_once_is_logged_and_counted_one_by_one(backend: Backend) -> None:
    """Whatever comes with it: texts alone take a way of their own."""
    stream = await open_stream(backend)
    assert stream.push([Text("a"), Text("é")]) == (1, [Text("a"), Text("é")])
    assert stream.push((Text("b"), Text(""), Text("c"))) == (3, [Text("b"), Text("c")])
    assert stream.push((Text("d"), ResponseInfo(finish_reason="stop"))) == (5, [Text("d")])
    assert stream.push(()) == (6, [])
    assert (stream.content, stream.chunks, stream.seq) == ("aébcd", 5, 5)
    long = "x" * 30_000
    assert stream.push([Text(long), Text(long)]) == (6, [Text(long), Text(long)])
    message = await stream.complete()
    assert (message.content, message.seq) == ("aébcd" + 2 * long, 8)
    assert message.metadata["stream_chunks"] == 7


async def test_a_stream_without_a_chunk_completes_empty(backend: Backend) -> None:
    """Nothing is invented, and the message is not left pending."""
    message = await (await open_stream(backend)).complete()
    assert (message.status, message.content, message.seq) == ("completed", "", 1)
    assert "time_to_first_chunk" not in message.metadata


async def test_one_chunk_larger_than_an_item(backend: Backend) -> None:
    """It is logged as several events and counted as the one chunk it was."""
    stream = await open_stream(backend)
    await stream.append("é" * 700_000)
    message = await stream.complete()
    assert message.content == "é" * 700_000
    assert message.metadata["stream_chunks"] == 1
    assert "".join(str(event) for event in (await log_of(backend, stream))[:-1]) == message.content


async def test_a_reset_voids_what_came_before(backend: Backend) -> None:
    """The content is the new answer alone; the log keeps both."""
    stream = await open_stream(backend)
    for event in (Text("wrong"), Reset(), Text("right")):
        await stream.append(event)
    message = await stream.complete()
    assert message.content == "right"
    assert [type(event) for event in await log_of(backend, stream)] == [Text, Reset, Text, End]


async def test_reasoning_is_logged_and_is_no_content(backend: Backend) -> None:
    """It can be resumed, and does not go into the next prompt."""
    stream = await open_stream(backend)
    await stream.append(Reasoning("hm"))
    await stream.append("so")
    assert (await stream.complete()).content == "so"
    assert (await log_of(backend, stream))[0] == Reasoning("hm")


async def test_metadata_of_an_end(backend: Backend, clock: ManualClock) -> None:
    """The documented keys, with what the provider said; None never overwrites what was given."""
    stream = await open_stream(backend, metadata={"session": "s", "model": "mine", "private": {"ip": "10.0.0.1"}})
    await clock.advance(0.25)
    await stream.append(ResponseInfo(provider_request_id="req"))
    await stream.append(Usage(prompt_tokens=7))
    await stream.append("a")
    await clock.advance(0.5)
    await stream.append(Usage(completion_tokens=0))
    await stream.append(ResponseInfo(finish_reason="stop"))
    message = await stream.complete()
    metadata = dict(message.metadata)
    assert metadata.pop("stream_started_at") < metadata.pop("stream_completed_at")
    assert metadata == {
        "session": "s",
        "model": "mine",
        "streamed": True,
        "stream_chunks": 1,
        "chunks": 1,
        "stream_duration": 0.75,
        "stream_duration_ms": 750.0,
        "time_to_first_chunk": 0.25,
        "prompt_tokens": 7,
        "completion_tokens": 0,
        "finish_reason": "stop",
        "finish": "stop",
        "provider_request_id": "req",
    }
    assert message.usage == Usage(7, 0, "provider")
    assert "10.0.0.1" not in repr(await backend.store.messages.get(stream.id))


# ---- one end -----------------------------------------------------------------------------------------


def test_the_table_of_states() -> None:
    """Terminal states never change, and pending may end without ever streaming."""
    for status, following in TRANSITIONS.items():
        assert following == (frozenset() if status in TERMINAL else following)
        assert following >= (TERMINAL if status not in TERMINAL else frozenset())


ENDS = ("complete", "fail", "stop")


async def end(stream: MessageStream, how: str) -> Message:
    """End the stream in one of the ways."""
    if how == "complete":
        return await stream.complete()
    if how == "fail":
        return await stream.fail("secret words")
    return await stream.cancel()


@pytest.mark.parametrize(("first", "second"), list(itertools.product(ENDS, ENDS)))
async def test_the_first_end_stays(backend: Backend, first: str, second: str) -> None:
    """A later end of any kind changes nothing and returns the message as it ended."""
    stream = await open_stream(backend)
    await stream.append("a")
    ended = await end(stream, first)
    assert await end(stream, second) == ended
    assert await backend.store.messages.get(stream.id) == ended
    with pytest.raises(StreamEnded, match=r"^The reply has already ended\.$"):
        await stream.append("b")


@pytest.mark.parametrize(("first", "second"), list(itertools.product(ENDS, ENDS)))
async def test_two_ends_at_once_make_one(backend: Backend, first: str, second: str) -> None:
    """Both callers get the one message that is stored."""
    stream = await open_stream(backend)
    await stream.append("a")
    both = list(await asyncio.gather(end(stream, first), end(stream, second)))
    stored = await backend.store.messages.get(stream.id)
    assert both == [stored, stored]
    assert [type(event) for event in await log_of(backend, stream)] == [Text, End]


@pytest.mark.parametrize(("first", "second"), list(itertools.product(ENDS, ENDS)))
async def test_two_writers_end_it_once(backend: Backend, first: str, second: str) -> None:
    """A second writer of the same message, in another process say, is fenced out and told the truth."""
    stream = await open_stream(backend)
    other = MessageStream(
        backend.store, stream.message, clock=backend.clock, random_bytes=backend.random_bytes, flush_interval=0.1
    )
    both = list(await asyncio.gather(end(stream, first), end(other, second)))
    stored = await backend.store.messages.get(stream.id)
    assert both == [stored, stored]
    assert len([event for event in await log_of(backend, stream) if isinstance(event, End)]) == 1


async def test_a_writer_that_lost_stops(backend: Backend, calls: FaultyCalls, clock: ManualClock) -> None:
    """A flush that finds another's segment makes the next append fail, and calls back at once."""
    stream = await open_stream(backend)
    other = MessageStream(
        backend.store, stream.message, clock=backend.clock, random_bytes=backend.random_bytes, flush_interval=0.1
    )
    ended = await other.cancel()
    lost = asyncio.Event()
    stream.when_lost(lost.set)
    await stream.append("too late")
    await clock.advance(0.2)
    await asyncio.wait_for(lost.wait(), 5)
    with pytest.raises(StreamEnded):
        await stream.append("b")
    assert await stream.complete() == ended
    assert ended.content == ""


async def test_failures_are_masked(backend: Backend) -> None:
    """What a caller says stays private; readers get a sentence, programs get words."""
    stream = await open_stream(backend)
    message = await stream.fail("postgres://user:password@host", {"error_type": "api_error", "status_code": 500})
    assert message.status == "failed"
    assert message.error == {"type": "api_error", "message": "The reply failed."}
    assert message.metadata["error"] == "The reply failed."
    assert message.metadata["status_code"] == 500
    assert message.metadata["stream_failed_at"] == message.completed_at
    assert "password" not in repr(await backend.store.messages.get(stream.id))


async def test_a_provider_error_says_what_programs_need(backend: Backend) -> None:
    """Provider, status code and whether another try may help are in the metadata; its words are not."""
    stream = await open_stream(backend)
    error = ProviderError(
        "The provider refused.", provider="anthropic", status_code=529, retryable=True, detail="overloaded: <prompt>"
    )
    message = await stream.fail(error)
    assert message.error == {"type": "api_error", "message": "The provider refused."}
    expected = {"provider": "anthropic", "status_code": 529, "retryable": True, "error_type": "api_error"}
    assert expected.items() <= message.metadata.items()
    assert "overloaded" not in repr(message)


# ---- faults of the table -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["refused", "applied, answer lost"])
@pytest.mark.parametrize("nth", [0, 1, 2])
async def test_a_flush_that_fails_loses_and_doubles_nothing(
    backend: Backend, calls: FaultyCalls, clock: ManualClock, fault: Fault, nth: int
) -> None:
    """Whether it was applied or not: the end sends it again, and the log has every event once."""
    stream = await open_stream(backend)
    calls.choose = once(fault, is_append, nth)
    lost = asyncio.Event()
    stream.when_lost(lost.set)
    for number in range(nth + 1):
        before = len(calls.made)
        await stream.append(f"{number} ")
        await clock.advance(0.1)
        if number < nth:
            await calls.finished(before + 1)
    await asyncio.wait_for(lost.wait(), 10)
    with pytest.raises(TailraceError, match="not available"):
        await stream.append("never")
    message = await stream.fail(StoreError("The reply could not be stored."))
    events = await log_of(backend, stream)
    assert "".join(map(str, events[:-1])) == message.content == "".join(f"{number} " for number in range(nth + 1))
    assert message == await backend.store.messages.get(stream.id)


@pytest.mark.parametrize("second", ENDS)
async def test_an_end_whose_answer_was_lost_stays_what_it_was(
    backend: Backend, calls: FaultyCalls, second: str
) -> None:
    """The end was stored and nobody knew: another end reports what is stored, not what it wanted."""
    stream = await open_stream(backend)
    await stream.append("a")
    calls.choose = once("applied, answer lost", is_end)
    with pytest.raises(StoreError):
        await stream.complete()
    message = await end(stream, second)
    assert message == await backend.store.messages.get(stream.id)
    assert message.status == "completed"
    assert [type(event) for event in await log_of(backend, stream)] == [Text, End]


async def test_an_end_that_was_refused_may_be_tried_again(backend: Backend, calls: FaultyCalls) -> None:
    """Nothing was decided, so the next end decides."""
    stream = await open_stream(backend)
    await stream.append("a")
    calls.choose = once("refused", is_end)
    with pytest.raises(StoreError):
        await stream.complete()
    assert (await stream.fail("no")).status == "failed"


@pytest.mark.parametrize("fault", ["refused", "applied, answer lost"])
async def test_nothing_comes_after_an_end_that_is_not_known_to_be_stored(
    backend: Backend, calls: FaultyCalls, fault: Fault
) -> None:
    """It would not be written any more; and where the end was stored after all, a reader would be ahead of the log."""
    stream = await open_stream(backend)
    await stream.append("a")
    calls.choose = once(fault, is_end)
    with pytest.raises(StoreError):
        await stream.complete()
    with pytest.raises(StreamEnded, match="The reply has already ended"):
        stream.push((Text("b"),))
    assert stream.seq == 1
    assert (await stream.complete()).content == "a"
    assert [type(event) for event in await log_of(backend, stream)] == [Text, End]


async def test_a_start_that_fails_stores_nothing(backend: Backend, calls: FaultyCalls) -> None:
    """Question and reply are one transaction."""
    conversation = await Conversation.create(backend=backend)
    calls.choose = lambda operation, payload: "refused" if operation == "TransactWriteItems" else None
    with pytest.raises(StoreError, match="not available"):
        await conversation.stream_response("question")
    assert await conversation.messages() == []
