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
from tailrace.events import Json, Message, ProviderState, Step, ToolCall, ToolResult
from tailrace.protocols.stored import calls_of, json_of, outputs_of
from tailrace.providers import PromptMessage, ProviderRequest
from tailrace.reply.totals import tokens_in

NO_STEPS: Final[Mapping[str, Sequence[Step]]] = {}

Place = tuple[int, float]
"""Where in a history something is: the message's number, and the step's in it. What a step's tools returned comes half
a step after it."""

Results = Mapping[str, list[tuple[Place, ToolResult]]]
"""Of each call's id the results that no call has taken yet, with their places, the last one first."""


def prompt_messages(history: Sequence[Message], steps: Mapping[str, Sequence[Step]] = NO_STEPS) -> list[PromptMessage]:
    """Return the prompt's messages, without system prompts, in order.

    Args:
        history: messages that are over, oldest first.
        steps: by their ids, the steps of those that have some.
    """
    results = _results(history, steps)
    prompt: list[PromptMessage] = []
    at = 0
    while at < len(history):
        message = history[at]
        own = steps.get(message.id, ())
        first = at
        calls = calls_of(message)
        text = message.content if message.role == "assistant" else ""
        if is_in_steps(own):
            prompt += _answer_in_steps(at, message, own, results)
        elif message.role in ("assistant", "tool_call"):
            # An answer's calls may be told twice: with the answer itself, and by messages right after it.
            while at + 1 < len(history) and history[at + 1].role == "tool_call":
                at += 1
                calls |= calls_of(history[at])
            prompt += _answer((first, 0), text, calls.values(), results, own[0].state if own else None)
        elif message.role == "user":
            prompt.append(PromptMessage("user", message.content, parts=read_parts(message.metadata)))
        at += 1
    return prompt


def is_in_steps(steps: Sequence[Step]) -> bool:
    """Whether a reply had steps; of one that had none, all that is kept is what its provider wants back."""
    return any(step.calls or step.results or step.length is not None for step in steps)


def _results(history: Sequence[Message], steps: Mapping[str, Sequence[Step]]) -> Results:
    found: dict[str, list[tuple[Place, ToolResult]]] = {}
    for at, message in reversed([*enumerate(history)]):
        for number, step in reversed([*enumerate(steps.get(message.id, ()))]):
            for result in reversed(step.results):
                found.setdefault(result.id, []).append(((at, number + 0.5), result))
        for output in reversed(outputs_of(message)):
            result = ToolResult(output.id, "", output.text, output.is_error)
            found.setdefault(output.id, []).append(((at, 0), result))
    return found


def _answer_in_steps(at: int, message: Message, steps: Sequence[Step], results: Results) -> Iterable[PromptMessage]:
    begin = 0
    for number, step in enumerate(steps):
        end = len(message.content) if step.length is None else begin + step.length
        text = message.content[begin:end] if step.text is None else step.text
        begin = end
        if step.length is None and CONTINUED in message.metadata:
            text = ""  # it broke off here, and another reply said it anew
        yield from _answer((at, number), text, step.calls, results, step.state)


def _answer(
    place: Place, text: str, calls: Iterable[ToolCall], results: Results, state: ProviderState | None
) -> Iterable[PromptMessage]:
    answered: list[ToolCall] = []
    found: list[ToolResult] = []
    for call in calls:
        waiting = results.get(call.id, [])
        while waiting and waiting[-1][0] <= place:  # of no later call either
            waiting.pop()
        if waiting:
            _, result = waiting.pop()
            answered.append(call)
            found.append(ToolResult(call.id, call.name, result.result, result.is_error))
    if text.strip() or answered:
        yield PromptMessage("assistant", text, tool_calls=answered, state=state)
    if found:
        yield PromptMessage("tool_result", "", tool_results=found)


CONTINUED: Final = "continued_by"
"""In the metadata of a reply: which reply went on with it."""

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
