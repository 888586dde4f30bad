"""What the end of a reply writes into its message, whoever ends it: its writer, a cancel, the sweep. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from tailrace.clock import rfc3339
from tailrace.errors import ProviderError, TailraceError
from tailrace.events import Event, Json, Reasoning, Reset, ResponseInfo, Status, Text, Usage
from tailrace.store import Outcome


class Response(Protocol):
    """What ``complete`` takes from a provider's answer. None says nothing."""

    @property
    def model(self) -> str | None:
        """The model that answered."""
        ...

    @property
    def finish_reason(self) -> str | None:
        """Why it stopped."""
        ...

    @property
    def provider_request_id(self) -> str | None:
        """The provider's id of the request."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The token counts."""
        ...


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a reply.

    Attributes:
        seq: of its last event before the end.
        chunks: how many chunks of text or reasoning the provider sent.
        started: when it was opened, microseconds since 1970.
        duration: seconds from then until its end.
        first_chunk: seconds from then until the first chunk, or None when there was none.
    """

    content: str = ""
    seq: int = 0
    chunks: int = 0
    usage: Usage | None = None
    info: ResponseInfo = ResponseInfo()
    started: int
    duration: float
    first_chunk: float | None = None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """Why a reply ends.

    Attributes:
        error: a sentence that is safe to show; None for a completed reply.
        about: metadata for programs: ``error_type``, ``provider``, ``status_code``, ``retryable``.
        detail: the cause in its own words, stored privately.
    """

    status: Status
    error: str | None = None
    about: Json = msgspec.field(default_factory=dict)
    detail: str | None = None

    @property
    def error_type(self) -> str | None:
        """A stable word for programs; None for a completed reply."""
        return self.about.get("error_type")


CHARACTERS_A_TOKEN: Final = 4
"""For estimates: what English text comes to with the common tokenizers."""


def stopped(status: Status, error: str, error_type: str) -> Ending:
    """Return the end of a reply that was cancelled, interrupted or timed out."""
    return Ending(status=status, error=error, about={"error_type": error_type})


COMPLETED: Final = Ending(status="completed")
CANCELLED: Final = stopped("cancelled", "The reply was cancelled.", "cancelled")
INTERRUPTED: Final = stopped("interrupted", "The reply was interrupted.", "interrupted")
TIMED_OUT: Final = stopped("timed_out", "The reply took too long.", "timeout")


def failed(error: str | TailraceError, about: Json | None = None) -> Ending:
    """Return the end of a reply that failed.

    Args:
        error: a string is a cause that stays private, and readers get a general sentence; the message of a
            ``TailraceError`` is safe and is what readers get.
        about: overrides and adds to what the error says of itself.
    """
    public, detail = "The reply failed.", None
    known: dict[str, Any] = {"error_type": "general_error"}
    if isinstance(error, TailraceError):
        public, known["error_type"] = error.message, error.error_type
    else:
        detail = error
    if isinstance(error, ProviderError):
        known |= {"provider": error.provider, "status_code": error.status_code, "retryable": error.retryable}
        detail = error.detail
    return Ending(status="failed", error=public, about={**known, **(about or {})}, detail=detail)


def outcome(
    ending: Ending, account: Account, *, given: Json, private: Json, model: str | None, completed: int
) -> Outcome:
    """Return what is written into the message.

    Args:
        given: the message's metadata so far; None never overwrites a value of it.
        private: its private metadata so far.
        model: what the start said would answer.
        completed: microseconds since 1970.
    """
    usage = _labelled(ending, account)
    model = account.info.model or model
    known: dict[str, Any] = {
        "streamed": True,
        "stream_chunks": account.chunks,
        "chunks": account.chunks,  # the PHP original's own spelling, as are stream_duration_ms and chunks_received
        "stream_duration": round(account.duration, 6),
        "stream_duration_ms": round(account.duration * 1000, 3),
        "time_to_first_chunk": None if account.first_chunk is None else round(account.first_chunk, 6),
        "stream_started_at": rfc3339(account.started),
        "stream_completed_at" if ending.status == "completed" else "stream_failed_at": rfc3339(completed),
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "model": model,
        "finish_reason": account.info.finish_reason,
        "provider_request_id": account.info.provider_request_id,
    }
    if ending.status != "completed":
        known |= {"chunks_received": account.chunks, **ending.about, "error": ending.error}
    return Outcome(
        status=ending.status,
        content=account.content,
        seq=account.seq + 1,
        metadata={**given, **{key: value for key, value in known.items() if value is not None}},
        private={**private, "error_detail": ending.detail} if ending.detail else private or None,
        model=model,
        usage=usage,
        finish_reason=account.info.finish_reason,
        error=None if ending.status == "completed" else {"type": ending.error_type, "message": ending.error},
        completed=completed,
    )


def _labelled(ending: Ending, account: Account) -> Usage | None:
    """Return the usage with its source. Of a reply that was cut, the provider never told what it cost."""
    usage = account.usage
    if usage is not None and usage.completion_tokens is not None:
        return Usage(usage.prompt_tokens, usage.completion_tokens, "provider")
    if ending.status == "completed" or not account.content:
        return usage
    estimated = max(1, round(len(account.content) / CHARACTERS_A_TOKEN))
    return Usage(usage.prompt_tokens if usage else None, estimated, "estimate")


def account_of(events: Sequence[Event], *, started: int, first_at: int | None, now: int) -> Account:
    """Return what the log alone says of a reply.

    Args:
        events: all of its log.
        started: when the message was created, microseconds since 1970.
        first_at: when the first segment with an event was written.
        now: microseconds since 1970.
    """
    pieces: list[str] = []
    chunks = 0
    usage: Usage | None = None
    for event in events:
        if isinstance(event, Text | Reasoning):
            chunks += 1
            if isinstance(event, Text):
                pieces.append(event.text)
        elif isinstance(event, Usage):
            usage = event.over(usage)
        elif isinstance(event, Reset):
            pieces.clear()
    return Account(
        content="".join(pieces),
        seq=len(events),
        chunks=chunks,
        usage=usage,
        started=started,
        duration=(now - started) / 1_000_000,
        first_chunk=None if first_at is None else (first_at - started) / 1_000_000,
    )
