"""Graphs of LangGraph whose state has ``messages``, such as LangChain's ``create_agent`` makes them:
``providers={"helper": graph}``.

The history is Tailrace's: each run begins with all of it, and the graph's own checkpoints are not used. A model that a
graph asks for something that is no part of the answer is given the tag ``nostream``, as LangGraph has it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage

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
from tailrace.providers import ImagePart, InputPart, ProviderRequest, question
from tailrace.providers.adapters import Adapted, asked
from tailrace.providers.adapters.failing import failing
from tailrace.providers.adapters.rounds import Rounds

FRAMEWORK: Final = "LangGraph"

Json = Mapping[str, Any]


def adapt(graph: Any) -> Adapted:
    """Return what answers with a graph, compiled or not.

    Raises:
        ConfigurationError: its state has no messages.
    """
    if hasattr(graph, "compile"):
        graph = graph.compile()
    if "messages" not in getattr(graph, "channels", ()):
        raise ConfigurationError("The state of a graph of LangGraph must have messages.")
    if graph.checkpointer:
        graph = graph.copy({"checkpointer": None})

    def answer(request: ProviderRequest) -> AsyncIterator[Sequence[ProviderEvent]]:
        asked.check(request, FRAMEWORK)
        question.read_options(request.options, asked.NoOptions, FRAMEWORK)
        return _run(graph, history(request))

    return Adapted(answer)


async def _run(graph: Any, prompt: list[BaseMessage]) -> AsyncIterator[Sequence[ProviderEvent]]:
    told = _Told()
    with failing(FRAMEWORK):
        async with aclosing(graph.astream({"messages": prompt}, stream_mode=["messages", "updates"])) as events:
            async for mode, event in events:
                if mode == "messages":
                    found = [*told.take(event[0])]
                elif "__interrupt__" in event:
                    raise ProviderError("The agent waits for an answer that cannot be given here.", provider=FRAMEWORK)
                else:
                    found = [*told.node_ended()]
                if found:
                    yield found
    yield [*told.end()]


class _Call:
    """A call that a model is writing."""

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.arguments = ""


class _Told:
    """Makes our events of a run's messages."""

    def __init__(self) -> None:
        self._writing: dict[tuple[str | None, Any], _Call] = {}
        self._rounds = Rounds()
        self._usage = dict.fromkeys(("prompt", "completion", "cache_read", "cache_write", "reasoning"), 0)
        self._info: ResponseInfo | None = None

    def take(self, message: BaseMessage) -> Iterator[ProviderEvent]:
        if isinstance(message, ToolMessage):
            yield from self._written()
            is_error = message.status == "error"
            name = message.name or self._rounds.name(message.tool_call_id)
            value = asked.result_text(message.content)
            yield from self._rounds.answered(ToolResult(message.tool_call_id, name, value, is_error))
        elif isinstance(message, AIMessage):
            yield from self._answer(message)

    def node_ended(self) -> Iterator[ProviderEvent]:
        yield from self._written()

    def end(self) -> Iterator[ProviderEvent]:
        yield from self._written()
        yield from self._rounds.goes_on()
        counted = self._usage
        if any(counted.values()):
            yield Usage(
                prompt_tokens=counted["prompt"],
                completion_tokens=counted["completion"],
                cache_read=counted["cache_read"] or None,
                cache_write=counted["cache_write"] or None,
                reasoning=counted["reasoning"] or None,
            )
        if self._info is not None:
            yield self._info

    def _answer(self, message: AIMessage) -> Iterator[ProviderEvent]:
        said = [event for block in message.content_blocks for event in _said(block)]
        if said:
            yield from self._rounds.goes_on()
        yield from said
        if isinstance(message, AIMessageChunk):
            for chunk in message.tool_call_chunks:
                yield from self._piece(message.id, chunk)
            if message.chunk_position == "last":
                yield from self._written(message.id)
        else:
            for call in message.tool_calls:
                arguments = asked.result_text(call["args"])
                yield from self._rounds.called(ToolCall(call["id"] or "", call["name"], arguments))
        self._count(message)

    def _piece(self, message_id: str | None, chunk: Any) -> Iterator[ProviderEvent]:
        place = (message_id, chunk["index"])
        call = self._writing.get(place)
        if chunk["id"] and (call is None or call.id != chunk["id"]):
            if call is not None:  # a model that does not number its calls
                yield from self._rounds.called(ToolCall(call.id, call.name, call.arguments or "{}"))
            yield from self._rounds.goes_on()
            call = self._writing[place] = _Call(chunk["id"], chunk["name"] or "")
            yield ToolCallStart(call.id, call.name)
        if call is not None and chunk["args"]:
            call.arguments += chunk["args"]
            yield ToolCallDelta(call.id, chunk["args"])

    def _written(self, message_id: str | None = None) -> Iterator[ProviderEvent]:
        """Yield the calls that are whole: those of a message, or all."""
        for place in [each for each in self._writing if message_id in (None, each[0])]:
            call = self._writing.pop(place)
            yield from self._rounds.called(ToolCall(call.id, call.name, call.arguments or "{}"))

    def _count(self, message: AIMessage) -> None:
        if (counted := message.usage_metadata) is not None:
            into, out = counted.get("input_token_details", {}), counted.get("output_token_details", {})
            self._usage["prompt"] += counted["input_tokens"]
            self._usage["completion"] += counted["output_tokens"]
            self._usage["cache_read"] += into.get("cache_read") or 0
            self._usage["cache_write"] += into.get("cache_creation") or 0
            self._usage["reasoning"] += out.get("reasoning") or 0
        about = message.response_metadata
        finish = about.get("finish_reason") or about.get("stop_reason") or about.get("stopReason")
        model = about.get("model_name") or about.get("model")
        if finish or model:
            info = ResponseInfo(model=model and str(model), finish_reason=finish and str(finish).lower())
            self._info = info.over(self._info)


def _said(block: Any) -> Iterator[ProviderEvent]:
    match block["type"]:
        case "text":
            if block.get("text"):
                yield Text(block["text"])
            for each in block.get("annotations") or ():
                if each.get("type") == "citation":
                    yield Citation(url=each.get("url"), title=each.get("title"), quote=each.get("cited_text"))
        case "reasoning" if block.get("reasoning"):
            yield Reasoning(block["reasoning"])


def history(request: ProviderRequest) -> list[BaseMessage]:
    """Return the prompt's messages as the framework has them. They have ids, by which LangGraph knows that they are
    no news when a node returns them."""
    messages: list[BaseMessage] = []
    if request.system:
        messages.append(SystemMessage("\n\n".join(request.system)))
    for message in asked.with_plain_results(request).messages:
        if message.role == "assistant":
            calls = [
                {"id": call.id, "name": call.name, "args": question.arguments_of(call)} for call in message.tool_calls
            ]
            messages.append(AIMessage(message.content, tool_calls=calls))
        elif message.role == "tool_result":
            messages += [
                ToolMessage(
                    each.result,
                    tool_call_id=each.id,
                    name=each.name,
                    status="error" if each.is_error else "success",
                )
                for each in message.tool_results
            ]
        else:
            content: list[Any] = [_part(part) for part in message.parts]
            if message.content:
                content.append({"type": "text", "text": message.content})
            messages.append(HumanMessage(content if message.parts else message.content))
    for number, made in enumerate(messages):
        made.id = f"history-{number}"
    return messages


def _part(part: InputPart) -> Json:
    kind = "image" if isinstance(part, ImagePart) else "file"
    more: dict[str, str] = {"mime_type": part.media_type} if part.media_type else {}
    if not isinstance(part, ImagePart) and part.name:
        more["filename"] = part.name
    return {"type": kind, **more, **({"url": part.url} if part.url else {"base64": part.data or ""})}
