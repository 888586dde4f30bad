"""Reports: added up from what is stored of each reply, for a conversation and for a day, and whose they are."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.owner import Owner
from tailrace.conversation.report import Report, TimeToFirstChunk, bounds, day_of, parse_day
from tailrace.errors import ProviderError, StoreError, Unprocessable
from tailrace.events import Usage
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.testing import START, ManualClock

from tests.faults import FaultyCalls
from tests.http.conftest import Client, script
from tests.http.conftest import client as client
from tests.http.conftest import serve as serve
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio

NOTHING = Report(
    replies=0,
    open=0,
    completed=0,
    failures={},
    chunks=0,
    prompt_tokens=0,
    completion_tokens=0,
    estimated=0,
    time_to_first_chunk=None,
)
DAY = 24 * 3600


class World:
    """A backend in memory whose clock is turned by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.calls = FaultyCalls(MemoryCalls())
        store = Store(self.calls, "memory", clock=self.clock)
        self.backend = Backend(Settings(table="memory"), store=store, clock=self.clock)

    async def reply(self, conversation: Conversation, wait: float, *chunks: str, usage: Usage | None = None) -> None:
        """Write a whole reply, its first chunk after a while."""
        stream = await conversation.stream_response("question")
        await self.clock.advance(wait)
        for chunk in chunks:
            await stream.append(chunk)
        if usage is not None:
            await stream.append(usage)
        await stream.complete()


async def test_a_conversation_s_report() -> None:
    """Whole, failed, stopped and open replies; messages that were added whole are none, deleted ones do not count."""
    world = World()
    conversation = await Conversation.create(backend=world.backend)
    assert await conversation.report() == NOTHING
    await conversation.add_assistant_message("not streamed")
    await world.reply(conversation, 0.5, "a", "b", usage=Usage(10, 2))
    await world.reply(conversation, 1.5, "c", usage=Usage(20, 1))
    failing = await conversation.stream_response("question")
    await failing.append("12345678")
    await failing.fail(ProviderError("No.", provider="scripted"))
    refused = await conversation.stream_response("question", metadata={"time_to_first_chunk": "soon"})
    await refused.fail("no")
    opened = await conversation.stream_response("question")
    await opened.append("not yet")
    await world.reply(conversation, 0.0, "deleted", usage=Usage(1000, 1000))
    deleted = await conversation.last_message()
    assert deleted is not None
    await conversation.delete_message(deleted.id)
    assert await conversation.report() == Report(
        replies=5,
        open=1,
        completed=2,
        failures={"api_error": 1, "general_error": 1},
        chunks=4,
        prompt_tokens=30,
        completion_tokens=5,
        estimated=2,
        time_to_first_chunk=TimeToFirstChunk(mean=0.666667, longest=1.5),
    )
    await opened.cancel()
    assert (await conversation.report()).failures == {"api_error": 1, "cancelled": 1, "general_error": 1}


async def test_a_day_s_report() -> None:
    """All conversations of an owner, also those made before; by when a reply was started, in UTC; nobody else's."""
    world = World()
    owner, other = Owner("user-1", backend=world.backend), Owner("user-2", backend=world.backend)
    first_day = day_of(START)
    conversations = [await owner.start_conversation() for _ in range(20)]
    strangers = await other.start_conversation()
    for conversation in (*conversations, strangers):
        await world.reply(conversation, 0.1, "a", usage=Usage(1, 1))
    await world.clock.advance(bounds(first_day)[1] / 1_000_000 - world.clock.now() / 1_000_000 - 0.5)
    await world.reply(conversations[3], 1.0, "started before midnight", usage=Usage(100, 100))
    await world.reply(conversations[4], 0.25, "b", "c", usage=Usage(5, 7))
    late = await owner.start_conversation()
    await world.reply(late, 0.25, "d", usage=Usage(5, 7))
    first, second = await owner.report(first_day), await owner.report()
    assert (first.replies, first.chunks, first.prompt_tokens) == (21, 21, 120)
    assert first.time_to_first_chunk == TimeToFirstChunk(mean=round(3.0 / 21, 6), longest=1.0)
    assert second == Report(
        replies=2,
        open=0,
        completed=2,
        failures={},
        chunks=3,
        prompt_tokens=10,
        completion_tokens=14,
        estimated=0,
        time_to_first_chunk=TimeToFirstChunk(mean=0.25, longest=0.25),
    )
    assert await owner.report(first_day + timedelta(days=2)) == NOTHING
    assert await owner.report(first_day - timedelta(days=1)) == NOTHING
    assert (await other.report(first_day)).replies == 1
    await late.delete()
    assert (await owner.report()).replies == 1


async def test_a_day_s_report_costs_a_query_for_each_conversation() -> None:
    """And one of the index: no scan, and nothing when a reply is written."""
    world = World()
    owner = Owner("user-1", backend=world.backend)
    for _ in range(40):
        await world.reply(await owner.start_conversation(), 0.0, "a")
    world.calls.made.clear()
    assert (await owner.report()).replies == 40
    assert [operation for operation, _ in world.calls.made] == ["Query"] * 41


async def test_a_table_that_cannot_be_read() -> None:
    """The usual error, and no task left behind."""
    world = World()
    owner = Owner("user-1", backend=world.backend)
    for _ in range(5):
        await owner.start_conversation()
    world.calls.choose = lambda operation, payload: None if "IndexName" in payload else "refused"
    with pytest.raises(StoreError, match=r"^The store is not available\."):
        await owner.report()


async def test_over_http(client: Client) -> None:
    """A conversation's and a day's, and what cannot be a day."""
    conversation = await client.conversation()
    await client.start(script("a", "b"), conversation)
    await client.start(script("a", "b", error_at=1), conversation)
    status, found = await client.json("GET", f"/conversations/{conversation}/report")
    assert status == 200
    wait = found.pop("time_to_first_chunk")
    assert 0 < wait["mean"] <= wait["longest"]
    assert found["failures"] == {"api_error": 1}
    assert (found["replies"], found["open"], found["completed"], found["chunks"]) == (2, 0, 1, 3)
    today = day_of(client.backend.clock.now())
    status, of_today = await client.json("GET", f"/report?day={today}")
    assert (status, of_today["time_to_first_chunk"].keys()) == (200, {"mean", "longest"})
    assert of_today["replies"] == 2
    assert (await client.json("GET", "/report"))[0] == 200
    assert (await client.json("GET", "/conversations/x/report"))[0] == 404
    for text in ("yesterday", "2026-02-30", "20261122", "2026-W01-1", ""):
        assert await client.json("GET", f"/report?day={text}") == (
            422,
            {"error": {"type": "unprocessable", "message": "day must be a date such as 2026-11-22."}},
        )


def test_days() -> None:
    """In UTC, from midnight to midnight."""
    assert parse_day("2026-01-01") == date(2026, 1, 1)
    assert bounds(date(2026, 1, 1)) == (START, START + DAY * 1_000_000)
    assert (day_of(START), day_of(START - 1)) == (date(2026, 1, 1), date(2025, 12, 31))
    with pytest.raises(Unprocessable, match=r"^day must be a date such as 2026-11-22\.$"):
        parse_day("1")
