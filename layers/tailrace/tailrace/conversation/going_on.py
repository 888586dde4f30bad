"""Going on with a reply that did not come to its end: one that waits for a yes, or broke off between its steps.

The next reply is a message of its own. It first makes the calls that are still to be made, then asks the model, with
all steps of the reply before it in the prompt; the text of a step that broke off is left out and said anew. Only one
reply may go on with another, whoever asks for it, and however often.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from tailrace.conversation.prompt import CONTINUED, is_in_steps
from tailrace.errors import Conflict, NotFound, Unprocessable
from tailrace.events import Json, Message, Step, ToolCall
from tailrace.reply.steps import Decision, Pending
from tailrace.store import Store


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
    calls = _open_calls(steps) if is_in_steps(steps) else []
    calls = [call for call in calls if call.id not in outputs]
    if gone := [call.name for call in calls if call.id in waiting and call.name not in tools]:
        raise Unprocessable(f"The tool {gone[0]} is not among those that this start names.")
    if message.status == "completed" and (client := [call.id for call in calls if call.name not in tools]):
        raise Unprocessable(f"The results of these calls are missing: {', '.join(client)}.")
    begun = {str(each.get("id")) for each in _objects(message.metadata, "unfinished_tools")}
    pending = Pending([call for call in calls if call.name in tools], decisions, begun)
    return Before(message, steps, pending)


def _open_calls(steps: Sequence[Step]) -> list[ToolCall]:
    """Return the calls of the last step that made some, as far as they have no result."""
    answered = {result.id for step in steps for result in step.results}
    for step in reversed(steps):
        if step.calls:
            return [call for call in step.calls if call.id not in answered]
    return []


def _objects(metadata: Json, key: str) -> list[Json]:
    given = metadata.get(key)
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
