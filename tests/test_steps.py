"""Steps, crashes and what goes on after them: no call is made twice that may not be, and every prompt is whole."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.prompt import prompt_messages
from tailrace.conversation.tools import tool
from tailrace.errors import ConfigurationError, OutOfTime
from tailrace.events import Event, SourceEvent, StepEnd, Text, ToolCall, ToolResult, ToolRun
from tailrace.http.begin import Ask, begin, store_start
from tailrace.http.live import Started
from tailrace.providers import PromptMessage, ProviderRequest
from tailrace.reply.ending import COMPLETED, INTERRUPTED
from tailrace.reply.relay import Relay
from tailrace.reply.steps import Decision, Steps
from tailrace.settings import Settings
from tailrace.store import Store

from tests.memory_calls import MemoryCalls

KINDS = ("plain", "repeatable", "guarded", "deadly", "deadly_repeatable")
"""Of tools: one that must not be repeated, one that may, one that waits for a yes, and two that the process dies in."""


class World:
    """A backend with tools that count what they do.

    Attributes:
        effects: how often each call was made.
        dying: set when the process dies in a tool.
    """

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self.dying = asyncio.Event()
        self.died: set[str] = set()
        clock = SystemClock()
        settings = Settings(table="t", provider="scripted", model="fast", broadcast=False, flush_interval=0.01)
        self.backend = Backend(settings, store=Store(MemoryCalls(), "t", clock=clock), clock=clock, tools=self.tools())

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.backend.close()

    def tools(self) -> list[Any]:
        """Return a tool of each kind."""

        async def act(call: str) -> str:
            self.effects[call] += 1
            return f"did {call}"

        async def die(call: str) -> str:
            self.effects[call] += 1
            if call not in self.died:
                self.died.add(call)
                self.dying.set()
                await asyncio.Event().wait()
            return f"did {call}"

        return [
            tool(name="plain")(act),
            tool(name="repeatable", repeatable=True)(act),
            tool(name="guarded", approval=True)(act),
            tool(name="deadly")(die),
            tool(name="deadly_repeatable", repeatable=True)(die),
        ]


def script(steps: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return what the model does: these kinds of calls in each step, and then an end."""
    told: list[dict[str, Any]] = [
        {
            "chunks": [f"step {number} "],
            "tool_calls": [
                {"id": f"{number}.{place}", "name": kind, "arguments": f'{{"call":"{number}.{place}"}}'}
                for place, kind in enumerate(kinds)
            ],
        }
        for number, kinds in enumerate(steps)
    ]
    return {"script": {"steps": [*told, {"chunks": ["the end"]}]}, "tools": [*KINDS], "max_steps": 100}


async def live(world: World, started: Started, die_after: int | None) -> None:
    """Write a reply, as a relay does, until its end, or die after so many batches, or in a tool."""
    source, stream = started.source, started.stream
    died = asyncio.ensure_future(world.dying.wait())
    try:
        for number in itertools.count():
            if number == die_after:
                return
            coming = asyncio.ensure_future(anext(source, None))
            await asyncio.wait({coming, died}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
                return
            events = coming.result()
            if events is None:
                await stream.end(COMPLETED)
                return
            stream.push(events)
    finally:
        died.cancel()
        world.dying.clear()
        await source.aclose()
        stream._writer._closed = True  # nothing more of this process reaches the table
        await world.backend.open_replies._end(stream.id, INTERRUPTED, silence=0.0)


async def run(steps: Sequence[Sequence[str]], deaths: Sequence[int], decisions: Sequence[bool]) -> None:
    """Let a model make its calls, through deaths and waits, until it has ended; check all that was promised."""
    async with World() as world:
        await run_in(world, steps, deaths, decisions)


async def run_in(
    world: World, steps: Sequence[Sequence[str]], deaths: Sequence[int], decisions: Sequence[bool]
) -> None:
    """The same in a world."""
    backend = world.backend
    conversation = await Conversation.create(owner="u", backend=backend)
    options = script(steps)
    said = iter(itertools.cycle(decisions))
    dying = iter(deaths)
    decided: dict[str, bool] = {}
    ask = Ask(options=options, additions=[NewMessage("user", "Go.")])
    async with asyncio.timeout(20):
        while True:
            begun = await begin(backend, "u", conversation.id, arrived=0.0, has_question=bool(ask.additions))
            started = await store_start(backend, {"headers": []}, begun, ask)
            await live(world, started, next(dying, None))
            message = await backend.store.messages.get(started.stream.id)
            log = [event async for segment in backend.store.log.read(message.id) for event in segment.events]
            assert message.content == "".join(event.text for event in log if isinstance(event, Text))
            check_effects(world, log, decided)
            waiting = message.metadata.get("approvals") or [] if message.status == "completed" else []
            if message.status == "completed" and not waiting:
                break
            if message.status == "interrupted":
                waiting = message.metadata.get("approvals") or []
            decided |= {call: next(said) for call in waiting}
            ask = Ask(
                options=options,
                goes_on=True,
                decisions={call: Decision(decided[call]) for call in waiting},
            )
    assert message.content.endswith("the end")
    loaded = await Conversation.load(conversation.id, backend=backend)
    past = await loaded._past(None, include_unfinished=False)
    check_prompt(prompt_messages(past.messages, past.steps), steps, world, decided)


def check_effects(world: World, log: Sequence[Event], decided: Mapping[str, bool]) -> None:
    """Check that each call was logged before it was made, and none was made that was not allowed."""
    for event in log:
        if isinstance(event, ToolResult) and not event.is_error:
            assert world.effects[event.id] >= 1
    for call, allowed in decided.items():
        assert allowed or not world.effects[call]


def check_prompt(
    prompt: Sequence[PromptMessage],
    steps: Sequence[Sequence[str]],
    world: World,
    decided: Mapping[str, bool],
) -> None:
    """Check that the next prompt has each call once, with one result right behind it, in their order."""
    kinds = {f"{number}.{place}": kind for number, each in enumerate(steps) for place, kind in enumerate(each)}
    found: list[str] = []
    for message, following in itertools.pairwise([*prompt, PromptMessage("user", "")]):
        calls = [call.id for call in message.tool_calls]
        if calls:
            assert [result.id for result in following.tool_results] == calls
        found += calls
    assert found == [*kinds]
    results = {result.id: result for message in prompt for result in message.tool_results}
    for call, kind in kinds.items():
        made = world.effects[call]
        if kind == "guarded":
            assert made <= 1
            assert results[call].is_error is not bool(made) or results[call].result.startswith("It is not known")
        elif kind.endswith("repeatable"):
            assert made >= 1
            assert not results[call].is_error
        else:
            assert made <= 1
            assert results[call].is_error is (kind == "deadly" or results[call].result.startswith("It is not known"))


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(0, 8), max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_any_steps_any_deaths_any_answers(steps: list[list[str]], deaths: list[int], decisions: list[bool]) -> None:
    """Each tool's effects are counted: never twice without permission, never once without a yes that it needs."""
    asyncio.run(run(steps, deaths, decisions))


# ---- the steps alone ----


class Model:
    """Answers each request by what comes next."""

    def __init__(self, *answers: Sequence[SourceEvent]) -> None:
        self.answers = iter(answers)
        self.asked: list[ProviderRequest] = []

    async def ask(self, request: ProviderRequest, is_first: bool) -> AsyncGenerator[Sequence[SourceEvent], None]:
        """Answer."""
        assert is_first is (not self.asked)
        self.asked.append(request)
        yield next(self.answers)


def steps_of(
    model: Model, tools: Sequence[Any], *, left: float | None = None, request: ProviderRequest | None = None
) -> Steps:
    """Return the steps of a model with tools."""
    named = {each.name: each for each in tools}

    async def call(call: ToolCall) -> ToolResult:
        result: ToolResult = await named[call.name].call(call, None)
        return result

    async def stored() -> None:
        pass

    return Steps(
        model.ask,
        request or ProviderRequest(model=None, messages=[PromptMessage("user", "?")], tool_choice="required"),
        named,
        call,
        stored=stored,
        time_left=lambda: left,
    )


@tool(timeout=10)
async def answer() -> str:
    """Answer."""
    return "42"


async def collect(steps: Steps) -> list[SourceEvent]:
    """Return all events."""
    return [event async for batch in steps.stream() for event in batch]


CALL = ToolCall("c", "answer", "{}")


@pytest.mark.anyio
async def test_a_tool_that_must_be_called_is_free_to_be_left_out_then() -> None:
    """It would never end otherwise."""
    model = Model([CALL], [Text("42.")])
    assert await collect(steps_of(model, [answer])) == [
        CALL,
        ToolRun("c", "answer"),
        ToolResult("c", "answer", "42"),
        StepEnd(),
        Text("42."),
    ]
    assert [request.tool_choice for request in model.asked] == ["required", None]


@pytest.mark.anyio
async def test_what_the_provider_ran_itself_is_not_run_here() -> None:
    """Even under the same name."""
    model = Model([CALL, ToolResult("c", "answer", "41"), Text("41.")])
    assert len(await collect(steps_of(model, [answer]))) == 3


@pytest.mark.anyio
@pytest.mark.parametrize(("left", "asked", "ran"), [(4.0, 0, False), (14.0, 1, False), (16.0, 2, True)])
async def test_nothing_is_begun_that_cannot_end_in_time(left: float, asked: int, ran: bool) -> None:
    """Neither a step nor a tool that may take longer than the process has left."""
    model = Model([CALL], [Text("42.")])
    found: list[SourceEvent] = []

    async def take() -> None:
        async for batch in steps_of(model, [answer], left=left).stream():
            found.extend(batch)

    if ran:
        await take()
    else:
        with pytest.raises(OutOfTime, match="too little time left"):
            await take()
    assert len(model.asked) == asked
    assert (ToolRun("c", "answer") in found) is ran


@pytest.mark.anyio
async def test_too_little_time_ends_the_reply_as_timed_out() -> None:
    """With its text so far, and the calls that were not made known for going on."""
    async with World() as world:
        conversation = await Conversation.create(owner="u", backend=world.backend)
        ask = Ask(options=script([["plain"]]), additions=[NewMessage("user", "Go.")])
        begun = await begin(world.backend, "u", conversation.id, arrived=0.0)
        started = await store_start(world.backend, {"headers": []}, begun, ask)

        async def ending() -> AsyncGenerator[Sequence[SourceEvent], None]:
            async for batch in started.source:
                yield batch
                raise OutOfTime("The reply was ended before its next step.")

        message = await Relay(started.stream, ending(), lambda *_: None, clock=world.backend.clock).run()
        assert (message.status, message.error) == (
            "timed_out",
            {"type": "timeout", "message": "The reply was ended before its next step."},
        )
        ask = Ask(options=script([["plain"]]), goes_on=True)
        started = await store_start(
            world.backend, {"headers": []}, await begin(world.backend, "u", conversation.id, arrived=0.0), ask
        )
        message = await Relay(started.stream, started.source, lambda *_: None, clock=world.backend.clock).run()
        assert (message.status, world.effects) == ("completed", {"0.0": 1})


@pytest.mark.anyio
async def test_no_call_is_made_before_it_is_stored() -> None:
    """The tool itself looks into the log."""
    seen: list[list[Event]] = []
    async with World() as world:
        conversation = await Conversation.create(owner="u", backend=world.backend)
        await conversation.add_user_message("Go.")
        stream = await conversation.stream_response()

        async def look() -> None:
            log = [event async for segment in world.backend.store.log.read(stream.id) for event in segment.events]
            seen.append(log)

        request = (
            conversation.to_request()
            .tools(look)
            .options(
                script={
                    "steps": [
                        {"chunks": ["a"], "tool_calls": [{"id": "1", "name": "look", "arguments": ""}]},
                        {"chunks": ["b"]},
                    ]
                }
            )
        )
        response = request.stream(into=stream, max_steps=3)
        async for event in response:
            await stream.append(event)
        message = await stream.complete(response)
        assert message.content == "ab"
        assert message.metadata["steps"] == 2
        assert seen[0][-1] == ToolRun("1", "look")
        assert response.tool_results[0].result == "null"


@pytest.mark.anyio
async def test_a_tool_that_is_given_does_not_stand_for_one_of_its_name() -> None:
    """The options name one and the code gives another: which of them runs must not be a guess."""
    async with World() as world:

        async def plain(call: str) -> str:
            return call

        conversation = await Conversation.create(owner="u", backend=world.backend)
        await conversation.add_user_message("Go.")
        response = conversation.to_request().tools(plain).options(tools=["plain"]).stream()
        with pytest.raises(ConfigurationError, match="Two tools have the name plain"):
            await anext(aiter(response))
