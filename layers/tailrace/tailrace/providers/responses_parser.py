"""The events of OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses-streaming) and its
whole answers, read.

The reason for the end is the response's status, ``completed``, or what it says is the reason for ``incomplete``.
What the vendor's own tools did is a ``ToolResult`` named after the tool, but for images: they would fill the log.
A refusal, which has events of its own, is text like any other to a reader; the answer then ends as filtered.

Compatible servers leave events out: of text, reasoning and calls, what did not come by deltas is taken from the event
that has all of it, or from the whole response at the end.
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
from tailrace.providers.state import Kept
from tailrace.providers.tolerant import REFUSED, Count, fitted, json_text, made_up_id, odd_event, read_slowly, text_of

THOUGHT = ("type", "id", "summary", "encrypted_content")
"""What of a thought is sent back."""

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
    text: str | None = None
    refusal: str | None = None
    arguments: Any = None
    output_index: int = 0
    summary_index: int = 0
    item: msgspec.Raw = msgspec.Raw(b"{}")
    annotation: msgspec.Raw = msgspec.Raw(b"{}")
    response: msgspec.Raw = msgspec.Raw(b"{}")
    error: Any = None


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
    encrypted_content: str = ""
    name: str = ""
    arguments: Any = None
    summary: Any = None
    content: Any = None
    pieces: list[str] = []


class _Contents(msgspec.Struct):
    content: list[_Content] = []


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _Details = _Details()
    output_tokens_details: _Details = _Details()


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


class _Said:
    """What came of the answer's text, or of its reasoning, so that an event which has all of it adds only the rest."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._part = self._item = 0  # where the current ones begin

    def rest_of_part(self, whole: str) -> str:
        """Return what has not come of a part that is told whole now; the next one begins after it."""
        rest = self._rest(whole, self._part)
        self._part = len(self.texts)
        return rest

    def rest_of_item(self, whole: str) -> str:
        """The same of an item with all its parts."""
        rest = self._rest(whole, self._item)
        self._part = self._item = len(self.texts)
        return rest

    def rest_of_all(self, whole: str) -> str:
        """The same of the answer."""
        return self._rest(whole, 0)

    def _rest(self, whole: str, begin: int) -> str:
        said = "".join(self.texts[begin:])
        rest = whole[len(said) :] if whole.startswith(said) else ""
        if rest:
            self.texts.append(rest)
        return rest


class ResponsesParser:
    """One answer. Implements ``http.Parser``.

    Args:
        request_id: what the response's ``x-request-id`` header said.
    """

    def __init__(self, request_id: str | None = None, provider: str = "openai-responses") -> None:
        self.done = self.whole = self.settled = self.is_odd = False
        self._request_id = request_id
        self._provider = provider
        self._introduced = False
        self._calls: dict[int, _Item] = {}
        self._called: set[str] = set()
        self._text = _Said()
        self._reasoning = _Said()
        self._cited: set[Citation] = set()
        self._kept = Kept()
        self._thought: set[str] = set()
        self._before: int | None = None
        self._refused = False

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """See ``http.Parser``. Events of a type not known here are ignored."""
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
            if kind == "response.output_text.delta":
                if delta := _text(event):
                    out.append(Text(delta))
                    self._text.texts.append(delta)
            elif kind == "response.function_call_arguments.delta":
                if (delta := _text(event)) and (call := self._calls.get(event.output_index)) is not None:
                    call.pieces.append(delta)
                    out.append(ToolCallDelta(call.call_id, delta))
            elif kind == "keepalive":
                pings += 1
            else:
                self._rare(event, kind, sse.data, out)
                if self.done:
                    return True
        return len(events) > pings

    def end(self, rest: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``."""
        failures.raise_bare(self._provider, rest)

    def read(self, body: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``."""
        response = self._response(body)
        if not response.output and response.status is None:
            failures.raise_bare(self._provider, body)
        self._stopped(response, body, out)

    def _response(self, raw: bytes | msgspec.Raw) -> _Response:
        try:
            return _decode_response(raw)
        except REFUSED:
            self.is_odd = True
            return read_slowly(bytes(raw), _Response) or _Response()

    def _item(self, raw: bytes | msgspec.Raw) -> _Item:
        try:
            return _decode_item(raw)
        except REFUSED:
            self.is_odd = True
            return read_slowly(bytes(raw), _Item) or _Item()

    def _rare(self, event: _Event, kind: str, data: bytes, out: list[ProviderEvent]) -> None:
        if kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._reason(_text(event), out)
        elif kind == "response.reasoning_summary_part.added":
            if event.summary_index:
                self._reason("\n\n", out)
        elif kind == "response.refusal.delta":
            self._refused = True
            if delta := _text(event):
                out.append(Text(delta))
                self._text.texts.append(delta)
        elif kind in ("response.output_text.done", "response.refusal.done"):
            self._refused |= bool(event.refusal)
            _pass_on(Text, self._text.rest_of_part(event.text or event.refusal or ""), out)
        elif kind in ("response.reasoning_summary_text.done", "response.reasoning_text.done"):
            _pass_on(Reasoning, self._reasoning.rest_of_part(event.text or ""), out)
        elif kind == "response.function_call_arguments.done":
            if (call := self._calls.get(event.output_index)) is not None:
                call.arguments = event.arguments
        elif kind == "response.output_item.added":
            self._begin(event.output_index, self._item(event.item), out)
        elif kind == "response.output_item.done":
            self._take(event.output_index, self._item(event.item), event.item, out)
        elif kind == "response.output_text.annotation.added":
            self._cite(fitted(_json(event.annotation), _Annotation), out, again=True)
        elif kind in ("response.created", "response.in_progress"):
            self._introduce(self._response(event.response), out)
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._stopped(self._response(event.response), bytes(event.response), out, kind.partition(".")[2])
        elif kind == "error" or event.error:
            raise failures.reported(self._provider, data)
        elif not event.type:
            failures.raise_bare(self._provider, data)

    def _reason(self, text: str, out: list[ProviderEvent]) -> None:
        if text:
            out.append(Reasoning(text))
            self._reasoning.texts.append(text)

    def _take(self, index: int, item: _Item, raw: msgspec.Raw, out: list[ProviderEvent]) -> None:
        """Pass on what did not come yet of a whole item."""
        if item.type == "reasoning":
            _pass_on(Reasoning, self._reasoning.rest_of_item(_thoughts(item)), out)
            self._keep(item, raw)
        elif item.type == "message":
            contents = _contents(item.content)
            self._refused |= any(content.refusal for content in contents)
            _pass_on(Text, self._text.rest_of_item(_words(contents)), out)
            self._cite_all(contents, out)
        else:
            self._finish(index, item, raw, out)

    def _keep(self, item: _Item, raw: msgspec.Raw) -> None:
        """Keep a thought that only the vendor can read, for the next prompt."""
        if item.encrypted_content and item.encrypted_content not in self._thought:
            self._thought.add(item.encrypted_content)
            whole = _json(raw)
            self._kept.characters = self._place()
            self._kept.block({name: whole[name] for name in THOUGHT if name in whole})

    def _place(self) -> int:
        """Return how many characters of text come before the item that is read."""
        return sum(map(len, self._text.texts)) if self._before is None else self._before

    def _cite_all(self, contents: Sequence[_Content], out: list[ProviderEvent]) -> None:
        for content in contents:
            for annotation in content.annotations:
                self._cite(annotation, out)

    def _cite(self, annotation: _Annotation, out: list[ProviderEvent], *, again: bool = False) -> None:
        citation = Citation(url=annotation.url, title=annotation.title or annotation.filename)
        if again or citation not in self._cited:
            self._cited.add(citation)
            out.append(citation)

    def _introduce(self, response: _Response, out: list[ProviderEvent]) -> None:
        if not self._introduced:
            self._introduced = True
            out.append(ResponseInfo(model=response.model, provider_request_id=self._request_id))

    def _begin(self, index: int, item: _Item, out: list[ProviderEvent]) -> None:
        if item.type == "function_call":
            item.call_id = item.call_id or item.id or made_up_id()
            self._calls[index] = item
            self._kept.characters = self._place()
            self._kept.call(item.call_id)
            out.append(ToolCallStart(item.call_id, item.name))

    def _finish(self, index: int, item: _Item, raw: msgspec.Raw, out: list[ProviderEvent]) -> None:
        if item.type == "function_call":
            at = next((place for place, call in self._calls.items() if call.call_id == item.call_id), index)
            if at not in self._calls:
                if (item.call_id or item.id) in self._called:
                    return
                self._begin(at, item, out)
            begun = self._calls.pop(at)
            self._called |= {begun.call_id, begun.id, item.id} - {""}
            arguments = text_of(item.arguments) or text_of(begun.arguments) or "".join(begun.pieces)
            out.append(ToolCall(begun.call_id, begun.name or item.name, arguments or "{}"))
        elif item.type in RESULTS and item.id not in self._called:
            self._called |= {item.id} - {""}
            members = _json(raw)
            said = {name: members[name] for name in RESULTS[item.type] if members.get(name) is not None}
            out.append(ToolResult(item.id, item.name or item.type.removesuffix("_call"), json_text(said)))

    def _stopped(self, response: _Response, raw: bytes, out: list[ProviderEvent], status: str | None = None) -> None:
        self._introduce(response, out)
        self._take_all(response.output, out)
        if (usage := response.usage) is not None:
            cached, reasoning = usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens
            out.append(Usage(usage.input_tokens, usage.output_tokens, cache_read=cached, reasoning=reasoning))
        details = response.incomplete_details
        reason = (details.reason if details is not None else None) or response.status or status
        if reason == "failed" or response.error:
            raise failures.reported(self._provider, raw)
        if reason is None and not self._text.texts and not self._called:
            return  # nothing that anybody would call an answer
        out.append(ResponseInfo(finish_reason=reason or "completed"))
        if self._refused or reason == "content_filter":
            raise failures.filtered(self._provider, "refusal" if self._refused else "content_filter")
        self.done = self.whole = True

    def _take_all(self, output: Sequence[msgspec.Raw], out: list[ProviderEvent]) -> None:
        """Pass on what did not come yet of the whole answer, in its order."""
        items = [(self._item(raw), raw) for raw in output]
        thoughts = "".join(_thoughts(item) for item, _ in items if item.type == "reasoning")
        _pass_on(Reasoning, self._reasoning.rest_of_all(thoughts), out)
        contents = [content for item, _ in items if item.type == "message" for content in _contents(item.content)]
        self._refused |= any(content.refusal for content in contents)
        _pass_on(Text, self._text.rest_of_all(_words(contents)), out)
        self._cite_all(contents, out)
        self._before = 0
        for index, (item, raw) in enumerate(items):
            if item.type == "reasoning":
                self._keep(item, raw)
            elif item.type == "message":
                self._before += len(_words(_contents(item.content)))
            else:
                self._finish(index, item, raw, out)
        for index, call in list(self._calls.items()):  # those whose last event did not come
            self._finish(index, call, msgspec.Raw(b"{}"), out)
        out += self._kept.state(self._provider)


def _pass_on(kind: type[Text | Reasoning], text: str, out: list[ProviderEvent]) -> None:
    if text:
        out.append(kind(text))


def _contents(content: Any) -> Sequence[_Content]:
    return fitted({"content": content}, _Contents).content


def _words(contents: Sequence[_Content]) -> str:
    return "".join(content.text or content.refusal for content in contents)


def _thoughts(item: _Item) -> str:
    return "\n\n".join(part.text for part in _contents(item.summary or item.content) if part.text)


def _text(event: _Event) -> str:
    return event.delta if isinstance(event.delta, str) else ""


def _json(raw: msgspec.Raw) -> dict[str, Any]:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, dict) else {}
