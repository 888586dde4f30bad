"""Agents of OpenAI's Agents SDK (PyPI ``openai-agents``): ``providers={"helper": Agent(...)}``.

The history is Tailrace's, so a run has neither a session nor a response to go on from. System prompts of the
conversation stand before it, beside the agent's own instructions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

from agents import Agent, ModelSettings, RunConfig, Runner

from tailrace.errors import ConfigurationError, ProviderError
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
from tailrace.providers import ProviderRequest, failures, question, responses_prompt
from tailrace.providers.adapters import Adapted, asked
from tailrace.providers.adapters.failing import failing
from tailrace.providers.adapters.rounds import Rounds

FRAMEWORK: Final = "the OpenAI Agents SDK"

FAILED: Final = "An error occurred while running the tool"
"""How the SDK's own words to the model begin where a tool raised. Its events do not say so in another way."""


def adapt(agent: Agent[Any]) -> Adapted:
    """Return what answers with an agent.

    Raises:
        ConfigurationError: it is of another kind, such as one for speech.
    """
    if not isinstance(agent, Agent):
        raise ConfigurationError(f"An agent of {FRAMEWORK} must be an Agent, not a {type(agent).__name__}.")

    def answer(request: ProviderRequest) -> AsyncIterator[Sequence[ProviderEvent]]:
        asked.check(request, FRAMEWORK)
        options = question.read_options(request.options, asked.ModelOptions, FRAMEWORK)
        return _run(agent, history(request), ModelSettings(**asked.given(options)))

    return Adapted(answer)


async def _run(agent: Agent[Any], prompt: list[Any], settings: ModelSettings) -> AsyncIterator[Sequence[ProviderEvent]]:
    told = _Told()
    with failing(FRAMEWORK):
        result = Runner.run_streamed(agent, prompt, run_config=RunConfig(model_settings=settings))
        events: Any = result.stream_events()
        async with aclosing(events):
            try:
                async for event in events:
                    if found := told.take(event):
                        yield found
            finally:
                if not result.is_complete:
                    result.cancel()
        yield told.last(result)


class _Told:
    """Makes our events of a run's."""

    def __init__(self) -> None:
        self._calls: dict[int, str] = {}  # the ids of the calls that the model is writing, by their places
        self._rounds = Rounds()
        self._has_text = False  # since the last results of tools
        self._refused = False
        self._info: ResponseInfo | None = None

    def take(self, event: Any) -> list[ProviderEvent]:
        if event.type == "raw_response_event":
            return list(self._raw(event.data))
        if event.type == "run_item_stream_event" and event.name in ("tool_output", "handoff_occured"):
            return list(self._output(event.item))
        return []

    def _raw(self, data: Any) -> Iterator[ProviderEvent]:
        match data.type:
            case "response.output_text.delta" | "response.refusal.delta" if data.delta:
                self._has_text = True
                self._refused |= data.type == "response.refusal.delta"
                yield from self._rounds.goes_on()
                yield Text(data.delta)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" if data.delta:
                yield from self._rounds.goes_on()
                yield Reasoning(data.delta)
            case "response.output_text.annotation.added":
                yield from _citation(data.annotation)
            case "response.output_item.added" if data.item.type == "function_call":
                yield from self._rounds.goes_on()
                self._calls[data.output_index] = data.item.call_id
                yield ToolCallStart(data.item.call_id, data.item.name)
            case "response.function_call_arguments.delta" if data.delta and data.output_index in self._calls:
                yield ToolCallDelta(self._calls[data.output_index], data.delta)
            case "response.output_item.done" if data.item.type == "function_call":
                self._calls.pop(data.output_index, None)
                item = data.item
                yield from self._rounds.called(ToolCall(item.call_id, item.name, item.arguments or "{}"))
            case "response.completed" | "response.incomplete":
                response = data.response
                reason = response.incomplete_details.reason if response.incomplete_details is not None else None
                info = ResponseInfo(
                    model=str(response.model) if response.model else None,
                    finish_reason=reason or response.status or "completed",
                    provider_request_id=response.id or None,
                )
                self._info = info.over(self._info)

    def _output(self, item: Any) -> Iterator[ProviderEvent]:
        raw = item.raw_item
        call_id = raw.get("call_id") if isinstance(raw, dict) else getattr(raw, "call_id", None)
        name = self._rounds.name(call_id or "")
        if not call_id or not name:  # of a tool that runs at the vendor
            return
        output = item.output if hasattr(item, "output") else raw.get("output")
        self._has_text = False
        is_error = isinstance(output, str) and output.startswith(FAILED)
        yield from self._rounds.answered(ToolResult(call_id, name, asked.result_text(output), is_error))

    def last(self, result: Any) -> list[ProviderEvent]:
        """Return what only the end of a run tells.

        Raises:
            ProviderError: it waits for somebody's yes, or the model refused to answer.
        """
        if result.interruptions:
            raise ProviderError("The agent waits for an answer that cannot be given here.", provider=FRAMEWORK)
        if self._refused:
            raise failures.filtered(FRAMEWORK, "refusal")
        found = [*self._rounds.goes_on()]
        output = result.final_output
        if not self._has_text and output:  # a tool's result is the answer, where the agent was made so
            found.append(Text(output if isinstance(output, str) else asked.result_text(output)))
        usage = result.context_wrapper.usage
        if usage.input_tokens or usage.output_tokens:
            found.append(
                Usage(
                    prompt_tokens=usage.input_tokens,
                    completion_tokens=usage.output_tokens,
                    cache_read=usage.input_tokens_details.cached_tokens or None,
                    reasoning=usage.output_tokens_details.reasoning_tokens or None,
                )
            )
        return [*found, self._info] if self._info is not None else found


def _citation(annotation: Any) -> Iterator[ProviderEvent]:
    about = annotation if isinstance(annotation, dict) else annotation.model_dump()
    if about.get("type") in ("url_citation", "file_citation"):
        yield Citation(url=about.get("url"), title=about.get("title") or about.get("filename"))


def history(request: ProviderRequest) -> list[Any]:
    """Return the prompt as the framework has it, which is as the Responses API has it."""
    system: list[Any] = [{"role": "system", "content": text} for text in request.system]
    return [*system, *responses_prompt.input_of(asked.with_plain_results(request), FRAMEWORK)]
