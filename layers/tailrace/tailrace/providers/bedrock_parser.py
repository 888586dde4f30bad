"""Bedrock's events and whole answers, as botocore hands them over, read
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html).

The API does not say which model answered, unless a prompt router chose it: it is the one that was asked.
``prompt_tokens`` is ``inputTokens``, without what came from the cache.
"""

from __future__ import annotations

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

Object = Mapping[str, Any]
"""A JSON object, of the shapes that botocore's model of the API allows."""

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

    def begin(self, response: Object, out: list[ProviderEvent]) -> None:
        """The response came; its body may not yet have."""
        request_id = response.get("ResponseMetadata", {}).get("RequestId")
        out.append(ResponseInfo(model=self._model, provider_request_id=request_id))

    def feed(self, event: Object, out: list[ProviderEvent]) -> None:
        """Append what an event means to ``out``. Events not known here are ignored."""
        if (delta := event.get("contentBlockDelta")) is not None:
            self._delta(delta["delta"], delta["contentBlockIndex"], out)
        elif (start := event.get("contentBlockStart")) is not None:
            self._start(start["start"], start["contentBlockIndex"], out)
        elif (stop := event.get("contentBlockStop")) is not None:
            self._stop(stop["contentBlockIndex"], out)
        elif (end := event.get("messageStop")) is not None:
            self._reason = end["stopReason"]
            out.append(ResponseInfo(finish_reason=self._reason))
        elif (metadata := event.get("metadata")) is not None:
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
        self.whole = True

    def read(self, response: Object, out: list[ProviderEvent]) -> None:
        """Append what an answer means that was not streamed."""
        for index, block in enumerate(response["output"]["message"]["content"]):
            if (reasoning := block.get("reasoningContent", {}).get("reasoningText")) is not None:
                self._delta({"reasoningContent": reasoning}, index, out)
            elif (cited := block.get("citationsContent")) is not None:
                for content in cited.get("content", ()):
                    self._delta(content, index, out)
                for citation in cited.get("citations", ()):
                    self._delta({"citation": citation}, index, out)
            elif "toolUse" in block or "toolResult" in block:
                self._start(block, index, out)
                if not self._blocks[index].server and "toolUse" in block:
                    self._blocks[index].pieces.append(_encode(block["toolUse"]["input"]))
                self._blocks[index].results += block.get("toolResult", {}).get("content", ())
                self._stop(index, out)
            elif "text" in block:
                self._delta(block, index, out)
        self._reason = response["stopReason"]
        out.append(ResponseInfo(finish_reason=self._reason))
        self._account(response, out)

    def _delta(self, delta: Object, index: int, out: list[ProviderEvent]) -> None:
        if text := delta.get("text"):
            out.append(Text(text))
        elif (reasoning := delta.get("reasoningContent")) is not None:
            if text := reasoning.get("text"):
                out.append(Reasoning(text))
        elif (citation := delta.get("citation")) is not None:
            quoted = "".join(source.get("text", "") for source in citation.get("sourceContent", ()))
            place = citation.get("location", {}).get("web", {})
            url = place.get("url") or citation.get("source")
            out.append(Citation(url=url, title=citation.get("title"), quote=quoted or None))
        elif (block := self._blocks.get(index)) is None:
            pass  # a kind of block not known here
        elif (written := delta.get("toolUse", {}).get("input")) and not block.server:
            block.pieces.append(written)
            out.append(ToolCallDelta(block.id, written))
        else:
            block.results += delta.get("toolResult", ())

    def _start(self, start: Object, index: int, out: list[ProviderEvent]) -> None:
        if (use := start.get("toolUse")) is not None:
            server = use.get("type") == "server_tool_use"
            self._blocks[index] = _Block(use["toolUseId"], use["name"], server=server)
            if server:
                self._server_tools[use["toolUseId"]] = use["name"]
            else:
                out.append(ToolCallStart(use["toolUseId"], use["name"]))
        elif (result := start.get("toolResult")) is not None:
            name = self._server_tools.get(result["toolUseId"], "")
            self._blocks[index] = _Block(result["toolUseId"], name, server=True)

    def _stop(self, index: int, out: list[ProviderEvent]) -> None:
        if (block := self._blocks.pop(index, None)) is None:
            return
        if not block.server:
            out.append(ToolCall(block.id, block.name, "".join(block.pieces) or "{}"))
        elif block.results:
            out.append(ToolResult(block.id, block.name, _encode(block.results)))

    def _account(self, metadata: Object, out: list[ProviderEvent]) -> None:
        usage = metadata.get("usage", {})
        out.append(Usage(usage.get("inputTokens"), usage.get("outputTokens")))
        if model := metadata.get("trace", {}).get("promptRouter", {}).get("invokedModelId"):
            out.append(ResponseInfo(model=model))


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()
