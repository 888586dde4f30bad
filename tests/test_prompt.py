"""Prompts: every call with its result right behind it, and nothing orphaned, whatever the history looks like."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailrace.conversation.prompt import check_tool_message, estimate, is_prompt, prompt_messages
from tailrace.errors import Unprocessable
from tailrace.events import Message, Role, ToolCall, ToolResult
from tailrace.providers import ImagePart, PromptMessage, ProviderRequest, Tool


def message(role: Role, content: Any, **metadata: Any) -> Message:
    """Return a stored message; what is not text becomes JSON."""
    text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
    return Message(
        id="m",
        conversation_id="c",
        role=role,
        content=text,
        status="completed",
        seq=0,
        metadata=metadata,
        created_at="2026-01-01T00:00:00Z",
    )


def call(number: str = "1") -> dict[str, str]:
    """Return a call as it lies in the metadata."""
    return {"id": number, "name": "weather", "arguments": '{"city":"Ulm"}'}


CALL = ToolCall("1", "weather", '{"city":"Ulm"}')
RESULT = ToolResult("1", "weather", "sunny")
TURN = [
    PromptMessage("user", "Weather?"),
    PromptMessage("assistant", "", tool_calls=[CALL]),
    PromptMessage("tool_result", "", tool_results=[RESULT]),
]


@pytest.mark.parametrize(
    "history",
    [
        [message("assistant", "", tool_calls=[call()]), message("tool_result", [{"id": "1", "result": "sunny"}])],
        [message("tool_call", [call()]), message("tool_result", {"tool_call_id": "1", "result": "sunny"})],
        [message("tool_call", call()), message("tool_result", "sunny", tool_call_id="1")],
        [
            message("assistant", "", tool_calls=[call()]),
            message("tool_call", [call()]),
            message("tool_result", [{"id": "1", "result": "sunny"}]),
        ],
        [
            message("tool_call", [{"id": "1", "type": "function", "function": {**call(), "id": None}}]),
            message("tool_result", '"sunny"', tool_call_id="1"),
        ],
        [
            message("tool_call", {"name": "weather", "arguments": {"city": "Ulm"}}, tool_call_id="1"),
            message("tool_result", [{"id": "2", "result": "of nobody"}, {"id": "1", "result": "sunny"}]),
        ],
    ],
    ids=["answer", "message", "metadata", "told twice", "openai", "one of two results"],
)
def test_a_call_and_its_result(history: list[Message]) -> None:
    """However both were stored."""
    assert prompt_messages([message("user", "Weather?"), *history]) == TURN


def test_results_go_behind_their_calls() -> None:
    """Although a message came between, and the results came one by one and in another order."""
    history = [
        message("user", "Weather?"),
        message("assistant", "Let me see.", tool_calls=[call("1"), call("2")]),
        message("user", "Hurry!"),
        message("tool_result", [{"id": "2", "result": 2}]),
        message("tool_result", [{"id": "1", "result": {"sky": "blue"}}]),
    ]
    _, answer, results, hurry = prompt_messages(history)
    assert (answer.content, [each.id for each in answer.tool_calls]) == ("Let me see.", ["1", "2"])
    assert [(each.id, each.result) for each in results.tool_results] == [("1", '{"sky":"blue"}'), ("2", "2")]
    assert hurry.content == "Hurry!"


def test_orphans_are_left_out() -> None:
    """A call that was never answered, and a result that nobody asked for; what was said stays."""
    history = [
        message("user", "Weather?"),
        message("tool_result", [{"id": "1", "result": "too early"}]),
        message("assistant", "I will look.", tool_calls=[call("1"), call("2")]),
        message("assistant", "", tool_calls=[call("3")]),
        message("tool_result", [{"id": "2", "result": "rain"}, {"id": "9", "result": "?"}]),
        message("tool_result", "nothing that could be read"),
    ]
    user, answer, results = prompt_messages(history)
    assert [each.id for each in answer.tool_calls] == ["2"]
    assert [each.id for each in results.tool_results] == ["2"]
    assert user.content == "Weather?"


def test_ids_that_come_again() -> None:
    """Some servers number their calls anew in every answer: each call gets the first result after it."""
    turns = [
        [message("assistant", "", tool_calls=[call("0")]), message("tool_result", [{"id": "0", "result": number}])]
        for number in range(3)
    ]
    prompt = prompt_messages([each for turn in turns for each in turn])
    assert [each.result for each in (message.tool_results[0] for message in prompt[1::2])] == ["0", "1", "2"]


roles = st.sampled_from(["user", "assistant", "tool_call", "tool_result"])
ids = st.sampled_from("abc")
histories = st.lists(
    st.one_of(
        st.builds(lambda text: message("user", text), st.text(min_size=1)),
        st.builds(
            lambda text, calls: message("assistant", text, tool_calls=[call(each) for each in calls]),
            st.text(max_size=3),
            st.lists(ids, unique=True, max_size=2),
        ),
        st.builds(lambda calls: message("tool_call", [call(each) for each in calls]), st.lists(ids, max_size=2)),
        st.builds(
            lambda found: message("tool_result", [{"id": each, "result": each} for each in found]),
            st.lists(ids, max_size=2),
        ),
        st.builds(lambda text: message("tool_result", text), st.text(max_size=3)),
    ),
    max_size=12,
)


@given(histories)
def test_no_history_makes_an_orphan(history: Sequence[Message]) -> None:
    """Each call has its result in the message right after it, in the same order, and there is no other result."""
    prompt = prompt_messages(history)
    for before, each, after in zip([None, *prompt], prompt, [*prompt[1:], None], strict=False):
        if each.tool_calls:
            assert after is not None
            assert [result.id for result in after.tool_results] == [made.id for made in each.tool_calls]
        if each.role == "tool_result":
            assert before is not None
            assert before.tool_calls
            assert each.tool_results
        assert each.content.strip() or each.tool_calls or each.tool_results or each.role == "user"
    assert [each.content for each in prompt if each.role == "user"] == [
        each.content for each in history if each.role == "user"
    ]


def test_images_and_files() -> None:
    """They go with the text they came with."""
    image = ImagePart(media_type="image/png", data="AA==")
    stored = {"type": "image", "media_type": "image/png", "data": "AA=="}
    assert prompt_messages([message("user", "Look", parts=[stored])]) == [PromptMessage("user", "Look", parts=[image])]


@pytest.mark.parametrize(
    ("role", "content", "metadata", "said"),
    [
        (
            "tool_call",
            "{}",
            {},
            r"^The content of a tool_call message must be \[\{\"id\", \"name\", \"arguments\"\}\] as",
        ),
        ("tool_call", "no", {}, "tool_call message must be"),
        ("tool_call", '[{"id": "1", "name": "a", "arguments": {}}, {}]', {}, "tool_call message must be"),
        (
            "tool_result",
            "{}",
            {},
            r"^The content of a tool_result message must be .* or its metadata must have tool_ca",
        ),
        ("tool_result", '[{"id": "1"}]', {}, "tool_result message must be"),
    ],
)
def test_messages_that_no_prompt_could_take_up(role: str, content: str, metadata: dict[str, Any], said: str) -> None:
    """They are refused when they are added, not left out in silence later."""
    with pytest.raises(Unprocessable, match=said):
        check_tool_message(role, content, metadata)


def test_messages_that_can_be_taken_up() -> None:
    """Of the shapes that there are."""
    check_tool_message("user", "anything", {})
    check_tool_message("tool_call", '[{"id": "1", "name": "a", "arguments": {}}]', {})
    check_tool_message("tool_result", '[{"id": "1", "result": null}]', {})
    check_tool_message("tool_result", "any text", {"tool_call_id": "1"})


def test_what_says_something() -> None:
    """Text, or an image without a word, or a call without one."""
    assert not is_prompt(message("assistant", " \n"))
    assert is_prompt(message("assistant", "", tool_calls=[call()]))
    assert is_prompt(message("user", "", parts=[{"type": "image"}]))


def test_an_estimate_of_the_prompt() -> None:
    """Four bytes a token, with the tools and their results."""
    request = ProviderRequest(model=None, system=["x" * 40], messages=[PromptMessage("user", "水" * 40)])
    assert estimate(request) == 40
    more = msgspec.structs.replace(request, tools=[Tool(name="a")], messages=[*request.messages, *TURN])
    assert estimate(more) > 60


def test_many_calls_and_results_that_do_not_match() -> None:
    """Each is looked at once, however many there are: three pairs of the size that a message can have."""
    calls = [{"id": f"a{number}", "name": "n", "arguments": "{}"} for number in range(4_000)]
    results = [{"id": f"b{number}", "result": 1} for number in range(6_000)]
    turns = [message("tool_call", calls), message("tool_result", results)] * 3
    looked_at = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal looked_at
        looked_at += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        assert prompt_messages(turns) == []
    finally:
        sys.setprofile(None)
    assert looked_at < 30 * len(turns) * 6_000
