"""OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses-streaming): its events, and the
response object.

Events are named, numbered from 0 (``sequence_number``) and have no ids. What a client asked for is echoed in the
response object; it is kept with the reply, so that a replay has the same events. Items are numbered by their kind, so
that the object which is made of the stored message alone has the ids that the stream had.

Deliberate oddities:

- OpenAI's clients know no event for a response that was cancelled: it ends with ``response.incomplete``, and the
  response in it says ``cancelled``.
- Nor do they know that what came before is void. After a ``Reset`` (which no start of this protocol asks for) the
  items before it are closed as incomplete, and the last event's response is without them.
- What tools returned that the provider ran itself is not shown: each vendor's would be an item of another type. Nor
  are the calls of tools that run here: a client would run them.
- Where in the text a citation belongs is not known, so its indexes are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tailrace.clock import microseconds
from tailrace.events import (
    TERMINAL,
    Citation,
    Event,
    Json,
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
from tailrace.protocols.reader import Object, Opening, Reading, Shown
from tailrace.protocols.stored import entries_for_client, is_client_s

_encode = msgspec.json.Encoder().encode

NAME: Final = "openai_responses"
"""Of the protocol."""

KEPT: Final = "openai"
"""Where in the private metadata of a reply lies what its response object echoes."""

RESPONSE: Final = "resp_"
CONVERSATION: Final = "conv_"
"""What ids begin with."""

ECHOED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "background": False,
    "max_output_tokens": None,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "text": {"format": {"type": "text"}},
    "truncation": "auto",
    "user": None,
}
"""What a response object repeats of its request, and what it says where the request said nothing."""

INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""OpenAI's words for why an answer is not whole, by ours for why it ended."""

FIRST: Final = ("response.created", "response.in_progress")
"""The events before all entries."""

LAST: Final = {"completed": "response.completed", "failed": "response.failed"}
"""The terminal events, by the response's status; of all others it is ``response.incomplete``."""


class _Item:
    """An item of the output that is being written."""

    def __init__(self, kind: str, item_id: str, index: int) -> None:
        self.kind = kind
        self.id = item_id
        self.index = index
        self.pieces: list[str] = []
        self.annotations: list[Object] = []
        self.call_id = self.name = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def part(self) -> Object:
        """Return the text, or the summary, with what belongs to it."""
        if self.kind == "reasoning":
            return {"type": "summary_text", "text": self.text}
        return {"type": "output_text", "annotations": [*self.annotations], "logprobs": [], "text": self.text}

    def item(self, status: str, *, is_begun: bool = False) -> Object:
        """Return the item as it stands, or as it was begun."""
        if self.kind == "reasoning":
            return {"id": self.id, "type": "reasoning", "summary": [] if is_begun else [self.part()]}
        about = {"id": self.id, "type": self.kind, "status": status}
        if self.kind == "function_call":
            return {**about, "arguments": self.text, "call_id": self.call_id, "name": self.name}
        return {**about, "content": [] if is_begun else [self.part()], "role": "assistant"}

    def about(self) -> Object:
        """Return what an event says of where it belongs."""
        where: Object = {"item_id": self.id, "output_index": self.index}
        if self.kind == "message":
            where["content_index"] = 0
        elif self.kind == "reasoning":
            where["summary_index"] = 0
        return where


class Items:
    """Turns the entries of a log into items of the output, and tells the events of that as it goes.

    Attributes:
        done: the items that are whole, by their places.
    """

    def __init__(self, message_id: str, private: Json) -> None:
        self._message_id = message_id
        self._private = private
        self.done: dict[int, Object] = {}
        self.open: _Item | None = None  # a message or reasoning
        self._calls: dict[str, _Item] = {}  # those that are open, by the ids of the calls
        self._told: set[str] = set()  # calls that were begun
        self._counts = {"message": 0, "reasoning": 0, "function_call": 0}
        self._waiting: list[Object] = []  # sources of a text that has not begun
        self._next = 0

    def entry(self, event: Event) -> list[Object]:
        """Return the events of one entry."""
        if isinstance(event, Text):
            return [*self._opened("message"), self._piece("response.output_text.delta", event.text)]
        if isinstance(event, Reasoning):
            return [*self._opened("reasoning"), self._piece("response.reasoning_summary_text.delta", event.text)]
        if isinstance(event, ToolCallStart):
            return self._begun(event.id, event.name)
        if isinstance(event, ToolCallDelta):
            return self._arguments(event.id, event.arguments)
        if isinstance(event, ToolCall):
            return self._called(event)
        if isinstance(event, Citation):
            return self._source(event)
        if isinstance(event, Reset):
            found = self.close("incomplete")
            self.done.clear()
            self._told.clear()
            self._waiting.clear()
            return found
        return []

    def close(self, status: str) -> list[Object]:
        """Return the ends of all that is open."""
        found = self._closed(status)
        for call in [*self._calls.values()]:
            found += self._call_done(call, status)
        return found

    def output(self) -> list[Object]:
        """Return the items that are whole, in order."""
        return [self.done[place] for place in sorted(self.done)]

    def written(self) -> int:
        """Return how many characters of text there are."""
        texts = [part["text"] for item in self.done.values() for part in item.get("content", ())]
        if self.open is not None and self.open.kind == "message":
            texts.append(self.open.text)
        return sum(map(len, texts))

    def _new(self, kind: str, prefix: str) -> _Item:
        self._counts[kind] += 1
        number = self._counts[kind]
        item = _Item(kind, f"{prefix}_{self._message_id}" + (f"_{number}" if number > 1 else ""), self._next)
        self._next += 1
        return item

    def _added(self, item: _Item) -> Object:
        begun = item.item("in_progress", is_begun=True)
        return {"type": "response.output_item.added", "output_index": item.index, "item": begun}

    def _finished(self, item: _Item, status: str) -> Object:
        self.done[item.index] = item.item(status)
        return {"type": "response.output_item.done", "output_index": item.index, "item": self.done[item.index]}

    # ---- text and reasoning ----

    def _opened(self, kind: str) -> list[Object]:
        if self.open is not None and self.open.kind == kind:
            return []
        found = self._closed("completed")
        item = self.open = self._new(kind, "msg" if kind == "message" else "rs")
        part = "response.content_part.added" if kind == "message" else "response.reasoning_summary_part.added"
        found += [self._added(item), {"type": part, **item.about(), "part": item.part()}]
        if kind == "message":
            for source in self._waiting:
                found.append(self._annotated(item, source))
            self._waiting.clear()
        return found

    def _piece(self, kind: str, text: str) -> Object:
        item = self.open
        assert item is not None
        item.pieces.append(text)
        more: Object = {"logprobs": []} if item.kind == "message" else {}
        return {"type": kind, **item.about(), **more, "delta": text}

    def _closed(self, status: str) -> list[Object]:
        item, self.open = self.open, None
        if item is None:
            return []
        about, part = item.about(), item.part()
        if item.kind == "message":
            ends: list[Object] = [
                {"type": "response.output_text.done", **about, "logprobs": [], "text": part["text"]},
                {"type": "response.content_part.done", **about, "part": part},
            ]
        else:
            ends = [
                {"type": "response.reasoning_summary_text.done", **about, "text": part["text"]},
                {"type": "response.reasoning_summary_part.done", **about, "part": part},
            ]
        return [*ends, self._finished(item, status)]

    def _source(self, citation: Citation) -> list[Object]:
        if citation.url is None:
            return []
        source = _annotation(citation.url, citation.title)
        if self.open is not None and self.open.kind == "message":
            return [self._annotated(self.open, source)]
        self._waiting.append(source)
        return []

    def _annotated(self, item: _Item, source: Object) -> Object:
        item.annotations.append(source)
        place = {"annotation_index": len(item.annotations) - 1}
        return {"type": "response.output_text.annotation.added", **item.about(), **place, "annotation": source}

    # ---- tool calls ----

    def _begun(self, call_id: str, name: str) -> list[Object]:
        if call_id in self._told or not is_client_s(self._private, name):
            return []  # to a client, two items with one id are an error
        found = self._closed("completed")
        self._told.add(call_id)
        call = self._calls[call_id] = self._new("function_call", "fc")
        call.call_id, call.name = call_id, name
        return [*found, self._added(call)]

    def _arguments(self, call_id: str, arguments: str) -> list[Object]:
        call = self._calls.get(call_id)
        if call is None:
            return []
        call.pieces.append(arguments)
        return [{"type": "response.function_call_arguments.delta", **call.about(), "delta": arguments}]

    def _called(self, called: ToolCall) -> list[Object]:
        found = self._begun(called.id, called.name)
        call = self._calls.get(called.id)
        if call is None:
            return []
        if not call.pieces and called.arguments:
            found += self._arguments(called.id, called.arguments)
        call.pieces = [called.arguments]
        call.name = called.name
        return [*found, *self._call_done(call, "completed")]

    def _call_done(self, call: _Item, status: str) -> list[Object]:
        del self._calls[call.call_id]
        done = {"name": call.name, "arguments": call.text}
        return [
            {"type": "response.function_call_arguments.done", **call.about(), **done},
            self._finished(call, status),
        ]


class OpenAIResponsesProtocol(FromBeginning):
    """Its arguments are ``ReaderProtocol``'s."""

    def __init__(self, opening: Opening, reading: Reading) -> None:
        super().__init__(opening, reading)
        self._kept = kept_of(opening.private)
        self._items = Items(self.message_id, opening.private)
        self._number = len(FIRST)  # of the next event
        self._delta = b""  # what a piece of the open message is put into
        self._take: Callable[[str], None] | None = None  # takes a piece of it

    def first(self) -> list[Shown]:
        """Return the beginning of the response."""
        opening = self.opening
        response = _response(
            self.message_id,
            opening.conversation_id,
            opening.created,
            str(self._kept.get("model") or ""),  # what answers may be known at the end only
            self._kept,
        )
        begun = {**response, "status": "in_progress"}
        # Numbered apart: a reader that polls is not given them with every page.
        return [
            Shown({"type": kind, "response": begun, "sequence_number": number}, self.cursor(0), kind)
            for number, kind in enumerate(FIRST)
        ]

    def events(self, first_seq: int, events: Sequence[Event]) -> bytes:
        """Return the entries as server-sent events."""
        take = self._take
        if take is not None and len(events) == 1 and isinstance(events[0], Text):
            # The most of what comes. Whoever has an open message here has all that was before it.
            text = events[0].text
            take(text)
            self.seq, number = first_seq, self._number
            self._number = number + 1
            return self._delta % (_encode(text), number)
        if not self.is_new(first_seq):
            return super().events(first_seq, events)
        # The hot path: text in an open message is one join and no dict.
        blocks: list[bytes] = []
        delta, number = self._delta, self._number
        for seq, event in enumerate(events, first_seq):
            if take is not None and isinstance(event, Text):
                take(event.text)
                blocks.append(delta % (_encode(event.text), number))
                number += 1
                continue
            self._number = number
            blocks.append(self._encode(self.objects(seq, [event])))
            number = self._number
            take = None
            message = self._items.open
            if message is not None and message.kind == "message":
                delta, take = _delta_of(message), message.pieces.append
        self.seq, self._number = first_seq + len(events) - 1, number
        self._delta, self._take = delta, take
        return b"".join(blocks)

    def entry(self, event: Event) -> list[Object]:
        """Return the events that an entry is."""
        return self._items.entry(event)

    def stored(self, message: Message) -> Iterator[Event]:
        """Yield the entries that a stored message alone tells to a client that makes every call it sees."""
        return entries_for_client(message)

    def end_objects(self, message: Message) -> list[Shown]:
        """Return what is missing, the ends of what is open, and the terminal event."""
        self.written = self._items.written()
        found = [each for event in self.missing(message) for each in self._items.entry(event)]
        status = status_of(message)
        found += self._items.close("completed" if status == "completed" else "incomplete")
        response = {**_ended(message, self._kept), "output": self._items.output()}
        found.append({"type": LAST.get(status, "response.incomplete"), "response": response})
        return self.shown(found, self.end_cursor(message))

    def failure_objects(self, seq: int, text: str, error_type: str) -> list[Shown]:
        """Return the failure of a response whose end could not be stored."""
        opening = self.opening
        found = self._items.close("incomplete")
        model = str(self._kept.get("model") or opening.model or "")
        response = _response(self.message_id, opening.conversation_id, opening.created, model, self._kept)
        failed = {"status": "failed", "error": {"code": "server_error", "message": text}}
        last = {**response, **failed, "output": self._items.output()}
        return self.shown([*found, {"type": "response.failed", "response": last}])

    def shown(self, objects: Iterable[Object], cursor: str | None = None) -> list[Shown]:
        """Return events with their cursors, names and numbers."""
        cursor = self.cursor(self.seq) if cursor is None else cursor
        found: list[Shown] = []
        for each in objects:
            found.append(Shown({**each, "sequence_number": self._number}, cursor, each["type"]))
            self._number += 1
        return found


def _delta_of(item: _Item) -> bytes:
    """Return the block of a piece of text, for its JSON and its number."""
    event = {"type": "response.output_text.delta", **item.about(), "logprobs": []}
    begin = _encode(event)[:-1].replace(b"%", b"%%")
    return b"event: response.output_text.delta\ndata: " + begin + b',"delta":%b,"sequence_number":%d}\n\n'


# ---- the response object ----


def status_of(message: Message) -> str:
    """Return OpenAI's word for how a reply stands."""
    if message.status not in TERMINAL:
        return "in_progress"
    if message.status == "completed":
        return "incomplete" if message.metadata.get("finish") in INCOMPLETE else "completed"
    return "cancelled" if message.status == "cancelled" else "failed"


def response_of(message: Message, private: Json) -> Object:
    """Return the response object as its stored message alone tells it."""
    kept, status = kept_of(private), status_of(message)
    if status == "in_progress":
        model = str(kept.get("model") or message.model or "")
        about = _response(message.id, message.conversation_id, microseconds(message.created_at), model, kept)
        about["status"] = status
    else:
        about = _ended(message, kept)
    return {**about, "output": output_items(message)}


def output_items(message: Message) -> list[Object]:
    """Return the items that a stored reply has brought, with the ids that its stream has."""
    items = Items(message.id, {})
    for event in entries_for_client(message):
        items.entry(event)
    status = status_of(message)
    items.close(status if status in ("completed", "in_progress") else "incomplete")
    return items.output()


def kept_of(private: Json) -> Json:
    """Return what is kept for the response object; nothing for a reply that another protocol started."""
    kept = private.get(KEPT)
    return kept if isinstance(kept, dict) else {}


def _response(message_id: str, conversation_id: str, created: int, model: str, kept: Json) -> Object:
    return {
        "id": RESPONSE + message_id,
        "object": "response",
        "created_at": created // 1_000_000,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "conversation": {"id": CONVERSATION + conversation_id},
        **{name: kept.get(name, default) for name, default in ECHOED.items()},
        "usage": None,
    }


def _ended(message: Message, kept: Json) -> Object:
    model = message.model or str(kept.get("model") or "")
    about = _response(message.id, message.conversation_id, microseconds(message.created_at), model, kept)
    status = about["status"] = status_of(message)
    if status == "completed" and message.completed_at is not None:
        about["completed_at"] = microseconds(message.completed_at) // 1_000_000
    if status == "incomplete":
        about["incomplete_details"] = {"reason": INCOMPLETE[message.metadata["finish"]]}
    if status == "failed":
        error = message.error or {}
        is_limit = message.metadata.get("status_code") == 429
        about["error"] = {
            "code": "rate_limit_exceeded" if is_limit else "server_error",
            "message": str(error.get("message", "The reply failed.")),
        }
    about["usage"] = _usage(message.usage)
    return about


def _usage(usage: Usage | None) -> Object | None:
    if usage is None or (usage.prompt_tokens is None and usage.completion_tokens is None):
        return None
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read or 0,
            "cache_write_tokens": usage.cache_write or 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": prompt + completion,
    }


def _annotation(url: str, title: str | None) -> Object:
    return {"type": "url_citation", "url": url, "title": title or "", "start_index": 0, "end_index": 0}
