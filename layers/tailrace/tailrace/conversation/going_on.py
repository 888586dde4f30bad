"""Going on with a reply that did not come to its end: one that waits for a yes, or broke off between its steps.

The next reply is a message of its own. It first makes the calls that are still to be made, then asks the model, with
all steps of the reply before it in the prompt; the text of a step that broke off is left out and said anew. Only one
reply may go on with another, whoever asks for it, and however often.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from tailrace.conversation.prompt import CONTINUED
from tailrace.errors import Conflict, NotFound, Unprocessable
from tailrace.events import Json, Message, Step, ToolCall
from tailrace.reply.steps import Decision, Pending
from tailrace.store import Store

MOST_BEFORE: Final = 20
"""Replies in a row that broke off before they made a call, of which the calls of the first are still known."""


class Before(msgspec.Struct, frozen=True):
    """The reply that is gone on with.

    Attributes:
        message, steps: of it.
        pending: what of it is to be done first.
    """

    message: Message
    steps: Sequence[Step]
    pending: Pending


async def read_before(
    store: Store,
    conversation_id: str,
    tools: Collection[str],
    decisions: Mapping[str, Decision],
    *,
    outputs: Collection[str] = (),
) -> Before:
    """Read the newest reply of a conversation, which is to be gone on with.

    Args:
        tools: the names of those that run here.
        decisions: what was said to calls that wait.
        outputs: the ids of calls whose results the client has sent along.

    Raises:
        Conflict: it is still being written, or somebody has gone on with it.
        Unprocessable: there is nothing to go on with, or some of its calls still wait for a yes or for a tool.
    """
    try:
        message, steps = await store.messages.newest_with_steps(conversation_id)
    except NotFound:
        raise Unprocessable("There is no reply to go on with.") from None
    if message.role != "assistant":
        raise Unprocessable("There is no reply to go on with: something else was said after it.")
    if CONTINUED in message.metadata:
        raise Conflict("Somebody has gone on with that reply already.")
    waiting = [str(each) for each in message.metadata.get("approvals") or ()]
    if unknown := [call_id for call_id in decisions if call_id not in waiting]:
        raise Unprocessable(f"No such call waits for a yes: {unknown[0][:64]}.")
    if missing := [call_id for call_id in waiting if call_id not in decisions]:
        raise Unprocessable(f"Each call that waits needs a yes or a no: {', '.join(missing)}.")
    if message.status == "completed" and not waiting:
        raise Unprocessable("There is nothing to go on with: the reply has ended by itself.")
    calls, begun = await _open_calls(store, message, steps)
    calls = [call for call in calls if call.id not in outputs]
    if gone := [call.name for call in calls if call.id in waiting and call.name not in tools]:
        raise Unprocessable(f"The tool {gone[0]} is not among those that this start names.")
    if message.status == "completed" and (client := [call.id for call in calls if call.name not in tools]):
        raise Unprocessable(f"The results of these calls are missing: {', '.join(client)}.")
    pending = Pending([call for call in calls if call.name in tools], decisions, begun)
    return Before(message, steps, pending)


async def _open_calls(store: Store, message: Message, steps: Sequence[Step]) -> tuple[list[ToolCall], set[str]]:
    """Return the last calls that have no result, and the ids of those that were begun.

    They are of the reply itself, or of one before it: a reply that goes on with another may break off before it has
    made the calls of that.
    """
    answered: set[str] = set()
    begun: set[str] = set()
    for _ in range(MOST_BEFORE):
        answered |= {result.id for step in steps for result in step.results}
        begun |= {str(each.get("id")) for each in _objects(message.metadata, "unfinished_tools")}
        if any(step.calls for step in steps):
            break
        earlier = message.metadata.get("continues")
        if not isinstance(earlier, str):
            break
        message, steps = await store.messages.with_steps(earlier)
    last = next((step for step in reversed(steps) if step.calls), Step())
    return [call for call in last.calls if call.id not in answered], begun


def _objects(metadata: Json, key: str) -> list[Json]:
    given = metadata.get(key)
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
