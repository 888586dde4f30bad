"""The events of OpenAI's Responses API, judged by its own types and by what its client makes of them."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tailrace.events import (
    Citation,
    Event,
    Reasoning,
    Reset,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    Usage,
)
from tailrace.protocols.openai_responses import response_of
from tailrace.protocols.reader import Opening, Reading

from tests.test_protocols import MESSAGE, data, ended, entries, opened, statuses, whole

NAME = "openai_responses"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


def helper_s(events: list[Any]) -> Any:
    """Return the response that the client's helper adds up, which checks every event against those before it."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        state.handle_event(EVENT.validate_python(event, strict=True))
    return state._completed_response


@given(events=entries, status=statuses)
@settings(deadline=None)  # their types are slow
def test_every_event_is_one_of_theirs(events: list[Event], status: str) -> None:
    """By type, numbered from 0, in pairs, with one end; and each has its type for a name."""
    message = ended(events, status, usage=Usage(1, 2))
    body = whole(opened(NAME), events, message)
    found = data(body)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert body.decode().split("\n")[:-1:3] == [f"event: {event['type']}" for event in found]
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    assert [n for n, event in enumerate(found) if event["type"] in TERMINAL] == [len(found) - 1]
    added: dict[int, Any] = {}
    done: dict[int, Any] = {}
    text: dict[int, str] = {}
    for event in found[2:-1]:
        place = event["output_index"]
        if event["type"] == "response.output_item.added":
            assert place == len(added)
            added[place] = event["item"]
        elif event["type"] == "response.output_item.done":
            assert place not in done
            done[place] = event["item"]
        else:
            assert place in added
            assert place not in done
            assert event["item_id"] == added[place]["id"]
            if event["type"] == "response.output_text.delta":
                text[place] = text.get(place, "") + event["delta"]
    assert added.keys() == done.keys()
    assert all(added[place]["id"] == done[place]["id"] for place in done)
    assert len({item["id"] for item in added.values()}) == len(added)
    output = found[-1]["response"]["output"]
    assert output == [done[place] for place in sorted(done) if done[place] in output]
    assert "".join(each["text"] for item in output for each in item.get("content", ())) == message.content
    assert all(done[place]["content"][0]["text"] == text[place] for place in text)
    if any(isinstance(event, Reset) for event in events):
        return  # another answer with the same calls cannot be told, and no start of this protocol asks for one
    response = helper_s(found)
    if status == "completed":
        assert response.output_text == message.content


@given(events=entries, status=statuses)
@example(events=[ToolCall("s0", "f", "{}"), ToolResult("s0", "f", "1")], status="completed")
@settings(deadline=None)  # their types are slow
def test_what_the_message_alone_tells(events: list[Event], status: str) -> None:
    """It is one of theirs, and has all of the text; so has a stream whose log has expired."""
    message = ended(events, status)
    response = response_of(message, {})
    assert Response.model_validate(response, strict=True).output_text == message.content
    expired = data(whole(opened(NAME), [], message))
    assert expired[-1]["response"] == response
    helper_s(expired)


@given(
    reasoning=st.lists(st.text(min_size=1, max_size=5), max_size=3),
    texts=st.lists(st.text(min_size=1, max_size=5), max_size=3),
    calls=st.integers(0, 2),
    skip=st.integers(0, 30),
)
def test_the_message_alone_tells_what_the_stream_did(
    reasoning: list[str], texts: list[str], calls: int, skip: int
) -> None:
    """Of an answer in the usual order; and a reader that goes on gets the same bytes."""
    events: list[Event] = [*map(Reasoning, reasoning), *map(Text, texts)]
    if texts:
        events.append(Citation("https://example.com/a", "A"))
    for n in range(calls):
        events += [ToolCallStart(f"c{n}", "f"), ToolCallDelta(f"c{n}", "{}"), ToolCall(f"c{n}", "f", "{}")]
    message = ended(events, "completed")
    metadata = {**message.metadata, "reasoning": "".join(reasoning)}
    if texts:
        metadata["citations"] = [{"url": "https://example.com/a", "title": "A"}]
    message = msgspec.structs.replace(message, metadata=metadata)
    once = whole(opened(NAME), events, message)
    kept = {"openai": {"model": "m", "background": True}}
    assert response_of(message, kept)["output"] == data(once)[-1]["response"]["output"]
    blocks = once.split(b"\n\n")
    rest = whole(opened(NAME, Reading(monotonic=lambda: 0.0, skip=skip)), events, message)
    assert rest == b"\n\n".join(blocks[skip:])


def test_what_was_asked_is_repeated() -> None:
    """In the first event as in the last, whatever the reply has become meanwhile."""
    kept = {"model": "scripted/fast", "metadata": {"page": "7"}, "temperature": 0.5}
    opening = Opening(message_id=MESSAGE, conversation_id="c", model="fast-2026", private={"openai": kept})
    protocol = type(opened(NAME))(opening, Reading(monotonic=lambda: 0.0))
    response = data(protocol.begin())[0]["response"]
    assert (response["model"], response["metadata"], response["temperature"]) == ("scripted/fast", {"page": "7"}, 0.5)
    assert response["id"] == f"resp_{MESSAGE}"
    assert response["conversation"] == {"id": "conv_c"}


def test_a_page_has_its_numbers() -> None:
    """A reader that polls has the beginning with its first page only, and told after the entries."""
    protocol = opened(NAME)
    found = protocol.after(1, [Text("a")])
    assert [shown.data["sequence_number"] for shown in [*protocol.first(), *found]] == [0, 1, 2, 3, 4]


def test_a_failure_that_could_not_be_stored() -> None:
    """What is open is closed, and there is one end."""
    protocol = opened(NAME)
    found = data(protocol.begin() + protocol.events(1, [Text("a")]) + protocol.failure(1, "Gone.", "store_unavailable"))
    for event in found:
        EVENT.validate_python(event, strict=True)
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["error"] == {"code": "server_error", "message": "Gone."}
    assert found[-1]["response"]["output"][0]["status"] == "incomplete"
