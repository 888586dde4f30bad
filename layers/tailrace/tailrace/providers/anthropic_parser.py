"""Anthropic's events (https://platform.claude.com/docs/en/build-with-claude/streaming) and its whole answers, read.

``prompt_tokens`` is the whole prompt: the vendor's ``input_tokens`` are without what came from the cache or went there.
Thinking becomes ``Reasoning``, and with its signature the state that the vendor wants back. What the vendor's own tools
return is a ``ToolResult``; that it calls them is not passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
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
from tailrace.protocols.sse import ServerSentEvent
from tailrace.providers import failures
from tailrace.providers.state import Kept
from tailrace.providers.tolerant import (
    REFUSED,
    Count,
    json_text,
    made_up_id,
    odd_event,
    read_slowly,
    text_of,
    text_of_raw,
)

# ---- the wire: only what we read of it, one struct for all events, so that each is decoded once -----------------


class _Usage(msgspec.Struct, gc=False):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None


class _Citation(msgspec.Struct, gc=False):
    url: str | None = None
    source: str | None = None
    title: str | None = None
    document_title: str | None = None
    cited_text: str | None = None


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str = ""
    data: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    tool_use_id: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")
    citations: list[_Citation] | None = None


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    signature: str = ""
    partial_json: Any = None
    citation: _Citation | None = None
    stop_reason: str | None = None
    stop_details: msgspec.Raw = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    model: str | None = None
    usage: _Usage | None = None
    content: list[_Block] = []
    stop_reason: str | None = None
    stop_details: msgspec.Raw = msgspec.Raw(b"null")


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    message: _Message | None = None
    content_block: _Block | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_whole = msgspec.json.Decoder(_Message).decode


class SoFar:
    """What there is of an answer that the vendor may pause, over all its parts.

    Args:
        pauses: whether it may; only then the vendor's own blocks are gathered, which it wants back as they were.

    Attributes:
        blocks: of the parts so far.
        is_paused: whether the last part ended with a pause.
        kept: what the vendor wants back with the whole answer.
    """

    def __init__(self, *, pauses: bool = False) -> None:
        self.pauses = pauses
        self.blocks: list[dict[str, Any]] = []
        self.is_paused = False
        self.kept = Kept()
        self._usage = self._before = Usage()
        self._open: dict[str, tuple[dict[str, Any], list[str]]] = {}

    def begin(self) -> None:
        """Another part begins."""
        self.is_paused = False
        self._before = self._usage
        self._open.clear()

    def usage(self, part: Usage) -> Usage:
        """Return the counts of all parts; each part counts its own."""
        before = self._before
        total = Usage(
            _sum(before.prompt_tokens, part.prompt_tokens),
            _sum(before.completion_tokens, part.completion_tokens),
            cache_read=_sum(before.cache_read, part.cache_read),
            cache_write=_sum(before.cache_write, part.cache_write),
        )
        self._usage = total.over(self._usage)
        return total

    def take(self, data: bytes) -> None:
        """Take in an event, as it was sent; what is not as the vendor writes it is left out."""
        try:
            event = msgspec.json.decode(data)
        except REFUSED:
            return
        if not isinstance(event, dict):
            return
        # As text: a number of another type is then a key like any other.
        index, kind = str(event.get("index")), event.get("type")
        begun, delta = event.get("content_block"), event.get("delta")
        if kind == "content_block_start" and isinstance(begun, dict):
            self._open[index] = (begun, [])
            self.blocks.append(begun)
        elif kind == "content_block_delta" and index in self._open and isinstance(delta, dict):
            block, pieces = self._open[index]
            for name in ("text", "thinking", "signature"):
                if isinstance(delta.get(name), str):
                    block[name] = text_of(block.get(name)) + delta[name]
            if "citation" in delta:
                before = block.get("citations")
                block["citations"] = [*(before if isinstance(before, list) else ()), delta["citation"]]
            pieces.append(text_of(delta.get("partial_json")))
        elif kind == "content_block_stop" and index in self._open:
            block, pieces = self._open.pop(index)
            with suppress(*REFUSED):  # what was cut stays as the block began
                block["input"] = msgspec.json.decode("".join(pieces))


def _sum(before: int | None, now: int | None) -> int | None:
    return None if now is None else (before or 0) + now


class MessagesParser:
    """One answer, or a part of one. Implements ``http.Parser``.

    Args:
        request_id: what the response's ``request-id`` header said.
        so_far: the parts before.
    """

    def __init__(self, request_id: str | None = None, provider: str = "anthropic", so_far: SoFar | None = None) -> None:
        self.done = self.whole = self.settled = self.is_odd = False
        self._request_id = request_id
        self._provider = provider
        self._tools: dict[int, tuple[_Block, list[str]]] = {}
        self._server_tools: dict[str, str] = {}
        self._thoughts: dict[int, tuple[list[str], list[str]]] = {}
        self._so_far = so_far or SoFar()
        self._kept = self._so_far.kept

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """See ``http.Parser``. Events of a type not known here are ignored, as the vendor asks of its clients."""
        pings = 0
        for sse in events:
            try:
                event = _decode(sse.data)
            except REFUSED:
                self.is_odd = True
                odd = odd_event(sse, _Event, self._provider)
                if odd is None:
                    pings += 1
                    continue
                event = odd
            kind = event.type or sse.event.decode("ascii", "replace")
            if self._so_far.pauses:
                self._so_far.take(sse.data)
            if kind == "content_block_delta":
                if (delta := event.delta) is None:
                    continue
                if delta.text:
                    self._kept.characters += len(delta.text)
                    out.append(Text(delta.text))
                elif delta.thinking:
                    if event.index in self._thoughts:
                        self._thoughts[event.index][0].append(delta.thinking)
                    out.append(Reasoning(delta.thinking))
                elif delta.signature:
                    if event.index in self._thoughts:
                        self._thoughts[event.index][1].append(delta.signature)
                elif delta.partial_json and event.index in self._tools:
                    block, pieces = self._tools[event.index]
                    piece = text_of(delta.partial_json)
                    pieces.append(piece)
                    out.append(ToolCallDelta(block.id, piece))
                elif delta.citation is not None:
                    out.append(_cited(delta.citation))
            elif kind == "ping":
                pings += 1
            elif kind == "message_stop":
                for index in [*self._thoughts, *self._tools]:  # whose last event did not come
                    self._finish(index, out)
                if not self._so_far.is_paused:
                    out += self._kept.state(self._provider)
                self.done = self.whole = True
                return True
            else:
                self._rare(event, kind, sse.data, out)
        return len(events) > pings

    def end(self, rest: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``."""
        failures.raise_bare(self._provider, rest)

    def read(self, body: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``."""
        try:
            message = _decode_whole(body)
        except REFUSED:
            self.is_odd = True
            message = read_slowly(body, _Message) or _Message()
        if not message.content and message.stop_reason is None:
            failures.raise_bare(self._provider, body)
        out.append(ResponseInfo(model=message.model, provider_request_id=self._request_id))
        if self._so_far.pauses:
            with suppress(*REFUSED):
                self._so_far.blocks += msgspec.json.decode(body).get("content") or ()
        for index, block in enumerate(message.content):
            self._begin(index, block, out)
            self._finish(index, out)
        out += self._kept.state(self._provider)
        if message.usage is not None:
            out.append(self._so_far.usage(_usage(message.usage)))
        self._stopped(message.stop_reason, message.stop_details, out)
        self.whole = message.stop_reason is not None

    def _rare(self, event: _Event, kind: str, data: bytes, out: list[ProviderEvent]) -> None:
        if kind == "content_block_start" and event.content_block is not None:
            self._begin(event.index, event.content_block, out)
        elif kind == "content_block_stop":
            self._finish(event.index, out)
        elif kind == "message_start" and (message := event.message) is not None:
            out.append(ResponseInfo(model=message.model, provider_request_id=self._request_id))
            if message.usage is not None and message.usage.input_tokens is not None:
                # Its output_tokens are left alone: a count of 1 or so, wrong for whoever is cut off after it.
                usage = msgspec.structs.replace(_usage(message.usage), completion_tokens=None)
                out.append(self._so_far.usage(usage))
        elif kind == "message_delta":
            if event.usage is not None:
                out.append(self._so_far.usage(_usage(event.usage)))
            if event.delta is not None:
                self._stopped(event.delta.stop_reason, event.delta.stop_details, out)
        elif kind == "error" or event.error:
            raise failures.reported(self._provider, data)
        elif not event.type:
            failures.raise_bare(self._provider, data)

    def _begin(self, index: int, block: _Block, out: list[ProviderEvent]) -> None:
        if block.type == "tool_use":
            block.id = block.id or made_up_id()
            self._tools[index] = (block, [])
            self._kept.call(block.id)
            out.append(ToolCallStart(block.id, block.name))
        elif block.type == "redacted_thinking":
            self._kept.block({"type": block.type, "data": block.data})
        elif block.type in ("server_tool_use", "mcp_tool_use"):
            self._server_tools[block.id] = block.name
        elif block.type.endswith("_tool_result"):
            name = self._server_tools.get(block.tool_use_id) or block.type.removesuffix("_tool_result")
            out.append(ToolResult(block.tool_use_id, name, _result(block.content)))
        elif block.text:
            self._kept.characters += len(block.text)
            out.append(Text(block.text))
        elif block.type == "thinking":
            self._thoughts[index] = ([block.thinking or ""], [block.signature])
            if block.thinking:
                out.append(Reasoning(block.thinking))
        out.extend(_cited(citation) for citation in block.citations or ())

    def _finish(self, index: int, out: list[ProviderEvent]) -> None:
        thinking, signature = self._thoughts.pop(index, ((), ()))
        if any(signature):  # without one the vendor does not take it back
            self._kept.block({"type": "thinking", "thinking": "".join(thinking), "signature": "".join(signature)})
        if index in self._tools:
            block, pieces = self._tools.pop(index)
            # A tool without arguments may send no delta; what it has is then in the block's beginning.
            out.append(ToolCall(block.id, block.name, "".join(pieces) or text_of_raw(block.input)))

    def _stopped(self, reason: str | None, details: msgspec.Raw, out: list[ProviderEvent]) -> None:
        if reason == "pause_turn" and self._so_far.pauses:
            self._so_far.is_paused = True
            return
        if reason is not None:
            out.append(ResponseInfo(finish_reason=reason))
        if reason == "refusal":  # https://platform.claude.com/docs/en/test-and-evaluate/strengthen-guardrails
            raise failures.filtered(self._provider, f"refusal: {bytes(details).decode('utf-8', 'replace')}")


def _usage(usage: _Usage) -> Usage:
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    prompt = None if usage.input_tokens is None else usage.input_tokens + (read or 0) + (written or 0)
    return Usage(prompt, usage.output_tokens, cache_read=read, cache_write=written)


def _cited(citation: _Citation) -> Citation:
    return Citation(
        url=citation.url or citation.source,
        title=citation.title or citation.document_title,
        quote=citation.cited_text,
    )


def _result(content: msgspec.Raw) -> str:
    """The result as JSON text, without the form of it that only the vendor can read, which is most of its bytes."""
    value = msgspec.json.decode(content)
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                item.pop("encrypted_content", None)
    return json_text(value)
