"""What travels: the events of a stream's log, and the frozen records readers get.

A *chunk* is what a provider sent; an *event* is one entry of a stream's log. Providers yield events,
the stream numbers them (``seq``, from 1, no gap), the log stores them, readers encode them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeGuard, TypeVar

import msgspec

Role = Literal["system", "user", "assistant", "tool_call", "tool_result"]
Status = Literal["pending", "streaming", "completed", "failed", "cancelled", "interrupted", "timed_out"]

Json = Mapping[str, Any]
"""A JSON object. ``Any`` because its values are the user's own; nothing here looks inside."""


class Silent(msgspec.Struct, frozen=True, gc=False):
    """What is no part of the answer's text: ``str()`` gives nothing, so that whoever prints what comes prints that."""

    def __str__(self) -> str:
        return ""


class Text(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text, never empty. ``str()`` gives the text."""

    text: str

    def __str__(self) -> str:
        return self.text


class Reasoning(Silent, frozen=True, gc=False):
    """A piece of the model's reasoning, never empty. Not part of the content."""

    text: str


TEXTS: Final = (Text, Reasoning)
"""What comes in pieces by the thousand. A tuple: ``isinstance`` with it costs half of what it does with a union."""


_ONLY_TEXT: Final = {Text}


def are_texts(events: Sequence[object]) -> TypeGuard[Sequence[Text]]:
    """Return whether there are events and all of them are text, as nearly always: then there is a shorter way with all
    of them together."""
    return {*map(type, events)} == _ONLY_TEXT


class ToolCall(Silent, frozen=True, gc=False):
    """A whole tool call: ``arguments`` is the JSON text the model wrote."""

    id: str
    name: str
    arguments: str


class ToolCallStart(Silent, frozen=True, gc=False):
    """The model began to write a tool call. Its arguments follow piece by piece, then the whole ``ToolCall``."""

    id: str
    name: str


class ToolCallDelta(Silent, frozen=True, gc=False):
    """A piece, never empty, of the JSON text of a tool call's arguments. ``id`` is the one its start had."""

    id: str
    arguments: str


class ToolResult(Silent, frozen=True, gc=False, omit_defaults=True):
    """What a tool returned, as JSON text. Among a provider's events it is of a tool that ran beside the model: at the
    provider, such as a web search, or here; in a prompt it is what the application's own tool returned.

    Attributes:
        is_error: whether it says why there is no result.
    """

    id: str
    name: str
    result: str
    is_error: bool = False


class ToolRun(Silent, frozen=True, gc=False):
    """A tool that runs here is about to be called, for the call of this id. It is in the log before the tool is
    called: where no result follows, nobody knows what the tool did."""

    id: str
    name: str


class ApprovalRequest(Silent, frozen=True, gc=False):
    """The call of this id waits until somebody allows it, or does not."""

    id: str


class Approval(Silent, frozen=True, gc=False):
    """Somebody has allowed the call of this id, or has not. Its result follows, of one that is not allowed too.

    Attributes:
        reason: their own words.
    """

    id: str
    is_approved: bool
    reason: str | None = None


class StepEnd(Silent, frozen=True, gc=False):
    """A step is over: the model has answered, and the tools that it called have run. The next step follows, unless the
    reply ends here."""


class Citation(Silent, frozen=True, gc=False):
    """A source that the model names for what it just wrote. None says that the provider did not tell."""

    url: str | None = None
    title: str | None = None
    quote: str | None = None


def _unknown() -> None:
    return None


class Usage(Silent, frozen=True, gc=False, omit_defaults=True):
    """Token counts. A later event's fields win over an earlier one's; None says nothing. They mean the same for all
    vendors.

    Attributes:
        prompt_tokens: of the whole prompt, with those that came from a cache or went into one.
        completion_tokens: of all that the model wrote, its reasoning and its tool calls among them.
        source: set at the end of a reply: whether the provider counted the completion, or we estimated it.
        cache_read: of the prompt's, those that came from the provider's cache.
        cache_write: of the prompt's, those that were put into it.
        reasoning: of the completion's, those of the reasoning.
    """

    # A default that msgspec does not omit: these three are always told, the others where they are known.
    prompt_tokens: int | None = msgspec.field(default_factory=_unknown)
    completion_tokens: int | None = msgspec.field(default_factory=_unknown)
    source: Literal["provider", "estimate"] | None = msgspec.field(default_factory=_unknown)
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None

    def over(self, earlier: Usage | None) -> Usage:
        """Return what is known after an earlier event and this one."""
        return _over(self, earlier)


class ProviderState(Silent, frozen=True, gc=False):
    """What the provider wants back with this answer in the next prompt, such as signed thoughts. Nobody else is sent
    it: neither a client nor another provider.

    Attributes:
        data: JSON text, for that provider's module.
    """

    provider: str
    data: str


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of a reply, as the next prompt needs it. It is stored with the message and shown to nobody.

    Attributes:
        length: how many characters of the reply's content are its text; the last step has all that is left.
        text: its text, where that is not in the content: of a step that another reply took.
        calls: of tools, but for those that the provider itself ran.
        results: of tools that ran here, or at an agent; of earlier calls too.
        state: what the provider wants back with it.
    """

    length: int | None = None
    text: str | None = None
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()
    state: ProviderState | None = None


class Attempt(Silent, frozen=True, gc=False):
    """A provider was asked in vain, and somebody is asked again.

    Attributes:
        provider, model: who was asked; the model is None where that provider's default was meant.
        error_type, status_code: how it failed.
        next_provider, next_model: who is asked now.
        streamed: whether it is asked for a streamed answer.
        detail: the provider's own words, never shown.
    """

    provider: str
    model: str | None
    error_type: str
    status_code: int | None
    next_provider: str
    next_model: str | None
    streamed: bool = True
    detail: str | None = None


class Reset(Silent, frozen=True, gc=False):
    """All text before this is void: another answer follows."""


class End(Silent, frozen=True, gc=False):
    """The terminal event. The message it ends carries the whole content."""

    status: Status
    error_type: str | None = None
    error: str | None = None


class ResponseInfo(Silent, frozen=True, gc=False):
    """What a provider says about its answer. It belongs to the message's end and is not an entry of
    the log; a later one's fields win, None says nothing.

    Attributes:
        model: the model that answered, as the provider names it.
        finish_reason: why it stopped, in lower case, as the provider means it.
        provider_request_id: what to quote to the provider's support.
    """

    model: str | None = None
    finish_reason: str | None = None
    provider_request_id: str | None = None

    def over(self, earlier: ResponseInfo | None) -> ResponseInfo:
        """Return what is known after an earlier event and this one."""
        return _over(self, earlier)


_Known = TypeVar("_Known", Usage, ResponseInfo)


def _over(later: _Known, earlier: _Known | None) -> _Known:
    if earlier is None:
        return later
    known = {name: value for name, value in msgspec.structs.asdict(later).items() if value is not None}
    return msgspec.structs.replace(earlier, **known)


Said = (
    Text
    | Reasoning
    | ToolCallStart
    | ToolCallDelta
    | ToolCall
    | ToolResult
    | Citation
    | Usage
    | ProviderState
    | StepEnd
)
"""What a provider says and the log keeps. One that runs steps of its own, an agent, says where they end."""

ProviderEvent = Said | ResponseInfo
"""What a provider yields."""

SourceEvent = ProviderEvent | Attempt | Reset | ToolRun | ApprovalRequest | Approval
"""What a reply is made from: a provider's events, what lies between two providers, and what happens to tools here."""

Event = Said | Attempt | Reset | ToolRun | ApprovalRequest | Approval | End
"""One entry of the log."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message as readers get it (docs/http.md).

    Attributes:
        seq: the last entry of its log that ``content`` includes; 0 for messages that were not streamed.
        metadata: what was given, and what the end of the stream added. ``private`` is not in it.
        error: ``{"type", "message"}`` when it did not complete, else None.
        created_at: UTC, RFC 3339 with microseconds.
    """

    id: str
    conversation_id: str
    role: Role
    content: str
    status: Status
    seq: int
    metadata: Json
    provider: str | None = None
    model: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    error: Json | None = None
    created_at: str
    completed_at: str | None = None

    @property
    def is_streaming(self) -> bool:
        """Whether it is still being written, or about to be."""
        return self.status in ("pending", "streaming")

    @property
    def is_completed(self) -> bool:
        """Whether it is whole. One that failed or was stopped is not."""
        return self.status == "completed"

    @property
    def is_failed(self) -> bool:
        """Whether it ended without being whole: failed, cancelled, interrupted or timed out."""
        return not self.is_streaming and not self.is_completed


class ConversationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as it is stored.

    Attributes:
        owner: whose it is; nobody else learns that it exists.
        system: the system prompt, which is never sent to a client.
        system_messages: the ids of its messages of that role, in no order.
        created, updated: microseconds since 1970.
    """

    id: str
    owner: str
    title: str | None = None
    system: str | None = None
    metadata: Json = msgspec.field(default_factory=dict)
    system_messages: tuple[str, ...] = ()
    created: int
    updated: int


TERMINAL: frozenset[Status] = frozenset({"completed", "failed", "cancelled", "interrupted", "timed_out"})
"""The states that never change."""

ENDED_BY_OTHERS: frozenset[Status] = frozenset({"cancelled", "interrupted"})
"""Those that somebody else than the writer may have given, who knows only what is in the log."""
