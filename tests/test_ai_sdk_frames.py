"""The AI SDK's chunks as frames of a WebSocket: nothing is lost, nothing is out of order, nothing is too long."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailrace.broadcast.frames import LARGEST_FRAME
from tailrace.errors import TooLarge
from tailrace.protocols.ai_sdk_frames import LONGEST_PIECE, PIECES, STILL_THERE, ChunkFrames
from tailrace.protocols.sse import KEEP_ALIVE

Chunk = dict[str, Any]

START: Chunk = {"type": "start", "messageId": "m"}

pieces = st.one_of(
    st.builds(
        lambda kind, part, text: {"type": kind, "id": part, "delta": text},
        st.sampled_from(["text-delta", "reasoning-delta"]),
        st.sampled_from("12"),
        st.text(max_size=30),
    ),
    st.builds(
        lambda text: {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": text}, st.text(max_size=9)
    ),
    st.builds(lambda part: {"type": "text-start", "id": part}, st.sampled_from("12")),
)


def block(chunk: Chunk) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(chunk)


def of(text: str, part: str = "1") -> Chunk:
    return {"type": "text-delta", "id": part, "delta": text}


def feed(frames: ChunkFrames, *parts: bytes) -> list[Chunk]:
    """Return the chunks, whose numbers and request were checked."""
    found = [frame for part in parts for frame in frames.feed(part)]
    assert all(len(frame) <= LARGEST_FRAME for frame in found)
    decoded = [msgspec.json.decode(frame) for frame in found if frame != STILL_THERE]
    chunks = [frame for frame in decoded if frame["type"] == "chunk"]
    assert [frame["sequence"] for frame in chunks] == list(range(len(chunks)))
    assert {frame["requestId"] for frame in decoded} <= {"r"}
    return [frame["chunk"] for frame in chunks]


def told(chunks: list[Chunk]) -> list[Any]:
    """Return what chunks say, however it is cut into pieces."""
    found: list[Any] = []
    for chunk in chunks:
        names = PIECES.get(chunk["type"])
        if names is None:
            found.append(chunk)
            continue
        about, text = (chunk["type"], chunk[names[0]]), chunk[names[1]]
        if found and isinstance(found[-1], tuple) and found[-1][0] == about:
            found[-1] = (about, found[-1][1] + text)
        else:
            found.append((about, text))
    return found


@given(st.lists(pieces, max_size=30), st.lists(st.integers(0, 3000), max_size=6))
def test_any_cut_says_the_same(chunks: list[Chunk], cuts: list[int]) -> None:
    """Whatever comes together, and wherever it is cut, inside a character too."""
    whole = b"".join(block(chunk) for chunk in [START, *chunks]) + b"data: [DONE]\n\n"
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    frames = ChunkFrames("r", LARGEST_FRAME)
    parts = [whole[begin:end] for begin, end in pairwise(places)]
    assert told(feed(frames, *parts)) == told([START, *chunks])
    assert frames.is_over


def test_one_chunk_is_passed_on_to_the_byte() -> None:
    """As nearly always: it is not looked into."""
    frames = ChunkFrames('"', LARGEST_FRAME)
    chunk = '{"type":"text-delta", "id":"1" ,"delta":"水"}'.encode()
    (frame,) = frames.feed(b"data: %b\n\n" % chunk)
    assert frame == b'{"type":"chunk","requestId":"\\"","sequence":0,"chunk":%b}' % chunk
    assert list(frames.feed(b"data: [DONE]\n\n")) == [b'{"type":"end","requestId":"\\""}']


def test_what_waits_is_joined() -> None:
    """Pieces of one text; of progress the newest is left, behind the text that it counts."""
    progress = [{"type": "data-progress", "data": {"chunks": n}, "transient": True} for n in (1, 2)]
    given_ = [of("a"), progress[0], of("b"), progress[1], of("c", "2"), {"type": "text-end", "id": "2"}, of("d")]
    assert feed(ChunkFrames("r", LARGEST_FRAME), b"".join(map(block, given_))) == [
        of("ab"),
        progress[1],
        of("c", "2"),
        {"type": "text-end", "id": "2"},
        of("d"),
    ]


@pytest.mark.parametrize("character", ["x", "水", "𝄞", "\x00", '"'])
def test_a_long_text_is_divided(character: str) -> None:
    """Into pieces that fit whatever they are made of."""
    text = character * (3 * LONGEST_PIECE + 1)
    chunks = feed(ChunkFrames("r", LARGEST_FRAME), block(of(text)))
    assert "".join(chunk["delta"] for chunk in chunks) == text
    assert len(chunks) == 4


def test_what_cannot_be_divided() -> None:
    """An error, after what fits."""
    frames = ChunkFrames("r", LARGEST_FRAME)
    output = {"type": "tool-output-available", "toolCallId": "c", "output": "x" * LARGEST_FRAME}
    made = frames.feed(block(of("a")) + block(output))
    assert msgspec.json.decode(next(made))["chunk"] == of("a")
    with pytest.raises(TooLarge):
        next(made)


def test_a_keep_alive() -> None:
    """Is a frame that a client leaves aside, if nothing else is sent; a comment before a chunk is nothing."""
    frames = ChunkFrames("r", LARGEST_FRAME)
    assert list(frames.feed(KEEP_ALIVE)) == [STILL_THERE]
    assert feed(frames, KEEP_ALIVE + block(START) + KEEP_ALIVE) == [START]
