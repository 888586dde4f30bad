"""The events of OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses-streaming) and its
whole answers, read.

The reason for the end is the response's status, ``completed``, or what it says is the reason for ``incomplete``.
What the vendor's own tools did is a ``ToolResult`` named after the tool, but for images: they would fill the log.
A refusal, which has events of its own, is text like any other to a reader; the answer then ends as filtered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

STATUS_OF_ERROR: Mapping[str, int] = {
    "invalid_prompt": 400,
    "server_error": 500,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "vector_store_timeout": 504,
}
"""The status that a failed response would have had before it began. The codes about images are all 400."""

RESULTS: Mapping[str, tuple[str, ...]] = {
    "web_search_call": ("action",),
    "file_search_call": ("queries", "results"),
    "code_interpreter_call": ("code", "outputs"),
    "mcp_call": ("output", "error"),
}
"""The items that the vendor's own tools leave, and which of their members say what came out."""


# ---- the wire: only what we read of it. What is rare stays raw until it is known to be ours. ---------------------


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    output_index: int = 0
    summary_index: int = 0
    item: msgspec.Raw = msgspec.Raw(b"{}")
    annotation: msgspec.Raw = msgspec.Raw(b"{}")
    response: msgspec.Raw = msgspec.Raw(b"{}")
    error: Any = None
    code: Any = None


class _Annotation(msgspec.Struct):
    type: str = ""
    url: str | None = None
    title: str | None = None
    filename: str | None = None


class _Content(msgspec.Struct):
    type: str = ""
    text: str = ""
    refusal: str = ""
    annotations: list[_Annotation] = []


class _Item(msgspec.Struct):
    type: str = ""
    id: str = ""
    call_id: str = ""
    name: str = ""
    arguments: Any = None
    summary: Any = None
    content: Any = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Reason(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    model: str | None = None
    status: str | None = None
    usage: _Usage | None = None
    error: Any = None
    incomplete_details: _Reason | None = None
    output: list[msgspec.Raw] = []


_decode = msgspec.json.Decoder(_Event).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_annotation = msgspec.json.Decoder(_Annotation).decode


class ResponsesParser:
    """One answer. Implements ``http.Parser``.

    Args:
        request_id: what the response's ``x-request-id`` header said.
    """

    def __init__(self, request_id: str | None = None, provider: str = "openai-responses") -> None:
        self.done = self.whole = False
        self._request_id = request_id
        self._provider = provider
        self._introduced = False
        self._calls: dict[int, _Item] = {}
        self._refused = False

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """See ``http.Parser``. Events of a type not known here are ignored."""
        pings = 0
        for sse in events:
            event = _decode(sse.data)
            kind = event.type
            if kind == "response.output_text.delta":
                if delta := _text(event):
                    out.append(Text(delta))
            elif kind == "response.function_call_arguments.delta":
                if (delta := _text(event)) and (call := self._calls.get(event.output_index)) is not None:
                    out.append(ToolCallDelta(call.call_id, delta))
            elif kind == "keepalive":
                pings += 1
            else:
                self._rare(event, kind, out)
                if self.done:
                    return True
        return len(events) > pings

    def end(self, rest: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``."""

    def read(self, body: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``."""
        response = _decode_response(body)
        self._introduce(response, out)
        for index, raw in enumerate(response.output):
            item = _decode_item(raw)
            if item.type == "reasoning":
                parts = msgspec.convert(item.summary or item.content or [], list[_Content])
                if text := "\n\n".join(part.text for part in parts):
                    out.append(Reasoning(text))
            elif item.type == "message":
                for content in msgspec.convert(item.content, list[_Content]):
                    self._refused |= bool(content.refusal)
                    if text := content.text or content.refusal:
                        out.append(Text(text))
                    out.extend(_cited(annotation) for annotation in content.annotations)
            else:
                self._begin(index, item, out)
                self._finish(index, raw, out)
        self._stopped(response, out)

    def _rare(self, event: _Event, kind: str, out: list[ProviderEvent]) -> None:
        if kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            if delta := _text(event):
                out.append(Reasoning(delta))
        elif kind == "response.reasoning_summary_part.added":
            if event.summary_index:
                out.append(Reasoning("\n\n"))
        elif kind == "response.refusal.delta":
            self._refused = True
            if delta := _text(event):
                out.append(Text(delta))
        elif kind == "response.output_item.added":
            self._begin(event.output_index, _decode_item(event.item), out)
        elif kind == "response.output_item.done":
            self._finish(event.output_index, event.item, out)
        elif kind == "response.output_text.annotation.added":
            out.append(_cited(_decode_annotation(event.annotation)))
        elif kind in ("response.created", "response.in_progress"):
            self._introduce(_decode_response(event.response), out)
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._stopped(_decode_response(event.response), out)
        elif kind == "error":
            error = event.error if isinstance(event.error, dict) else {"code": event.code}
            raise self._reported(error)

    def _introduce(self, response: _Response, out: list[ProviderEvent]) -> None:
        if not self._introduced:
            self._introduced = True
            out.append(ResponseInfo(model=response.model, provider_request_id=self._request_id))

    def _begin(self, index: int, item: _Item, out: list[ProviderEvent]) -> None:
        if item.type == "function_call":
            self._calls[index] = item
            out.append(ToolCallStart(item.call_id, item.name))

    def _finish(self, index: int, raw: msgspec.Raw, out: list[ProviderEvent]) -> None:
        item = _decode_item(raw)
        if item.type == "function_call":
            self._calls.pop(index, None)
            out.append(ToolCall(item.call_id, item.name, str(item.arguments or "{}")))
        elif item.type in RESULTS:
            members = msgspec.json.decode(raw)
            said = {name: members[name] for name in RESULTS[item.type] if members.get(name) is not None}
            out.append(ToolResult(item.id, item.name or item.type.removesuffix("_call"), _encode(said)))

    def _stopped(self, response: _Response, out: list[ProviderEvent]) -> None:
        self._introduce(response, out)
        if (usage := response.usage) is not None:
            out.append(Usage(usage.input_tokens, usage.output_tokens))
        details = response.incomplete_details
        reason = (details.reason if details is not None else None) or response.status
        if response.status == "failed":
            raise self._reported(response.error)
        out.append(ResponseInfo(finish_reason=reason))
        if self._refused or reason == "content_filter":
            raise failures.filtered(self._provider, "refusal" if self._refused else "content_filter")
        self.done = self.whole = True

    def _reported(self, error: Any) -> Exception:
        """The error for one that came inside the stream, or instead of it."""
        code = str(error.get("code") or error.get("type")) if isinstance(error, dict) else ""
        detail = _encode(error)[: failures.DETAIL_BYTES]
        if code.endswith(("_policy", "_policy_violation")):
            return failures.filtered(self._provider, detail)
        status = STATUS_OF_ERROR.get(code) or (400 if "image" in code else None)
        failure = failures.midway(self._provider, status, detail)
        if code == "insufficient_quota":
            failure.retryable = False  # an empty account does not fill itself
        return failure


def _text(event: _Event) -> str:
    if event.delta is None or isinstance(event.delta, str):
        return event.delta or ""
    raise ValueError("a delta that is no text")


def _cited(annotation: _Annotation) -> Citation:
    return Citation(url=annotation.url, title=annotation.title or annotation.filename)


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()
