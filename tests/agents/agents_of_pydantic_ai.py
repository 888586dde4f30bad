"""Agents of Pydantic AI: text, reasoning, tools, tokens, history, failures and stops, with its own fake model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, ToolFailed
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from tailrace.errors import ContentFiltered, ProviderError, Unprocessable
from tailrace.events import ResponseInfo, StepEnd, Text, ToolCall, ToolResult, Usage
from tailrace.providers import OutputSchema, PromptMessage, Tool
from tailrace.providers.adapters.pydantic_ai import adapt

from tests.agents.asking import (
    CALL,
    ROUND,
    SYSTEM,
    TURNS,
    PolicyContentFilterError,
    Waiting,
    ask,
    said,
    stopped,
    stopped_in_a_tool,
    weather,
)
from tests.agents.conftest import Replies

pytestmark = pytest.mark.anyio

seen: list[list[Any]] = []
"""What the model was given, each time it was asked."""

settings: list[Any] = []
"""By which settings of the model."""

closed = asyncio.Event()


async def two_steps(messages: list[Any], info: Any) -> AsyncIterator[Any]:
    """Call the tool, and then answer."""
    seen.append(messages)
    settings.append(info.model_settings)
    if messages[-1].parts[-1].part_kind != "tool-return":
        yield {0: DeltaThinkingPart(content="Hm. ")}
        yield "Let me "
        yield "see. "
        yield {2: DeltaToolCall(name="weather", json_args='{"city":', tool_call_id="c1")}
        yield {2: DeltaToolCall(json_args='"Bern"}')}
    else:
        yield "It is "
        yield "sunny."


async def endless(messages: list[Any], info: Any) -> AsyncIterator[Any]:
    """Say one word, and then nothing for ever."""
    try:
        yield "Wait "
        await asyncio.Event().wait()
    finally:
        closed.set()


def agent_of(answer: Any, **more: Any) -> Agent[Any, Any]:
    """Return an agent with the tool."""
    return Agent(FunctionModel(stream_function=answer), tools=[weather], system_prompt="Be kind.", **more)


helper = agent_of(two_steps)


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Nothing was seen yet."""
    seen.clear()
    settings.clear()


async def test_two_steps() -> None:
    """All that it says is passed on, a round of tools with its end; tokens are those of both steps."""
    *events, usage, info = await said(adapt(helper), ask())
    assert tuple(events) == ROUND
    assert isinstance(usage, Usage)
    assert usage.prompt_tokens
    assert usage.prompt_tokens >= 100  # its fake model counts 50 for a step
    assert info == ResponseInfo(model="function::two_steps", finish_reason="stop")


async def test_a_turn_with_a_round_behind_it() -> None:
    """The history has its calls, results and parts; the agent's own system prompt stands before it, once."""
    request = ask(*TURNS, system=[SYSTEM], options={"temperature": 0.5, "max_tokens": 7, "stop": "."})
    await said(adapt(helper), request)
    first, called, returned, answered, asked_again = seen[0]
    assert [(part.part_kind, part.content) for part in first.parts] == [
        ("system-prompt", "Be kind."),
        ("user-prompt", "How is Bern?"),
    ]
    assert [part.part_kind for part in called.parts] == ["text", "tool-call"]
    assert called.parts[1].args_as_dict() == {"city": "Bern"}
    assert [(part.tool_call_id, part.content, part.outcome) for part in returned.parts] == [("k1", "rain", "failed")]
    assert answered.parts[0].content == "It rains."
    picture, document, text = asked_again.parts[0].content
    assert (picture.data, picture.media_type, document.media_type) == (b"hello", "image/png", "application/pdf")
    assert text == "And in this picture?"
    assert asked_again.instructions == SYSTEM
    assert settings[0] == {"temperature": 0.5, "max_tokens": 7, "stop_sequences": ["."]}


async def test_tools_of_the_client_s() -> None:
    """A call of one ends the run; the next turn brings its result, and the run goes on from there."""

    async def calling(messages: list[Any], info: Any) -> AsyncIterator[Any]:
        assert {tool.name for tool in info.function_tools} == {"weather", "ask_user"}
        if messages[-1].parts[-1].part_kind == "tool-return":
            yield f"You said {messages[-1].parts[-1].content}."
        else:
            yield {0: DeltaToolCall(name="ask_user", json_args='{"what":"day"}', tool_call_id="u1")}

    tools = [Tool(name="ask_user", description="Ask.", parameters={"type": "object", "properties": {}})]
    agent = agent_of(calling)
    *_, call, _, info = await said(adapt(agent), ask(tools=tools))
    assert call == ToolCall("u1", "ask_user", '{"what":"day"}')
    assert isinstance(info, ResponseInfo)
    assert info.finish_reason == "tool_call"
    turns = [
        PromptMessage("user", "When?"),
        PromptMessage("assistant", "", tool_calls=[call]),
        PromptMessage("tool_result", "", tool_results=[ToolResult("u1", "ask_user", '"Monday"')]),
    ]
    text, *_ = await said(adapt(agent), ask(*turns, tools=tools))
    assert text == Text("You said Monday.")


async def test_an_output_of_a_type() -> None:
    """Is the answer's text, as JSON; the call by which the model gives it is not shown."""

    class Weather(BaseModel):
        degrees: int

    agent = Agent(TestModel(custom_output_args={"degrees": 7}), output_type=Weather)
    text, _, info = await said(adapt(agent), ask())
    assert text == Text('{"degrees":7}')
    assert info == ResponseInfo(model="test", finish_reason="stop")


async def test_a_schema_of_the_start() -> None:
    """The model is held to it by what the framework has for that."""
    schemas: list[Any] = []

    async def answering(messages: list[Any], info: Any) -> AsyncIterator[Any]:
        schemas.append(info.model_request_parameters.output_object.json_schema)
        yield '{"degrees": 7}'

    schema = {"type": "object", "properties": {"degrees": {"type": "integer"}}, "required": ["degrees"]}
    model = FunctionModel(stream_function=answering, profile={"supports_json_schema_output": True})
    text, *_ = await said(adapt(Agent(model)), ask(schema=OutputSchema(name="weather", schema=schema)))
    assert isinstance(text, Text)
    assert json.loads(text.text) == {"degrees": 7}
    assert schemas[0]["properties"] == schema["properties"]


async def test_a_tool_that_fails() -> None:
    """What it tells the model is a result that failed; anything else ends the answer."""

    async def calling(messages: list[Any], info: Any) -> AsyncIterator[Any]:
        if messages[-1].parts[-1].part_kind == "tool-return":
            yield "Sorry."
        else:
            yield {0: DeltaToolCall(name="locate", json_args='{"city":"Nowhere"}', tool_call_id="c1")}

    async def locate(city: str) -> str:
        raise ToolFailed("no such city")

    async def locate_badly(city: str) -> str:
        raise ValueError("secret")

    agent = Agent(FunctionModel(stream_function=calling), tools=[locate])
    events = await said(adapt(agent), ask())
    assert ToolResult("c1", "locate", '"no such city"', is_error=True) in events
    assert events[events.index(StepEnd()) + 1] == Text("Sorry.")
    locate_badly.__name__ = "locate"
    agent = Agent(FunctionModel(stream_function=calling), tools=[locate_badly])
    with pytest.raises(ValueError, match="secret"):  # the provider of one's own says no more than that it failed
        await said(adapt(agent), ask())


async def test_a_vendor_that_fails() -> None:
    """Its status says whether it helps to ask again, its filter that it does not."""

    async def failing(messages: list[Any], info: Any) -> AsyncIterator[Any]:
        raise ModelHTTPError(429, "m", headers={"retry-after": "3"})
        yield ""

    async def filtering(messages: list[Any], info: Any) -> AsyncIterator[Any]:
        raise PolicyContentFilterError("secret")
        yield ""

    with pytest.raises(ProviderError) as caught:
        await said(adapt(agent_of(failing)), ask())
    assert (caught.value.status_code, caught.value.retryable, caught.value.retry_after) == (429, True, 3.0)
    with pytest.raises(ContentFiltered) as filtered:
        await said(adapt(agent_of(filtering)), ask())
    assert "secret" not in filtered.value.message


async def test_what_it_is_not_asked() -> None:
    """Is refused at the call."""
    with pytest.raises(Unprocessable, match="its own model"):
        adapt(helper)(msgspec.structs.replace(ask(), model="gpt-5"))
    with pytest.raises(Unprocessable, match="unknown field `colour`"):
        adapt(helper)(ask(options={"colour": "red"}))


async def test_a_start_that_asks_for_it(replies: Replies) -> None:
    """Is refused, in those words, before anything is stored."""
    (refused,) = await replies("tests.agents.agents_of_pydantic_ai:helper", {"input": "?", "model": "gpt-5"})
    assert refused["error"] == {
        "type": "unprocessable",
        "message": "An agent of Pydantic AI answers with its own model: name none.",
    }


async def test_a_stop() -> None:
    """Ends the run."""
    await stopped(adapt(agent_of(endless)), closed)
    tool = Waiting()
    await stopped_in_a_tool(adapt(Agent(FunctionModel(stream_function=two_steps), tools=[tool.weather])), tool)


async def test_on_the_whole_stack(replies: Replies) -> None:
    """By its place in a module: streamed, logged and stored like a vendor's answer, and part of the next prompt."""
    first, second = await replies("tests.agents.agents_of_pydantic_ai:helper", "How is Bern?", "And now?")
    for message in (first, second):
        assert (message["status"], message["content"]) == ("completed", "Let me see. It is sunny.")
        assert message["metadata"]["reasoning"] == "Hm. "
        assert message["metadata"]["tool_calls"] == [{"id": "c1", "name": "weather", "arguments": CALL.arguments}]
        assert [each["result"] for each in message["metadata"]["tool_results"]] == ['"clear"']
        assert message["usage"]["source"] == "provider"
    assert [[part.part_kind for part in message.parts] for message in seen[2]] == [
        ["system-prompt", "user-prompt"],
        ["text", "tool-call"],
        ["tool-return"],
        ["text"],
        ["user-prompt"],
    ]
    assert [message.parts[-1].content for message in seen[2][2:]] == ["clear", "It is sunny.", "And now?"]
