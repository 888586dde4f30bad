"""Reports: what the replies of a conversation or of a day came to, added up from what is stored of each. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec

from tailrace.errors import Unprocessable
from tailrace.events import TERMINAL, Message

MICROSECONDS: Final = 1_000_000


class TimeToFirstChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from a reply's start to its first chunk, over all replies that had one."""

    mean: float
    longest: float


TOKENS: Final = ("prompt_tokens", "completion_tokens", "cache_read", "cache_write", "reasoning")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What replies came to.

    Attributes:
        replies: how many were started.
        open: those of them that are still being written; nothing else here counts them.
        completed: those that are whole.
        failures: how many others there are of each ``error_type``: ``api_error``, ``timeout``, ``cancelled``...
        chunks: of text and reasoning, of all that have ended, also of those that failed.
        prompt_tokens, completion_tokens, cache_read, cache_write, reasoning: likewise, as far as they are known; what
            they mean, ``Usage`` says.
        estimated: of how many replies the completion tokens are our estimate, since they were cut.
        time_to_first_chunk: None when no reply had a chunk.
    """

    replies: int
    open: int
    completed: int
    failures: Mapping[str, int]
    chunks: int
    prompt_tokens: int
    completion_tokens: int
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    estimated: int
    time_to_first_chunk: TimeToFirstChunk | None


def report(replies: Iterable[Message]) -> Report:
    """Return what these replies came to; their content is not looked at."""
    started = unfinished = completed = chunks = estimated = 0
    tokens: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    waits: list[float] = []
    for reply in replies:
        started += 1
        if reply.status not in TERMINAL:
            unfinished += 1
            continue
        if reply.status == "completed":
            completed += 1
        else:
            failures[str((reply.error or {}).get("type") or "general_error")] += 1
        chunks += reply.metadata.get("stream_chunks", 0)
        if reply.usage is not None:
            tokens.update({name: getattr(reply.usage, name) or 0 for name in TOKENS})
            estimated += reply.usage.source == "estimate"
        wait = reply.metadata.get("time_to_first_chunk")
        if isinstance(wait, int | float):  # a reply without a chunk has what its caller may have put there
            waits.append(wait)
    return Report(
        replies=started,
        open=unfinished,
        completed=completed,
        failures=dict(sorted(failures.items())),
        chunks=chunks,
        **{name: tokens[name] for name in TOKENS},
        estimated=estimated,
        time_to_first_chunk=TimeToFirstChunk(mean=round(sum(waits) / len(waits), 6), longest=max(waits))
        if waits
        else None,
    )


def parse_day(text: str) -> date:
    """Return the day that a text such as ``2026-11-22`` names.

    Raises:
        Unprocessable: it names none.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise Unprocessable("day must be a date such as 2026-11-22.")
    return day


def day_of(now: int) -> date:
    """Return the day in UTC of a moment in microseconds since 1970."""
    return datetime.fromtimestamp(now // MICROSECONDS, UTC).date()


def bounds(day: date) -> tuple[int, int]:
    """Return when a day begins and ends in UTC, in microseconds since 1970."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    length = timedelta(days=1) // timedelta(microseconds=1)
    first = (begin - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return first, first + length
