"""LiteLLM and its router: text, reasoning, tools, tokens, history, failures and stops, with a provider that is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import litellm
import msgspec
import pytest
from litellm import CustomLLM
from tailrace.errors import ContentFiltered, IdleTimeout, ProviderError, Unprocessable
from tailrace.events import Reasoning, ResponseInfo, Text, ToolCall, ToolCallDelta, ToolCallStart, Usage
from tailrace.providers import OutputSchema, Tool
from tailrace.providers.adapters.litellm import adapt, litellm_answer

from tests.agents.asking import CALL, SYSTEM, TURNS, ask, said, stopped
from tests.agents.conftest import Replies

pytestmark = [
    pytest.mark.anyio,
    # Of types of its own, when it first answers.
    pytest.mark.filterwarnings("ignore:Items? .* `ReadOnly` qualifier:UserWarning"),
]

seen: list[dict[str, Any]] = []
"""What the model was given, each time it was asked."""

closed = asyncio.Event()


def chunk(**more: Any) -> dict[str, Any]:
    """A chunk as the framework takes them."""
    blank = {"text": "", "is_finished": False, "finish_reason": "", "index": 0, "tool_use": None, "usage": None}
    return blank | more


def piece(arguments: str, **more: Any) -> dict[str, Any]:
    """A piece of a call."""
    function = {"name": more.get("name"), "arguments": arguments}
    return chunk(tool_use={"id": more.get("id"), "type": "function", "index": 0, "function": function})


class Scripted(CustomLLM):  # type: ignore[misc, unused-ignore]  # the framework is not installed where types are checked
    """Says what its model's name says."""

    async def astreaming(self, model: str, messages: Any, **more: Any) -> AsyncIterator[Any]:
        """Stream an answer."""
        seen.append({"messages": messages, **more["optional_params"]})
        usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
        try:
            yield chunk(text="Let me ")
            yield chunk(text="see. ")
            if model == "endless":
                await asyncio.Event().wait()
            if model == "calling":
                yield piece('{"city":', id="c1", name="weather")
                yield piece('"Bern"}')
            finish = {"calling": "tool_calls", "filtered": "content_filter"}.get(model, "stop")
            yield chunk(is_finished=True, finish_reason=finish, usage=usage)
        finally:
            closed.set()


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework knows the provider, and nothing was seen yet."""
    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "scripted", "custom_handler": Scripted()}])
    seen.clear()


helper = litellm_answer("scripted/plain")

TOOLS = (Tool(name="weather", description="Say how the weather is."),)


async def test_an_answer() -> None:
    """Text, tokens and the reason of its end."""
    text, usage, info = await said(helper, ask())
    assert text == Text("Let me see. ")
    assert usage == Usage(prompt_tokens=10, completion_tokens=4)
    assert isinstance(info, ResponseInfo)
    assert (info.model, info.finish_reason) == ("plain", "stop")


async def test_a_call_of_a_tool() -> None:
    """Piece by piece, and then whole. The client runs the tool."""
    _, *events, _, info = await said(litellm_answer("scripted/calling"), ask(tools=TOOLS, tool_choice="weather"))
    assert events == [ToolCallStart("c1", "weather"), ToolCallDelta("c1", CALL.arguments), CALL]
    assert isinstance(info, ResponseInfo)
    assert info.finish_reason == "tool_calls"
    assert seen[0]["tools"][0]["function"]["name"] == "weather"
    assert seen[0]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


async def test_reasoning() -> None:
    """Comes before the text."""

    async def complete(**arguments: Any) -> Any:
        async def stream() -> AsyncIterator[Any]:
            for delta, finish in (({"reasoning_content": "Hm. "}, None), ({"content": "Fine."}, None), ({}, "stop")):
                yield litellm.ModelResponseStream(
                    choices=[{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}]
                )

        return stream()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litellm, "acompletion", complete)
        answer = litellm_answer("any/model")
    thought, text, *_ = await said(answer, ask())
    assert (thought, text) == (Reasoning("Hm. "), Text("Fine."))


async def test_a_turn_with_a_round_behind_it() -> None:
    """The history has its calls, results and parts; the start's model and options win over those of the answer."""
    schema = OutputSchema(name="weather", schema={"type": "object"})
    request = ask(*TURNS, system=[SYSTEM], tools=TOOLS, schema=schema, options={"temperature": 0.5, "max_tokens": 7})
    await said(litellm_answer("scripted/plain", temperature=1, top_p=0.1), request)
    given = seen[0]
    assert (given["temperature"], given["max_tokens"], given["top_p"]) == (0.5, 7, 0.1)
    assert given["response_format"]["json_schema"]["name"] == "weather"
    assert [message["role"] for message in given["messages"]] == [
        *("system", "user", "assistant", "tool", "assistant", "user")
    ]
    assert given["messages"][2]["tool_calls"][0]["id"] == given["messages"][3]["tool_call_id"] == "k1"
    assert given["messages"][3]["content"] == "rain"
    assert [each["type"] for each in given["messages"][5]["content"]] == ["image_url", "file", "text"]


async def test_a_vendor_that_fails() -> None:
    """Its status says whether it helps to ask again, its filter that it does not, and a time-out is one."""
    limit = litellm.RateLimitError("secret", llm_provider="openai", model="gpt-4o")
    with pytest.raises(ProviderError) as caught:
        await said(litellm_answer("gpt-4o", mock_response=limit), ask())
    assert (caught.value.status_code, caught.value.retryable) == (429, True)
    assert "secret" not in caught.value.message
    policy = litellm.ContentPolicyViolationError("secret", llm_provider="openai", model="gpt-4o")
    for answer in (litellm_answer("gpt-4o", mock_response=policy), litellm_answer("scripted/filtered")):
        with pytest.raises(ContentFiltered):
            await said(answer, ask())
    with pytest.raises(IdleTimeout):
        await said(litellm_answer("gpt-4o", mock_timeout=True, timeout=0.01), ask())


async def test_what_it_is_not_asked() -> None:
    """Is refused at the call."""
    with pytest.raises(Unprocessable, match="No model was named"):
        litellm_answer()(ask())
    with pytest.raises(Unprocessable, match="unknown field `api_base`"):
        helper(ask(options={"api_base": "https://example.com"}))


async def test_a_stop() -> None:
    """Closes the stream."""
    await stopped(litellm_answer("scripted/endless"), closed)


async def test_a_router() -> None:
    """Is a provider itself; a start names one of its models."""
    models = [{"model_name": "small", "litellm_params": {"model": "scripted/calling"}}]
    answer = adapt(litellm.Router(model_list=models))
    events = await said(answer, msgspec.structs.replace(ask(tools=TOOLS), model="small"))
    assert [event for event in events if isinstance(event, ToolCall)] == [CALL]


async def test_on_the_whole_stack(replies: Replies) -> None:
    """By its place in a module: streamed, logged and stored like a vendor's answer, and part of the next prompt."""
    first, second = await replies("tests.agents.agents_of_litellm:helper", "How is Bern?", "And now?")
    for message in (first, second):
        assert (message["status"], message["content"]) == ("completed", "Let me see. ")
        assert message["usage"]["source"] == "provider"
        assert message["metadata"]["finish"] == "stop"
    assert [(message["role"], message["content"]) for message in seen[1]["messages"]] == [
        ("system", SYSTEM),
        ("user", "How is Bern?"),
        ("assistant", "Let me see. "),
        ("user", "And now?"),
    ]
