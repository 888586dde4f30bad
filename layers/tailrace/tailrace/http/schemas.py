"""The bodies of the JSON routes, for validation and for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tailrace.clock import rfc3339
from tailrace.events import ConversationRecord, Role, Status
from tailrace.identity.grants import LONGEST, SHORTEST, Right
from tailrace.store import Grant

Metadata = dict[str, Any]


class NewConversation(BaseModel):
    """A conversation to create."""

    model_config = ConfigDict(strict=True, extra="forbid")

    title: str | None = Field(None, max_length=1000)
    system: str | None = Field(None, description="The system prompt of every reply. Never sent back.")
    metadata: Metadata = Field(default_factory=dict)


class ConversationChange(BaseModel):
    """What to change in a conversation; what is absent stays."""

    model_config = ConfigDict(strict=True, extra="forbid")

    title: str | None = Field(None, max_length=1000)
    metadata: Metadata | None = None


class MessageIn(BaseModel):
    """A whole message to add. System prompts are given when the conversation is created."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["user", "assistant", "tool_call", "tool_result"]
    content: str
    metadata: Metadata = Field(default_factory=dict, description='What is under "private" is stored and never sent.')


class ConversationOut(BaseModel):
    """A conversation."""

    id: str
    title: str | None
    metadata: Metadata
    created_at: str
    updated_at: str


class ConversationList(BaseModel):
    """A page of conversations."""

    conversations: list[ConversationOut]
    next_cursor: str | None


class UsageOut(BaseModel):
    """Token counts."""

    prompt_tokens: int | None
    completion_tokens: int | None
    source: Literal["provider", "estimate"] | None = Field(
        description="Whether the provider counted the completion or we estimated it, for a reply that was cut."
    )
    cache_read: int | None = Field(None, description="Of the prompt's tokens those from a cache, if known.")
    cache_write: int | None = Field(None, description="Of the prompt's tokens those put into it, if known.")
    reasoning: int | None = Field(None, description="Of the completion's tokens those of the reasoning, if known.")


class ErrorOut(BaseModel):
    """What went wrong."""

    type: str | None
    message: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is no success. A whole reply that failed has its message beside."""

    error: ErrorOut


class MessageOut(BaseModel):
    """A message."""

    id: str
    conversation_id: str
    role: Role
    content: str
    status: Status
    seq: int = Field(description="The last entry of its log that the content includes; 0 when it was not streamed.")
    metadata: Metadata
    provider: str | None
    model: str | None
    usage: UsageOut | None
    finish_reason: str | None
    error: ErrorOut | None
    created_at: str
    completed_at: str | None
    truncated: bool = Field(False, description="There, and true, where the content was left out for its length.")


class MessageList(BaseModel):
    """A page of messages."""

    messages: list[MessageOut]
    next_cursor: str | None


class GrantIn(BaseModel):
    """What somebody else is to be let do."""

    model_config = ConfigDict(strict=True, extra="forbid")

    right: Right = Field("read", description="Writing is reading, starting replies, adding messages and stopping too.")
    message_id: str | None = Field(None, description="The only message that it is for; else all of the conversation.")
    owner: str | None = Field(
        None, min_length=1, max_length=1000, description="Another owner, who may read with a token of their own."
    )
    expires_in: int | None = Field(
        None, ge=SHORTEST, le=LONGEST, description="Seconds; an hour, or with an owner until it is revoked."
    )


class GrantOut(BaseModel):
    """What somebody else may do."""

    id: str
    right: Right
    conversation_id: str
    message_id: str | None
    owner: str | None = Field(description="The other owner; null where it is for whoever has the token.")
    created_at: str
    expires_at: str | None


class NewGrantOut(GrantOut):
    """The same, with its token."""

    token: str | None = Field(None, description="Shown this once; there is none with an owner.")


class GrantList(BaseModel):
    """The grants of a conversation that have not expired, the oldest first."""

    grants: list[GrantOut]


def grant_out(grant: Grant) -> dict[str, Any]:
    """Return a grant as its owner may see it."""
    return {
        "id": grant.id,
        "right": grant.right,
        "conversation_id": grant.conversation,
        "message_id": grant.message,
        "owner": grant.reader,
        "created_at": rfc3339(grant.created),
        "expires_at": None if grant.expires is None else rfc3339(grant.expires * 1_000_000),
    }


class ChannelAuthIn(BaseModel):
    """Who wants to subscribe to what; as JSON or as a form."""

    socket_id: str
    channel_name: str


class ChannelAuth(BaseModel):
    """What lets the socket in."""

    auth: str
    channel_data: str | None = Field(None, description="Of a presence channel: who it is, as JSON text.")


def channel_auth_request() -> dict[str, Any]:
    """Return the description of a body that FastAPI does not read itself: for forms it wants another package."""
    schema = ChannelAuthIn.model_json_schema()
    content = {kind: {"schema": schema} for kind in ("application/json", "application/x-www-form-urlencoded")}
    return {"required": True, "content": content}


class TimeToFirstChunkOut(BaseModel):
    """Seconds from a reply's start to its first chunk."""

    mean: float
    longest: float


class ReportOut(BaseModel):
    """What replies came to."""

    replies: int = Field(description="How many were started.")
    open: int = Field(description="Those of them that are still being written; nothing else here counts them.")
    completed: int
    failures: dict[str, int] = Field(description="How many others there are of each error type.")
    chunks: int
    prompt_tokens: int
    completion_tokens: int
    cache_read: int
    cache_write: int
    reasoning: int
    estimated: int = Field(description="Of how many replies the completion tokens are our estimate.")
    time_to_first_chunk: TimeToFirstChunkOut | None


def conversation_out(record: ConversationRecord) -> dict[str, Any]:
    """Return a conversation as a client may see it: without its owner, its system prompt and what is private."""
    return {
        "id": record.id,
        "title": record.title,
        "metadata": {name: value for name, value in record.metadata.items() if name != "private"},
        "created_at": rfc3339(record.created),
        "updated_at": rfc3339(record.updated),
    }
