"""What stored messages say: of a reply when its log has expired, of tools' calls and their results, of a page's ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from tailrace.events import (
    Approval,
    Citation,
    Event,
    Json,
    Message,
    Reasoning,
    StepEnd,
    Text,
    ToolCall,
    ToolResult,
    ToolRun,
)

Kind = TypeVar("Kind", bound=msgspec.Struct)

CLIENT_ID: Final = "client_id"
"""The key in a message's metadata under which the id lies that a page gave it."""


CLIENT_TOOLS: Final = "client_tools"
"""The key in a reply's private metadata under which the names of the client's tools lie, where others run here."""


class Output(msgspec.Struct, frozen=True):
    """What a tool returned that did not run at the provider: a text, JSON as text, or what it says of its failure."""

    id: str
    text: str
    is_error: bool = False


def entries_of(message: Message) -> Iterator[Event]:
    """Yield what the log had, as far as it is kept: each kind in one piece, step by step, in the order that most
    answers have."""
    metadata = message.metadata
    reasoning = metadata.get("reasoning")
    if isinstance(reasoning, str) and reasoning:
        yield Reasoning(reasoning)
    calls = _read(metadata.get("tool_calls"), ToolCall)
    returned = _read(metadata.get("tool_results"), ToolResult)
    ends = _read_ends(metadata)
    if ends:
        yield from _read(metadata.get("citations"), Citation)
        yield from _steps_of(message, calls, returned, ends)
        return
    results = {each.id: each for each in returned}
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


def entries_for_client(message: Message) -> Iterator[Event]:
    """Yield the same without those calls that no client is to make: they have a result, or wait. For protocols whose
    clients make every call that they see."""
    results = _read(message.metadata.get("tool_results"), ToolResult)
    made = {*(each.id for each in results), *(message.metadata.get("approvals") or ())}
    for event in entries_of(message):
        if not (isinstance(event, ToolCall) and event.id in made):
            yield event


def _read_ends(metadata: Json) -> list[tuple[int, int, int]]:
    """Return where the steps of a reply end; nothing of one that had none, or does not have all of its calls."""
    if "only_in_log" in metadata:
        return []
    try:
        return msgspec.convert(metadata.get("step_ends") or [], list[tuple[int, int, int]])
    except msgspec.ValidationError:
        return []


def _steps_of(
    message: Message, calls: Sequence[ToolCall], results: Sequence[ToolResult], ends: Sequence[tuple[int, int, int]]
) -> Iterator[Event]:
    denied = message.metadata.get("denied") or ()
    at = (0, 0, 0)
    for end in ends:
        if text := message.content[at[0] : end[0]]:
            yield Text(text)
        yield from calls[at[1] : end[1]]
        for result in results[at[2] : end[2]]:
            yield Approval(result.id, is_approved=False) if result.id in denied else ToolRun(result.id, result.name)
            yield result
        yield StepEnd()
        at = end
    if text := message.content[at[0] :]:
        yield Text(text)
    yield from calls[at[1] :]
    yield from results[at[2] :]


def _read(given: Any, kind: type[Kind]) -> list[Kind]:
    """Return what can be read of a list: a reply with very much of it keeps it without the texts."""
    found: list[Kind] = []
    for each in given if isinstance(given, list) else ():
        try:
            found.append(msgspec.convert(each, kind))
        except msgspec.ValidationError:
            continue
    return found


def value_of(text: str) -> Any:
    """Return what a tool's result is: JSON, or the text itself where it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def page_id_of(message: Message) -> str:
    """Return the id by which a page knows a message: the one it gave, or ours."""
    return str(message.metadata.get(CLIENT_ID) or message.id)


def is_client_s(private: Json, name: str) -> bool:
    """Return whether a tool that a reply called is for its client to run, as far as that can be told."""
    client_tools = private.get(CLIENT_TOOLS)
    return name in client_tools if isinstance(client_tools, list) else True


def calls_of(message: Message) -> dict[str, ToolCall]:
    """Return the tool calls of a message by their ids: those that a streamed answer made, or a ``tool_call`` message
    of ``[{"id", "name", "arguments"}]``; OpenAI's own shape will do too."""
    if message.role == "assistant":
        given: Any = message.metadata.get("tool_calls")
    elif message.role == "tool_call":
        given = json_of(message.content)
    else:
        return {}
    calls: dict[str, ToolCall] = {}
    for each in _objects(given):
        inner = each.get("function")
        source = inner if isinstance(inner, dict) else each
        call_id = each.get("id", message.metadata.get("tool_call_id"))
        name = source.get("name", message.metadata.get("tool_name"))
        if isinstance(call_id, str) and isinstance(name, str) and "arguments" in source:
            calls[call_id] = ToolCall(call_id, name, _text(source["arguments"]) or "{}")
    return calls


def outputs_of(message: Message) -> list[Output]:
    """Return the results of a ``tool_result`` message: ``[{"id", "result"}]``, or any text with ``tool_call_id`` in the
    metadata."""
    if message.role != "tool_result":
        return []
    found: list[Output] = []
    for each in _objects(json_of(message.content)):
        call_id = each.get("id", each.get("tool_call_id"))
        if isinstance(call_id, str) and "result" in each:
            found.append(Output(call_id, _text(each["result"]), each.get("is_error") is True))
    call_id = message.metadata.get("tool_call_id")
    if not found and isinstance(call_id, str):
        content = json_of(message.content)
        found.append(Output(call_id, content if isinstance(content, str) else message.content))
    return found


def _text(value: Any) -> str:
    """Return a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _objects(given: Any) -> list[dict[str, Any]]:
    return [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, dict)]


def json_of(text: str) -> Any:
    """Return the JSON that a text is; None if it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
