"""Deliveries on channels: each subscriber hears a reply as it asked for it, and all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tailrace.broadcast.chunk_frames import ChunkFrames, delivery_of, delivery_text
from tailrace.broadcast.feed import LOOK_SECONDS
from tailrace.broadcast.frames import LARGEST_FRAME, Frames
from tailrace.broadcast.segment_queue import LARGEST_QUEUE
from tailrace.broadcast.subscribers import MOST_DELIVERIES
from tailrace.delivery import Delivery, Part, Piece, Voided
from tailrace.delivery.pieces import PART_EVENTS
from tailrace.events import Event, Reasoning, Reset, Text, ToolCall, ToolRun
from tailrace.protocols.parts import part_data, shortened
from tailrace.store.segment import text_of

from tests.broadcast.test_catch_up import CHUNK, chunks, names, opened
from tests.broadcast.test_feed import CHANNEL, Function, Reply, _values, joined, queries
from tests.broadcast.websocket import WebSocketApi
from tests.test_delivery import STEP

SENTENCES = Delivery("sentence")


async def listen(reply: Reply, socket: str, delivery: Delivery, **starts: int) -> None:
    """Subscribe with a delivery."""
    await reply.store.subscriptions.put(CHANNEL, socket, starts=starts, delivery=delivery_text(delivery))


def texts(reply: Reply, socket: str) -> list[str]:
    """Return the chunks that a socket got, each."""
    return [chunk["chunk"] for chunk in reply.clients.chunks(socket)]


# ---- in the feed ----


@pytest.mark.anyio
async def test_two_subscribers_of_one_reply_may_ask_for_different_ones() -> None:
    """Chunks as they are stored, whole sentences, and at most every second, by the clock; each with all of it."""
    reply = Reply()
    await reply.subscribe("chunks")
    await listen(reply, "sentences", SENTENCES)
    await listen(reply, "slow", Delivery(interval_ms=1000))
    reply.feed.start()
    for text in ("It ra", "ins. Dr. Smith", " stays. ", "She re", "ads."):
        await reply.append(Text(text))
        await reply.pass_time(0.3)
    await reply.end()
    await reply.pass_time()
    assert texts(reply, "chunks") == ["It ra", "ins. Dr. Smith", " stays. ", "She re", "ads."]
    assert texts(reply, "sentences") == ["It rains. ", "Dr. Smith stays. ", "She reads."]
    assert texts(reply, "slow") == ["It ra", "ins. Dr. Smith stays. She re", "ads."]
    for socket in ("chunks", "sentences", "slow"):
        assert reply.clients.names(socket)[0] == "MessageCreated"
    assert [chunk["sentence_count"] for chunk in reply.clients.chunks("sentences")] == [1, 2, 3]
    assert len(reply.fed) == 1
    assert reply.tasks == set()


@pytest.mark.anyio
async def test_a_sentence_that_ends_inside_an_entry_says_where() -> None:
    """``seq`` is the last entry that is whole; ``cursor`` has what is more, and the next frame's ``offset`` too."""
    reply = Reply()
    await listen(reply, "one", SENTENCES)
    reply.feed.start()
    await reply.append(Text("It ra"), Reasoning("hm"), Text("ins. It po"))
    await reply.append(Text("urs."))
    await reply.end()
    await reply.pass_time()
    assert reply.clients.chunks("one") == [
        {
            "message_id": "m",
            "chunk": "It rains. ",
            "first_seq": 1,
            "seq": 2,
            "cursor": "3.5",
            "chunk_count": 2,
            "sentence_count": 1,
        },
        {
            "message_id": "m",
            "chunk": "It pours.",
            "first_seq": 3,
            "offset": 5,
            "seq": 4,
            "chunk_count": 1,
            "sentence_count": 2,
        },
    ]


@pytest.mark.anyio
async def test_progress_counts_from_the_reply_s_beginning() -> None:
    """Whoever comes late: what came before is read from the log once, and counts."""
    reply = Reply()
    await reply.subscribe("early")
    reply.feed.start()
    await reply.append(Text("abc"))
    await reply.pass_time(2.0)
    await listen(reply, "late", Delivery(progress=True))
    before = queries(reply)
    await reply.append(Text("d"), Text("e"))
    await reply.pass_time(0.0)
    assert queries(reply) == before + 2  # the subscriptions, and the log
    await reply.append(Text("f"))
    await reply.pass_time(0.0)
    assert queries(reply) == before + 2
    (first, second) = reply.clients.chunks("late")
    begun = first["progress"]["elapsed"] - 2.0
    assert first["progress"] == {
        "chunks": 3,
        "characters": 5,
        "elapsed": round(begun + 2.0, 2),
        "speed": first["progress"]["speed"],
    }
    assert (second["chunk"], second["progress"]["chunks"], second["progress"]["characters"]) == ("f", 4, 6)
    assert "progress" not in str(reply.clients.got["early"])


@pytest.mark.anyio
async def test_who_comes_late_finds_the_same_sentences() -> None:
    """Inside a line of code nothing ends a sentence, also for one who came after its fence."""
    reply = Reply()
    await reply.subscribe("other")
    reply.feed.start()
    await reply.append(Text("Look:\n```\na = 1.\n"))
    await reply.pass_time()
    await listen(reply, "late", SENTENCES)
    await reply.append(Text("Yes! No\n"))
    await reply.append(Text("```\nDone."))
    await reply.end()
    await reply.pass_time()
    assert texts(reply, "late") == ["Yes! No\n```\n", "Done."]


@pytest.mark.anyio
async def test_nobody_pays_for_a_delivery_that_nobody_asks_for() -> None:
    """No branch, no timer, no read of the log."""
    reply = Reply()
    await reply.subscribe("one")
    reply.feed.start()
    await reply.append(Text("a. B"))
    await reply.pass_time()
    assert not reply.feed._subscribers.deliveries
    assert not any("L#" in str(payload) for operation, payload in reply.calls.made if operation == "Query")


@pytest.mark.anyio
async def test_a_branch_goes_with_its_last_subscriber() -> None:
    """The next look closes it, and its timer with it."""
    reply = Reply()
    await listen(reply, "one", Delivery(interval_ms=60_000))
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.append(Text("b"))
    await reply.pass_time()
    assert reply.feed._subscribers.deliveries
    await reply.store.subscriptions.remove(CHANNEL, "one")
    await reply.append(Text("c"))
    await reply.pass_time(LOOK_SECONDS)
    assert not reply.feed._subscribers.deliveries
    await reply.pass_time(100)
    assert texts(reply, "one") == ["a"]


@pytest.mark.anyio
async def test_more_deliveries_than_a_relay_makes() -> None:
    """Who asks for one more gets every chunk as it is stored, and all of it."""
    reply = Reply()
    for number in range(MOST_DELIVERIES + 1):
        await listen(reply, f"s{number:02}", Delivery(interval_ms=10_000 + number))
    reply.feed.start()
    for text in "abc":
        await reply.append(Text(text))
        await reply.pass_time(0.1)
    seen = [texts(reply, f"s{number:02}") for number in range(MOST_DELIVERIES + 1)]
    assert seen.count(["a"]) == MOST_DELIVERIES
    assert seen.count(["a", "b", "c"]) == 1
    await reply.end()
    await reply.pass_time()
    for number in range(MOST_DELIVERIES + 1):
        assert reply.clients.text(f"s{number:02}") == "abc"


@pytest.mark.anyio
async def test_many_subscribers_get_chunks_instead() -> None:
    """The function that posts for many keeps no state: what waited goes first, and nothing is lost or doubled."""
    function = Function()
    reply = Reply(limit=1, call_function=function.call)
    await listen(reply, "one", SENTENCES)
    reply.feed.start()
    await reply.append(Text("It ra"))
    await reply.pass_time()
    assert texts(reply, "one") == []
    await reply.pass_time(LOOK_SECONDS)
    await reply.subscribe("two")
    await reply.append(Text("ins."))
    await reply.pass_time()
    assert texts(reply, "one") == ["It ra"]
    assert [(each["first"], each["last"]) for each in function.requests] == [(1, 1)]


@pytest.mark.anyio
async def test_a_slow_subscriber_keeps_no_other_waiting() -> None:
    """They share a branch, and each has its own place in it; in the end both have everything."""
    reply = Reply()
    await listen(reply, "quick", SENTENCES)
    await listen(reply, "slow", SENTENCES)
    reply.clients.takes["slow"] = 0.15
    reply.feed.start()
    for text in ("It rains. ", "It pours. ", "We stay. ", "Good. "):
        await reply.append(Text(text))
        await reply.pass_time(0.1)
    assert texts(reply, "quick") == ["It rains. ", "It pours. ", "We stay. "]
    assert texts(reply, "slow") == ["It rains. "]
    await reply.end()
    await reply.pass_time(1)
    for socket in ("quick", "slow"):
        assert reply.clients.text(socket) == "It rains. It pours. We stay. Good. "
    assert reply.tasks == set()


@pytest.mark.anyio
async def test_one_that_is_far_behind_gets_its_sentences_from_the_log() -> None:
    """As whoever gets every chunk does: all of it, and not the memory of the relay."""
    reply = Reply()
    await listen(reply, "slow", SENTENCES)
    reply.feed.start()
    await reply.pass_time()
    reply.clients.takes["slow"] = 0.6
    said = [f"Number {number} is {'x' * 900}. " for number in range(1000)]
    for number in range(0, 1000, 10):
        await reply.append(*map(Text, said[number : number + 10]))
        await reply.pass_time(0.02)
        assert reply.feed._queue._size <= LARGEST_QUEUE
    assert reply.feed._queue.dropped > 10
    reply.clients.takes["slow"] = 0.0
    await reply.pass_time(1)
    await reply.end()
    while reply.tasks:
        await reply.pass_time()
    assert texts(reply, "slow") == said
    assert [chunk["sentence_count"] for chunk in reply.clients.chunks("slow")] == [*range(1, 1001)]


@pytest.mark.anyio
async def test_a_log_that_cannot_be_read_when_a_late_one_comes() -> None:
    """It gets what comes then; only its sentences may be others, since nobody knows what was before."""
    reply = Reply()
    await reply.subscribe("other")
    reply.feed.start()
    await reply.append(Text("```\na = 1. "))
    await reply.pass_time()
    await listen(reply, "late", SENTENCES)
    reply.calls.choose = lambda operation, payload: "refused" if {"S": "S#m"} in _values(payload) else None
    await reply.append(Text("Yes! No"))
    await reply.pass_time(10)
    reply.calls.choose = lambda operation, payload: None
    await reply.end()
    await reply.pass_time()
    assert texts(reply, "late") == ["Yes! ", "No"]


@pytest.mark.anyio
async def test_text_that_is_too_long_for_a_frame() -> None:
    """It is cut: ``seq`` stays where it was until the last part, and ``offset`` counts on."""
    reply = Reply()
    await listen(reply, "one", Delivery(interval_ms=60_000))
    reply.feed.start()
    await reply.append(Text("a"))
    await reply.pass_time()
    text = "水" * 30_000
    for _ in range(2):
        await reply.append(Text(text))
        await reply.pass_time()
    await reply.end()
    await reply.pass_time()
    first, *parts, last = reply.clients.chunks("one")
    assert joined([first, *parts, last]) == "a" + 2 * text
    assert [(part["first_seq"], part["seq"]) for part in parts] == [(2, 1)] * len(parts)
    assert (last["first_seq"], last["seq"]) == (2, 3)
    assert last["offset"] == sum(len(part["chunk"]) for part in parts) > 0


def test_what_frames_hold() -> None:
    """Any text, in frames that are not too long."""
    for text in ("x" * 200_000, "水" * 100_000, "\x00" * 70_000):
        frames = ChunkFrames(Frames("N\\"), "c", "m", delivery=Delivery(progress=True))
        found = frames.feed(1, [Text(text)], 1.0)
        assert len(found) > 1
        assert max(map(len, found)) <= LARGEST_FRAME


# ---- any text, any cuts, any clock, any subscriber ----


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.lists(STEP, max_size=12),
    st.lists(
        st.tuples(
            st.integers(0, 12),
            st.booleans(),
            st.builds(
                Delivery,
                st.sampled_from(["chunk", "sentence"]),
                st.sampled_from([None, 50, 200]),
                st.booleans(),
                st.booleans(),
            ),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_any_reply_for_any_subscribers(
    program: list[tuple[float, list[Event]]], subscribers: list[tuple[int, bool, Delivery]]
) -> None:
    """Each gets all from where it begins, in order, and never a thing twice; from the beginning, sentences are those
    of every other reader."""
    asyncio.run(_run(program, subscribers))


async def _run(
    program: Sequence[tuple[float, Sequence[Event]]], subscribers: Sequence[tuple[int, bool, Delivery]]
) -> None:
    reply = Reply()
    begins: dict[str, tuple[Delivery, int | None]] = {}

    async def arrive(moment: int) -> None:
        for number, (when, caught_up, delivery) in enumerate(subscribers):
            if when == moment:
                starts = {"m": reply.number + 1} if caught_up else {}
                await listen(reply, f"s{number}", delivery, **starts)
                begins[f"s{number}"] = (delivery, len(reply.log) + 1 if caught_up else None)

    reply.feed.start()
    for moment, (wait, events) in enumerate(program):
        await arrive(moment)
        await reply.pass_time(wait)
        await reply.append(*events)
    await reply.end()
    await reply.pass_time(5)
    await reply.feed.drain()
    assert len(reply.fed) == 1
    assert reply.tasks == set()
    for socket, (delivery, first) in begins.items():
        got = reply.clients.chunks(socket)
        place = (got[0]["first_seq"] if first is None and got else first or len(reply.log) + 1, 0)
        begin = place[0]
        for chunk in got:
            assert (chunk["first_seq"], chunk.get("offset", 0)) == place
            place = (chunk["seq"] + 1, int(chunk.get("cursor", ".0").partition(".")[2]))
            assert ("progress" in chunk) == (
                delivery.progress and not chunk.get("reset", False) and "part" not in chunk
            )
        assert joined(got) == text_of(reply.log[begin - 1 :])
        last = [chunk for chunk in got if "progress" in chunk][-1:]
        if last and not [chunk for chunk in got if "part" not in chunk][-1].get("reset"):
            assert last[0]["progress"]["characters"] == len(text_of(reply.log))
        parts = [chunk["part"] for chunk in got if "part" in chunk]
        wanted = [event for event in reply.log[begin - 1 :] if isinstance(event, PART_EVENTS)]
        assert parts == [part_data(event) for event in wanted if delivery.parts]
        if begin == 1 and delivery.by == "sentence" and delivery.interval_ms is None and not delivery.parts:
            assert [chunk["chunk"] for chunk in got if not chunk.get("reset")] == sentences(program)


def sentences(program: Sequence[tuple[float, Sequence[Event]]]) -> list[str]:
    """Return the sentences that every other reader of this log gets."""
    pieces, seq = SENTENCES.open(), 1
    found: list[Piece | Voided | Part] = []
    for _, events in program:
        found += pieces.feed(seq, events, 0.0)
        seq += len(events)
    return [piece.text for piece in (*found, *pieces.flush()) if isinstance(piece, Piece)]


# ---- subscribing ----


@pytest.mark.anyio
async def test_catching_up_with_a_delivery() -> None:
    """What was missed comes in whole sentences; of the one that is being written, what is there, since whoever posts
    the rest begins with the next segment."""
    api = WebSocketApi()
    stream, channel = await opened(api, "It ra", "ins. It po", "urs. She s")
    frames = await api.subscribe("s1", channel, after={stream.id: 0}, delivery={"by": "sentence"})
    assert chunks(frames) == [(1, 1, "It rains. "), (2, 2, "It pours. "), (3, 3, "She s")]
    assert [frame["data"]["sentence_count"] for frame in frames[1:]] == [1, 2, 3]
    cursor = frames[1]["data"]["cursor"]
    assert cursor == "2.5"
    (subscription,) = [each async for each in api.store.subscriptions.of_channel(channel)]
    assert subscription.starts == {stream.id: 3}
    assert subscription.delivery is not None
    assert delivery_of(subscription.delivery) == SENTENCES

    # From that place inside an entry on, whatever it is that one asks for now.
    frames = await api.subscribe("s2", channel, after={stream.id: cursor}, delivery={"by": "sentence"})
    assert chunks(frames) == [(2, 2, "It pours. "), (3, 3, "She s")]
    assert frames[1]["data"]["offset"] == 5
    frames = await api.subscribe("s3", channel, after={stream.id: cursor})
    assert chunks(frames) == [(2, 3, "It pours. She s")]

    await stream.complete()
    frames = await api.subscribe("s4", channel, after={stream.id: cursor}, delivery={"by": "sentence"})
    assert chunks(frames) == [(2, 2, "It pours. "), (3, 3, "She s")]
    assert names(frames)[-1] == "MessageCompleted"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"delivery": {"by": "word"}}, "Invalid enum value 'word' - at `$.delivery.by`"),
        ({"delivery": {"interval_ms": "soon"}}, "Expected `int | null`, got `str` - at `$.delivery.interval_ms`"),
        ({"delivery": {"interval_ms": 5}}, "delivery.interval_ms must be 10 to 60000."),
        ({"delivery": "sentence"}, "Expected `object | null`, got `str` - at `$.delivery`"),
        ({"after": {"m": "3.x"}}, "after has, for each message, a chunk's seq or cursor."),
        ({"after": {"m": "0.5"}}, "after has, for each message, a chunk's seq or cursor."),
    ],
)
async def test_a_delivery_that_cannot_be(data: dict[str, Any], says: str) -> None:
    """The subscription is refused, and the message says why."""
    api = WebSocketApi()
    (refused,) = await api.subscribe("s1", "lobby", **data)
    assert (refused["event"], refused["channel"]) == ("error", "lobby")
    assert says in refused["data"]["message"]
    assert [each async for each in api.store.subscriptions.of_channel("lobby")] == []


@pytest.mark.anyio
async def test_asking_for_every_chunk_is_asking_for_nothing() -> None:
    """Then there is nothing to store."""
    api = WebSocketApi()
    await api.subscribe("s1", "lobby", delivery={"by": "chunk", "interval_ms": None})
    (subscription,) = [each async for each in api.store.subscriptions.of_channel("lobby")]
    assert subscription.delivery is None


@pytest.mark.anyio
async def test_what_waits_before_a_tool_call_or_a_reset() -> None:
    """What was said before a tool call is said; what waited before a reset is void."""
    reply = Reply()
    await listen(reply, "one", SENTENCES)
    reply.feed.start()
    await reply.append(Text("I look"), ToolCall("1", "look", "{}"), Text("No"))
    await reply.append(Reset(), Text("Yes."))
    await reply.end()
    await reply.pass_time()
    assert [(chunk["chunk"], chunk.get("reset")) for chunk in reply.clients.chunks("one")] == [
        ("I look", None),
        ("", True),
        ("Yes.", None),
    ]
    assert CHUNK in reply.clients.names("one")


@pytest.mark.anyio
async def test_a_tool_is_told_while_it_runs() -> None:
    """To who wants parts; whoever does not gets a frame without text, so that the numbers follow on each other."""
    reply = Reply()
    reply.feed.start()
    await listen(reply, "parts", Delivery(parts=True))
    await listen(reply, "plain", Delivery(progress=True))
    await reply.pass_time(0.0)
    await reply.append(Text("Let me see. "))
    await reply.append(ToolCall("c", "weather", "{}"), ToolRun("c", "weather"))
    await reply.pass_time(0.5)
    told = reply.clients.chunks("parts")
    assert [chunk.get("part") for chunk in told] == [
        None,
        {"tool_call": {"id": "c", "name": "weather", "arguments": "{}"}},
        {"tool_run": {"id": "c", "name": "weather"}},
    ]
    await reply.append(Text("Warm."))
    await reply.end()
    await reply.pass_time(5)
    await reply.feed.drain()
    assert joined(reply.clients.chunks("parts")) == joined(reply.clients.chunks("plain")) == "Let me see. Warm."
    long = {"tool_result": {"id": "c", "name": "weather", "result": "x" * 200_000}}
    assert shortened(long) == {"tool_result": {"id": "c", "name": "weather", "omitted": "too long"}}
