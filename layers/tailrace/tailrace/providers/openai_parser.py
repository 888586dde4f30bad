"""OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat-streaming), streamed and whole, read;
and those of the servers that speak the same wire.

What differs among them, and is accepted:
- no ``[DONE]``: an answer that gave its finish reason is whole;
- reasoning as ``reasoning_content`` (vLLM, DeepSeek, xAI), ``reasoning`` (OpenRouter, Ollama, Groq), or among the
  pieces of a ``content`` that is a list (Mistral);
- tool calls without an index, without an id, or each of them in one piece;
- errors inside the stream with a status as ``code``, a word as ``code`` or ``type``, or a bare string.

A refusal, which has a member of its own, is text like any other to a reader; the answer then ends as filtered.
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
    Usage,
)
from tailrace.protocols.sse import ServerSentEvent
from tailrace.providers import failures

STATUS_OF_ERROR: Mapping[str, int] = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "api_error": 500,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "timeout": 504,
}
"""The status that an error inside the stream would have had before it."""


# ---- the wire: only what we read of it ---------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _URLCitation(msgspec.Struct, gc=False):
    url: str | None = None
    title: str | None = None


class _Annotation(msgspec.Struct, gc=False):
    url_citation: _URLCitation | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    refusal: str | None = None
    annotations: list[_Annotation] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None
    message: _Delta | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Identified(msgspec.Struct):
    id: str = ""


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_id = msgspec.json.Decoder(_Identified).decode


class _Call:
    """A tool call that is being written."""

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.arguments: list[str] = []


class ChatParser:
    """One answer. Implements ``http.Parser``.

    Args:
        request_id: what the response's ``x-request-id`` header said.
    """

    def __init__(self, request_id: str | None = None, provider: str = "openai") -> None:
        self.done = self.whole = False
        self._request_id = request_id
        self._provider = provider
        self._introduced = False
        self._calls: dict[int, _Call] = {}
        self._called = 0
        self._filtered = ""

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """See ``http.Parser``. This wire's pings are comments, so whatever arrives here is more than one."""
        for sse in events:
            data = sse.data
            if data == b"[DONE]":
                self.end(b"", out)
                self.done = self.whole = True
                return True
            chunk = _decode(data)
            if chunk.error is not None or sse.event == b"error":
                raise self._reported(chunk.error, data)
            if not self._introduced and (chunk.model or chunk.choices):  # Azure's first event has neither
                self._introduced = True
                out.append(ResponseInfo(model=chunk.model, provider_request_id=self._request_id))
            if chunk.choices:
                choice = chunk.choices[0]  # one was asked for
                if (delta := choice.delta or choice.message) is not None:
                    if reasoning := delta.reasoning_content or delta.reasoning:
                        out.append(Reasoning(reasoning))
                    if content := delta.content:
                        if type(content) is str:
                            out.append(Text(content))
                        else:
                            _read_pieces(content, out)
                    if delta.tool_calls:
                        self._gather(delta.tool_calls, data, out)
                    if delta.refusal or delta.annotations:
                        self._rare(delta, out)
                if choice.finish_reason is not None:
                    self._finish(choice.finish_reason, out)
            if (usage := chunk.usage) is not None:
                out.append(Usage(usage.prompt_tokens, usage.completion_tokens))
        return bool(events)

    def end(self, rest: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``. Here, because the usage comes after the finish reason."""
        self._finish_calls(out)
        if self._filtered:
            raise failures.filtered(self._provider, self._filtered)

    def read(self, body: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``. A whole answer is a chunk that has ``message`` where others have ``delta``."""
        self.feed([ServerSentEvent(body)], out)
        self.end(b"", out)

    def _rare(self, delta: _Delta, out: list[ProviderEvent]) -> None:
        if delta.refusal:
            self._filtered = "refusal"
            out.append(Text(delta.refusal))
        cited = [annotation.url_citation for annotation in delta.annotations or ()]
        out.extend(Citation(url=one.url, title=one.title) for one in cited if one is not None)

    def _gather(self, pieces: Sequence[_ToolCall], data: bytes, out: list[ProviderEvent]) -> None:
        for piece in pieces:
            index = piece.index
            if index is None:  # some servers send each call whole and unnumbered
                index = len(self._calls) if piece.id or not self._calls else len(self._calls) - 1
            if (call := self._calls.get(index)) is None:
                name = (piece.function.name if piece.function is not None else None) or ""
                call_id = piece.id or f"{_decode_id(data).id or 'call'}-{self._called}"
                self._called += 1
                call = self._calls[index] = _Call(call_id, name)
                out.append(ToolCallStart(call_id, name))
            if piece.function is not None and piece.function.arguments:
                call.arguments.append(piece.function.arguments)
                out.append(ToolCallDelta(call.id, piece.function.arguments))

    def _finish(self, reason: str, out: list[ProviderEvent]) -> None:
        self._finish_calls(out)
        out.append(ResponseInfo(finish_reason=reason))
        if reason == "content_filter":
            self._filtered = reason
        self.whole = True

    def _finish_calls(self, out: list[ProviderEvent]) -> None:
        for _, call in sorted(self._calls.items()):
            out.append(ToolCall(call.id, call.name, "".join(call.arguments) or "{}"))
        self._calls.clear()

    def _reported(self, error: Any, data: bytes) -> Exception:
        """The error for one that came inside the stream."""
        status: int | None = None
        code: Any = None
        if isinstance(error, dict):
            code = error.get("code")
            if isinstance(code, int) and 400 <= code < 600:
                status = code
            else:
                status = STATUS_OF_ERROR.get(str(code)) or STATUS_OF_ERROR.get(str(error.get("type")))
        failure = failures.midway(self._provider, status, data[: failures.DETAIL_BYTES].decode("utf-8", "replace"))
        if code == "insufficient_quota":
            failure.retryable = False  # an empty account does not fill itself
        return failure


def _read_pieces(content: Sequence[Any], out: list[ProviderEvent]) -> None:
    """A list of pieces: Mistral's ``text``, and ``thinking``, which is a list of texts again."""
    for piece in content:
        if not isinstance(piece, dict):
            continue
        if piece.get("type") == "thinking":
            thoughts: list[ProviderEvent] = []
            _read_pieces(piece.get("thinking") or (), thoughts)
            out.extend(Reasoning(thought.text) for thought in thoughts if isinstance(thought, Text))
        elif isinstance(text := piece.get("text"), str) and text:
            out.append(Text(text))
