"""Bedrock's events and whole answers, as botocore hands them over, read
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html).

The API does not say which model answered, unless a prompt router chose it: it is the one that was asked.
``prompt_tokens`` is the whole prompt: the API's ``inputTokens`` are without what came from the cache or went there.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

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
from tailrace.providers import failures
from tailrace.providers.state import Kept
from tailrace.providers.tolerant import Count, fitted, json_text, made_up_id, text_of

Object = Mapping[str, Any]
"""A JSON object. botocore says which members there are; that they are of the types of its model it does not check."""

FILTERED = frozenset({"content_filtered", "guardrail_intervened"})
MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})
"""The reasons for an end that say that the answer is not to be used."""


class _Block:
    """A tool call that is being written, or a result of the provider's own tool that is being told."""

    def __init__(self, call_id: str, name: str, *, server: bool = False) -> None:
        self.id = call_id
        self.name = name
        self.server = server
        self.pieces: list[str] = []
        self.results: list[Any] = []


class ConverseParser:
    """One answer.

    Attributes:
        whole: the answer is whole.

    Args:
        model: the model that was asked.
    """

    def __init__(self, model: str, provider: str = "bedrock") -> None:
        self.whole = False
        self._model = model
        self._provider = provider
        self._blocks: dict[int, _Block] = {}
        self._server_tools: dict[str, str] = {}
        self._reason = ""
        self._thoughts: dict[int, tuple[list[str], list[str]]] = {}
        self._kept = Kept()

    def begin(self, response: Object, out: list[ProviderEvent]) -> None:
        """The response came; its body may not yet have."""
        request_id = _text(_object(response.get("ResponseMetadata")).get("RequestId"))
        out.append(ResponseInfo(model=self._model, provider_request_id=request_id or None))

    def feed(self, event: Object, out: list[ProviderEvent]) -> None:
        """Append what an event means to ``out``. Events not known here are ignored, and so is what is in no shape that
        could be used."""
        if delta := _object(event.get("contentBlockDelta")):
            self._delta(_object(delta.get("delta")), _index(delta), out)
        elif start := _object(event.get("contentBlockStart")):
            self._start(_object(start.get("start")), _index(start), out)
        elif stop := _object(event.get("contentBlockStop")):
            self._stop(_index(stop), out)
        elif end := _object(event.get("messageStop")):
            self._reason = _text(end.get("stopReason"))
            if self._reason:
                out.append(ResponseInfo(finish_reason=self._reason))
        elif metadata := _object(event.get("metadata")):
            self._account(metadata, out)

    def end(self) -> None:
        """The stream ended; only here, because the usage comes after the reason.

        Raises:
            ContentFiltered: by the model's filter or a guardrail.
            ProviderError: the answer ended early, or is malformed.
        """
        if self._reason in FILTERED:
            raise failures.filtered(self._provider, self._reason)
        if self._reason in MALFORMED:
            raise failures.malformed(self._provider, self._reason)
        if not self._reason:
            raise failures.ended_early(self._provider, "between two events")
        if self._reason == "error":
            raise failures.midway(self._provider, None, self._reason)
        self.whole = True

    def read(self, response: Object, out: list[ProviderEvent]) -> None:
        """Append what an answer means that was not streamed."""
        message = _object(_object(response.get("output")).get("message"))
        for index, block in enumerate(_objects(message.get("content"))):
            if reasoning := _object(block.get("reasoningContent")):
                said = _object(reasoning.get("reasoningText"))
                for each in ({"text": said.get("text")}, {"signature": said.get("signature")}, reasoning):
                    self._delta({"reasoningContent": each}, index, out)
                self._stop(index, out)
            elif cited := _object(block.get("citationsContent")):
                for content in _objects(cited.get("content")):
                    self._delta(content, index, out)
                for citation in _objects(cited.get("citations")):
                    self._delta({"citation": citation}, index, out)
            elif "toolUse" in block or "toolResult" in block:
                self._start(block, index, out)
                if (begun := self._blocks.get(index)) is not None:
                    if not begun.server:
                        begun.pieces.append(text_of(_object(block.get("toolUse")).get("input")))
                    begun.results += _objects(_object(block.get("toolResult")).get("content"))
                    self._stop(index, out)
            elif "text" in block:
                self._delta(block, index, out)
        self._reason = _text(response.get("stopReason"))
        if self._reason:
            out.append(ResponseInfo(finish_reason=self._reason))
        self._account(response, out)

    def _delta(self, delta: Object, index: int, out: list[ProviderEvent]) -> None:
        if text := _text(delta.get("text")):
            self._kept.characters += len(text)
            out.append(Text(text))
        elif reasoning := _object(delta.get("reasoningContent")):
            thinking, signature = self._thoughts.setdefault(index, ([], []))
            if text := _text(reasoning.get("text")):
                thinking.append(text)
                out.append(Reasoning(text))
            signature.append(_text(reasoning.get("signature")))
            if isinstance(redacted := reasoning.get("redactedContent"), bytes):
                self._kept.block({"redactedContent": b64encode(redacted).decode()})
        elif citation := _object(delta.get("citation")):
            quoted = "".join(_text(source.get("text")) for source in _objects(citation.get("sourceContent")))
            place = _object(_object(citation.get("location")).get("web"))
            url = _text(place.get("url")) or _text(citation.get("source"))
            out.append(Citation(url=url or None, title=_text(citation.get("title")) or None, quote=quoted or None))
        elif (block := self._blocks.get(index)) is None:
            pass  # a kind of block not known here
        elif (written := text_of(_object(delta.get("toolUse")).get("input"))) and not block.server:
            block.pieces.append(written)
            out.append(ToolCallDelta(block.id, written))
        else:
            block.results += _objects(delta.get("toolResult"))

    def _start(self, start: Object, index: int, out: list[ProviderEvent]) -> None:
        if use := _object(start.get("toolUse")):
            server = use.get("type") == "server_tool_use"
            call_id, name = _text(use.get("toolUseId")) or made_up_id(), _text(use.get("name"))
            self._blocks[index] = _Block(call_id, name, server=server)
            if server:
                self._server_tools[call_id] = name
            else:
                self._kept.call(call_id)
                out.append(ToolCallStart(call_id, name))
        elif result := _object(start.get("toolResult")):
            call_id = _text(result.get("toolUseId"))
            self._blocks[index] = _Block(call_id, self._server_tools.get(call_id, ""), server=True)

    def _stop(self, index: int, out: list[ProviderEvent]) -> None:
        thinking, signature = self._thoughts.pop(index, ((), ()))
        if any(signature):
            self._kept.block({"reasoningText": {"text": "".join(thinking), "signature": "".join(signature)}})
        if (block := self._blocks.pop(index, None)) is None:
            return
        if not block.server:
            out.append(ToolCall(block.id, block.name, "".join(block.pieces) or "{}"))
        elif block.results:
            out.append(ToolResult(block.id, block.name, json_text(block.results)))

    def finish(self, out: list[ProviderEvent]) -> None:
        """Tell the calls whose last event did not come; the stream ended."""
        if self._reason:
            for index in [*self._thoughts, *self._blocks]:
                self._stop(index, out)
            out += self._kept.state(self._provider)

    def _account(self, metadata: Object, out: list[ProviderEvent]) -> None:
        usage = fitted(_object(metadata.get("usage")), _Usage)
        read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
        prompt = None if usage.input_tokens is None else usage.input_tokens + (read or 0) + (written or 0)
        out.append(Usage(prompt, usage.output_tokens, cache_read=read, cache_write=written))
        router = _object(_object(metadata.get("trace")).get("promptRouter"))
        if model := _text(router.get("invokedModelId")):
            out.append(ResponseInfo(model=model))


class _Usage(msgspec.Struct, rename="camel"):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_write_input_tokens: Count | None = None


def _object(value: Any) -> Object:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Object]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _index(event: Object) -> int:
    value = event.get("contentBlockIndex")
    return value if isinstance(value, int) else 0
