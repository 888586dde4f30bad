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
from tailrace.protocols.stored import Output, calls_of, json_of, outputs_of
from tailrace.providers import PromptMessage, ProviderRequest
from tailrace.reply.totals import tokens_in

NO_STATES: Final[Mapping[str, ProviderState]] = {}


def prompt_messages(history: Sequence[Message], states: Mapping[str, ProviderState] = NO_STATES) -> list[PromptMessage]:
    """Return the prompt's messages, without system prompts, in order.

    Args:
        history: completed messages, oldest first.
        states: by their ids, what providers want back with them.
    """
    # Of each id the results that no call has taken yet, with their places, the last one first.
    results: dict[str, list[tuple[int, Output]]] = {}
    for at, message in reversed([*enumerate(history)]):
        for result in reversed(outputs_of(message)):
            results.setdefault(result.id, []).append((at, result))
    prompt: list[PromptMessage] = []
    at = 0
    while at < len(history):
        message = history[at]
        first = at
        calls = calls_of(message)
        text = message.content if message.role == "assistant" else ""
        if message.role in ("assistant", "tool_call"):
            # An answer's calls may be told twice: with the answer itself, and by messages right after it.
            while at + 1 < len(history) and history[at + 1].role == "tool_call":
                at += 1
                calls |= calls_of(history[at])
            prompt += _answer(first, text, calls, results, states.get(message.id))
        elif message.role == "user":
            prompt.append(PromptMessage("user", message.content, parts=read_parts(message.metadata)))
        at += 1
    return prompt


def _answer(
    at: int,
    text: str,
    calls: Mapping[str, ToolCall],
    results: Mapping[str, list[tuple[int, Output]]],
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
    found = len(calls_of(message)) if role == "tool_call" else len(outputs_of(message))
    content_json = json_of(content)
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
