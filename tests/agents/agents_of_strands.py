"""Agents of Strands: text, reasoning, tools, tokens, history, failures and stops, with a model of its base class."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from strands import Agent, tool
from strands.hooks import BeforeModelCallEvent
from strands.models import Model
from strands.session import FileSessionManager
from strands.types.exceptions import ContextWindowOverflowException, ModelThrottledException
from tailrace.errors import ConfigurationError, ContentFiltered, ProviderError, Unprocessable
from tailrace.events import ResponseInfo, StepEnd, Text, ToolResult, Usage
from tailrace.providers import ProviderRequest, Tool
from tailrace.providers.adapters.strands import OF_A_RUN, adapt

from tests.agents.asking import (
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


class Scripted(Model):  # type: ignore[misc, unused-ignore]  # the framework is not installed where types are checked
    """Says a step of its script, the one after as many rounds of tools as the prompt ends with."""

    def __init__(self, *steps: Sequence[Any]) -> None:
        self.steps = steps
        self.seen: list[Any] = []

    def update_config(self, **changes: Any) -> None:
        """There is nothing to change."""

    def get_config(self) -> Any:
        """There is nothing."""
        return {}

    def structured_output(self, *given: Any, **more: Any) -> Any:
        """Nobody asks."""
        raise NotImplementedError

    async def stream(self, messages: Any, tools: Any = None, system: Any = None, **more: Any) -> AsyncIterator[Any]:
        """Say a step."""
        self.seen.append((copy.deepcopy(messages), system))
        step = self.steps["toolResult" in messages[-1]["content"][0]] if len(self.steps) > 1 else self.steps[0]
        try:
            yield {"messageStart": {"role": "assistant"}}
            for each in step:
                if isinstance(each, Exception):
                    raise each
                if each is None:
                    await asyncio.Event().wait()
                yield each
        finally:
            closed.set()


def text(*pieces: str) -> list[Any]:
    """A block of text."""
    return [*({"contentBlockDelta": {"delta": {"text": piece}}} for piece in pieces), {"contentBlockStop": {}}]


def thought(piece: str) -> list[Any]:
    """A block of reasoning."""
    return [{"contentBlockDelta": {"delta": {"reasoningContent": {"text": piece}}}}, {"contentBlockStop": {}}]


def call(call_id: str, name: str, *pieces: str) -> list[Any]:
    """A block that calls a tool."""
    return [
        {"contentBlockStart": {"start": {"toolUse": {"toolUseId": call_id, "name": name}}}},
        *({"contentBlockDelta": {"delta": {"toolUse": {"input": piece}}}} for piece in pieces),
        {"contentBlockStop": {}},
    ]


def stop(reason: str = "end_turn", **more: int) -> list[Any]:
    """The end of a step, and its tokens."""
    usage = {"inputTokens": 10, "outputTokens": 4, "totalTokens": 14 + sum(more.values()), **more}
    return [{"messageStop": {"stopReason": reason}}, {"metadata": {"usage": usage, "metrics": {"latencyMs": 1}}}]


FIRST = [
    *thought("Hm. "),
    *text("Let me ", "see. "),
    *call("c1", "weather", '{"city":', '"Bern"}'),
    *stop("tool_use", cacheReadInputTokens=5),
]
SECOND = [*text("It is ", "sunny."), *stop()]


def agent_of(*steps: Sequence[Any], **more: Any) -> Agent:
    """Return an agent with the tool."""
    more = {"system_prompt": "Be kind.", "callback_handler": None, "retry_strategy": None, **more}
    return Agent(model=Scripted(*steps), tools=[tool(weather)], **more)


helper = agent_of(FIRST, SECOND)


async def test_two_steps() -> None:
    """All that it says is passed on, a round of tools with its end; tokens are those of both steps."""
    *events, usage, info = await said(adapt(agent_of(FIRST, SECOND)), ask())
    assert tuple(events) == ROUND
    assert usage == Usage(prompt_tokens=25, completion_tokens=8, cache_read=5)
    assert info == ResponseInfo(finish_reason="end_turn")


async def test_a_turn_with_a_round_behind_it() -> None:
    """The history has its calls, results and parts; the conversation's system prompt follows the agent's."""
    agent = agent_of(FIRST, SECOND)
    await said(adapt(agent), ask(*TURNS, system=[SYSTEM]))
    messages, system = agent.model.seen[0]
    assert system == f"Be kind.\n{SYSTEM}"
    assert [(each["role"], [*map(list, each["content"])]) for each in messages] == [
        ("user", [["text"]]),
        ("assistant", [["text"], ["toolUse"]]),
        ("user", [["toolResult"]]),
        ("assistant", [["text"]]),
        ("user", [["image"], ["document"], ["text"]]),
    ]
    assert messages[1]["content"][1]["toolUse"] == {"toolUseId": "k1", "name": "weather", "input": {"city": "Bern"}}
    assert messages[2]["content"][0]["toolResult"] == {
        "toolUseId": "k1",
        "status": "error",
        "content": [{"text": "rain"}],
    }
    assert messages[4]["content"][0]["image"] == {"format": "png", "source": {"bytes": b"hello"}}
    assert agent.model.seen[1][0][:5] == messages  # then comes the round of this run
    assert agent.messages == []


async def test_replies_at_the_same_time() -> None:
    """Do not hear of each other; hooks of the agent are called for each, with the copy that answers."""
    heard: list[Any] = []
    agent = agent_of(FIRST, SECOND)
    agent.hooks.add_callback(BeforeModelCallEvent, lambda event: heard.append(event.agent))
    answers = await asyncio.gather(*(said(adapt(agent), ask()) for _ in range(3)))
    assert [tuple(events[: len(ROUND)]) for events in answers] == [ROUND] * 3
    assert [len(messages) for messages, _ in agent.model.seen] == [1, 1, 1, 3, 3, 3]
    assert len({id(each) for each in heard}) == 3
    assert agent not in heard


async def test_the_agent_itself() -> None:
    """Is as it was: whatever the framework keeps of a run, the copy has."""
    agent = agent_of(FIRST, SECOND, state={"seen": 0})
    before = {name: id(value) for name, value in vars(agent).items()}
    assert set(OF_A_RUN) <= before.keys()

    async def note(event: BeforeModelCallEvent) -> None:
        event.agent.state.set("seen", event.agent.state.get("seen") + 1)

    agent.hooks.add_callback(BeforeModelCallEvent, note)
    await said(adapt(agent), ask(system=[SYSTEM]))
    assert {name: id(value) for name, value in vars(agent).items()} == before
    assert (agent.messages, agent.state.get("seen"), agent.event_loop_metrics.cycle_count) == ([], 0, 0)
    assert agent.system_prompt == "Be kind."


async def test_a_tool_that_fails() -> None:
    """Is a result that failed, and the run goes on."""
    first = [*call("c1", "weather", '{"city":"Nowhere"}'), *stop("tool_use")]
    events = await said(adapt(agent_of(first, SECOND)), ask())
    result = next(event for event in events if isinstance(event, ToolResult))
    assert (result.id, result.name, result.is_error) == ("c1", "weather", True)
    assert events[events.index(StepEnd()) + 1] == Text("It is sunny.")


@pytest.mark.parametrize(
    ("raised", "status", "retryable"),
    [
        (VendorFailed("secret"), 529, True),
        (ModelThrottledException("secret"), 429, True),
        (ContextWindowOverflowException("secret"), 400, False),
    ],
)
async def test_a_vendor_that_fails(raised: Exception, status: int, retryable: bool) -> None:
    """What is known of it says whether it helps to ask again, and no word of it is shown."""
    with pytest.raises(ProviderError) as caught:
        await said(adapt(agent_of([*text("It "), raised])), ask())
    assert (caught.value.status_code, caught.value.retryable) == (status, retryable)
    assert "secret" not in caught.value.message


async def test_a_filter() -> None:
    """Of which asking again is no help."""
    with pytest.raises(ContentFiltered):
        await said(adapt(agent_of([PolicyContentFilterError("secret")])), ask())


async def test_an_answer_cut_short() -> None:
    """By the limit of its length; what came stands."""
    *events, info = await said(adapt(agent_of([*text("It "), *stop("max_tokens")])), ask())
    assert events[0] == Text("It ")
    assert info == ResponseInfo(finish_reason="max_tokens")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (msgspec.structs.replace(ask(), model="nova"), "its own model"),
        (ask(tools=[Tool(name="ask_user")]), "its own tools only"),
        (ask(options={"temperature": 1}), "unknown field `temperature`"),
    ],
)
async def test_what_it_is_not_asked(request_: ProviderRequest, words: str) -> None:
    """Is refused at the call."""
    with pytest.raises(Unprocessable, match=words):
        adapt(helper)(request_)


async def test_a_second_history(tmp_path: Any) -> None:
    """Is refused: the conversations are kept here."""
    session = FileSessionManager(session_id="s", storage_dir=str(tmp_path))
    with pytest.raises(ConfigurationError, match="session manager"):
        adapt(agent_of(SECOND, session_manager=session))


async def test_a_stop() -> None:
    """Ends the run."""
    await stopped(adapt(agent_of([*text("Wait ")[:1], None])), closed)
    waiting = Waiting()
    agent = Agent(model=Scripted(FIRST, SECOND), tools=[tool(waiting.weather)], callback_handler=None)
    await stopped_in_a_tool(adapt(agent), waiting)


async def test_on_the_whole_stack(replies: Replies) -> None:
    """By its place in a module: streamed, logged and stored like a vendor's answer, and part of the next prompt."""
    helper.model.seen.clear()
    first, second = await replies("tests.agents.agents_of_strands:helper", "How is Bern?", "And now?")
    for message in (first, second):
        assert (message["status"], message["content"]) == ("completed", "Let me see. It is sunny.")
        assert message["metadata"]["reasoning"] == "Hm. "
        assert [each["result"] for each in message["metadata"]["tool_results"]] == ['"clear"']
        assert (message["usage"]["prompt_tokens"], message["usage"]["completion_tokens"]) == (25, 8)
    messages, system = helper.model.seen[2]
    assert system == f"Be kind.\n{SYSTEM}"
    assert messages[0]["content"] == [{"text": "How is Bern?"}]
    assert messages[2]["content"] == [
        {"toolResult": {"toolUseId": "c1", "status": "success", "content": [{"text": "clear"}]}}
    ]
    assert [message["content"] for message in messages[3:]] == [[{"text": "It is sunny."}], [{"text": "And now?"}]]
