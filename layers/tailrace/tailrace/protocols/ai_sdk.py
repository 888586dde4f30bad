"""The AI SDK's UI message stream (npm ``ai`` 5, 6 and 7): https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

Data-only events, and ``[DONE]`` after the last. A reply is one step of a UI message. A reply that goes on with the
results of tools which ran in the page is the next step of the same UI message: its ``start`` names the first reply, or
the page would show both.

``reset-step`` is known to version 7 alone. It comes only where a start asked for ``"fallback": "reset"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec

from tailrace.events import (
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
    ToolResult,
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

    # ---- what comes when ----

    def first(self) -> list[Shown]:
        """Return the beginning of the UI message, with the steps that the reader does not have."""
        found: list[Object] = [{"type": "start", "messageId": self._first_id}]
        for step in self.wants.get("earlier", ()):
            found.append({"type": "start-step"})
            for event in entries_of(step.reply):
                found += self.entry(event)
            found += self._close()
            found += [_output(each) for each in step.outputs]
            found.append({"type": "finish-step"})
            self.written = 0
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
                {"type": "finish-step"},
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
        """Return what a tool is that the provider ran. Of its input no more is known than that there was one."""
        found: list[Object] = []
        if result.id not in self._told:
            self._told.add(result.id)
            about: Object = {"toolCallId": result.id, "toolName": result.name, "providerExecuted": True}
            if result.id not in self._calls:
                self._calls.add(result.id)
                found.append({"type": "tool-input-start", **about})
            found.append({"type": "tool-input-available", **about, "input": {}})
        return [*found, {**_output(Output(result.id, result.result)), "providerExecuted": True}]

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
            if not (is_going_on and found and found[-1]["role"] == "assistant"):
                parts = []
                found.append({"id": message.id, "role": "assistant", "parts": parts})
            parts += [{"type": "step-start"}, *_answer_parts(message)]
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


def _answer_parts(message: Message) -> list[Object]:
    found: list[Object] = []
    sources = 0
    for event in entries_of(message):
        if isinstance(event, Text):
            found.append({"type": "text", "text": event.text, "state": "done"})
        elif isinstance(event, Reasoning):
            found.append({"type": "reasoning", "text": event.text, "state": "done"})
        elif isinstance(event, ToolCall):
            found.append(
                {
                    "type": f"tool-{event.name}",
                    "toolCallId": event.id,
                    "state": "input-available",
                    "input": value_of(event.arguments or "{}"),
                }
            )
        elif isinstance(event, ToolResult):
            output = {"state": "output-available", "output": value_of(event.result), "providerExecuted": True}
            for part in found:
                if part.get("toolCallId") == event.id:
                    part |= output
                    break
            else:
                about = {"type": f"tool-{event.name}", "toolCallId": event.id, "input": {}}
                found.append({**about, **output})
        elif isinstance(event, Citation) and event.url is not None:
            sources += 1
            source: Object = {"type": "source-url", "sourceId": f"source-{sources}", "url": event.url}
            found.append(source if event.title is None else {**source, "title": event.title})
    return found


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
