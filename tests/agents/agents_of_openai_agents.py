"""Agents of OpenAI's Agents SDK: text, reasoning, tools, tokens, history, failures and stops, with its fake model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from agents import Agent, GuardrailFunctionOutput, InputGuardrail, function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.usage import Usage as Counted
from openai.types.responses import ResponseReasoningItem, ResponseTextDeltaEvent
from openai.types.responses.response_reasoning_item import Summary
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel
from tailrace.errors import ConfigurationError, ContentFiltered, ProviderError, Unprocessable
from tailrace.events import ResponseInfo, StepEnd, Text, ToolCall, ToolResult, Usage
from tailrace.providers import ProviderRequest, Tool
from tailrace.providers.adapters.openai_agents import adapt
from tailrace.providers.own import own_provider

from tests.agents.asking import (
    CALL,
    ROUND,
    SYSTEM,
    TURNS,
    PolicyContentFilterError,
    VendorFailed,
    Waiting,
    ask,
    said,
    stopped,
    stopped_in_a_tool,
    weather,
)
from tests.agents.conftest import Replies

pytestmark = pytest.mark.anyio

set_tracing_disabled(True)  # it sends what an agent does to its vendor

closed = asyncio.Event()


def counted() -> Counted:
    """The tokens of a step."""
    return Counted(
        requests=1,
        input_tokens=10,
        output_tokens=4,
        total_tokens=14,
        input_tokens_details=InputTokensDetails(cached_tokens=5, cache_write_tokens=0),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=1),
    )


def script() -> Iterator[ModelStep]:
    """Yield the steps of an answer."""
    thought = ResponseReasoningItem(id="r1", type="reasoning", summary=[Summary(text="Hm. ", type="summary_text")])
    call = function_call("weather", CALL.arguments, call_id="c1")
    yield ModelStep(output=[thought, assistant_message("Let me see. "), call], usage=counted())
    yield ModelStep(output=[assistant_message("It is sunny.")], usage=counted())


def agent_of(*steps: Any, **more: Any) -> Agent[Any]:
    """Return an agent with the tool."""
    more = {"tools": [function_tool(weather)], **more}
    return Agent("helper", instructions="Be kind.", model=ScriptedModel(steps), **more)


async def test_two_steps() -> None:
    """All that it says is passed on, a round of tools with its end; tokens are those of both steps."""
    *events, usage, info = await said(adapt(agent_of(*script())), ask())
    assert tuple(events) == ROUND
    assert usage == Usage(prompt_tokens=20, completion_tokens=8, cache_read=10, reasoning=2)
    assert info == ResponseInfo(model="scripted-model", finish_reason="completed", provider_request_id="resp-789")


async def test_a_turn_with_a_round_behind_it() -> None:
    """The history has its calls, results and parts; the start's options are the model's settings."""
    agent = agent_of(*script())
    options = {"temperature": 0.5, "max_tokens": 7, "timeouts": {"idle": 5}}
    await said(adapt(agent), ask(*TURNS, system=[SYSTEM], options=options))
    model: Any = agent.model
    first, second = model.calls
    assert first.system_instructions == "Be kind."
    assert (first.model_settings.temperature, first.model_settings.max_tokens) == (0.5, 7)
    assert first.input == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "How is Bern?"},
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "k1", "name": "weather", "arguments": '{"city":"Bern"}'},
        {"type": "function_call_output", "call_id": "k1", "output": "rain"},
        {"role": "assistant", "content": "It rains."},
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8=", "detail": "auto"},
                {
                    "type": "input_file",
                    "filename": "map.pdf",
                    "file_data": "data:application/pdf;base64,aGVsbG8=",
                },
                {"type": "input_text", "text": "And in this picture?"},
            ],
        },
    ]
    assert second.input[: len(first.input)] == first.input


async def test_a_handoff() -> None:
    """Is a call with its result; the other agent goes on."""
    other = Agent("expert", model=ScriptedModel([[assistant_message("I know.")]]))
    agent = agent_of([function_call("transfer_to_expert", "{}", call_id="h1")], handoffs=[other])
    events = await said(adapt(agent), ask())
    assert ToolCall("h1", "transfer_to_expert", "{}") in events
    result = next(event for event in events if isinstance(event, ToolResult))
    assert (result.id, result.name, result.is_error) == ("h1", "transfer_to_expert", False)
    assert events[events.index(StepEnd()) + 1] == Text("I know.")


async def test_a_tool_whose_result_is_the_answer() -> None:
    """Is said as text."""
    call = function_call("weather", CALL.arguments, call_id="c1")
    events = await said(adapt(agent_of([call], tool_use_behavior="stop_on_first_tool")), ask())
    assert events[-2:-1] == [Text("clear")]


async def test_an_output_of_a_type() -> None:
    """Is the answer's text, as the model wrote it."""

    class Weather(BaseModel):
        degrees: int

    events = await said(adapt(agent_of([assistant_message('{"degrees":7}')], output_type=Weather)), ask())
    assert [event for event in events if isinstance(event, Text)] == [Text('{"degrees":7}')]


async def test_a_tool_that_fails() -> None:
    """Is a result that failed, and the run goes on; one that is made so ends the answer."""
    call = function_call("weather", '{"city":"Nowhere"}', call_id="c1")
    events = await said(adapt(agent_of([call], [assistant_message("Sorry.")])), ask())
    result = next(event for event in events if isinstance(event, ToolResult))
    assert (result.id, result.name, result.is_error) == ("c1", "weather", True)
    assert events[events.index(StepEnd()) + 1] == Text("Sorry.")
    raising = function_tool(weather, failure_error_function=None)
    with pytest.raises(Exception, match="weather"):  # the provider of one's own says no more than that it failed
        await said(adapt(agent_of([call], tools=[raising])), ask())


async def test_a_vendor_that_fails() -> None:
    """Its status says whether it helps to ask again, its filter that it does not."""
    with pytest.raises(ProviderError) as caught:
        await said(adapt(agent_of(VendorFailed("secret"))), ask())
    assert (caught.value.status_code, caught.value.retryable) == (529, True)
    assert "secret" not in caught.value.message
    with pytest.raises(ContentFiltered):
        await said(adapt(agent_of(PolicyContentFilterError("secret"))), ask())


async def test_a_guardrail() -> None:
    """That is triggered is a filter too."""

    async def never(*given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    with pytest.raises(ContentFiltered):
        await said(adapt(agent_of(*script(), input_guardrails=[InputGuardrail(never)])), ask())


async def test_a_tool_that_needs_a_yes() -> None:
    """Gets none here."""
    call = function_call("weather", CALL.arguments, call_id="c1")
    with pytest.raises(ProviderError, match="waits for an answer"):
        await said(adapt(agent_of([call], tools=[function_tool(weather, needs_approval=True)])), ask())


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (msgspec.structs.replace(ask(), model="gpt-5"), "its own model"),
        (ask(tools=[Tool(name="ask_user")]), "its own tools only"),
        (ask(options={"colour": "red"}), "unknown field `colour`"),
    ],
)
async def test_what_it_is_not_asked(request_: ProviderRequest, words: str) -> None:
    """Is refused at the call."""
    with pytest.raises(Unprocessable, match=words):
        adapt(agent_of())(request_)


async def test_an_agent_of_another_kind() -> None:
    """Is none that could answer."""
    with pytest.raises(ConfigurationError, match="not a RealtimeAgent"):
        own_provider("helper", RealtimeAgent("speaker"))


async def endless(call: Any) -> AsyncIterator[Any]:
    """Say one word, and then nothing for ever."""
    try:
        yield ResponseTextDeltaEvent(
            type="response.output_text.delta",
            delta="Wait ",
            content_index=0,
            item_id="m",
            logprobs=[],
            output_index=0,
            sequence_number=0,
        )
        await asyncio.Event().wait()
    finally:
        closed.set()


async def test_a_stop() -> None:
    """Ends the run."""
    await stopped(adapt(agent_of(*(ModelStep.stream(endless) for _ in range(3)))), closed)
    waiting = Waiting()
    await stopped_in_a_tool(adapt(agent_of(*script(), tools=[function_tool(waiting.weather)])), waiting)


helper = agent_of(*script(), *script())


async def test_on_the_whole_stack(replies: Replies) -> None:
    """By its place in a module: streamed, logged and stored like a vendor's answer, and part of the next prompt."""
    first, second = await replies("tests.agents.agents_of_openai_agents:helper", "How is Bern?", "And now?")
    for message in (first, second):
        assert (message["status"], message["content"]) == ("completed", "Let me see. It is sunny.")
        assert message["metadata"]["reasoning"] == "Hm. "
        assert message["metadata"]["finish"] == "stop"
        assert [each["result"] for each in message["metadata"]["tool_results"]] == ['"clear"']
        assert (message["usage"]["prompt_tokens"], message["usage"]["completion_tokens"]) == (20, 8)
    model: Any = helper.model
    assert model.calls[2].input == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "How is Bern?"},
        {"role": "assistant", "content": "Let me see. "},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": CALL.arguments},
        {"type": "function_call_output", "call_id": "c1", "output": "clear"},
        {"role": "assistant", "content": "It is sunny."},
        {"role": "user", "content": "And now?"},
    ]
