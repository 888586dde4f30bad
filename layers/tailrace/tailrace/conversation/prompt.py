"""From stored messages to a prompt: tool calls with their results, images and files, and nothing orphaned. Pure.

Vendors refuse a prompt in which a tool call has no result right after it, or a result no call right before
(https://platform.openai.com/docs/guides/function-calling). A history has both: an answer that was stopped, a result
that was never sent, a message that came between. So results are put behind their calls, and what has no partner is left
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tailrace.conversation.parts import read_parts
from tailrace.errors import Unprocessable
from tailrace.events import Json, Message, ProviderState, ToolCall, ToolResult
from tailrace.providers import PromptMessage, ProviderRequest
from tailrace.reply.totals import tokens_in

NO_STATES: Final[Mapping[str, ProviderState]] = {}


class _Result(msgspec.Struct):
    id: str
    text: str


def prompt_messages(history: Sequence[Message], states: Mapping[str, ProviderState] = NO_STATES) -> list[PromptMessage]:
    """Return the prompt's messages, without system prompts, in order.

    Args:
        history: completed messages, oldest first.
        states: by their ids, what providers want back with them.
    """
    # Of each id the results that no call has taken yet, with their places, the last one first.
    results: dict[str, list[tuple[int, _Result]]] = {}
    for at, message in reversed([*enumerate(history)]):
        for result in reversed(_results(message)):
            results.setdefault(result.id, []).append((at, result))
    prompt: list[PromptMessage] = []
    at = 0
    while at < len(history):
        message = history[at]
        first = at
        calls = _calls(message)
        text = message.content if message.role == "assistant" else ""
        if message.role in ("assistant", "tool_call"):
            # An answer's calls may be told twice: with the answer itself, and by messages right after it.
            while at + 1 < len(history) and history[at + 1].role == "tool_call":
                at += 1
                calls |= _calls(history[at])
            prompt += _answer(first, text, calls, results, states.get(message.id))
        elif message.role == "user":
            prompt.append(PromptMessage("user", message.content, parts=read_parts(message.metadata)))
        at += 1
    return prompt


def _answer(
    at: int,
    text: str,
    calls: Mapping[str, ToolCall],
    results: Mapping[str, list[tuple[int, _Result]]],
    state: ProviderState | None,
) -> Iterable[PromptMessage]:
    answered: list[ToolCall] = []
    found: list[ToolResult] = []
    for call in calls.values():
        waiting = results.get(call.id, [])
        while waiting and waiting[-1][0] <= at:  # of no later call either
            waiting.pop()
        if waiting:
            answered.append(call)
            found.append(ToolResult(call.id, call.name, waiting.pop()[1].text))
    if text.strip() or answered:
        yield PromptMessage("assistant", text, tool_calls=answered, state=state)
    if found:
        yield PromptMessage("tool_result", "", tool_results=found)


def _calls(message: Message) -> dict[str, ToolCall]:
    """Return the tool calls of a message by their ids: those that a streamed answer made, or a ``tool_call`` message
    of ``[{"id", "name", "arguments"}]``; OpenAI's own shape will do too."""
    if message.role == "assistant":
        given: Any = message.metadata.get("tool_calls")
    elif message.role == "tool_call":
        given = _json(message.content)
    else:
        return {}
    calls: dict[str, ToolCall] = {}
    for each in _objects(given):
        inner = each.get("function")
        source = inner if isinstance(inner, dict) else each
        call_id = each.get("id", message.metadata.get("tool_call_id"))
        name = source.get("name", message.metadata.get("tool_name"))
        if isinstance(call_id, str) and isinstance(name, str) and "arguments" in source:
            arguments = source["arguments"]
            text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
            calls[call_id] = ToolCall(call_id, name, text or "{}")
    return calls


def _results(message: Message) -> list[_Result]:
    """Return the results of a ``tool_result`` message: ``[{"id", "result"}]``, or any text with ``tool_call_id`` in the
    metadata."""
    if message.role != "tool_result":
        return []
    found: list[_Result] = []
    for each in _objects(_json(message.content)):
        call_id = each.get("id", each.get("tool_call_id"))
        if isinstance(call_id, str) and "result" in each:
            found.append(_Result(call_id, _result_text(each["result"])))
    call_id = message.metadata.get("tool_call_id")
    if not found and isinstance(call_id, str):
        content = _json(message.content)
        found.append(_Result(call_id, content if isinstance(content, str) else message.content))
    return found


def _result_text(result: Any) -> str:
    """Return what a tool returned as its model reads it: a text as it is, anything else as JSON."""
    return result if isinstance(result, str) else msgspec.json.encode(result).decode()


def _objects(given: Any) -> list[dict[str, Any]]:
    return [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, dict)]


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


SHAPES: Final[Mapping[str, str]] = {
    "tool_call": '[{"id", "name", "arguments"}]',
    "tool_result": '[{"id", "result"}]',
}


def check_tool_message(role: str, content: str, metadata: Json) -> None:
    """Refuse a tool call or result that no prompt could take up.

    Raises:
        Unprocessable: the message says what it should look like.
    """
    if role not in SHAPES:
        return
    message = as_said(role, content, metadata)
    found = len(_calls(message)) if role == "tool_call" else len(_results(message))
    content_json = _json(content)
    if found != (len(content_json) if isinstance(content_json, list) else 1):
        raise Unprocessable(
            f"The content of a {role} message must be {SHAPES[role]} as JSON"
            + (", or its metadata must have tool_call_id." if role == "tool_result" else ".")
        )


def as_said(role: Any, content: str, metadata: Json) -> Message:
    """Return a message that is about to be stored, as a prompt takes it: without an id."""
    return Message(
        id="",
        conversation_id="",
        role=role,
        content=content,
        status="completed",
        seq=0,
        metadata=metadata,
        created_at="",
    )


def is_prompt(message: Message) -> bool:
    """Whether a message has anything to say in a prompt: text, images or files, or tool calls."""
    return bool(message.content.strip() or message.metadata.get("parts") or message.metadata.get("tool_calls"))


def estimate(request: ProviderRequest) -> int:
    """Return an estimate of the prompt's tokens, without its images and files."""
    texts = [*request.system]
    for message in request.messages:
        texts.append(message.content)
        texts += [call.arguments for call in message.tool_calls]
        texts += [result.result for result in message.tool_results]
    size = sum(len(text.encode()) for text in texts)
    return tokens_in(size + (len(msgspec.json.encode(request.tools)) if request.tools else 0))
