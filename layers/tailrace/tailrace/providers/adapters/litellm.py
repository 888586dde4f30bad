"""Every model that LiteLLM knows, by its SDK: ``providers={"lite": litellm_answer("anthropic/claude-sonnet-4-5")}``.

A start may name another model, and have tools, as with any provider. A ``litellm.Router`` can be given as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tailrace.errors import Unprocessable
from tailrace.events import (
    Citation,
    ProviderEvent,
    Reasoning,
    ResponseInfo,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from tailrace.providers import ProviderRequest, failures, openai_prompt, question
from tailrace.providers.adapters import Adapted, asked
from tailrace.providers.adapters.failing import failing

FRAMEWORK: Final = "litellm"


class Options(asked.ModelOptions, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``."""

    stop: str | list[str] | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None


def litellm_answer(model: str | None = None, **options: Any) -> Adapted:
    """Return what answers by ``litellm.acompletion``.

    Args:
        model: what is asked where a start names no model, as LiteLLM names it.
        options: more for each call, such as ``api_base``; a start's own options win.
    """
    import litellm  # some seconds, now rather than in the first answer

    return _answering(litellm.acompletion, model, options)


def adapt(router: Any) -> Adapted:
    """Return what answers by a router of LiteLLM, of whose models a start must name one."""
    return _answering(router.acompletion, None, {})


def _answering(complete: Callable[..., Awaitable[Any]], model: str | None, more: Mapping[str, Any]) -> Adapted:
    def answer(request: ProviderRequest) -> AsyncIterator[Sequence[ProviderEvent]]:
        options = question.read_options(request.options, Options, FRAMEWORK)
        named = request.model or model
        if not named:
            raise Unprocessable(f"No model was named, and there is no default model for {FRAMEWORK}.")
        arguments = {
            "stream_options": {"include_usage": True},
            **more,
            **asked.given(options),
            "model": named,
            "messages": openai_prompt.messages_of(request, FRAMEWORK),
            "stream": True,
        }
        if request.tools:
            arguments["tools"] = openai_prompt.tools_of(request)
        if request.tool_choice is not None:
            arguments["tool_choice"] = openai_prompt.tool_choice_of(request.tool_choice)
        if request.schema is not None:
            arguments["response_format"] = openai_prompt.response_format_of(request.schema)
        return _run(complete, arguments)

    return Adapted(answer)


async def _run(
    complete: Callable[..., Awaitable[Any]], arguments: Mapping[str, Any]
) -> AsyncIterator[Sequence[ProviderEvent]]:
    told = _Told()
    with failing(FRAMEWORK):
        stream = await complete(**arguments)
        try:
            async for chunk in stream:
                if found := [*told.take(chunk)]:
                    yield found
        finally:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()
        yield [*told.end()]


class _Told:
    """Makes our events of a stream's chunks, which have the shape of chat completions."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolCall] = {}
        self._usage: Usage | None = None
        self._info = ResponseInfo()

    def take(self, chunk: Any) -> Iterator[ProviderEvent]:
        finish: str | None = None
        for choice in chunk.choices[:1]:
            finish = choice.finish_reason
            delta = choice.delta
            if reasoning := getattr(delta, "reasoning_content", None):
                yield Reasoning(reasoning)
            if delta.content:
                yield Text(delta.content)
            for piece in delta.tool_calls or ():
                yield from self._piece(piece)
            for each in getattr(delta, "annotations", None) or ():
                about = each.get("url_citation") or {}
                yield Citation(url=about.get("url"), title=about.get("title"))
        self._count(getattr(chunk, "usage", None))
        info = ResponseInfo(
            model=chunk.model or None,
            finish_reason=finish.lower() if finish else None,
            provider_request_id=chunk.id or None,
        )
        self._info = info.over(self._info)

    def end(self) -> Iterator[ProviderEvent]:
        """Yield what is whole at the end.

        Raises:
            ContentFiltered: a filter stopped the answer.
            ProviderError: the stream ended before the answer did.
        """
        finish = self._info.finish_reason
        if finish is None:
            raise failures.ended_early(FRAMEWORK)
        for call in self._calls.values():
            yield msgspec.structs.replace(call, arguments=call.arguments or "{}")
        if self._usage is not None:
            yield self._usage
        if finish == "content_filter":
            raise failures.filtered(FRAMEWORK, finish)
        yield self._info

    def _piece(self, piece: Any) -> Iterator[ProviderEvent]:
        call = self._calls.get(piece.index)
        if call is None:
            call = ToolCall(piece.id or f"call_{piece.index}", piece.function.name or "", "")
            yield ToolCallStart(call.id, call.name)
        if piece.function.arguments:
            yield ToolCallDelta(call.id, piece.function.arguments)
        self._calls[piece.index] = msgspec.structs.replace(
            call, arguments=call.arguments + (piece.function.arguments or "")
        )

    def _count(self, counted: Any) -> None:
        if counted is None:
            return
        into, out = getattr(counted, "prompt_tokens_details", None), getattr(counted, "completion_tokens_details", None)
        self._usage = Usage(
            prompt_tokens=counted.prompt_tokens,
            completion_tokens=counted.completion_tokens,
            cache_read=getattr(into, "cached_tokens", None) or None,
            cache_write=getattr(into, "cache_creation_tokens", None) or None,
            reasoning=getattr(out, "reasoning_tokens", None) or None,
        )
