"""OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat-streaming), streamed and whole, read;
and those of the servers that speak the same wire.

What differs among them, and is accepted:
- no ``[DONE]``: an answer that gave its finish reason is whole;
- reasoning as ``reasoning_content`` (vLLM, DeepSeek, xAI), ``reasoning`` (OpenRouter, Ollama, Groq), or among the
  pieces of a ``content`` that is a list (Mistral);
- tool calls without an index, several under one, without an id or with one that comes late, each of them in one piece
  or with an object as arguments, and the old ``function_call``;
- a finish reason on every chunk, empty or not: what comes after it is still the answer;
- errors inside the stream with a status as ``code``, a word as ``code`` or ``type``, as text, as a list, as the whole
  event or by the event's name;
- anything else in any shape: ``tolerant.py``.

A refusal, which has a member of its own, is text like any other to a reader; the answer then ends as filtered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

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
from tailrace.providers.state import Kept
from tailrace.providers.tolerant import REFUSED, Count, made_up_id, odd_event, text_of

# ---- the wire: only what we read of it ---------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: Any = None


class _URLCitation(msgspec.Struct, gc=False):
    url: str | None = None
    title: str | None = None


class _Annotation(msgspec.Struct, gc=False):
    url_citation: _URLCitation | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Any] | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    refusal: str | None = None
    annotations: list[_Annotation] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    message: _Delta | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: Count | None = None


class _Chunk(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode

WANT_REASONING: Final = frozenset({"deepseek"})
"""Who wants the reasoning back within a turn with tools
(https://api-docs.deepseek.com/guides/thinking_mode#tool-calls)."""

NO_REASON: Final = frozenset({"", "null", "none"})
"""What some servers say as a finish reason on every chunk, and means none."""


class _Call:
    """A tool call that is being written. It is told of once its id and its name are here."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.extra: Any = None
        self.is_told = False

    def write(self, piece: str, out: list[ProviderEvent]) -> None:
        """Take a piece of its arguments."""
        if not self.is_told and self.id and self.name:
            self.tell(out)
        if piece:
            self.arguments.append(piece)
            if self.is_told:
                out.append(ToolCallDelta(self.id, piece))

    def tell(self, out: list[ProviderEvent]) -> None:
        """Say that it has begun, and what there is of it."""
        self.is_told = True
        self.id = self.id or made_up_id()
        out.append(ToolCallStart(self.id, self.name))
        out.extend(ToolCallDelta(self.id, piece) for piece in self.arguments)

    def finish(self, out: list[ProviderEvent]) -> None:
        """Say the whole of it."""
        if not self.is_told:
            self.tell(out)
        out.append(ToolCall(self.id, self.name, "".join(self.arguments) or "{}"))


class ChatParser:
    """One answer. Implements ``http.Parser``.

    Args:
        request_id: what the response's ``x-request-id`` header said.
    """

    def __init__(self, request_id: str | None = None, provider: str = "openai") -> None:
        self.done = self.whole = self.settled = self.is_odd = False
        self._request_id = request_id
        self._provider = provider
        self._introduced = False
        self._model: str | None = None
        self._index: int | None = None
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._filtered = ""
        self._kept = Kept()
        self._details: list[Any] = []
        self._reasoning: list[str] = []
        self._wants_reasoning = provider in WANT_REASONING

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """See ``http.Parser``. This wire's pings are comments, so whatever arrives here is more than one, but for what
        cannot be read at all."""
        progress = False
        for sse in events:
            data = sse.data
            try:
                chunk = _decode(data)
            except REFUSED:
                if data.strip() == b"[DONE]":
                    self.end(b"", out)
                    self.done = self.whole = True
                    return True
                self.is_odd = True
                if (odd := odd_event(sse, _Chunk, self._provider)) is None:
                    continue
                chunk = odd
            progress = True
            if chunk.error or sse.event == b"error":
                raise failures.reported(self._provider, data)
            if not self._introduced and (chunk.model or chunk.choices):  # Azure's first event has neither
                self._introduced = True
                self._model = chunk.model
                out.append(ResponseInfo(model=chunk.model, provider_request_id=self._request_id))
            elif self._introduced and chunk.model and not self._model:
                self._model = chunk.model
                out.append(ResponseInfo(model=chunk.model))
            if chunk.choices:
                for choice in chunk.choices:
                    self._choice(choice, data, out)
            elif chunk.choices is None and chunk.usage is None:
                failures.raise_bare(self._provider, data)  # an error that nobody named so
            if (usage := chunk.usage) is not None:
                out.append(_usage(usage))
                self.settled = self.whole
        return progress

    def _choice(self, choice: _Choice, data: bytes, out: list[ProviderEvent]) -> None:
        if choice.index != self._index and choice.index is not None:
            if self._index is not None:
                return  # one was asked for: what has another number than the first is another answer
            self._index = choice.index
        said = len(out)
        if (delta := choice.delta or choice.message) is not None:
            if reasoning := delta.reasoning_content or delta.reasoning:
                if self._wants_reasoning:
                    self._reasoning.append(reasoning)
                out.append(Reasoning(reasoning))
            if content := delta.content:
                if type(content) is str:
                    out.append(Text(content))
                else:
                    _read_pieces(content, out)
            if delta.tool_calls:
                self._gather(delta.tool_calls, out)
            if delta.refusal or delta.annotations or delta.function_call or delta.reasoning_details:
                self._rare(delta, out)
        if choice.finish_reason is not None:
            self._finish(choice.finish_reason, data, out)
        elif self.whole and len(out) > said:
            self.whole = self.settled = False  # the reason came early: this is still the answer

    def end(self, rest: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``. Here, because the usage comes after the finish reason."""
        self._finish_calls(out)
        if self._filtered:
            raise failures.filtered(self._provider, self._filtered)
        failures.raise_bare(self._provider, rest)
        if self._details:
            self._kept.block({"reasoning_details": _merged(self._details)})
        if self._reasoning:
            self._kept.block({"reasoning_content": "".join(self._reasoning)})
        out += self._kept.state(self._provider)

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
        self._details += delta.reasoning_details or ()
        if (function := delta.function_call) is not None:
            self._gather([_ToolCall(index=-1, function=function)], out)

    def _gather(self, pieces: Sequence[_ToolCall], out: list[ProviderEvent]) -> None:
        for piece in pieces:
            function = piece.function or _Function()
            call = self._call_of(piece, function.name)
            call.id = call.id or piece.id or ""
            call.name = call.name or function.name or ""
            call.extra = call.extra or piece.extra_content
            call.write(text_of(function.arguments), out)

    def _call_of(self, piece: _ToolCall, name: str | None) -> _Call:
        """Return the call that a piece belongs to: by its id, its number, or since it goes on with the last one."""
        if piece.id:
            known = next((call for call in self._calls if call.id == piece.id), None)
            if known is not None:
                return known
        call = self._calls[-1] if self._calls else None
        if piece.index is not None:
            call = self._by_index.get(piece.index)
        # Several calls under one number differ by their ids, and each begins with its name.
        if call is None or (piece.id and call.id and name) or (piece.index is None and piece.id and call.id):
            call = _Call()
            self._calls.append(call)
        if piece.index is not None:
            self._by_index[piece.index] = call
        return call

    def _finish(self, reason: str, data: bytes, out: list[ProviderEvent]) -> None:
        if reason.strip().lower() in NO_REASON:
            return
        if reason == "error":
            raise failures.reported(self._provider, data)
        out.append(ResponseInfo(finish_reason=reason))
        if reason == "content_filter":
            self._filtered = reason
        self.whole = True

    def _finish_calls(self, out: list[ProviderEvent]) -> None:
        for call in self._calls:
            call.finish(out)
            self._kept.call(call.id, call.extra)
        self._calls.clear()
        self._by_index.clear()


def _usage(usage: _Usage) -> Usage:
    prompt, completion = usage.prompt_tokens_details or _Details(), usage.completion_tokens_details or _Details()
    cached = prompt.cached_tokens if prompt.cached_tokens is not None else usage.prompt_cache_hit_tokens  # DeepSeek's
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        cache_read=cached,
        cache_write=prompt.cache_write_tokens,
        reasoning=completion.reasoning_tokens,
    )


def _merged(details: Sequence[Any]) -> list[dict[str, Any]]:
    """OpenRouter's blocks of reasoning, of which text and summaries come piece by piece, whole
    (https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks)."""
    whole: list[dict[str, Any]] = []
    for piece in details:
        if not isinstance(piece, dict):
            continue
        last = whole[-1] if whole else {}
        long = next((name for name in ("text", "summary") if isinstance(piece.get(name), str)), None)
        same = all(last.get(name) == piece.get(name) for name in ("type", "index"))
        if long and same and isinstance(last.get(long), str) and not last.get("signature"):
            known = {name: value for name, value in piece.items() if value is not None}
            last.update(known | {long: last[long] + piece[long]})
        else:
            whole.append(dict(piece))
    return whole


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
