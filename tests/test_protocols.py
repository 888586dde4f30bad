"""All wire formats of readers, by the same rules: how entries come makes no difference, what opens is closed, and the
text is the message's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tailrace.delivery import Progress
from tailrace.events import (
    ApprovalRequest,
    Attempt,
    Citation,
    Event,
    Message,
    ProviderState,
    Reasoning,
    Reset,
    Status,
    StepEnd,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    ToolRun,
    Usage,
)
from tailrace.protocols import PROTOCOLS, find_protocol
from tailrace.protocols.openai_chat import completion
from tailrace.protocols.reader import Opening, ReaderProtocol, Reading

MESSAGE = "BvTTQ3kJcqobLFauBmDfkn0gZdZMaGxOEKBifWnfEpP0exk"
NAMES = sorted(PROTOCOLS)

words = st.text(min_size=1, max_size=8)
calls = st.integers(0, 3).flatmap(
    lambda n: st.sampled_from(
        [
            [ToolCallStart(f"c{n}", "f"), ToolCallDelta(f"c{n}", '{"a":'), ToolCallDelta(f"c{n}", "1}")],
            [ToolCall(f"c{n}", "f", '{"a":1}')],
            [ToolCall(f"c{n}", "f", "no json")],
            [ToolResult(f"r{n}", "search", '{"b":2}')],
            [ToolCall(f"s{n}", "f", "{}"), ToolRun(f"s{n}", "f"), ToolResult(f"s{n}", "f", "1"), StepEnd()],
            [ToolCall(f"w{n}", "f", "{}"), ApprovalRequest(f"w{n}"), StepEnd()],
            [StepEnd()],
        ]
    )
)
entries = st.lists(
    st.one_of(
        words.map(lambda text: [Text(text)]),
        words.map(lambda text: [Text(text)]),
        words.map(lambda text: [Reasoning(text)]),
        calls,
        st.just([Citation("https://example.com/a", "A")]),
        st.just([Citation(quote="x")]),
        st.just([Usage(prompt_tokens=1)]),
        st.just([ProviderState("p", "{}")]),
        st.just([Attempt("a", None, "api_error", 500, "b", None), Reset()]),
    ),
    max_size=12,
).map(lambda found: [event for each in found for event in each])
statuses = st.sampled_from(["completed", "failed", "cancelled", "interrupted", "timed_out"])


def opened(name: str, reading: Reading | None = None) -> ReaderProtocol:
    """Return a protocol for one reader."""
    opening = Opening(message_id=MESSAGE, conversation_id="c", created=1_795_339_800_000_000, model="m")
    return find_protocol(name)(opening, reading or Reading(monotonic=lambda: 0.0))


def ended(events: Sequence[Event], status: str, **changed: Any) -> Message:
    """Return the message that entries come to."""
    since = max((n for n, event in enumerate(events) if isinstance(event, Reset)), default=-1) + 1
    last = events[since:]
    return Message(
        **{
            "id": MESSAGE,
            "conversation_id": "c",
            "role": "assistant",
            "content": "".join(event.text for event in last if isinstance(event, Text)),
            "status": status,
            "seq": len(events) + 1,
            "metadata": {
                "finish": "stop",
                "tool_calls": [msgspec.to_builtins(event) for event in last if isinstance(event, ToolCall)],
                "tool_results": [msgspec.to_builtins(event) for event in last if isinstance(event, ToolResult)],
            },
            "created_at": "2026-11-27T00:00:00.000000Z",
            "error": None if status == "completed" else {"type": "general_error", "message": "It failed."},
            **changed,
        }
    )


def whole(protocol: ReaderProtocol, events: Sequence[Event], message: Message, cuts: Sequence[int] = ()) -> bytes:
    """Return a reply's bytes, its entries in batches that begin after the cuts."""
    found = [protocol.begin()]
    places = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
    found += [protocol.events(begin + 1, events[begin:end]) for begin, end in pairwise(places)]
    return b"".join([*found, protocol.end(message)])


def data(body: bytes) -> list[Any]:
    """Return the objects of a stream."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [msgspec.json.decode(line) for line in lines if line != b"[DONE]"]


@pytest.mark.parametrize("name", NAMES)
@given(events=entries, cuts=st.lists(st.integers(0, 40), max_size=6), status=statuses)
def test_batches_make_no_difference(name: str, events: list[Event], cuts: list[int], status: str) -> None:
    """Live, replay and poll say the same."""
    message = ended(events, status)
    once = whole(opened(name), events, message)
    assert whole(opened(name), events, message, cuts) == once
    polling = opened(name)
    polled = [*polling.first(), *polling.after(1, events), *polling.end_objects(message)]
    assert data(once) == msgspec.to_builtins([each.data for each in polled])


@pytest.mark.parametrize("name", [name for name in NAMES if find_protocol(name).needs_beginning])
@given(events=entries, skip=st.integers(0, 30), after=st.integers(0, 12))
def test_a_reader_that_has_some_gets_the_rest(name: str, events: list[Event], skip: int, after: int) -> None:
    """By the count of what it has, or by the last entry."""
    message = ended(events, "completed")
    everything = data(whole(opened(name), events, message))
    rest = opened(name, Reading(monotonic=lambda: 0.0, skip=skip))
    assert data(whole(rest, events, message)) == everything[skip:]
    after = min(after, len(events))
    first = opened(name)
    known = len(first.first()) + len(first.after(1, events[:after]))
    later = opened(name, Reading(monotonic=lambda: 0.0, after=after))
    later.first()
    assert data(later.events(1, events) + later.end(message)) == everything[known:]


# ---- the AI SDK's ----


def texts(chunks: Sequence[Any]) -> str:
    """Return the text that a page shows in the end."""
    text = ""
    for chunk in chunks:
        if chunk["type"] == "reset-step":
            text = ""
        if chunk["type"] == "text-delta":
            text += chunk["delta"]
    return text


@given(events=entries, status=statuses)
def test_ai_sdk_opens_and_closes_in_pairs(events: list[Event], status: Status) -> None:
    """One part is open at a time, deltas are of the open one, and one thing is the end."""
    message = ended(events, status)
    chunks = data(whole(opened("ai_sdk"), events, message))
    assert [chunk["type"] for chunk in chunks[:2]] == ["start", "start-step"]
    part: tuple[str, str] | None = None
    seen: set[str] = set()
    begun: set[str] = set()
    for chunk in chunks:
        kind, _, what = chunk["type"].partition("-")
        if chunk["type"] == "reset-step":
            part = None
            begun = set()
        elif kind in ("text", "reasoning"):
            if what == "start":
                assert part is None
                assert chunk["id"] not in seen
                seen.add(chunk["id"])
                part = (kind, chunk["id"])
            else:
                assert part == (kind, chunk["id"])
                part = None if what == "end" else part
        elif chunk["type"] in ("tool-input-start", "tool-input-available", "tool-input-error"):
            begun.add(chunk["toolCallId"])
        elif kind == "tool":
            assert chunk["toolCallId"] in begun
    assert part is None
    last = {"completed": "finish", "cancelled": "abort"}.get(status, "error")
    assert [chunk["type"] for chunk in chunks if chunk["type"] in ("finish", "abort", "error")] == [last]
    assert chunks[-1]["type"] == last
    assert texts(chunks) == message.content


@given(events=entries)
def test_ai_sdk_tells_a_reply_whose_log_has_expired(events: list[Event]) -> None:
    """From the message alone."""
    message = ended(events, "completed")
    assert texts(data(whole(opened("ai_sdk"), [], message))) == message.content


def test_ai_sdk_word_for_word() -> None:
    """The stream of a short answer, as the client's own server writes it."""
    events: list[Event] = [Reasoning("Hm."), Text("Hi"), Text(" you"), ToolCall("c1", "f", '{"a": 1}')]
    message = ended(events, "completed", model="m", metadata={"finish": "tool_calls"})
    assert whole(opened("ai_sdk"), events, message).decode().splitlines()[::2] == [
        f'data: {{"type":"start","messageId":"{MESSAGE}"}}',
        'data: {"type":"start-step"}',
        'data: {"type":"reasoning-start","id":"1"}',
        'data: {"type":"reasoning-delta","id":"1","delta":"Hm."}',
        'data: {"type":"reasoning-end","id":"1"}',
        'data: {"type":"text-start","id":"2"}',
        'data: {"type":"text-delta","id":"2","delta":"Hi"}',
        'data: {"type":"text-delta","id":"2","delta":" you"}',
        'data: {"type":"text-end","id":"2"}',
        'data: {"type":"tool-input-available","toolCallId":"c1","toolName":"f","input":{"a":1}}',
        'data: {"type":"finish-step"}',
        'data: {"type":"finish","finishReason":"tool-calls","messageMetadata":{"model":"m"}}',
        "data: [DONE]",
    ]


def test_ai_sdk_counts_progress_when_it_is_asked() -> None:
    """After each piece of text, and for nobody to keep."""
    reading = Reading(monotonic=lambda: 2.0, progress=Progress(1.0))
    events: list[Event] = [Text("水"), Text("ab")]
    chunks = data(whole(opened("ai_sdk", reading), events, ended(events, "completed")))
    counted = [chunk for chunk in chunks if chunk["type"] == "data-progress"]
    assert [(chunk["data"]["characters"], chunk["transient"]) for chunk in counted] == [(1, True), (3, True)]


# ---- OpenAI's chat completions ----


@given(events=entries, status=statuses)
def test_openai_chat_is_what_its_sdk_reads(events: list[Event], status: Status) -> None:
    """Each chunk is of the SDK's own type; the pieces of text and of arguments are the whole; one thing is the end."""
    message = ended(events, status)
    chunks = data(whole(opened("openai_chat"), events, message))
    text = ""
    arguments: dict[int, str] = {}
    for chunk in chunks[:-1]:
        read = ChatCompletionChunk.model_validate(chunk, strict=True)
        delta = read.choices[0].delta
        text += delta.content or ""
        for call in delta.tool_calls or ():
            assert call.function is not None
            arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    voided = max((n for n, event in enumerate(events) if isinstance(event, Reset)), default=-1)
    shown = [event for event in events[: max(voided, 0)] if isinstance(event, Text | ToolCall | ToolCallStart)]
    if shown or status != "completed":
        assert chunks[-1]["error"]["message"]
        return
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert text == message.content
    assert set(arguments) == set(range(len(arguments)))
    whole_calls = {event.id for event in events if isinstance(event, ToolCall)}
    assert len(arguments) >= len(whole_calls)


@given(events=entries)
@example(events=[ToolCall("s0", "f", "{}"), ToolResult("s0", "f", "1")])
def test_openai_chat_tells_a_reply_whose_log_has_expired(events: list[Event]) -> None:
    """From the message alone; not streamed it is the same text."""
    message = ended(events, "completed")
    chunks = data(whole(opened("openai_chat"), [], message))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == message.content
    answer = ChatCompletion.model_validate(completion(message, "m", 1), strict=True)
    assert (answer.choices[0].message.content or "") == message.content
    told = [call["id"] for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert told == [*dict.fromkeys(call.id for call in answer.choices[0].message.tool_calls or ())]
