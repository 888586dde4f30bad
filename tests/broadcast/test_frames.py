"""Frames: whatever the cuts, what subscribers join is the text, and a gap can be told from none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.broadcast.frames import LARGEST_FRAME, Frames, frame
from tailrace.errors import TooLarge
from tailrace.events import ConversationRecord, End, Event, Message, Reasoning, Reset, Text, ToolCall, Usage
from tailrace.store.segment import text_of

FRAMES = Frames("App\\Events\\")


def message(**more: Any) -> Message:
    """Return a message."""
    fields: dict[str, Any] = {
        "id": "m",
        "conversation_id": "c",
        "role": "assistant",
        "content": "",
        "status": "pending",
        "seq": 0,
        "metadata": {},
        "created_at": "2026-01-01T00:00:00.000000Z",
    }
    return Message(**{**fields, **more})


def data(encoded: bytes) -> dict[str, Any]:
    """Return what is in a frame, which is small enough."""
    assert len(encoded) <= LARGEST_FRAME
    found: dict[str, Any] = msgspec.json.decode(encoded)["data"]
    return found


def run(channel: str, first_seq: int, events: Sequence[Event]) -> list[bytes]:
    """Return the frames of a run of entries of a log."""
    return ChunkFrames(FRAMES, channel, "m", after=first_seq - 1).run(events)


class Subscriber:
    """Joins what it gets, and notices gaps by the rule in the docstring of chunk_frames.py."""

    def __init__(self, cursor: int = 0) -> None:
        self.cursor = cursor
        self.text = ""
        self.chunks = 0

    def take(self, encoded: bytes) -> None:
        """Take a frame that must follow on what was before."""
        got = data(encoded)
        assert got["first_seq"] == self.cursor + 1
        assert got["seq"] >= self.cursor
        self.cursor = got["seq"]
        self.text = "" if got.get("reset") else self.text + got["chunk"]
        self.chunks += got["chunk_count"]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
events = st.lists(
    st.one_of(
        texts.map(Text),
        texts.map(Reasoning),
        st.just(Reset()),
        st.just(Usage(1, 2)),
        st.just(ToolCall("id", "name", "{}")),
    ),
    max_size=30,
)


@given(events, st.lists(st.integers(0, 30)))
def test_any_runs_join_to_the_text(log: list[Event], cuts: list[int]) -> None:
    """However a log is cut into runs, each carrying what told nothing, the joined text is the log's."""
    subscriber = Subscriber()
    bounds = sorted({0, len(log), *(min(cut, len(log)) for cut in cuts)})
    start = 0
    for end in bounds:
        frames = run("conversation.c", start + 1, log[start:end])
        for each in frames:
            subscriber.take(each)
        if frames:
            assert subscriber.cursor == end
            start = end
    assert subscriber.text == text_of(log)
    assert subscriber.chunks == sum(isinstance(event, Text) for event in log)
    assert not any(isinstance(event, Text | Reset) for event in log[start:])


@given(events)
def test_a_whole_run_leaves_nothing_for_the_next(log: list[Event]) -> None:
    """Asked for it, also a run without text is told, so that the subscriber is where the run ends."""
    subscriber = Subscriber(cursor=6)
    for each in run("c", 7, log):
        subscriber.take(each)
    assert subscriber.cursor == 6 + len(log)
    assert subscriber.text == text_of(log)


@pytest.mark.parametrize("character", ["x", "ü", "😀", '"', "\x01"])
def test_what_is_too_long_is_split(character: str) -> None:
    """Between entries and inside of one, never inside a character; the cursor never says too much."""
    log: list[Event] = [
        Text("begin"),
        Usage(1),
        Text(character * 300_000),
        Text("end"),
        *[Text(character * 1000)] * 300,
    ]
    frames = run("conversation.c", 1, log)
    subscriber = Subscriber()
    inside = 0
    for each in frames:
        got = data(each)
        assert got.get("offset", 0) == inside
        if got["seq"] < got["first_seq"] or (got["seq"] < 3 and subscriber.cursor >= 2):
            inside += len(got["chunk"])
        else:
            inside = 0
        subscriber.take(each)
    assert subscriber.text == text_of(log)
    assert subscriber.cursor == len(log)
    assert subscriber.chunks == len(log) - 1
    assert len(frames) < 2 + sum(len(each) for each in frames) / (LARGEST_FRAME * 0.98)  # they are full


def test_the_frame_of_the_contract() -> None:
    """Byte for byte what wire.md says."""
    (made,) = run("conversation.1", 7, [Text("Once"), Text(" upon")])
    assert made == (
        b'{"event":"App\\\\Events\\\\MessageChunkReceived","channel":"conversation.1","data":'
        b'{"message_id":"m","chunk":"Once upon","seq":8,"first_seq":7,"chunk_count":2}}'
    )
    _, reset = run("conversation.1", 7, [Text("Once"), Reset()])
    assert data(reset) == {
        "message_id": "m",
        "chunk": "",
        "seq": 8,
        "first_seq": 8,
        "chunk_count": 0,
        "reset": True,
    }
    assert run("c", 1, [End("completed")]) == []
    assert frame("pong", None) == b'{"event":"pong","channel":null}'
    assert frame("whoami", data={"socket_id": "s"}) == b'{"event":"whoami","data":{"socket_id":"s"}}'
    assert Frames("").event("E", "c", []) == b'{"event":"E","channel":"c","data":[]}'


def test_the_end_of_a_message() -> None:
    """Completed is one event, every other end another one with the reason."""
    completed = msgspec.json.decode(FRAMES.message_ended("c", message(status="completed", content="all", seq=3)))
    assert completed["event"] == "App\\Events\\MessageCompleted"
    assert (completed["data"]["message_id"], completed["data"]["message"]["content"]) == ("m", "all")
    for status in ("failed", "cancelled", "interrupted", "timed_out"):
        ended = message(status=status, error={"type": "timeout", "message": "It took too long."})
        failed = msgspec.json.decode(FRAMES.message_ended("c", ended))
        assert failed["event"] == "App\\Events\\MessageFailed"
        assert (failed["data"]["error"], failed["data"]["error_type"]) == ("It took too long.", "timeout")
        assert failed["data"]["message"]["status"] == status


def test_what_does_not_fit_is_left_out_and_said_so() -> None:
    """First the content, then the metadata; a reader gets them by HTTP."""
    assert "truncated" not in data(FRAMES.message_created("c", message(content="x" * 100_000)))
    long = data(FRAMES.message_ended("c", message(status="completed", content="x" * 200_000, metadata={"a": 1})))
    assert (long["truncated"], long["message"]["content"], long["message"]["metadata"]) == (True, "", {"a": 1})
    both = data(FRAMES.message_created("c", message(content="x" * 200_000, metadata={"a": "x" * 200_000})))
    assert (both["truncated"], both["message"]["content"], both["message"]["metadata"]) == (True, "", {})
    record = ConversationRecord(id="c", owner="o", metadata={"a": "x" * 200_000}, created=1, updated=1)
    assert data(FRAMES.conversation_created("c", record))["conversation"]["metadata"] == {}
    with pytest.raises(TooLarge, match="more than 131072 bytes"):
        FRAMES.event("Mine", "c", "x" * LARGEST_FRAME)


def test_nothing_private_is_in_a_frame() -> None:
    """Neither a system message, nor a conversation's system prompt or its owner."""
    with pytest.raises(ValueError, match="system"):
        FRAMES.message_created("c", message(role="system", content="secret", status="completed"))
    record = ConversationRecord(id="c", owner="somebody", system="secret", title="t", created=1, updated=1)
    made = FRAMES.conversation_created("private-user.x", record)
    assert b"secret" not in made
    assert b"somebody" not in made
