"""Deliveries over HTTP: what a start and a reader ask for, exact resume inside a chunk, and what cannot be asked."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from tailrace.conversation.conversation import Conversation
from tailrace.events import Reset, ToolCall, Usage
from tailrace.reply.stream import MessageStream

from tests.http.conftest import Client, events, script
from tests.test_cut_everywhere import Call, World, is_terminal
from tests.test_cut_everywhere import events as judged
from tests.test_sentences import sentences

pytestmark = pytest.mark.anyio

STORY = "It rained, e.g. in Rome. Dr. Smith said: 3.14! 下雨了。他说。\n\n- One. Two\n- Three\n\nThe end"
CHUNKS = [STORY[start : start + 7] for start in range(0, len(STORY), 7)]

Json = dict[str, Any]


def texts(found: list[Json]) -> list[str]:
    """Return the text of each event that has one."""
    return [event.get("sentence") or event["chunk"] for event in found if "sentence" in event or "chunk" in event]


async def written(world: World, chunks: list[str]) -> MessageStream:
    """Return a reply that is being written, all of it flushed."""
    stream = await world.stream()
    for number, chunk in enumerate(chunks):
        await stream.append(chunk)
        if number % 5 == 4:
            await stream.append(Usage(prompt_tokens=number))
            await world.clock.advance(0.1)
    await world.clock.advance(0.1)
    return stream


async def test_sentences_as_the_seed_page_has_them(client: Client) -> None:
    """``sentence``, ``sentence_count`` from 1, ``message_id``; joined they are the message."""
    response, body = await client.start({**script(*CHUNKS), "delivery": {"by": "sentence"}})
    *found, last = events(body)
    assert texts(found) == sentences(STORY)
    assert [event["sentence_count"] for event in found] == list(range(1, len(found) + 1))
    assert list(found[0]) == ["sentence", "sentence_count", "message_id", "id"]
    assert {event["message_id"] for event in found} == {response.headers["X-Message-Id"]}
    assert last["message"]["content"] == STORY
    assert last["message"]["metadata"]["stream_chunks"] == len(CHUNKS)


async def test_progress_with_sentences(client: Client) -> None:
    """Chunks and characters so far; a chunk that was begun counts."""
    asked = {"by": "sentence", "progress": True}
    _, body = await client.start({**script("One. Tw", "o. ", "Three."), "delivery": asked})
    found = [(event["sentence"], event["progress"]) for event in events(body)[:-1]]
    assert [(text, p["chunks"], p["characters"]) for text, p in found] == [
        ("One. ", 1, 5),
        ("Two. ", 2, 10),
        ("Three.", 3, 16),
    ]
    assert all(p["elapsed"] >= 0 and p["speed"] >= 0 for _, p in found)


async def test_a_reply_that_fails_delivers_what_waits_first(client: Client) -> None:
    """The half sentence before the terminal event: it is in the message too."""
    body = {**script("One. ", "Half a sen", "tence", error_at=2), "delivery": {"by": "sentence"}}
    _, raw = await client.start(body)
    *found, last = events(raw)
    assert texts(found) == ["One. ", "Half a sen"]
    assert last["error"] is True


@pytest.mark.parametrize("asked", ["", "by=sentence", "by=sentence&interval_ms=100", "interval_ms=200&progress=true"])
@pytest.mark.parametrize("how", ["completed", "cancelled", "open"])
async def test_from_every_sentence_s_end(asked: str, how: str) -> None:
    """After every id that a reader by sentence got, whatever it asks for then: the rest, and nothing twice."""
    world = World()
    stream = await written(world, CHUNKS)
    if how == "cancelled":
        await stream.cancel()
    elif how == "completed":
        await stream.complete()
    path = f"/messages/{stream.id}"
    by_sentence = await polled(world, f"{path}/events?by=sentence")
    ids = [event["id"] for event in by_sentence if "sentence" in event]
    assert any("." in cursor.partition(":")[2] for cursor in ids)
    for place, cursor in enumerate(ids):
        had = "".join(texts(by_sentence[: place + 1]))
        rest = await polled(world, f"{path}/events?after={cursor}&{asked}")
        if how == "open":
            assert STORY.startswith(had + "".join(texts(rest)))
            continue
        assert had + "".join(texts(rest)) == STORY
        assert {key for event in rest for key in ("done", "error") if key in event}
        streamed = judged(await world.body(f"{path}/stream?{asked}", cursor))
        assert is_terminal(streamed[-1])
        assert had + "".join(texts([msgspec.json.decode(data) for data, _ in streamed])) == STORY
        if asked == "by=sentence":
            assert rest == by_sentence[place + 1 :]
            assert [event_id for _, event_id in streamed] == [event["id"] for event in rest]
    await stream.complete()


async def polled(world: World, path: str) -> list[Json]:
    """Return the events of a poll."""
    found: list[Json] = msgspec.json.decode(await world.body(path))
    return found


async def test_a_body_by_sentence_cut_after_every_byte() -> None:
    """What is left of it and what is resumed are the whole, live as well as from the log."""
    world = World()
    conversation = await Conversation.create(backend=world.backend)
    options = {"script": {"chunks": CHUNKS, "batch": 3}}
    body = {"input": "Tell me.", "model": "fast", "options": options, "delivery": {"by": "sentence"}}
    call = Call(
        world.app,
        "POST",
        f"/conversations/{conversation.id}/stream",
        {"Content-Type": "application/json"},
        msgspec.json.encode(body),
    )
    await call.task
    message = await world.backend.store.messages.newest_reply(conversation.id)
    path = f"/messages/{message}/stream?by=sentence"
    assert await world.body(path) == bytes(call.body)
    everything = judged(bytes(call.body))
    resumed: dict[str | None, list[tuple[str, str]]] = {}
    for end in range(len(call.body) + 1):
        before = judged(bytes(call.body[:end]))
        cursor = before[-1][1] if before else None
        if cursor not in resumed:
            resumed[cursor] = judged(await world.body(path, cursor))
        assert before + resumed[cursor] == everything, f"cut after {end} bytes"
    assert len(resumed) == len(everything) + 1
    await world.backend.close()


async def test_a_follower_by_interval() -> None:
    """What came within an interval is one event, with the id of its last entry; a pause flushes what waits."""
    world = World()
    stream = await world.stream()
    path = f"/messages/{stream.id}/stream?interval_ms=5000"
    call = Call(world.app, "GET", path, {})
    await stream.append("One ")
    await world.clock.advance(1.0)
    for word in ("two ", "three ", "four"):
        await stream.append(word)
        await world.clock.advance(0.5)
    await world.clock.advance(5.0)
    found = [(msgspec.json.decode(data)["chunk"], event_id) for data, event_id in judged(bytes(call.body))]
    assert found == [("One ", f"{stream.id}:1"), ("two three four", f"{stream.id}:4")]
    await stream.append("!")
    await stream.complete()
    await world.clock.advance(3.0)
    await call.task
    *_, rest, end = judged(bytes(call.body))
    assert msgspec.json.decode(rest[0])["chunk"] == "!"
    assert is_terminal(end)


async def test_the_interval_on_a_real_clock(client: Client) -> None:
    """The starting connection gets its chunks together, at most every so often, and all of them before the end."""
    chunks = [f"{number} " for number in range(40)]
    body = {**script(*chunks, every=0.005), "delivery": {"interval_ms": 50, "progress": True}}
    _, raw = await client.start(body)
    *found, last = events(raw)
    assert "".join(texts(found)) == "".join(chunks) == last["message"]["content"]
    assert 2 <= len(found) < len(chunks)
    elapsed = [event["progress"]["elapsed"] for event in found]
    assert all(later - sooner >= 0.03 for sooner, later in pairwise(elapsed[:-1]))
    assert found[-1]["progress"]["chunks"] == len(chunks)


async def test_two_readers_of_one_reply_ask_for_different_ones(client: Client) -> None:
    """Also under one idempotency key: how a reader wants it is no part of what is started."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    bodies = [{**script(*CHUNKS), "delivery": delivery} for delivery in ({}, {"by": "sentence"}, {"progress": True})]

    async def read(body: Json) -> list[Json]:
        async with client.session.post(path, json=body, headers={"Idempotency-Key": "k"}) as response:
            assert response.status == 200
            return events(await response.read())

    async with asyncio.timeout(20):
        plain, by_sentence, with_progress = await asyncio.gather(*map(read, bodies))
    assert texts(plain) == texts(with_progress) == CHUNKS
    assert texts(by_sentence) == sentences(STORY)
    assert len({event["message_id"] for found in (plain, by_sentence) for event in found[:-1]}) == 1


async def test_an_event_source_by_sentence(client: Client) -> None:
    """Asked for in the address, so that the browser asks again when it reconnects."""
    conversation = await client.conversation()
    question = quote("Say: One. Two and a ha")
    path = f"/conversations/{conversation}/stream?message={question}&model=echo&by=sentence&key=1"
    async with asyncio.timeout(20), client.session.get(path) as response:
        body = await response.read()
    found = events(body)
    assert "".join(texts(found)) == found[-1]["message"]["content"]
    cursor = found[0]["id"]
    async with client.session.get(path, headers={"Last-Event-ID": cursor}) as response:
        assert events(await response.read()) == found[1:]
    async with client.session.get(f"/conversations/{conversation}/stream?by=sentence") as response:
        assert events(await response.read()) == found


async def test_a_reader_s_progress_goes_on_where_it_was(client: Client) -> None:
    """Chunks and characters of the whole reply, and its own time: the same for whoever reads it again."""
    response, body = await client.start({**script("One ", "two ", "three"), "delivery": {"progress": True}})
    path = f"/messages/{response.headers['X-Message-Id']}/stream?progress=1"
    first, *_ = events(body)
    async with client.session.get(path, headers={"Last-Event-ID": first["id"]}) as response:
        found = events(await response.read())
    assert [(p["chunks"], p["characters"]) for p in (event["progress"] for event in found[:-1])] == [(2, 8), (3, 13)]
    async with client.session.get(path, headers={"Last-Event-ID": first["id"]}) as response:
        assert events(await response.read()) == found


async def test_a_reset_and_a_tool_call(client: Client) -> None:
    """A tool call ends a sentence; a reset voids what waits, and the sentences count from 1 again."""
    stream = await client.open_stream()
    for event in ("One. Let me look", ToolCall("1", "f", "{}"), "Two. Half", Reset(), "Other. Text"):
        await stream.append(event)
    await stream.complete()
    async with client.session.get(f"/messages/{stream.id}/stream?by=sentence") as response:
        found = events(await response.read())
    assert [(event.get("sentence"), event.get("sentence_count"), event.get("reset")) for event in found[:-1]] == [
        ("One. ", 1, None),
        ("Let me look", 2, None),
        (None, None, True),
        ("Other. ", 1, None),
        ("Text", 2, None),
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("by=word", "by must be chunk or sentence."),
        ("interval_ms=x", "interval_ms must be a whole number of milliseconds."),
        ("interval_ms=-5", "interval_ms must be a whole number of milliseconds."),
        ("interval_ms=5", "interval_ms must be 10 to 60000."),
        ("interval_ms=99999", "interval_ms must be 10 to 60000."),
        ("progress=maybe", "progress must be true or false."),
    ],
)
async def test_what_cannot_be_asked_for(client: Client, asked: str, message: str) -> None:
    """400, and the sentence names it; nothing was started."""
    stream = await client.open_stream()
    conversation = await client.conversation()
    for path in (
        f"/messages/{stream.id}/stream?{asked}",
        f"/messages/{stream.id}/events?{asked}",
        f"/conversations/{conversation}/stream?message=hi&{asked}",
    ):
        assert await client.json("GET", path) == (400, {"error": {"type": "invalid_request", "message": message}})
    assert (await client.json("GET", f"/conversations/{conversation}/messages"))[1]["messages"] == []
    await stream.complete()


@pytest.mark.parametrize("cursor", ["1.4", "1.9", "2.1", "3.1", "1.01", "0.1", "1.-1", "1.1.1"])
async def test_a_place_in_a_chunk_that_cannot_be(client: Client, cursor: str) -> None:
    """400: a chunk of four characters has three places in it, and what is no text has none."""
    stream = await client.open_stream()
    await stream.append("four")
    await stream.append(Usage(prompt_tokens=1))
    message = await stream.complete()
    assert message.seq == 3
    for path in (f"/messages/{stream.id}/stream", f"/messages/{stream.id}/events"):
        status, content = await client.json("GET", path, params={"after": cursor})
        assert (status, content["error"]["message"]) == (400, "The cursor is not one of ours.")
        status, found = await client.json("GET", f"/messages/{stream.id}/events", params={"after": "1.3"})
        assert (status, texts(found)) == (200, ["r"])
