"""A reply in steps: the model answers, the tools that it called run here, and it is asked again with their results.

All of it is one source, so one log and one end. Before a tool is called its ``ToolRun`` is stored: after a crash it is
known which calls were begun, and none of them is made again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import msgspec

from tailrace.errors import OutOfTime
from tailrace.events import (
    Approval,
    ApprovalRequest,
    ProviderState,
    Reset,
    SourceEvent,
    StepEnd,
    Text,
    ToolCall,
    ToolResult,
    ToolRun,
)
from tailrace.providers import PromptMessage, ProviderRequest

MAX_STEPS: Final = 8
"""Steps of a reply that says nothing else."""

AT_ONCE: Final = 8
"""Calls of one step that run at the same time."""

SPARE_SECONDS: Final = 5.0
"""What must be left after a tool, or for a step, before the process is gone: to answer, and to store the end."""

CLOSE_SECONDS: Final = 1.0
"""How long the tools of a reply that was stopped may take to stop; then they are left to themselves."""

UNKNOWN: Final = "It is not known whether this call was made: the reply broke off while it ran. It was not repeated."
DENIED: Final = "The user did not allow this call."


class RunsHere(Protocol):
    """A tool that runs here."""

    @property
    def timeout(self) -> float:
        """Seconds that a call may take."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether a call may be made again of which nobody knows what it did."""
        ...

    def needs_approval(self, call: ToolCall) -> bool:
        """Whether somebody has to say yes first."""
        ...


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody said to a call that waited for it."""

    approved: bool
    reason: str | None = None


class Pending(msgspec.Struct, frozen=True):
    """The calls of an earlier reply that this one goes on with.

    Attributes:
        calls: those without a result, of tools that run here.
        decisions: what was said to those that waited, by their ids.
        unknown: the ids of those that were begun, and nobody knows what they did.
    """

    calls: Sequence[ToolCall] = ()
    decisions: Mapping[str, Decision] = msgspec.field(default_factory=dict)
    unknown: Collection[str] = ()


Ask = Callable[[ProviderRequest, bool], AsyncGenerator[Sequence[SourceEvent], None]]
"""Asks for one step; of the first it is said that it is."""

Call = Callable[[ToolCall], Awaitable[ToolResult]]


class Steps:
    """The source of a reply in steps.

    Args:
        ask: asks the providers.
        request: what the first step asks.
        tools: those that run here, by their names.
        call: makes a call of one of them. It raises nothing.
        pending: what is to be done before the first step.
        stored: waits until all that was yielded is in the log.
        time_left: returns the seconds until this process is gone, or None.
    """

    def __init__(
        self,
        ask: Ask,
        request: ProviderRequest,
        tools: Mapping[str, RunsHere],
        call: Call,
        *,
        max_steps: int = MAX_STEPS,
        pending: Pending | None = None,
        stored: Callable[[], Awaitable[object]],
        time_left: Callable[[], float | None],
    ) -> None:
        self._ask = ask
        self._request = request
        self._tools = tools
        self._call = call
        self._max_steps = max_steps
        self._pending = pending or Pending()
        self._stored = stored
        self._time_left = time_left

    async def stream(self) -> AsyncGenerator[Sequence[SourceEvent], None]:
        """Yield what arrives, as a provider does. Closing it stops the provider and the tools.

        Raises:
            ProviderError: nobody answered, or who did broke off.
            OutOfTime: there is too little time for the next step, or for a tool.
        """
        if self._pending.calls:
            results: dict[str, ToolResult] = {}
            async with aclosing(self._round(self._pending, results)) as events:
                async for batch in events:
                    yield batch
            if len(results) < len(self._pending.calls):
                return  # some wait for a yes
            self._request = _with_results(self._request, results)
        for number in range(self._max_steps):
            self._check_time(0.0)
            step = _Step()
            async with aclosing(self._ask(self._request, number == 0)) as source:
                async for batch in source:
                    step.take(batch)
                    yield batch
            calls = [call for call in step.calls if call.name in self._tools]
            if not calls:
                return
            results = {}
            async with aclosing(self._round(Pending(calls), results)) as events:
                async for batch in events:
                    yield batch
            if len(results) < len(step.calls):
                return  # some wait for a yes, or run at the client
            self._request = step.added_to(self._request, results)

    async def _round(
        self, pending: Pending, results: dict[str, ToolResult]
    ) -> AsyncGenerator[Sequence[SourceEvent], None]:
        """Make the calls of one step, as far as they may be made; fill ``results`` by the ids of the calls."""
        told: list[SourceEvent] = []
        running: list[ToolCall] = []
        for call in pending.calls:
            decision = pending.decisions.get(call.id)
            tool = self._tools[call.name]
            if decision is not None:
                told.append(Approval(call.id, decision.approved, decision.reason))
            if call.id in pending.unknown and not tool.repeatable:
                results[call.id] = ToolResult(call.id, call.name, UNKNOWN, is_error=True)
                told.append(results[call.id])
            elif decision is not None and not decision.approved:
                reason = f" They said: {decision.reason}" if decision.reason else ""
                results[call.id] = ToolResult(call.id, call.name, DENIED + reason, is_error=True)
                told.append(results[call.id])
            elif decision is None and call.id not in pending.unknown and tool.needs_approval(call):
                told.append(ApprovalRequest(call.id))
            else:
                running.append(call)
        if running:
            self._check_time(max(self._tools[call.name].timeout for call in running))
            told += [ToolRun(call.id, call.name) for call in running]
        if told:
            yield told
        if running:
            await self._stored()
            async with aclosing(self._run(running)) as finished:
                async for batch in finished:
                    results |= {result.id: result for result in batch}
                    yield batch
        yield (StepEnd(),)

    async def _run(self, calls: Sequence[ToolCall]) -> AsyncGenerator[Sequence[ToolResult], None]:
        """Make calls, several at once; yield their results as they come."""
        room = asyncio.Semaphore(AT_ONCE)

        async def run(call: ToolCall) -> ToolResult:
            async with room:
                return await self._call(call)

        tasks = [asyncio.create_task(run(call)) for call in calls]
        running = set(tasks)
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                yield [task.result() for task in tasks if task in done]
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=CLOSE_SECONDS)

    def _check_time(self, seconds: float) -> None:
        left = self._time_left()
        if left is not None and left < seconds + SPARE_SECONDS:
            raise OutOfTime("The reply was ended before its next step: there was too little time left for it.")


class _Step:
    """What the model said in one step."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[str, ToolCall] = {}
        self._answered: set[str] = set()
        self._state: ProviderState | None = None

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that the provider has not answered itself."""
        return [call for call in self._calls.values() if call.id not in self._answered]

    def take(self, events: Sequence[SourceEvent]) -> None:
        """Take in what came."""
        for event in events:
            if isinstance(event, Text):
                self._texts.append(event.text)
            elif isinstance(event, ToolCall):
                self._calls[event.id] = event
            elif isinstance(event, ToolResult):
                self._answered.add(event.id)
            elif isinstance(event, ProviderState):
                self._state = event
            elif isinstance(event, Reset):
                self._texts.clear()
                self._calls.clear()
                self._answered.clear()
                self._state = None

    def added_to(self, request: ProviderRequest, results: Mapping[str, ToolResult]) -> ProviderRequest:
        """Return what the next step asks: the same, with this one and its results behind it.

        A tool that had to be called was called, so the model is free from now on: it would never end otherwise.
        """
        calls = self.calls
        said = PromptMessage("assistant", "".join(self._texts), tool_calls=calls, state=self._state)
        returned = PromptMessage("tool_result", "", tool_results=[results[call.id] for call in calls])
        choice = request.tool_choice if request.tool_choice in ("auto", "none") else None
        return msgspec.structs.replace(request, messages=[*request.messages, said, returned], tool_choice=choice)


def _with_results(request: ProviderRequest, results: Mapping[str, ToolResult]) -> ProviderRequest:
    """Return the request with the results of pending calls, in whose place it has others."""
    messages = [
        msgspec.structs.replace(
            message, tool_results=[results.get(result.id, result) for result in message.tool_results]
        )
        if message.tool_results
        else message
        for message in request.messages
    ]
    return msgspec.structs.replace(request, messages=messages)
