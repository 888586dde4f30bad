"""The decoder against the standard's own examples, at every cut, and against httpx-sse."""

from __future__ import annotations

import codecs
import importlib
import importlib.util
import random
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tailrace.protocols.sse import KEEP_ALIVE, EventTooLargeError, ServerSentEvent, SSEDecoder, encode


def judge() -> Any:
    """httpx-sse's decoders, without its package's beginning, which imports httpx, which is not installed."""
    spec = importlib.util.find_spec("httpx_sse")
    assert spec is not None
    with pytest.MonkeyPatch.context() as patch:
        package = ModuleType("httpx_sse")
        package.__path__ = list(spec.submodule_search_locations or ())
        patch.setitem(sys.modules, "httpx_sse", package)
        return importlib.import_module("httpx_sse._decoders")


JUDGE = judge()
Seen = list[tuple[str, str, str]]


def decode(pieces: list[bytes]) -> list[ServerSentEvent]:
    """Feed the pieces one after another."""
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def seen(events: list[ServerSentEvent]) -> Seen:
    """The events as a browser would see them."""
    texts = [[part.decode(errors="replace") for part in (e.event or b"message", e.data, e.id)] for e in events]
    return [(name, data, last_id) for name, data, last_id in texts]


def judged(stream: bytes) -> Seen:
    """What httpx-sse makes of it. It leaves the byte order mark to its caller, and gives events that have no data,
    which the standard does not (its section 9.2.6, "dispatch the event", step 2)."""
    text = codecs.decode(stream, "utf-8", "replace").removeprefix("\ufeff")
    lines, decoder = JUDGE.SSELineDecoder(), JUDGE.SSEDecoder()
    result: Seen = []
    for line in lines.decode(text) + lines.flush():
        has_data = bool(decoder._data)
        event = decoder.decode(line)
        if event is not None and has_data:
            result.append((event.event, event.data, event.id))
    return result


def cuts(stream: bytes, seed: int = 0) -> list[list[bytes]]:
    """The stream whole, byte by byte, and cut at random."""
    points = sorted(random.Random(seed).choices(range(len(stream) + 1), k=7))
    edges = list(zip([0, *points], [*points, len(stream)], strict=True))
    return [[stream], [stream[i : i + 1] for i in range(len(stream))], [stream[a:b] for a, b in edges]]


WHATWG = {
    "stock_ticker": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
    "four_blocks": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
    ),
    "empty_data_and_unfinished_end": (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
    "optional_space": (b"data:test\n\ndata: test\n\n", [("message", "test", ""), ("message", "test", "")]),
    "named_events": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        [("add", "73857293", ""), ("remove", "2153", "")],
    ),
}

SHAPES = {
    "byte_order_mark": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
    "second_byte_order_mark_is_text": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [("message", "b", "")]),
    "half_a_byte_order_mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [("message", "b", "")]),
    "carriage_returns": (b"event: x\rdata: a\r\rdata: b\r\r", [("x", "a", ""), ("message", "b", "")]),
    "both": (b"event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", [("x", "a", ""), ("message", "b", "")]),
    "mixed": (
        b"data: a\r\n\rdata: b\n\r\ndata: c\r\r\n",
        [("message", "a", ""), ("message", "b", ""), ("message", "c", "")],
    ),
    "many_blank_lines": (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [("message", "a", ""), ("message", "b", "")]),
    "comments_between": (
        b":\n: ping\ndata: a\n: in between\n\n:\n:\n\ndata: b\n\n",
        [("message", "a", ""), ("message", "b", "")],
    ),
    "id_with_nul_is_ignored": (
        b"id: 7\ndata: a\n\nid: 8\0\ndata: b\n\n",
        [("message", "a", "7"), ("message", "b", "7")],
    ),
    "id_without_data_counts": (b"id: 9\n\ndata: a\n\n", [("message", "a", "9")]),
    "event_name_is_of_one_event": (b"event: x\n\ndata: a\n\n", [("message", "a", "")]),
    "data_before_event": (b"data: a\nevent: x\n\n", [("x", "a", "")]),
    "two_data_lines_and_none_look_like_two_and_two": (
        b"data: a\ndata: b\n\ndata: c\n\ndata: d\n\n",
        [("message", "a\nb", ""), ("message", "c", ""), ("message", "d", "")],
    ),
    "an_event_without_data_and_one_with_two": (
        b"event: x\n\nevent: y\ndata: a\ndata: b\n\nevent: z\ndata: c\n\n",
        [("y", "a\nb", ""), ("z", "c", "")],
    ),
    "unknown_fields": (b"retry: 10\nfoo: bar\nDATA: no\ndata: a\n\n", [("message", "a", "")]),
    "characters_of_four_bytes": ("data: 🌊水é\n\n".encode(), [("message", "🌊水é", "")]),
    "other_line_ends_are_text": ("data: a\u2028b\x0bc\x85\n\n".encode(), [("message", "a\u2028b\x0bc\x85", "")]),
    "cut_in_the_end": (b"data: a\n\ndata: b\n", [("message", "a", "")]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", [*WHATWG, *SHAPES])
def test_examples_at_every_cut(name: str) -> None:
    """The standard's examples, and shapes of our own, give the same events however they are cut."""
    stream, expected = (WHATWG | SHAPES)[name]
    for pieces in cuts(stream):
        assert seen(decode(pieces)) == expected
    for at in range(len(stream)):
        assert seen(decode([stream[:at], b"", stream[at:]])) == expected
    assert judged(stream) == expected


FIELD = st.sampled_from([b"data", b"event", b"id", b"retry", b"foo", b"", b"data ", b"dat"])
LINE = st.builds(lambda *parts: b"".join(parts), FIELD, st.sampled_from([b":", b": ", b"", b":  "]), st.sampled_from(
    [b"", b"a", b"{}", b" ", b"\0", "水".encode(), "🌊".encode(), b"\xff", b"\xe6\xb0", b"data: x", b": "]
))  # fmt: skip
END = st.sampled_from([b"\n", b"\n\n", b"\r", b"\r\r", b"\r\n", b"\r\n\r\n", b"\n\n\n", b""])
COMMON = st.sampled_from([b"data: {}\n\n", b"event: x\ndata: {}\n\n", b"data: [DONE]\n\n", b": ping\n\n", b":\n"])
TOKEN = st.one_of(
    COMMON, st.builds(lambda line, end: line + end, LINE, END), st.sampled_from([b"\n", b"\r", b"\xef\xbb\xbf"])
)
STREAM = st.one_of(st.lists(TOKEN, max_size=12).map(b"".join), st.binary(max_size=60))


@given(STREAM, st.lists(st.integers(0, 200), max_size=6))
@example(b"data: a\r\n\r\n", [8])
@example(b"\xef\xbb\xbfdata: a\n\n", [1])
def test_any_bytes_at_any_cuts_are_what_httpx_sse_sees(stream: bytes, points: list[int]) -> None:
    """Any byte stream at any cuts gives the events that it gives uncut, and those that httpx-sse gives."""
    edges = sorted(min(point, len(stream)) for point in points)
    pieces = [stream[a:b] for a, b in zip([0, *edges], [*edges, len(stream)], strict=True)]
    whole = decode([stream])
    assert decode(pieces) == whole
    assert seen(whole) == judged(stream)


@pytest.mark.parametrize("size", [90, 91])
def test_one_event_has_a_limit(size: int) -> None:
    """An event of the limit is read, one byte more is refused, wherever it is cut; small ones in one read are many."""
    event = b"data: " + b"x" * (size - 6)
    for pieces in cuts(b"data: a\n\n" * 30 + event + b"\n\ndata: b\n\n", seed=size):
        decoder = SSEDecoder(limit=90)
        if size > 90:
            with pytest.raises(EventTooLargeError, match="more than 90 bytes"):
                [decoder.feed(piece) for piece in pieces]
        else:
            assert sum(len(decoder.feed(piece)) for piece in pieces) == 32


def test_an_event_without_end_is_bounded() -> None:
    """What never ends is refused as soon as it is over the limit."""
    decoder = SSEDecoder(limit=1000)
    for _ in range(100):
        assert decoder.feed(b": comment\n") == []
    decoder.feed(b":")
    with pytest.raises(EventTooLargeError):
        decoder.feed(b":")


def test_flush_drops_what_is_unfinished() -> None:
    """An unfinished event is dropped, and the decoder may be used again."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\n\ndata: b\r") == [ServerSentEvent(b"a")]
    assert decoder.flush() is True
    assert decoder.feed(b"\xef\xbb\xbfdata: c\n\n") == [ServerSentEvent(b"c")]
    assert decoder.flush() is False


@given(st.text().map(lambda text: text.encode("utf-8", "replace").replace(b"\n", b"").replace(b"\r", b"")))
def test_what_is_encoded_is_decoded(data: bytes) -> None:
    """Data, then id, line feeds; a keep-alive in between ends no event."""
    assert encode(b"{}") == b"data: {}\n\n"
    assert encode(b"{}", b"m:1") == b"data: {}\nid: m:1\n\n"
    assert decode([KEEP_ALIVE + encode(data, b"m:1") + KEEP_ALIVE]) == [ServerSentEvent(data, b"", b"m:1")]
