"""What the end of a reply writes into its message, whoever ends it: its writer, a cancel, the sweep. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from tailrace.clock import rfc3339
from tailrace.errors import ProviderError, TailraceError
from tailrace.events import Attempt, Json, Status, Usage
from tailrace.providers.finish import Finish, finish_of
from tailrace.reply.totals import Totals, tokens_in
from tailrace.store import Outcome

PROMPT_ESTIMATE: Final = "prompt_tokens_estimate"
"""The key in a reply's private metadata under which its start leaves what the prompt comes to."""

LARGEST_EXTRAS: Final = 100_000
"""Bytes of JSON that reasoning, tool calls, results and citations may add to a message's item, which holds 400 KB. What
is beyond stays in the log alone."""


LONGEST_NAME: Final = 200
"""Characters that are kept of a model's name, a finish reason, a provider's id of a request."""

LONGEST_TEXT: Final = 2_000
"""Characters that are kept of an error, for readers or in its own words."""

MOST_ATTEMPTS: Final = 20
"""Attempts that are told in a message; all of them are in the log."""

MOST_STEPS: Final = 100
"""Of each list about a reply's steps, what its message tells at most; all of it is in the log."""

LARGEST_ABOUT: Final = 20_000
"""Bytes of JSON that a caller's own words on a failure may add."""


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


ABOUT: Final = ("error_type", "provider", "status_code", "retryable")
"""What an ending says of itself."""


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
    ending: Ending,
    totals: Totals,
    *,
    given: Json,
    private: Json,
    model: str | None,
    completed: int,
    keep_reasoning: bool = True,
) -> Outcome:
    """Return what is written into the message.

    Args:
        given: the message's metadata so far; None never overwrites a value of it.
        private: its private metadata so far.
        model: what the start said would answer.
        completed: microseconds since 1970.
        keep_reasoning: whether the reply keeps the text of its reasoning.
    """
    usage = _labelled(ending, totals, private.get(PROMPT_ESTIMATE))
    last = totals.attempts[-1] if totals.attempts else None
    model = _cut(totals.info.model or (last.next_model if last else None) or model, LONGEST_NAME)
    finish_reason = _cut(totals.info.finish_reason, LONGEST_NAME)
    error = _cut(ending.error, LONGEST_TEXT)
    attempts = totals.attempts[-MOST_ATTEMPTS:]
    known: dict[str, Any] = {
        "streamed": last is None or last.streamed,
        "stream_chunks": totals.chunks,
        "chunks": totals.chunks,  # the PHP original's own spelling, as are stream_duration_ms and chunks_received
        "stream_duration": round(totals.duration, 6),
        "stream_duration_ms": round(totals.duration * 1000, 3),
        "time_to_first_chunk": None if totals.first_chunk is None else round(totals.first_chunk, 6),
        "stream_started_at": rfc3339(totals.started),
        "stream_completed_at" if ending.status == "completed" else "stream_failed_at": rfc3339(completed),
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "model": model,
        "finish_reason": finish_reason,
        "finish": _finish(ending, totals),
        "provider_request_id": _cut(totals.info.provider_request_id, LONGEST_NAME),
        "attempts": [_without_none(_public(attempt)) for attempt in attempts] or None,
        **_extras(totals, keep_reasoning=keep_reasoning),
        **_steps(totals),
    }
    if ending.status != "completed":
        known |= {"chunks_received": totals.chunks, **_about(ending), "error": error}
    secret: dict[str, Any] = {
        "error_detail": _cut(ending.detail, LONGEST_TEXT),
        "attempt_details": [_cut(attempt.detail, LONGEST_NAME) for attempt in attempts] or None,
    }
    return Outcome(
        status=ending.status,
        content=totals.content,
        seq=totals.seq + 1,
        metadata={**given, **_without_none(known)},
        private={**private, **_without_none(secret)} or None,
        provider=last.next_provider if last else None,
        model=model,
        usage=usage,
        finish_reason=finish_reason,
        error=None
        if ending.status == "completed"
        else {"type": _cut(ending.error_type, LONGEST_NAME), "message": error},
        completed=completed,
        state=_state(totals),
    )


def _finish(ending: Ending, totals: Totals) -> Finish | None:
    """Return why the provider ended its answer; None where it did not come to that."""
    if ending.status != "completed" and totals.info.finish_reason is None:
        return "error" if ending.status == "failed" else None
    return finish_of(totals.info.finish_reason, calls=totals.has_calls)


def _steps(totals: Totals) -> dict[str, Any]:
    """Return what is said of the steps of a reply that has some."""
    if not totals.steps:
        return {}
    return {
        "steps": totals.asked,
        "step_usage": [msgspec.to_builtins(each) for each in totals.usages][-MOST_STEPS:] or None,
        "unfinished_tools": [{"id": call_id, "name": name} for call_id, name in totals.unfinished.items()][-MOST_STEPS:]
        or None,
        "approvals": totals.waiting[-MOST_STEPS:] or None,
        "denied": totals.denied[-MOST_STEPS:] or None,
        "step_ends": totals.ends if len(totals.ends) <= MOST_STEPS else None,
    }


def _state(totals: Totals) -> str | None:
    """Return what the next prompt needs beside the content, as JSON: all steps, or what the provider wants back."""
    if totals.steps:
        return msgspec.json.encode({"steps": totals.steps}).decode()
    return None if totals.state is None else msgspec.json.encode(totals.state).decode()


def _public(attempt: Attempt) -> dict[str, Any]:
    return {
        "provider": attempt.provider,
        "model": _cut(attempt.model, LONGEST_NAME),
        "error_type": attempt.error_type,
        "status_code": attempt.status_code,
    }


def _about(ending: Ending) -> Json:
    """Return what is said of a failure for programs, without a caller's own words if they are too many to store."""
    if len(msgspec.json.encode(ending.about)) <= LARGEST_ABOUT:
        return ending.about
    return {name: _short(ending.about[name]) for name in ABOUT if name in ending.about}


def _short(value: Any) -> Any:
    return value[:LONGEST_NAME] if isinstance(value, str) else value


def _cut(text: str | None, length: int) -> str | None:
    return text if text is None else text[:length]


def _extras(totals: Totals, *, keep_reasoning: bool) -> dict[str, Any]:
    """Return what the reply has besides its text, as far as there is room: without the results' and the quotes' text if
    there is too little, then without the reasoning, then without the arguments."""
    extras: dict[str, Any] = {
        "reasoning": totals.reasoning if keep_reasoning else "",
        "tool_calls": msgspec.to_builtins(totals.tool_calls),
        "tool_results": msgspec.to_builtins(totals.tool_results),
        "citations": [_without_none(each) for each in msgspec.to_builtins(totals.citations)],
    }
    missing: list[str] = []
    for key, long in (
        ("tool_results", "result"),
        ("citations", "quote"),
        ("reasoning", ""),
        ("tool_calls", "arguments"),
    ):
        if len(msgspec.json.encode(extras)) <= LARGEST_EXTRAS:
            break
        if long:
            extras[key] = [{name: value for name, value in each.items() if name != long} for each in extras[key]]
            missing.append(f"{key}.{long}")
        elif extras[key]:
            extras[key] = ""
            missing.append(key)
        extras["only_in_log"] = missing
    if len(msgspec.json.encode(extras)) > LARGEST_EXTRAS:
        reasoning = ["reasoning"] if "reasoning" in missing else []
        return {"only_in_log": ["tool_calls", "tool_results", "citations", *reasoning]}
    return {name: value for name, value in extras.items() if value}


def _labelled(ending: Ending, totals: Totals, prompt_estimate: Any) -> Usage:
    """Return the usage with its source: who counted the completion. Of a reply that was cut, the provider never told
    what it cost; and some providers never do."""
    usage = totals.usage or Usage()
    if usage.completion_tokens is not None:
        return msgspec.structs.replace(usage, source="provider")
    prompt = usage.prompt_tokens
    # A prompt that was refused was not read.
    if prompt is None and isinstance(prompt_estimate, int) and (totals.written or ending.status != "failed"):
        prompt = prompt_estimate
    return msgspec.structs.replace(
        usage, prompt_tokens=prompt, completion_tokens=tokens_in(totals.written), source="estimate"
    )


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
