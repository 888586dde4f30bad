"""Agents of Pydantic AI: ``providers={"helper": Agent(...)}``.

The history is Tailrace's, so the agent's own ``system_prompt`` is put before it anew in each run. Tools of a client's
are external tools of the run: where the model calls one, the run ends, and the client's next turn brings its result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from pydantic_ai import Agent, DeferredToolRequests, ExternalToolset, NativeOutput, StructuredDict, messages
from pydantic_ai.capabilities import ReinjectSystemPrompt
from pydantic_ai.tools import ToolDefinition
from pydantic_core import to_json

from tailrace.events import (
    Citation,
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
from tailrace.providers import ImagePart, InputPart, PromptMessage, ProviderRequest, question
from tailrace.providers.adapters import Adapted, asked
from tailrace.providers.adapters.failing import failing
from tailrace.providers.adapters.rounds import Rounds

FRAMEWORK: Final = "Pydantic AI"


class Options(asked.ModelOptions, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``."""

    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None


def adapt(agent: Agent[Any, Any]) -> Adapted:
    """Return what answers with an agent."""

    def answer(request: ProviderRequest) -> AsyncIterator[Sequence[ProviderEvent]]:
        asked.check(request, FRAMEWORK, tools=True, schema=True)
        settings = asked.given(question.read_options(request.options, Options, FRAMEWORK))
        if (stop := settings.pop("stop", None)) is not None:
            settings["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if request.tool_choice is not None:
            words = ("auto", "none", "required")
            settings["tool_choice"] = request.tool_choice if request.tool_choice in words else [request.tool_choice]
        return _run(agent, request, history(request), settings)

    return Adapted(answer)


async def _run(
    agent: Agent[Any, Any], request: ProviderRequest, prompt: list[messages.ModelMessage], settings: dict[str, Any]
) -> AsyncIterator[Sequence[ProviderEvent]]:
    output: Any = agent.output_type if request.schema is None else _output(request)
    more = [DeferredToolRequests] if request.tools else []
    with failing(FRAMEWORK):
        async with agent.run_stream_events(
            message_history=prompt,
            instructions=list(request.system) or None,
            model_settings=settings or None,
            output_type=None if request.schema is None and not more else [output, *more],
            toolsets=[_toolset(request)] if request.tools else None,
            capabilities=[ReinjectSystemPrompt()],
        ) as events:
            told = _Told()
            async for event in events:
                if found := told.take(event):
                    yield found


def _output(request: ProviderRequest) -> Any:
    assert request.schema is not None
    return NativeOutput(StructuredDict(dict(request.schema.schema), name=request.schema.name))


def _toolset(request: ProviderRequest) -> Any:
    return ExternalToolset(
        [
            ToolDefinition(
                name=tool.name,
                description=tool.description,
                parameters_json_schema=dict(tool.parameters),
                strict=tool.strict,
            )
            for tool in request.tools
        ]
    )


class _Told:
    """Makes our events of a run's."""

    def __init__(self) -> None:
        self._calls: dict[int, str] = {}  # the ids of the calls that the model is writing, by their places
        self._held: list[ProviderEvent] = []  # the beginning of a call that may be the output
        self._outputs: set[str] = set()
        self._rounds = Rounds()

    def take(self, event: Any) -> list[ProviderEvent]:
        match event.event_kind:
            case "part_start":
                return [*self._release(), *self._start(event.index, event.part)]
            case "part_delta":
                return [*self._release(), *self._delta(event.index, event.delta)]
            case "part_end":
                return [*self._release(), *self._end(event.part)]
            case "final_result":
                if event.tool_call_id is not None:  # the model writes the output by calling a tool for it
                    self._outputs.add(event.tool_call_id)
                    self._held.clear()
            case "output_tool_call":
                self._outputs.add(event.tool_call_id)
            case "function_tool_result":
                return [*self._rounds.answered(_result(event.part))]
            case "agent_run_result":
                return [*self._rounds.goes_on(), *self._last(event.result)]
        return []

    def _release(self) -> list[ProviderEvent]:
        held, self._held = self._held, []
        return held

    def _start(self, index: int, part: Any) -> Iterator[ProviderEvent]:
        if part.part_kind in ("text", "thinking", "tool-call"):
            yield from self._rounds.goes_on()
        self._calls.pop(index, None)
        match part.part_kind:
            case "text" if part.content:
                yield Text(part.content)
            case "thinking" if part.content:
                yield Reasoning(part.content)
            case "tool-call" | "builtin-tool-call":
                self._calls[index] = part.tool_call_id
                self._held.append(ToolCallStart(part.tool_call_id, part.tool_name))
                if isinstance(part.args, str) and part.args:
                    self._held.append(ToolCallDelta(part.tool_call_id, part.args))
            case "builtin-tool-return":
                yield from self._rounds.answered(_result(part))

    def _delta(self, index: int, delta: Any) -> Iterator[ProviderEvent]:
        match delta.part_delta_kind:
            case "text" if delta.content_delta:
                yield Text(delta.content_delta)
            case "thinking" if delta.content_delta:
                yield Reasoning(delta.content_delta)
            case "tool_call":
                call_id, piece = self._calls.get(index), delta.args_delta
                if call_id is not None and call_id not in self._outputs and isinstance(piece, str) and piece:
                    yield ToolCallDelta(call_id, piece)

    def _end(self, part: Any) -> Iterator[ProviderEvent]:
        match part.part_kind:
            case "text":
                for citation in part.citations or ():
                    for source in citation.sources:
                        quote = source.excerpts[0] if source.excerpts else None
                        yield Citation(url=getattr(source, "url", None), title=source.title, quote=quote)
            case "tool-call" | "builtin-tool-call" if part.tool_call_id not in self._outputs:
                yield from self._rounds.called(ToolCall(part.tool_call_id, part.tool_name, part.args_as_json_str()))

    def _last(self, result: Any) -> Iterator[ProviderEvent]:
        if self._outputs and not isinstance(result.output, str | DeferredToolRequests):
            yield Text(to_json(result.output).decode())
        usage = result.usage
        yield Usage(
            prompt_tokens=usage.input_tokens or None,
            completion_tokens=usage.output_tokens or None,
            cache_read=usage.cache_read_tokens or None,
            cache_write=usage.cache_write_tokens or None,
            reasoning=usage.output_reasoning_tokens or None,
        )
        response = result.response
        finish = response.finish_reason or "stop"
        if isinstance(result.output, DeferredToolRequests):
            finish = "tool_call"
        elif self._outputs and finish == "tool_call":
            finish = "stop"
        yield ResponseInfo(
            model=response.model_name, finish_reason=finish, provider_request_id=response.provider_response_id
        )


def _result(part: Any) -> ToolResult:
    is_error = part.outcome != "success"
    return ToolResult(part.tool_call_id, part.tool_name, asked.result_text(part.content), is_error)


def history(request: ProviderRequest) -> list[messages.ModelMessage]:
    """Return the prompt's messages as the framework has them."""
    return [_message(message) for message in asked.with_plain_results(request).messages]


def _message(message: PromptMessage) -> messages.ModelMessage:
    if message.role == "assistant":
        parts: list[Any] = [messages.TextPart(message.content)] if message.content else []
        parts += [messages.ToolCallPart(call.name, call.arguments, call.id) for call in message.tool_calls]
        return messages.ModelResponse(parts=parts)
    if message.role == "tool_result":
        return messages.ModelRequest(
            parts=[
                messages.ToolReturnPart(
                    each.name, each.result, each.id, outcome="failed" if each.is_error else "success"
                )
                for each in message.tool_results
            ]
        )
    content: list[Any] = [_part(part) for part in message.parts]
    if message.content:
        content.append(message.content)
    return messages.ModelRequest(parts=[messages.UserPromptPart(content if message.parts else message.content)])


def _part(part: InputPart) -> Any:
    if part.url:
        kind = messages.ImageUrl if isinstance(part, ImagePart) else messages.DocumentUrl
        return kind(part.url, media_type=part.media_type or None)
    return messages.BinaryContent(question.data_of(part, FRAMEWORK), media_type=part.media_type)
