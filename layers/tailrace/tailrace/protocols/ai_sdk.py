"""The AI SDK's UI message stream (npm ``ai`` 5, 6 and 7): https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

Data-only events, and ``[DONE]`` after the last. A reply is a UI message, and its steps are that message's. A reply that
goes on with another, with the results of tools which ran in the page or with what somebody allowed, has the next steps
of the same UI message: its ``start`` names the first reply, or the page would show both.

``reset-step`` is known to version 7 alone. It comes only where a start asked for ``"fallback": "reset"``. Version 5
knows no approvals, which come only where a tool asks for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec

from tailrace.events import (
    Approval,
    ApprovalRequest,
    Citation,
    Event,
    Json,
    Message,
    Reasoning,
    Reset,
    StepEnd,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    ToolRun,
)
from tailrace.protocols.from_beginning import FromBeginning
from tailrace.protocols.reader import Object, Opening, Reading, Shown
from tailrace.protocols.stored import Output, entries_of, outputs_of, page_id_of, value_of

NAME: Final = "ai_sdk"
"""Of the protocol, and of what it keeps in the private metadata of a reply."""

HEADER: Final = (b"x-vercel-ai-ui-message-stream", b"v1")

FINISH: Final = {"tool_calls": "tool-calls", "content_filter": "content-filter"}
"""Our words for why an answer ended, where the AI SDK's differ."""


class Step(msgspec.Struct, frozen=True):
    """An earlier step of the same UI message: its reply, and what the tools of the page returned."""

    reply: Message
    outputs: Sequence[Output] = ()


class AiSdkProtocol(FromBeginning):
    """Its arguments are ``ReaderProtocol``'s. ``wants`` may have ``earlier``: the steps before this reply, for a reader
    that has none of them; and ``is_run``: the reader asks for more until it has a ``finish``."""

    headers: ClassVar[Sequence[tuple[bytes, bytes]]] = (HEADER,)
    trailer: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(self, opening: Opening, reading: Reading) -> None:
        super().__init__(opening, reading)
        kept = opening.private.get(NAME)
        self._first_id = str(kept["message_id"]) if isinstance(kept, dict) and "message_id" in kept else self.message_id
        self._open: str | None = None  # "text" or "reasoning"
        self._part = 0  # the number of the part that is open, or was last
        self._sources = 0
        self._calls: set[str] = set()  # whose input was begun
        self._told: set[str] = set()  # whose input is whole
        self._here: set[str] = set()  # that run here
        self._denied: set[str] = set()
        self._in_step = False
        self._is_first = "continues" in opening.metadata  # it begins with the calls of an earlier reply

    # ---- what comes when ----

    def first(self) -> list[Shown]:
        """Return the beginning of the UI message, with the steps that the reader does not have."""
        found: list[Object] = [{"type": "start", "messageId": self._first_id}]
        for step in self.wants.get("earlier", ()):
            found.append({"type": "start-step"})
            self._in_step = True
            for event in entries_of(step.reply):
                found += self.entry(event)
            found += self._close()
            found += [_output(each) for each in step.outputs]
            if self._in_step:
                found.append({"type": "finish-step"})
            self.written = 0
        self._in_step = not self._is_first
        if self._in_step:
            found.append({"type": "start-step"})
        return self.shown(found)

    def end_objects(self, message: Message) -> list[Shown]:
        """Return what is missing, the end of the step, and the end."""
        found = [each for event in self.missing(message) for each in self.entry(event)]
        found += self._close()
        if message.status == "completed":
            finish = str(message.metadata.get("finish", "stop"))
            about = {name: value for name, value in _about(message).items() if value is not None}
            found += [
                *([{"type": "finish-step"}] if self._in_step else []),
                {"type": "finish", "finishReason": FINISH.get(finish, finish), "messageMetadata": about},
            ]
        elif message.status == "cancelled":
            found.append({"type": "abort"})
        else:
            found.append({"type": "error", "errorText": (message.error or {}).get("message", "The reply failed.")})
        return self.shown(found, self.end_cursor(message))

    def end(self, message: Message) -> bytes:
        """Return the end. A run's reader that has all of an answer which was stopped, or failed, is told to leave."""
        shown = self.end_objects(message)
        if self.wants.get("is_run") and message.status != "completed" and self._skip >= len(shown):
            self._skip = 0
            shown = [Shown({"type": "finish"}, self.end_cursor(message))]
        return self._encode(shown) + self.trailer

    def failure_objects(self, seq: int, text: str, error_type: str) -> list[Shown]:
        """Return the failure."""
        return self.shown([*self._close(), {"type": "error", "errorText": text}])

    # ---- one entry ----

    def entry(self, event: Event) -> list[Object]:
        """Return the chunks of a UI message stream that an entry is."""
        if isinstance(event, StepEnd):
            found = [*self._close(), *([{"type": "finish-step"}] if self._in_step else [])]
            self._in_step = self._is_first = False
            return found
        if isinstance(event, ToolRun):
            self._here.add(event.id)
        found = self._chunks(event)
        if found and not self._in_step and not self._is_first:
            self._in_step = True
            return [{"type": "start-step"}, *found]
        return found

    def _chunks(self, event: Event) -> list[Object]:
        if isinstance(event, Text):
            return self._text(event.text)
        if isinstance(event, Reasoning):
            return [*self._opened("reasoning"), self._piece("reasoning", event.text)]
        if isinstance(event, ToolCallStart):
            return [*self._close(), *self._begun(event.id, event.name)]
        if isinstance(event, ToolCallDelta):
            if event.id not in self._calls or event.id in self._told:
                return []
            return [{"type": "tool-input-delta", "toolCallId": event.id, "inputTextDelta": event.arguments}]
        if isinstance(event, ToolCall):
            return [*self._close(), *self._called(event)]
        if isinstance(event, ToolResult):
            return [*self._close(), *self._returned(event)]
        if isinstance(event, Citation):
            return self._source(event)
        if isinstance(event, ApprovalRequest):
            return [*self._close(), {"type": "tool-approval-request", "approvalId": event.id, "toolCallId": event.id}]
        if isinstance(event, Approval) and not event.is_approved:
            self._denied.add(event.id)
            return [{"type": "tool-output-denied", "toolCallId": event.id}]
        if isinstance(event, Reset):
            return self._reset()
        return []

    def _text(self, text: str) -> list[Object]:
        self.written += len(text)
        found = [*self._opened("text"), self._piece("text", text)]
        if self.progress is not None:
            counts = self.progress.count(text, self.monotonic())
            found.append({"type": "data-progress", "data": counts, "transient": True})
        return found

    def _piece(self, kind: str, text: str) -> Object:
        return {"type": f"{kind}-delta", "id": str(self._part), "delta": text}

    def _opened(self, kind: str) -> list[Object]:
        if self._open == kind:
            return []
        found = self._close()
        self._part += 1
        self._open = kind
        if kind == "text" and self.progress is None:
            self.around = b'data: {"type":"text-delta","id":"%d","delta":' % self._part, b"}\n\n"
        return [*found, {"type": f"{kind}-start", "id": str(self._part)}]

    def _close(self) -> list[Object]:
        if self._open is None:
            return []
        kind, self._open, self.around = self._open, None, None
        return [{"type": f"{kind}-end", "id": str(self._part)}]

    def _begun(self, call_id: str, name: str) -> list[Object]:
        if call_id in self._calls:
            return []
        self._calls.add(call_id)
        return [{"type": "tool-input-start", "toolCallId": call_id, "toolName": name}]

    def _called(self, call: ToolCall) -> list[Object]:
        if call.id in self._told:
            return []
        self._calls.add(call.id)
        self._told.add(call.id)
        about: Object = {"toolCallId": call.id, "toolName": call.name}
        try:
            return [{"type": "tool-input-available", **about, "input": msgspec.json.decode(call.arguments or "{}")}]
        except msgspec.DecodeError:
            problem = "The arguments are not JSON."
            return [{"type": "tool-input-error", **about, "input": call.arguments, "errorText": problem}]

    def _returned(self, result: ToolResult) -> list[Object]:
        """Return what a tool returned that ran here, or what one is that the provider ran: of its input no more may be
        known than that there was one."""
        output = _output(Output(result.id, result.result, result.is_error))
        if result.id in self._denied:
            return []
        if result.id in self._here or self._is_first:
            return [output]
        found: list[Object] = []
        if result.id not in self._told:
            self._told.add(result.id)
            about: Object = {"toolCallId": result.id, "toolName": result.name, "providerExecuted": True}
            if result.id not in self._calls:
                self._calls.add(result.id)
                found.append({"type": "tool-input-start", **about})
            found.append({"type": "tool-input-available", **about, "input": {}})
        return [*found, {**output, "providerExecuted": True}]

    def _source(self, citation: Citation) -> list[Object]:
        if citation.url is None:
            return []
        self._sources += 1
        about = {"sourceId": f"source-{self._sources}", "url": citation.url}
        return [{"type": "source-url", **about, **({} if citation.title is None else {"title": citation.title})}]

    def _reset(self) -> list[Object]:
        self._open = self.around = None
        self.written = 0
        self._calls.clear()
        self._told.clear()
        if self.progress is not None:
            self.progress.reset()
        return [{"type": "reset-step"}]


def _output(output: Output) -> Object:
    if output.is_error:
        return {"type": "tool-output-error", "toolCallId": output.id, "errorText": output.text}
    return {"type": "tool-output-available", "toolCallId": output.id, "output": value_of(output.text)}


def _about(message: Message) -> Json:
    usage = message.usage
    return {
        "model": message.model,
        "provider": message.provider,
        "usage": None if usage is None else msgspec.to_builtins(usage),
    }


# ---- stored messages as UI messages ----


def ui_messages(messages: Sequence[Message]) -> list[Object]:
    """Return stored messages as a page has them: an answer and those that went on with it are one."""
    found: list[Object] = []
    parts: list[Object] = []
    is_going_on = False  # the results of tools came last
    for message in messages:
        if message.role == "user":
            found.append({"id": page_id_of(message), "role": "user", "parts": user_parts(message)})
            is_going_on = False
        elif message.role == "assistant":
            is_going_on |= "continues" in message.metadata
            if not (is_going_on and found and found[-1]["role"] == "assistant"):
                parts = []
                found.append({"id": message.id, "role": "assistant", "parts": parts})
            _add_parts(parts, message)
            about = {name: value for name, value in _about(message).items() if value is not None}
            found[-1]["metadata"] = about
            is_going_on = False
        elif message.role == "tool_result" and found and found[-1]["role"] == "assistant":
            for output in outputs_of(message):
                for part in parts:
                    if part.get("toolCallId") == output.id and part["state"] == "input-available":
                        part |= (
                            {"state": "output-error", "errorText": output.text}
                            if output.is_error
                            else {"state": "output-available", "output": value_of(output.text)}
                        )
            is_going_on = True
    return found


def _add_parts(parts: list[Object], message: Message) -> None:
    """Add what a reply has, step by step, to the parts of its UI message; what its tools returned for an earlier reply
    goes to the calls there."""
    sources = 0
    in_step = False
    denied: set[str] = set()

    def add(part: Object) -> None:
        nonlocal in_step
        if not in_step:
            parts.append({"type": "step-start"})
            in_step = True
        parts.append(part)

    is_here = False
    for event in entries_of(message):
        if isinstance(event, StepEnd):
            in_step = False
        elif isinstance(event, Text):
            add({"type": "text", "text": event.text, "state": "done"})
        elif isinstance(event, Reasoning):
            add({"type": "reasoning", "text": event.text, "state": "done"})
        elif isinstance(event, ToolCall):
            about = {"type": f"tool-{event.name}", "toolCallId": event.id, "state": "input-available"}
            add({**about, "input": value_of(event.arguments or "{}")})
        elif isinstance(event, ToolRun):
            is_here = True
        elif isinstance(event, Approval):
            denied.add(event.id)
        elif isinstance(event, ToolResult):
            output = _stored_output(event, is_here=is_here, is_denied=event.id in denied)
            is_here = False
            part = next((part for part in reversed(parts) if part.get("toolCallId") == event.id), None)
            if part is None:
                add({"type": f"tool-{event.name}", "toolCallId": event.id, "input": {}, **output})
            else:
                part |= output
        elif isinstance(event, Citation) and event.url is not None:
            sources += 1
            source: Object = {"type": "source-url", "sourceId": f"source-{sources}", "url": event.url}
            add(source if event.title is None else {**source, "title": event.title})
    for call_id in message.metadata.get("approvals") or ():
        for part in parts:
            if part.get("toolCallId") == call_id:
                part |= {"state": "approval-requested", "approval": {"id": call_id}}


def _stored_output(result: ToolResult, *, is_here: bool, is_denied: bool) -> Object:
    if is_denied:
        return {"state": "output-denied", "approval": {"id": result.id, "approved": False}}
    ran = {} if is_here else {"providerExecuted": True}
    if result.is_error:
        return {"state": "output-error", "errorText": result.result, **ran}
    return {"state": "output-available", "output": value_of(result.result), **ran}


def user_parts(message: Message) -> list[Object]:
    """Return what the user said as the parts of a UI message."""
    found: list[Object] = [{"type": "text", "text": message.content}] if message.content else []
    for part in message.metadata.get("parts") or ():
        media_type = part.get("media_type") or (
            "image/*" if part.get("type") == "image" else "application/octet-stream"
        )
        url = part.get("url") or f"data:{media_type};base64,{part.get('data', '')}"
        file: Object = {"type": "file", "mediaType": media_type, "url": url}
        found.append({**file, "filename": part["name"]} if part.get("name") else file)
    return found
