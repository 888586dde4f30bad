"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat-streaming

Data-only events, and ``[DONE]`` after the last. Reasoning is ``reasoning_content``, as DeepSeek and most servers of
this wire have it. The wire has no form for an answer that begins anew after text was sent: here it ends as an error.
Nor has it one for tools that run here: clients would run them, so they are not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Final

import msgspec

from tailrace.events import (
    Citation,
    Event,
    Message,
    Reasoning,
    Reset,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from tailrace.protocols.from_beginning import FromBeginning
from tailrace.protocols.reader import ENDED_EARLY, Object, Opening, Reading, Shown
from tailrace.protocols.stored import entries_for_client, is_client_s

_encode = msgspec.json.Encoder().encode

NAME: Final = "openai_chat"

FINISH: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})
"""The words for why an answer ended that the wire has; they are ours too."""

BEGAN_ANEW: Final = "The answer began anew with another provider, for which this protocol has no form."


class OpenAIChatProtocol(FromBeginning):
    """Its arguments are ``ReaderProtocol``'s. ``wants`` may have ``include_usage``."""

    trailer: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(self, opening: Opening, reading: Reading) -> None:
        super().__init__(opening, reading)
        self._head: Object = {
            "id": completion_id(self.message_id),
            "object": "chat.completion.chunk",
            "created": opening.created // 1_000_000,
            "model": model_of(opening),
        }
        head = _encode(self._head)[:-1]
        begin = b"data: " + head + b',"choices":[{"index":0,"delta":{"content":'
        self.around = begin, b'},"finish_reason":null}]}\n\n'
        self._calls: dict[str, int] = {}
        self._arguments: set[str] = set()  # of which calls some were sent
        self._told: set[str] = set()
        self._is_void = False
        self._is_client_s = partial(is_client_s, opening.private)

    def first(self) -> list[Shown]:
        """Return the role."""
        return self.shown([self._chunk({"role": "assistant", "content": ""})])

    def entry(self, event: Event) -> list[Object]:
        """Return the chunks that an entry is."""
        if isinstance(event, Reset) and (self.written or self._calls):
            self._is_void, self.around = True, None  # of what is void nothing may have been sent
        return [] if self._is_void else [self._chunk(delta) for delta in self._deltas(event)]

    def end_objects(self, message: Message) -> list[Shown]:
        """Return what is missing, why it ended, and the usage if it was asked for; or the failure."""
        return self.shown(self._ended(message), self.end_cursor(message))

    def failure_objects(self, seq: int, text: str, error_type: str) -> list[Shown]:
        """Return the failure."""
        return self.shown([_failure(text, error_type)])

    def _ended(self, message: Message) -> list[Object]:
        if self._is_void:
            return [_failure(BEGAN_ANEW, "api_error")]
        if message.status != "completed":
            error = message.error or {}
            return [_failure(str(error.get("message", ENDED_EARLY)), str(error.get("type", "general_error")))]
        found = [each for event in self.missing(message) for each in self.entry(event)]
        found.append(self._chunk({}, _finish(message, has_calls=bool(self._calls))))
        if self.wants.get("include_usage"):
            found.append({**self._head, "choices": [], "usage": usage_of(message.usage)})
        return found

    def stored(self, message: Message) -> Iterator[Event]:
        """Yield the entries that a stored message alone tells to a client that makes every call it sees."""
        return entries_for_client(message)

    def _deltas(self, event: Event) -> list[Object]:
        if isinstance(event, Text):
            self.written += len(event.text)
            return [{"content": event.text}]
        if isinstance(event, Reasoning):
            return [{"reasoning_content": event.text}]
        if isinstance(event, ToolCallStart):
            if event.id in self._calls or not self._is_client_s(event.name):
                return []
            return [self._begun(event.id, event.name, "")]
        if isinstance(event, ToolCallDelta):
            if event.id not in self._calls or event.id in self._told:
                return []
            self._arguments.add(event.id)
            return [self._more(event.id, event.arguments)]
        if isinstance(event, ToolCall) and event.id not in self._told and self._is_client_s(event.name):
            self._told.add(event.id)
            if event.id not in self._calls:
                return [self._begun(event.id, event.name, event.arguments)]
            # Its pieces are its arguments, unless none came.
            return [] if event.id in self._arguments else [self._more(event.id, event.arguments)]
        return []

    def _begun(self, call_id: str, name: str, arguments: str) -> Object:
        index = self._calls[call_id] = len(self._calls)
        function = {"name": name, "arguments": arguments}
        return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}

    def _more(self, call_id: str, arguments: str) -> Object:
        return {"tool_calls": [{"index": self._calls[call_id], "function": {"arguments": arguments}}]}

    def _chunk(self, delta: Object, finish: str | None = None) -> Object:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _finish(message: Message, *, has_calls: bool) -> str:
    finish = str(message.metadata.get("finish"))
    if finish == "tool_calls" and not has_calls:
        return "stop"  # they were none of the client's
    return finish if finish in FINISH else "stop"


def _failure(text: str, error_type: str) -> Object:
    return {"error": {"message": text, "type": "server_error", "param": None, "code": error_type}}


def model_of(opening: Opening) -> str:
    """Return the name that a request asked for; of a reply that was started otherwise, nothing: what answers it may be
    known at its end only, and its chunks must be the same whenever they are read."""
    kept = opening.private.get(NAME)
    return str(kept.get("model", "")) if isinstance(kept, dict) else ""


def completion_id(message_id: str) -> str:
    """Return the id of a completion: the reply's, as it is spelt there."""
    return f"chatcmpl-{message_id}"


def completion(message: Message, model: str, created: int) -> Object:
    """Return a reply that has completed as it is answered with when it is not streamed.

    Args:
        model: the name that was asked for, where the reply knows no better.
        created: seconds since 1970.
    """
    said: dict[str, Any] = {"role": "assistant", "content": message.content or None, "refusal": None}
    calls: list[Object] = []
    for event in entries_for_client(message):
        if isinstance(event, Reasoning):
            said["reasoning_content"] = event.text
        elif isinstance(event, ToolCall):
            function = {"name": event.name, "arguments": event.arguments}
            calls.append({"id": event.id, "type": "function", "function": function})
        elif isinstance(event, Citation) and event.url is not None:
            about = {"url": event.url, "title": event.title or "", "start_index": 0, "end_index": 0}
            said.setdefault("annotations", []).append({"type": "url_citation", "url_citation": about})
    if calls:
        said["tool_calls"] = calls
    return {
        "id": completion_id(message.id),
        "object": "chat.completion",
        "created": created,
        "model": message.model or model,
        "choices": [
            {
                "index": 0,
                "message": said,
                "logprobs": None,
                "finish_reason": _finish(message, has_calls=bool(calls)),
            }
        ],
        "usage": usage_of(message.usage),
    }


def usage_of(usage: Usage | None) -> Object | None:
    """Return token counts in the wire's words; None where nothing was counted."""
    if usage is None:
        return None
    prompt, written = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read or 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
    }
