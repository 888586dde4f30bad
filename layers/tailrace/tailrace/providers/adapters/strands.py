"""Agents of Strands: ``providers={"helper": Agent(...)}``.

An agent of Strands keeps the conversation it has, and answers one caller at a time. So each reply is given by a copy of
it, with the history of the reply's own conversation: model, tools, hooks and plugins are the agent's, whatever it
keeps from run to run is the copy's.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

from strands import Agent
from strands.types.exceptions import ContextWindowOverflowException, MaxTokensReachedException

from tailrace.errors import ConfigurationError, where
from tailrace.events import (
    ProviderEvent,
    Reasoning,
    ResponseInfo,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    Usage,
)
from tailrace.providers import ProviderRequest, bedrock_prompt, failures, question
from tailrace.providers.adapters import Adapted, asked
from tailrace.providers.adapters.failing import failing
from tailrace.providers.adapters.rounds import Rounds

logger = logging.getLogger(__name__)

FRAMEWORK: Final = "Strands"

Json = Mapping[str, Any]

OF_A_RUN: Final = (
    "_cancel_message",
    "_cancel_signal",
    "_checkpoint",
    "_checkpoint_cycle_index",
    "_checkpoint_resume_position",
    "_concurrency",
    "_deferred_cancel",
    "_external_cancel_signal",
    "_interrupt_state",
    "_model_state",
    "_session_id",
    "callback_handler",
    "event_loop_metrics",
    "messages",
    "trace_span",
)
"""What a copy has from an agent that is new, by its name there. All else is the given agent's; of it only ``state`` is
copied, so that a tool may write to it."""


def adapt(agent: Agent) -> Adapted:
    """Return what answers with an agent.

    Raises:
        ConfigurationError: it has a session manager, which would store a second history.
    """
    if getattr(agent, "_session_manager", None) is not None:
        raise ConfigurationError("An agent of Strands must have no session manager: the conversations are Tailrace's.")

    def answer(request: ProviderRequest) -> AsyncIterator[Sequence[ProviderEvent]]:
        asked.check(request, FRAMEWORK)
        question.read_options(request.options, asked.NoOptions, FRAMEWORK)
        return _run(agent, request.system, history(request))

    return Adapted(answer)


async def _run(agent: Agent, system: Sequence[str], prompt: list[Any]) -> AsyncIterator[Sequence[ProviderEvent]]:
    run = _copy(agent, system)
    *run.messages, newest = prompt
    told = _Told()
    events = run.stream_async([newest])
    try:
        with failing(FRAMEWORK):
            try:
                async for event in events:
                    if found := told.take(event):
                        yield found
            except MaxTokensReachedException:  # a call was cut short; what came before it stands
                yield [*told.usage(run), ResponseInfo(finish_reason="max_tokens")]
            except ContextWindowOverflowException as error:
                raise failures.by_status(FRAMEWORK, 400, detail=f"{type(error).__name__}: {error}"[:2048]) from error
    finally:
        run.cancel()  # its model and its tools look at it, those in threads too, which nobody can end
        await _cut(events)


async def _cut(events: AsyncGenerator[Any, None]) -> None:
    """Cancel a run where it waits. The framework does not close its inner generators, so closing the outer one would
    leave the model's connection open until the garbage is collected."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    soon = loop.call_soon(task.cancel)
    try:
        async for _ in events:  # until it waits; it begins nothing any more
            pass
    except asyncio.CancelledError:
        if task.uncancel() > before:
            raise
    except Exception as error:
        logger.info("a cancelled run failed", extra={"provider": FRAMEWORK, **where(error)})
    finally:
        soon.cancel()
        await events.aclose()


def _copy(agent: Agent, system: Sequence[str]) -> Any:
    new = Agent(model=agent.model, callback_handler=None)
    run: Any = copy.copy(agent)
    for name in OF_A_RUN:
        if name in vars(new):
            setattr(run, name, vars(new)[name])
    run.state = copy.deepcopy(agent.state)
    run.tool_caller = type(new.tool_caller)(run)
    if system:
        own: Any = agent.system_prompt_content or []
        run.system_prompt = [*own, *({"text": text} for text in system)]
    return run


class _Told:
    """Makes our events of a run's."""

    def __init__(self) -> None:
        self._call = ""  # the id of the call that the model is writing
        self._rounds = Rounds()

    def take(self, event: Json) -> list[ProviderEvent]:
        if "event" in event:
            return list(self._chunk(event["event"]))
        if event.get("data"):
            return [*self._rounds.goes_on(), Text(event["data"])]
        if event.get("reasoningText"):
            return [*self._rounds.goes_on(), Reasoning(event["reasoningText"])]
        if "message" in event:
            return list(self._message(event["message"]))
        if "result" in event:
            return [*self._rounds.goes_on(), *self._last(event["result"])]
        return []

    def _chunk(self, chunk: Json) -> Iterator[ProviderEvent]:
        start = chunk.get("contentBlockStart", {}).get("start", {}).get("toolUse")
        piece = chunk.get("contentBlockDelta", {}).get("delta", {}).get("toolUse")
        if start:
            yield from self._rounds.goes_on()
            self._call = start["toolUseId"]
            yield ToolCallStart(self._call, start["name"])
        elif piece and piece.get("input") and self._call:
            yield ToolCallDelta(self._call, piece["input"])
        elif "contentBlockStop" in chunk:
            self._call = ""

    def _message(self, message: Json) -> Iterator[ProviderEvent]:
        for block in message["content"]:
            if (call := block.get("toolUse")) is not None:
                arguments = asked.result_text(call["input"])
                yield from self._rounds.called(ToolCall(call["toolUseId"], call["name"], arguments))
            elif (result := block.get("toolResult")) is not None:
                name = self._rounds.name(result["toolUseId"])
                is_error = result.get("status") == "error"
                value = asked.result_text(_value(result["content"]))
                yield from self._rounds.answered(ToolResult(result["toolUseId"], name, value, is_error))

    def _last(self, result: Any) -> Iterator[ProviderEvent]:
        output = result.structured_output
        if output is not None:
            yield Text(output.model_dump_json())
        yield from self.usage(result)
        finish = "stop" if output is not None else result.stop_reason
        yield ResponseInfo(finish_reason=finish)

    def usage(self, run: Any) -> Iterator[ProviderEvent]:
        """Yield what the model counted in all steps of a run, or of its result."""
        metrics = getattr(run, "event_loop_metrics", None) or run.metrics
        counted = metrics.accumulated_usage
        prompt, completion = counted["inputTokens"], counted["outputTokens"]
        read, written = counted.get("cacheReadInputTokens", 0), counted.get("cacheWriteInputTokens", 0)
        if prompt + completion < counted["totalTokens"]:  # as the framework itself tells that the cached are beside it
            prompt += read + written
        if prompt or completion:
            yield Usage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                cache_read=read or None,
                cache_write=written or None,
            )


def _value(content: Sequence[Json]) -> Any:
    """Return what a tool returned: its one text or object, or all that it said."""
    # Of an image or a document no more than that it is one.
    values = [each.get("json", each.get("text", next(iter(each), ""))) for each in content]
    return values[0] if len(values) == 1 else values


def history(request: ProviderRequest) -> list[Any]:
    """Return the prompt's messages as the framework has them, which is as Bedrock has them."""
    failed = {
        question.tool_id(each.id) for message in request.messages for each in message.tool_results if each.is_error
    }
    messages: list[Any] = bedrock_prompt.messages_of(asked.with_plain_results(request), FRAMEWORK, citations=False)
    for message in messages:
        for block in message["content"]:
            if (result := block.get("toolResult")) is not None:
                result["status"] = "error" if result["toolUseId"] in failed else "success"
    return messages
