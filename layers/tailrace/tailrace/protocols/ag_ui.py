"""AG-UI 1.0, which CopilotKit and TanStack AI speak too: a run's events, and stored messages as its clients have them.

Types as in the packages npm ``@ag-ui/core`` and PyPI ``ag-ui-protocol`` 1.0.0; what may follow what, and what a client
makes of it, as in ``@ag-ui/client`` 1.0.0 (``verifyEvents``, ``defaultApplyEvents``). Deliberate oddities:

- One reply may be several messages of the page: a text after a tool call, or after reasoning, has a message of its own.
  The first has the reply's id, the others that id with ``.2``, ``.3``: so whoever sends them back tells whose they are.
- The wire cannot take text back. After a ``Reset`` comes a ``MESSAGES_SNAPSHOT`` of what the page sent with its run.
- A reply that waits for a yes ends as an interrupt for each call; whoever resumes it sends the answers.
- A page that lost its connection has half an answer, and sends it along when it posts its run again. What is replayed
  would be appended to that, so the replay begins with such a snapshot too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from tailrace.events import (
    Citation,
    Event,
    Message,
    Reasoning,
    Reset,
    StepEnd,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    Usage,
)
from tailrace.protocols.from_beginning import FromBeginning
from tailrace.protocols.reader import ENDED_EARLY, Object, Opening, Reading, Shown
from tailrace.protocols.stored import calls_of, outputs_of, page_id_of

NAME: Final = "ag_ui"
"""Of the protocol, and of where the ids of thread and run lie in the private metadata of a reply."""

OURS: Final = re.compile(r"([A-Za-z0-9_-]{47})(\..*)?", re.DOTALL)
"""An id that the protocol gave to a message: that of the reply, 35 bytes as base64, and what comes after it."""

_encode = msgspec.json.Encoder().encode


class AgUiProtocol(FromBeginning):
    """A reply as the run of an agent; its arguments are ``ReaderProtocol``'s.

    ``Reading.wants`` may have ``threadId`` and ``runId``, ``messages``, those that the page sent, ``snapshot``, those
    that are stored, which are shown first, and ``inputs``, the names of the tools that TanStack AI is told to run.
    """

    def __init__(self, opening: Opening, reading: Reading) -> None:
        super().__init__(opening, reading)
        known = opening.private.get(NAME)
        run = {**(known if isinstance(known, dict) else {}), **self.wants}
        self._run = {
            "threadId": str(run.get("threadId") or opening.conversation_id),
            "runId": str(run.get("runId") or self.message_id),
        }
        self._is_first = "continues" in opening.metadata  # it begins with the calls of an earlier reply
        self._begin_answer()

    def _begin_answer(self) -> None:
        self._step = 1
        self._in_step = False  # one that is told: the first is not
        self._message = 1  # which of the reply's messages
        self._is_used = False  # it has had text, or a tool call
        self._text: str | None = None  # the id of the message whose text is open
        self._reasoning: str | None = None  # likewise
        self._calls: dict[str, str] = {}  # the open tool calls, with what was shown of their arguments
        self._called: set[str] = set()
        self._results = 0
        self._reasonings = 0
        self.written = 0
        self.around = None

    def first(self) -> list[Shown]:
        """Return the start of the run, and the messages that the page is to have before it."""
        found: list[Object] = [{"type": "RUN_STARTED", **self._run}]
        if isinstance(snapshot := self.wants.get("snapshot"), list):
            found.append({"type": "MESSAGES_SNAPSHOT", "messages": snapshot})
        elif any(self._is_own(each) for each in self._sent()):
            found.append(self._without_answer())
        return self.shown(found)

    def end_objects(self, message: Message) -> list[Shown]:
        """Return what of the answer was not shown, the ends of all that is open, and the end of the run."""
        found = [each for event in self.missing(message) for each in self.entry(event)]
        found += [*self._close(), *self._close_step()]
        usage = usage_of(message)
        waiting = message.metadata.get("approvals")
        if message.status == "completed" and waiting:
            outcome = {"type": "interrupt", "interrupts": [_interrupt(str(each)) for each in waiting]}
            found.append({"type": "RUN_FINISHED", **self._run, "outcome": outcome, **usage})
        elif message.status == "completed":
            found.append({"type": "RUN_FINISHED", **self._run, **usage})
        elif message.status == "cancelled":
            found.append({"type": "RUN_FINISHED", **self._run, "outcome": {"type": "cancelled"}, **usage})
        else:
            error = message.error or {}
            text = str(error.get("message", ENDED_EARLY))
            found.append(_failure(text, str(error.get("type", "general_error"))))
        return self.shown(found, self.end_cursor(message))

    def finished(self) -> bytes:
        """Return the end of a run in which nothing happens, as server-sent events."""
        return self._encode(self.shown([{"type": "RUN_FINISHED", **self._run}]))

    def failure_objects(self, seq: int, text: str, error_type: str) -> list[Shown]:
        """Return the ends of all that is open, and the error that ends the run."""
        return self.shown([*self._close(), *self._close_step(), _failure(text, error_type)])

    # ---- entries ----

    def entry(self, event: Event) -> list[Object]:
        """Return the events that an entry is."""
        if isinstance(event, StepEnd):
            found = [*self._close(), *self._close_step()]
            self._step += 1
            self._is_first = False
            return found
        found = self._objects(event)
        if found and self._step > 1 and not self._in_step:
            self._in_step = True
            return [{"type": "STEP_STARTED", "stepName": str(self._step)}, *found]
        return found

    def _objects(self, event: Event) -> list[Object]:
        if isinstance(event, Text):
            return self._text_objects(event.text)
        if isinstance(event, Reasoning):
            return self._reasoning_objects(event.text)
        if isinstance(event, ToolCallStart):
            return self._start_call(event.id, event.name)
        if isinstance(event, ToolCallDelta):
            return self._arguments(event.id, event.arguments) if event.id in self._calls else []
        if isinstance(event, ToolCall):
            return self._call(event)
        if isinstance(event, ToolResult):
            return self._result(event)
        if isinstance(event, Citation):
            value = {name: told for name, told in msgspec.structs.asdict(event).items() if told is not None}
            return [{"type": "CUSTOM", "name": "citation", "value": value}]
        if isinstance(event, Reset):
            return self._reset()
        return []

    def _text_objects(self, text: str) -> list[Object]:
        found: list[Object] = []
        if self._text is None:
            found += self._close_reasoning()
            if self._is_used:
                self._message += 1
            self._is_used = True
            self._text = self._id()
            begin = b'data: {"type":"TEXT_MESSAGE_CONTENT","messageId":%b,"delta":' % _encode(self._text)
            self.around = begin, b"}\n\n"
            found.append({"type": "TEXT_MESSAGE_START", "messageId": self._text, "role": "assistant"})
        self.written += len(text)
        found.append({"type": "TEXT_MESSAGE_CONTENT", "messageId": self._text, "delta": text})
        return found

    def _reasoning_objects(self, text: str) -> list[Object]:
        found: list[Object] = []
        if self._reasoning is None:
            found += self._close_text()
            self._reasonings += 1
            self._reasoning = self._reasoning_id()
            found.append({"type": "REASONING_START", "messageId": self._reasoning})
            found.append({"type": "REASONING_MESSAGE_START", "messageId": self._reasoning, "role": "reasoning"})
        found.append({"type": "REASONING_MESSAGE_CONTENT", "messageId": self._reasoning, "delta": text})
        return found

    def _start_call(self, call_id: str, name: str) -> list[Object]:
        if call_id in self._called:
            return []
        found = [*self._close_reasoning(), *self._close_text()]
        self._called.add(call_id)
        self._calls[call_id] = ""
        self._is_used = True
        found.append(
            {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": name, "parentMessageId": self._id()}
        )
        return found

    def _arguments(self, call_id: str, text: str) -> list[Object]:
        if not text:
            return []
        self._calls[call_id] += text
        return [{"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": text}]

    def _call(self, call: ToolCall) -> list[Object]:
        found = self._start_call(call.id, call.name)
        shown = self._calls.get(call.id)
        if shown is None:  # it was told before
            return found
        if call.arguments.startswith(shown):
            found += self._arguments(call.id, call.arguments[len(shown) :])
        return [*found, *self._end_call(call.id), *self._input(call)]

    def _input(self, call: ToolCall) -> list[Object]:
        """Return what makes TanStack AI run a tool of its page; other clients are not told."""
        if call.name not in self.wants.get("inputs", ()):
            return []
        try:
            arguments = msgspec.json.decode(call.arguments or "{}")
        except (msgspec.DecodeError, RecursionError):
            return []
        value = {"toolCallId": call.id, "toolName": call.name, "input": arguments}
        return [{"type": "CUSTOM", "name": "tool-input-available", "value": value}]

    def _end_call(self, call_id: str) -> list[Object]:
        del self._calls[call_id]
        return [{"type": "TOOL_CALL_END", "toolCallId": call_id}]

    def _result(self, result: ToolResult) -> list[Object]:
        if (
            result.id not in self._called and not self._is_first
        ):  # a client drops the result of a call that it does not know
            return []
        found = self._end_call(result.id) if result.id in self._calls else []
        found += self._close_text()
        self._results += 1
        return [
            *found,
            {
                "type": "TOOL_CALL_RESULT",
                "messageId": f"{self.message_id}.result.{self._results}",
                "toolCallId": result.id,
                "content": result.result,
                "role": "tool",
            },
        ]

    def _reset(self) -> list[Object]:
        is_void = bool(self._text or self._is_used or self._reasonings)
        found = [*self._close(), *self._close_step()]
        reasonings = self._reasonings
        self._begin_answer()
        return [*found, self._without_answer(reasonings)] if is_void else found

    # ---- what is open ----

    def _close(self) -> list[Object]:
        ends = [*self._close_reasoning(), *self._close_text()]
        for call_id in [*self._calls]:
            ends += self._end_call(call_id)
        return ends

    def _close_step(self) -> list[Object]:
        was_in_step, self._in_step = self._in_step, False
        return [{"type": "STEP_FINISHED", "stepName": str(self._step)}] if was_in_step else []

    def _close_text(self) -> list[Object]:
        if self._text is None:
            return []
        message_id, self._text, self.around = self._text, None, None
        return [{"type": "TEXT_MESSAGE_END", "messageId": message_id}]

    def _close_reasoning(self) -> list[Object]:
        if self._reasoning is None:
            return []
        message_id, self._reasoning = self._reasoning, None
        return [
            {"type": "REASONING_MESSAGE_END", "messageId": message_id},
            {"type": "REASONING_END", "messageId": message_id},
        ]

    def _id(self) -> str:
        return self.message_id if self._message == 1 else f"{self.message_id}.{self._message}"

    def _reasoning_id(self) -> str:
        return f"{self.message_id}.reasoning.{self._reasonings}"

    # ---- what the page has ----

    def _sent(self) -> list[Object]:
        messages = self.wants.get("snapshot", self.wants.get("messages"))
        return [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []

    def _is_own(self, message: Object) -> bool:
        return reply_of(message.get("id")) == self.message_id

    def _without_answer(self, reasonings: int = 0) -> Object:
        """Return a snapshot of what the page has without this answer.

        A client keeps reasoning that a snapshot without any leaves out, so what is void of that is emptied.
        """
        sent = self._sent()
        void = dict.fromkeys(f"{self.message_id}.reasoning.{number}" for number in range(1, reasonings + 1))
        void |= dict.fromkeys(each["id"] for each in sent if self._is_own(each) and each.get("role") == "reasoning")
        messages = [each for each in sent if not self._is_own(each)]
        messages += [{"id": each, "role": "reasoning", "content": ""} for each in void]
        return {"type": "MESSAGES_SNAPSHOT", "messages": messages}


def reply_of(message_id: Any) -> str | None:
    """Return the id of the reply that a message of a page is of, or None if the id is not one that we gave."""
    found = OURS.fullmatch(message_id) if isinstance(message_id, str) else None
    return found and found[1]


def usage_of(message: Message) -> Object:
    """Return the tokens of a reply as a run's end has them, under ``usage``; nothing if none are known."""
    usage = message.usage or Usage()
    counts = (usage.prompt_tokens, usage.completion_tokens)
    told = {
        "provider": message.provider,
        "model": message.model,
        "inputTokens": usage.prompt_tokens,
        "outputTokens": usage.completion_tokens,
        "totalTokens": None if None in counts else sum(count or 0 for count in counts),
        "reasoningTokens": usage.reasoning,
        "cachedInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
    }
    known = {name: value for name, value in told.items() if value is not None}
    return {"usage": [known]} if message.usage is not None else {}


APPROVAL: Final = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}
"""What a page answers to an interrupt."""


def _interrupt(call_id: str) -> Object:
    return {
        "id": call_id,
        "reason": "tool_approval",
        "message": "A tool waits for a yes or a no.",
        "toolCallId": call_id,
        "responseSchema": APPROVAL,
    }


def _failure(text: str, error_type: str) -> Object:
    return {"type": "RUN_ERROR", "message": text, "code": error_type}


# ---- stored messages ----


def messages_of(history: Iterable[Message]) -> list[Object]:
    """Return stored messages as a page has them, without system prompts."""
    found: list[Object] = []
    for message in history:
        if message.role == "user":
            found.append({"id": page_id_of(message), "role": "user", "content": _user_content(message)})
        elif message.role == "assistant":
            found += _answer(message)
        elif message.role == "tool_result":
            found += _results(message)
        elif message.role == "tool_call":
            calls = [_call_object(each.id, each.name, each.arguments) for each in calls_of(message).values()]
            found.append({"id": message.id, "role": "assistant", "toolCalls": calls})
    return found


def _user_content(message: Message) -> Any:
    parts = message.metadata.get("parts")
    if not isinstance(parts, list):
        return message.content
    content: list[Object] = [{"type": "text", "text": message.content}] if message.content else []
    for part in parts:
        kind = {"image": "image", "file": "document"}.get(part.get("type"))
        if kind is None:
            continue
        media_type = part.get("media_type") or None
        if part.get("url"):
            source = {"type": "url", "value": part["url"], **({"mimeType": media_type} if media_type else {})}
        else:
            source = {"type": "data", "value": part.get("data", ""), "mimeType": media_type or ""}
        content.append({"type": kind, "source": source})
    return content


def _answer(message: Message) -> list[Object]:
    """Return what a client makes of the events of a reply."""
    encoder = AgUiProtocol(
        Opening(message_id=message.id, conversation_id=message.conversation_id, metadata=message.metadata),
        Reading(monotonic=float),
    )
    found: dict[str, Object] = {}
    for shown in encoder.end_objects(message):
        event = shown.data
        kind = event["type"]
        if kind == "TEXT_MESSAGE_START":
            found.setdefault(event["messageId"], {"id": event["messageId"], "role": "assistant"})["content"] = ""
        elif kind == "REASONING_MESSAGE_START":
            found[event["messageId"]] = {"id": event["messageId"], "role": "reasoning", "content": ""}
        elif kind in ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"):
            found[event["messageId"]]["content"] += event["delta"]
        elif kind == "TOOL_CALL_START":
            parent = event["parentMessageId"]
            owner = found.setdefault(parent, {"id": parent, "role": "assistant"})
            owner.setdefault("toolCalls", []).append(_call_object(event["toolCallId"], event["toolCallName"], ""))
        elif kind == "TOOL_CALL_ARGS":
            calls = [call for each in found.values() for call in each.get("toolCalls", ())]
            next(call for call in calls if call["id"] == event["toolCallId"])["function"]["arguments"] += event["delta"]
        elif kind == "TOOL_CALL_RESULT":
            found[event["messageId"]] = {
                "id": event["messageId"],
                "role": "tool",
                "toolCallId": event["toolCallId"],
                "content": event["content"],
            }
    return [*found.values()]


def _results(message: Message) -> list[Object]:
    found = outputs_of(message)
    page_id = page_id_of(message)
    return [
        {
            "id": page_id if len(found) == 1 else f"{message.id}.{number}",
            "role": "tool",
            "toolCallId": each.id,
            "content": each.text,
        }
        for number, each in enumerate(found, 1)
    ]


def _call_object(call_id: str, name: str, arguments: str) -> Object:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
