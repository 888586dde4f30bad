"""A reply as its message alone tells it: for a reader that comes when the log has expired, and for histories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from tailrace.events import Citation, Event, Message, Reasoning, Text, ToolCall, ToolResult

Kind = TypeVar("Kind", bound=msgspec.Struct)


def entries_of(message: Message) -> Iterator[Event]:
    """Yield what the log had, as far as it is kept: each kind in one piece, in the order that most answers have."""
    metadata = message.metadata
    reasoning = metadata.get("reasoning")
    if isinstance(reasoning, str) and reasoning:
        yield Reasoning(reasoning)
    results = {each.id: each for each in _read(metadata.get("tool_results"), ToolResult)}
    calls = _read(metadata.get("tool_calls"), ToolCall)
    for call in calls:
        if call.id in results:  # the provider ran it, and wrote its answer after that
            yield call
            yield results[call.id]
    yield from _read(metadata.get("citations"), Citation)
    if message.content:
        yield Text(message.content)
    for call in calls:
        if call.id not in results:
            yield call


def _read(given: Any, kind: type[Kind]) -> list[Kind]:
    """Return what can be read of a list: a reply with very much of it keeps it without the texts."""
    found: list[Kind] = []
    for each in given if isinstance(given, list) else ():
        try:
            found.append(msgspec.convert(each, kind))
        except msgspec.ValidationError:
            continue
    return found
