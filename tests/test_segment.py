"""Segments: what is packed comes out, and it is small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailrace.errors import StoreError
from tailrace.events import (
    Approval,
    ApprovalRequest,
    Attempt,
    Citation,
    End,
    Event,
    Reasoning,
    Reset,
    StepEnd,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    ToolRun,
    Usage,
)
from tailrace.store.segment import pack, text_of, unpack

counts = st.none() | st.integers(0, 2**40)
texts = st.text(min_size=1, max_size=20)
maybe = st.none() | st.text()
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Text, texts),
    st.builds(Reasoning, texts),
    st.builds(ToolCall, st.text(), st.text(), st.text()),
    st.builds(Usage, counts, counts),
    st.just(Reset()),
    st.builds(ToolCallStart, st.text(), st.text()),
    st.builds(ToolCallDelta, st.sampled_from(["a", "b"]), texts),
    st.builds(ToolResult, st.text(), st.text(), st.text(), st.booleans()),
    st.builds(Citation, maybe, maybe, maybe),
    st.builds(ToolRun, st.text(), st.text()),
    st.builds(ApprovalRequest, st.text()),
    st.just(StepEnd()),
    st.builds(Approval, st.text(), st.booleans(), maybe),
    st.builds(Attempt, st.text(), maybe, st.text(), counts, st.text(), maybe, st.booleans(), maybe),
    st.builds(End, st.sampled_from(["completed", "failed"]), st.none() | st.text(), st.none() | st.text()),
)


@given(st.lists(events, max_size=40))
def test_what_is_packed_comes_out(run: list[Event]) -> None:
    """Kinds, boundaries and every character survive."""
    assert unpack(pack(run)) == run


def test_a_chunk_costs_its_text_and_one_byte() -> None:
    """Storage stays under 1.5 bytes per byte of text at four characters a chunk."""
    run: list[Event] = [Text("word") for _ in range(200)]
    assert len(pack(run)) <= 200 * 5 + 10


def test_a_piece_of_arguments_costs_its_text_and_one_byte() -> None:
    """The call's id is stored once a run."""
    run: list[Event] = [ToolCallDelta("call_0123456789", "word") for _ in range(200)]
    assert len(pack(run)) <= 200 * 5 + 30


def test_segments_of_the_first_version_can_be_read() -> None:
    """Bytes that were written when there were fewer kinds of events."""
    data = bytes.fromhex(
        "98019300a46162c3bc9202019301a2686d91029402a131a16ea27b7d940307c0c091049300a163910194"
        "05a66661696c6564a96170695f6572726f72a26e6f"
    )
    assert unpack(data) == [
        Text("ab"),
        Text("ü"),
        Reasoning("hm"),
        ToolCall("1", "n", "{}"),
        Usage(7),
        Reset(),
        Text("c"),
        End("failed", "api_error", "no"),
    ]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\x02", b"\x92\x01\x91\x1f", b"\x92\x01\x93\x00\xa1a\xc0"])
def test_bytes_that_are_no_segment_are_refused(data: bytes) -> None:
    """A newer version or a damaged item is an error, not a wrong text."""
    with pytest.raises(StoreError):
        unpack(data)


def test_a_reset_voids_the_text_before_it() -> None:
    """The content is what came after the last reset."""
    assert text_of([Text("a"), Reset(), Text("b"), Reasoning("x"), Text("c")]) == "bc"


def test_only_text_is_printed() -> None:
    """Whoever prints a reply as it comes prints its text: ``print(chunk, end="")``."""
    said = [
        Text("a "),
        Reasoning("hm"),
        Usage(3, None),
        Reset(),
        ToolCall("id", "name", "{}"),
        Text("b"),
        End("completed"),
    ]
    assert "".join(map(str, said)) == "a b"
