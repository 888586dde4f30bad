"""Graphs of LangGraph: text, reasoning, tools, tokens, history, failures and stops, with a model of LangChain's base
class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt
from tailrace.errors import ConfigurationError, ContentFiltered, ProviderError, Unprocessable
from tailrace.events import ResponseInfo, StepEnd, Text, ToolCall, ToolResult, Usage
from tailrace.providers import ProviderRequest, Tool
from tailrace.providers.adapters.langgraph import adapt

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

closed = asyncio.Event()


class Scripted(BaseChatModel):  # type: ignore[misc, unused-ignore]  # the framework is not installed where types are checked
    """Says a step of its script: the first, or the one after a round of tools."""

    steps: list[Any]
    seen: list[Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, *given: Any, **more: Any) -> Any:
        """Know of tools; the script says when one is called."""
        return self

    def _generate(self, *given: Any, **more: Any) -> Any:
        raise NotImplementedError

    async def _astream(self, messages: Any, *given: Any, **more: Any) -> AsyncIterator[Any]:
        self.seen.append(messages)
        try:
            for each in self.steps[isinstance(messages[-1], ToolMessage)]:
                if isinstance(each, Exception):
                    raise each
                if each is None:
                    await asyncio.Event().wait()
                yield ChatGenerationChunk(message=AIMessageChunk(each) if isinstance(each, str) else each)
        finally:
            closed.set()


def piece(**of_a_call: Any) -> AIMessageChunk:
    """A piece of a call."""
    blank = {"type": "tool_call_chunk", "index": 0, "id": None, "name": None, "args": None}
    return AIMessageChunk("", tool_call_chunks=[blank | of_a_call])


def stop(reason: str) -> AIMessageChunk:
    """The end of a step, and its tokens."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 4,
        "total_tokens": 14,
        "input_token_details": {"cache_read": 5},
        "output_token_details": {"reasoning": 1},
    }
    return AIMessageChunk(
        "", usage_metadata=usage, response_metadata={"finish_reason": reason, "model_name": "scripted-1"}
    )


FIRST = [
    AIMessageChunk([{"type": "reasoning", "reasoning": "Hm. "}]),
    "Let me ",
    "see. ",
    piece(id="c1", name="weather", args=""),
    piece(args='{"city":'),
    piece(args='"Bern"}'),
    stop("tool_calls"),
]
SECOND = ["It is ", "sunny.", stop("stop")]


def graph_of(model: Any, function: Any = weather, **tools: Any) -> Any:
    """Return a graph that calls the tool as long as the model asks for it."""

    async def answer(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", answer)
    graph.add_node("tools", ToolNode([tool(function)], **tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph


def scripted(*steps: Any) -> Scripted:
    """Return a model that has seen nothing yet."""
    return Scripted(steps=[*steps], seen=[])


model = scripted(FIRST, SECOND)
helper = graph_of(model).compile()


async def test_two_steps() -> None:
    """All that it says is passed on, a round of tools with its end; tokens are those of both steps."""
    *events, usage, info = await said(adapt(helper), ask())
    assert tuple(events) == ROUND
    assert usage == Usage(prompt_tokens=20, completion_tokens=8, cache_read=10, reasoning=2)
    assert info == ResponseInfo(model="scripted-1", finish_reason="stop")


async def test_a_model_that_does_not_stream() -> None:
    """Says the same in whole messages."""
    usage = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}
    call = {"id": "c1", "name": "weather", "args": {"city": "Bern"}}
    whole = FakeMessagesListChatModel(
        responses=[AIMessage("I look.", tool_calls=[call], usage_metadata=usage), AIMessage("It is sunny.")]
    )
    assert await said(adapt(graph_of(whole)), ask()) == [
        Text("I look."),
        CALL,
        ToolResult("c1", "weather", '"clear"'),
        StepEnd(),
        Text("It is sunny."),
        Usage(prompt_tokens=10, completion_tokens=4),
    ]


async def test_calls_side_by_side() -> None:
    """Have their results in any order, and one end."""
    first = [
        piece(id="c1", name="weather", args='{"city":"Bern"}'),
        piece(index=1, id="c2", name="weather", args='{"city":"Basel"}'),
        stop("tool_calls"),
    ]
    events = await said(adapt(graph_of(scripted(first, SECOND))), ask())
    assert {event.id for event in events if isinstance(event, ToolCall)} == {"c1", "c2"}
    at = events.index(StepEnd())
    assert {event.id for event in events[:at] if isinstance(event, ToolResult)} == {"c1", "c2"}
    assert events[at + 1] == Text("It is sunny.")


async def test_a_turn_with_a_round_behind_it() -> None:
    """The history has its calls, results and parts, and is told once, though a checkpointer stands by."""
    mine = scripted(FIRST, SECOND)
    answer = adapt(graph_of(mine).compile(checkpointer=InMemorySaver()))
    for _ in range(2):
        mine.seen.clear()
        await said(answer, ask(*TURNS, system=[SYSTEM]))
        system, first, called, returned, answered, asked_again = mine.seen[0]
        assert (system.type, system.content, first.type, first.content) == ("system", SYSTEM, "human", "How is Bern?")
        assert [(each["id"], each["name"], each["args"]) for each in called.tool_calls] == [
            ("k1", "weather", {"city": "Bern"})
        ]
        assert (returned.tool_call_id, returned.name, returned.content, returned.status) == (
            "k1",
            "weather",
            "rain",
            "error",
        )
        assert answered.content == "It rains."
        assert asked_again.content == [
            {"type": "image", "mime_type": "image/png", "base64": "aGVsbG8="},
            {"type": "file", "mime_type": "application/pdf", "filename": "map.pdf", "base64": "aGVsbG8="},
            {"type": "text", "text": "And in this picture?"},
        ]


async def test_a_node_that_gives_the_history_back() -> None:
    """Says nothing new by that."""

    async def echo(state: Any) -> Any:
        return {"messages": state["messages"]}

    graph = graph_of(scripted(FIRST, SECOND))
    graph.add_node("echo", echo)
    graph.add_edge(START, "echo")
    events = await said(adapt(graph), ask(*TURNS))
    assert "It rains." not in "".join(event.text for event in events if isinstance(event, Text))


async def test_a_tool_that_fails() -> None:
    """Is a result that failed where the graph handles it; otherwise it ends the answer."""
    first = [piece(id="c1", name="weather", args='{"city":"Nowhere"}'), stop("tool_calls")]
    events = await said(adapt(graph_of(scripted(first, SECOND), handle_tool_errors=True)), ask())
    result = next(event for event in events if isinstance(event, ToolResult))
    assert (result.id, result.name, result.is_error) == ("c1", "weather", True)
    with pytest.raises(ValueError, match="secret"):  # the provider of one's own says no more than that it failed
        await said(adapt(graph_of(scripted(first, SECOND))), ask())


async def test_a_vendor_that_fails() -> None:
    """Its status says whether it helps to ask again, its filter that it does not."""
    with pytest.raises(ProviderError) as caught:
        await said(adapt(graph_of(scripted(["It ", VendorFailed("secret")]))), ask())
    assert (caught.value.status_code, caught.value.retryable) == (529, True)
    assert "secret" not in caught.value.message
    with pytest.raises(ContentFiltered):
        await said(adapt(graph_of(scripted([PolicyContentFilterError("secret")]))), ask())


async def test_a_graph_that_waits_for_somebody() -> None:
    """Has not answered."""

    async def wait(state: Any) -> Any:
        return {"messages": [AIMessage(interrupt("May I?"))]}

    graph = StateGraph(MessagesState)
    graph.add_node("wait", wait)
    graph.add_edge(START, "wait")
    with pytest.raises(ProviderError, match="waits for an answer"):
        await said(adapt(graph.compile(checkpointer=InMemorySaver())), ask())


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (msgspec.structs.replace(ask(), model="gpt-5"), "its own model"),
        (ask(tools=[Tool(name="ask_user")]), "its own tools only"),
        (ask(options={"temperature": 1}), "unknown field `temperature`"),
    ],
)
async def test_what_it_is_not_asked(request_: ProviderRequest, words: str) -> None:
    """Is refused at the call."""
    with pytest.raises(Unprocessable, match=words):
        adapt(helper)(request_)


async def test_a_graph_without_messages() -> None:
    """Is none that could answer."""
    graph = StateGraph(dict)
    graph.add_node("one", lambda state: state)
    graph.add_edge(START, "one")
    with pytest.raises(ConfigurationError, match="must have messages"):
        adapt(graph)


async def test_a_stop() -> None:
    """Ends the run."""
    await stopped(adapt(graph_of(scripted(["Wait ", None]))), closed)
    waiting = Waiting()
    await stopped_in_a_tool(adapt(graph_of(scripted(FIRST, SECOND), waiting.weather)), waiting)


async def test_on_the_whole_stack(replies: Replies) -> None:
    """By its place in a module: streamed, logged and stored like a vendor's answer, and part of the next prompt."""
    model.seen.clear()
    first, second = await replies("tests.agents.agents_of_langgraph:helper", "How is Bern?", "And now?")
    for message in (first, second):
        assert (message["status"], message["content"]) == ("completed", "Let me see. It is sunny.")
        assert message["metadata"]["reasoning"] == "Hm. "
        assert [each["result"] for each in message["metadata"]["tool_results"]] == ['"clear"']
        assert (message["usage"]["prompt_tokens"], message["usage"]["completion_tokens"]) == (20, 8)
        assert message["model"] == "scripted-1"
    assert [(message.type, message.content) for message in model.seen[2]] == [
        ("system", SYSTEM),
        ("human", "How is Bern?"),
        ("ai", "Let me see. "),
        ("tool", "clear"),
        ("ai", "It is sunny."),
        ("human", "And now?"),
    ]


async def test_a_graph_inside_a_node() -> None:
    """Says the same, in whole messages."""
    outer = StateGraph(MessagesState)
    outer.add_node("inner", graph_of(scripted(FIRST, SECOND)).compile())
    outer.add_edge(START, "inner")
    events = await said(adapt(outer), ask(*TURNS))
    assert tuple(events[:6]) == (ROUND[0], ROUND[1], CALL, *ROUND[5:])
