"""A function of your own on Tailrace's layer and table: it writes summaries, and gives back what it wrote.

``{"owner": "user-1", "text": "..."}`` starts one and returns its message when it has ended; whoever has the
conversation open sees it being written. ``{"owner": "user-1", "message_id": "..."}`` reads one at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace import Backend, Conversation, Message, NotFound, TailraceError
from tailrace.aws.event_loop import run

backend = Backend()  # from the environment, once for all calls; it connects when it is first used


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Return a summary's message, or ``{"error": ...}`` with a sentence that is safe to show."""
    try:
        message = run(_read(event) if "message_id" in event else _write(event))
    except TailraceError as error:
        return {"error": error.message}
    return {
        "message_id": message.id,
        "conversation_id": message.conversation_id,
        "status": message.status,
        "content": message.content,
        "error": message.error,
    }


async def _write(event: Mapping[str, Any]) -> Message:
    conversation = await Conversation.create(
        owner=event["owner"], title="A summary", system="Answer in one sentence.", backend=backend
    )
    stream = await conversation.stream_response(event["text"])
    response = conversation.to_request().options(max_tokens=300).stream()
    try:
        async for chunk in response:
            await stream.append(chunk)
        return await stream.complete(response)
    except TailraceError as error:  # whatever the end is, it is stored; what was killed before it, the sweep ends
        return await stream.fail(error)


async def _read(event: Mapping[str, Any]) -> Message:
    message = await backend.store.messages.get(event["message_id"])
    # A message has no owner of its own: this raises NotFound for everybody but the conversation's.
    await Conversation.load(message.conversation_id, owner=event["owner"], backend=backend)
    if message.role != "assistant":
        raise NotFound("No such summary.")
    return message
