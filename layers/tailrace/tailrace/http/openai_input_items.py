"""The input of a response, ``GET /v1/responses/{id}/input_items``: what was said before it in its conversation.

OpenAI's words for it are the items that were used to generate a response. So what it went on from is among them, and
what was not sent on is not: replies that failed. Nor is what the system says, which is shown to nobody here.
"""

from __future__ import annotations

from typing import Any, Final

from tailrace.backend import Backend
from tailrace.errors import NotFound
from tailrace.events import Message
from tailrace.http.cursor import query
from tailrace.http.openai_errors import BadParameter
from tailrace.http.requests import Scope, Send
from tailrace.http.responses import respond_json
from tailrace.ids import MESSAGE_ID_LENGTH, message_address
from tailrace.protocols.openai_responses import output_items
from tailrace.protocols.stored import calls_of, outputs_of

MOST: Final = 100
USUAL: Final = 20
"""Items of one page (https://platform.openai.com/docs/api-reference/responses/input-items)."""

Item = dict[str, Any]


async def respond_input_items(backend: Backend, scope: Scope, send: Send, message_id: str) -> None:
    """Send a page of the items before a reply.

    Raises:
        BadParameter: ``limit``, ``order`` or ``after`` cannot be; the error names it.
    """
    parameters = query(scope)
    limit, order, after = parameters.get("limit", str(USUAL)), parameters.get("order", "desc"), parameters.get("after")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= MOST):
        raise BadParameter(f"limit must be a whole number from 1 to {MOST}.", "limit")
    if order not in ("asc", "desc"):
        raise BadParameter("order must be asc or desc.", "order")
    found = await _items(backend, message_id, int(limit), after, newest_first=order == "desc")
    page = found[: int(limit)]
    content = {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(found) > len(page),
    }
    await respond_json(send, 200, content, [(b"cache-control", b"no-store")])


async def _items(backend: Backend, message_id: str, limit: int, after: str | None, *, newest_first: bool) -> list[Item]:
    """Return the items from a place on, one more than the limit if there are as many."""
    messages = backend.store.messages
    conversation_id = (await messages.peek(message_id)).conversation_id
    found: list[Item] = []
    begin: str | None = None
    if after is not None:
        begin, found = await _rest(backend, message_id, after, newest_first=newest_first)
    cursor: str | None = None
    while len(found) <= limit:
        before = message_id if begin is None or not newest_first else begin
        start = begin if not newest_first and cursor is None else None
        page, cursor = await messages.list(
            conversation_id, limit + 1, cursor, newest_first=newest_first, before=before, after=start
        )
        for message in page:
            found += _ordered(message, newest_first=newest_first)
        if cursor is None:
            break
    return found


async def _rest(backend: Backend, message_id: str, after: str, *, newest_first: bool) -> tuple[str, list[Item]]:
    """Return the message that an item is of, and the items of that which come after it.

    Raises:
        BadParameter: there is no such item before the reply.
    """
    known = after.partition("_")[2][:MESSAGE_ID_LENGTH]
    try:
        there, here = message_address(known), message_address(message_id)
        if there.tag != here.tag or there.position >= here.position:
            raise NotFound("No such item.")
        items = _ordered(await backend.store.messages.get(known), newest_first=newest_first)
        place = [each["id"] for each in items].index(after)
    except (NotFound, ValueError):
        raise BadParameter("after must be the id of one of the items.", "after") from None
    return known, items[place + 1 :]


def _ordered(message: Message, *, newest_first: bool) -> list[Item]:
    items = items_of(message)
    return items[::-1] if newest_first else items


def items_of(message: Message) -> list[Item]:
    """Return the items that a stored message is to a response after it."""
    if message.role == "user":
        return [
            {
                "id": f"msg_{message.id}",
                "type": "message",
                "role": "user",
                "status": "completed",
                "content": _content(message),
            }
        ]
    if message.role == "assistant" and message.status == "completed":
        return output_items(message)
    calls = calls_of(message).values() if message.role == "tool_call" else ()
    found: list[Item] = [
        *(
            {"type": "function_call", "call_id": each.id, "name": each.name, "arguments": each.arguments}
            for each in calls
        ),
        *({"type": "function_call_output", "call_id": each.id, "output": each.text} for each in outputs_of(message)),
    ]
    prefix = "fc" if message.role == "tool_call" else "fco"
    return [
        {"id": f"{prefix}_{message.id}" + (f"_{number}" if number > 1 else ""), "status": "completed", **each}
        for number, each in enumerate(found, 1)
    ]


def _content(message: Message) -> list[Item]:
    found: list[Item] = [{"type": "input_text", "text": message.content}] if message.content else []
    for part in message.metadata.get("parts") or ():
        media_type, data, url = part.get("media_type") or "", part.get("data"), part.get("url")
        is_image = part.get("type") == "image"
        address = url or f"data:{media_type or 'application/octet-stream'};base64,{data or ''}"
        if is_image:
            found.append({"type": "input_image", "image_url": address, "detail": "auto"})
        else:
            file: Item = {"type": "input_file", "file_url" if url else "file_data": address}
            found.append({**file, "filename": part["name"]} if part.get("name") else file)
    return found
