"""All frameworks by OpenAI's wire, each with its own model for it, and a vendor of ours on a socket. What they hand on
has the shapes that really come then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import litellm
import pytest
from agents import Agent as OpenAIAgent
from agents import OpenAIChatCompletionsModel, function_tool, set_tracing_disabled
from aiohttp import web
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from strands import Agent as StrandsAgent
from strands import tool
from strands.models.openai import OpenAIModel
from tailrace.errors import ProviderError
from tailrace.events import ResponseInfo, Text, ToolCallDelta, ToolCallStart, Usage
from tailrace.providers.adapters import Adapted, find_adapter
from tailrace.providers.adapters.litellm import litellm_answer

from tests.agents.asking import CALL, ROUND, ask, said, stopped, weather

pytestmark = [
    pytest.mark.anyio,
    # Of LiteLLM's own types, when it first answers.
    pytest.mark.filterwarnings("ignore:Items? .* `ReadOnly` qualifier:UserWarning"),
]

set_tracing_disabled(True)

TEXT_AND_CALL = [
    {"role": "assistant", "content": "Let me "},
    {"content": "see. "},
    {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]},
]


class Vendor:
    """Speaks the wire: calls the tool, and answers once it has its result.

    Attributes:
        asked: the bodies that came.
        closed: set when a client leaves in mid-answer.
        status: what it refuses with, or None.
        is_endless: whether it says nothing after its first words.
        url: its root.
        clients: those that its end closes.
    """

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.closed = asyncio.Event()
        self.status: int | None = None
        self.is_endless = False
        self.url = ""
        self.clients: list[Any] = []

    def client(self) -> AsyncOpenAI:
        """Return a client of OpenAI's, without retries."""
        made = AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0)
        self.clients.append(made)
        return made

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a question."""
        body = await request.json()
        self.asked.append(body)
        if self.status is not None:
            error = {"error": {"message": "secret", "type": "x", "code": None}}
            return web.json_response(error, status=self.status, headers={"retry-after": "3"})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        is_told = body["messages"][-1]["role"] == "tool"
        try:
            for delta in [{"role": "assistant", "content": "It is sunny."}] if is_told else TEXT_AND_CALL:
                await self.send(response, [{"index": 0, "delta": delta, "finish_reason": None}])
                if self.is_endless:
                    await asyncio.Event().wait()  # until the client is gone: aiohttp cancels this then
            finish = "stop" if is_told else "tool_calls"
            await self.send(response, [{"index": 0, "delta": {}, "finish_reason": finish}])
            await self.send(
                response,
                [],
                usage={
                    "prompt_tokens": 10,
                    "completion_tokens": 4,
                    "total_tokens": 14,
                    "prompt_tokens_details": {"cached_tokens": 5},
                    "completion_tokens_details": {"reasoning_tokens": 1},
                },
            )
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.closed.set()
        return response

    async def send(self, response: web.StreamResponse, choices: list[Any], **more: Any) -> None:
        """Send a chunk."""
        chunk = {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x", "choices": choices}
        await response.write(f"data: {json.dumps(chunk | more)}\n\n".encode())


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    """A vendor on a free port."""
    vendor = Vendor()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", vendor.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    vendor.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield vendor
    for client in vendor.clients:
        await client.close()
    await runner.cleanup()


def pydantic_ai(vendor: Vendor) -> Any:
    """Return an agent of the framework that asks this vendor."""
    model = OpenAIChatModel("gpt-x", provider=OpenAIProvider(openai_client=vendor.client()))
    return PydanticAgent(model, tools=[weather])


def strands(vendor: Vendor) -> Any:
    """The same; this one makes a client for each question."""
    model = OpenAIModel(client_args={"base_url": vendor.url, "api_key": "none", "max_retries": 0}, model_id="gpt-x")
    return StrandsAgent(model=model, tools=[tool(weather)], callback_handler=None, retry_strategy=None)


def langgraph(vendor: Vendor) -> Any:
    """The same, as LangChain makes it."""
    model = ChatOpenAI(
        model="gpt-x",
        base_url=vendor.url,
        api_key="none",
        max_retries=0,
        stream_usage=True,
        http_async_client=vendor.client()._client,
    )
    return create_agent(model, tools=[weather])


def openai_agents(vendor: Vendor) -> Any:
    """The same."""
    model = OpenAIChatCompletionsModel("gpt-x", vendor.client())
    return OpenAIAgent("helper", model=model, tools=[function_tool(weather)])


def adapted(agent: Any) -> Adapted:
    """Return what answers with an agent."""
    adapt = find_adapter(agent)
    assert adapt is not None
    return adapt(agent)


frameworks = pytest.mark.parametrize("make", [pydantic_ai, strands, langgraph, openai_agents])


@frameworks
async def test_two_steps(make: Callable[[Vendor], Any], vendor: Vendor) -> None:
    """Come as they are, whichever framework stands between."""
    *events, usage, info = await said(adapted(make(vendor)), ask())
    assert tuple(events) == ROUND[1:]  # this wire has no reasoning
    assert isinstance(usage, Usage)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cache_read) == (20, 8, 10)
    assert isinstance(info, ResponseInfo)
    assert info.finish_reason in ("stop", "end_turn", "completed")
    assert info.model in ("gpt-x", None)
    roles = [message["role"] for message in vendor.asked[1]["messages"]]
    assert roles == ["user", "assistant", "tool"]


@pytest.mark.filterwarnings("ignore:Accessing the .* attribute:DeprecationWarning")  # it does so, in each answer
async def test_litellm(vendor: Vendor) -> None:
    """The same without an agent: the call is the answer."""
    answer = litellm_answer("openai/gpt-x", api_base=vendor.url, api_key="none")
    events = await said(answer, ask())
    await litellm.close_litellm_async_clients()
    assert events[:4] == [
        Text("Let me see. "),
        ToolCallStart("c1", "weather"),
        ToolCallDelta("c1", '{"city":"Bern"}'),
        CALL,
    ]
    assert events[4] == Usage(prompt_tokens=10, completion_tokens=4, cache_read=5, reasoning=1)


@frameworks
async def test_a_status(make: Callable[[Vendor], Any], vendor: Vendor) -> None:
    """Of the vendor's comes through."""
    vendor.status = 429
    with pytest.raises(ProviderError) as caught:
        await said(adapted(make(vendor)), ask())
    assert (caught.value.status_code, caught.value.retryable) == (429, True)
    assert "secret" not in caught.value.message


@frameworks
async def test_a_stop(make: Callable[[Vendor], Any], vendor: Vendor) -> None:
    """Closes the connection."""
    vendor.is_endless = True
    await stopped(adapted(make(vendor)), vendor.closed)
