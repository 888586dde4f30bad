"""What a start comes in the place of: a message and all that came after it, to be said or answered anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import NotFound, Unprocessable
from tailrace.events import TERMINAL, Message
from tailrace.ids import conversation_tag, message_address

MOST_REPLACED: Final = 90
"""Messages that an edit or another answer may take the place of: they go in one transaction, which may have 100 writes
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html)."""


async def find_replaced(backend: Backend, owner: str, conversation_id: str, first: str) -> list[str]:
    """Return the ids of a message and of all that came after it, oldest first. Open replies among them are cancelled.

    Raises:
        NotFound: there is no such conversation of this owner's, or no such message in it.
        Unprocessable: it is too much.
    """
    await Conversation.load(conversation_id, owner=owner, backend=backend)
    if message_address(first).tag != conversation_tag(conversation_id):
        raise NotFound("No such message.")
    tail: list[Message] = []
    following: str | None = None
    while not tail or tail[-1].id != first:
        limit = MOST_REPLACED + 1
        page, following = await backend.store.messages.list(conversation_id, limit, following, newest_first=True)
        for message in page:
            tail.append(message)
            if message.id == first:
                break
        else:
            if following is None:
                raise NotFound("No such message.")
            check_count(tail)
    replaced = [message for message in tail if message.role != "system"]
    check_count(replaced)
    await cancel_open(backend, replaced)
    return [message.id for message in reversed(replaced)]


def check_count(replaced: Sequence[Message]) -> None:
    """Refuse to take back more than a transaction may.

    Raises:
        Unprocessable: it is too much.
    """
    if len(replaced) > MOST_REPLACED:
        raise Unprocessable(f"At most {MOST_REPLACED} messages can be taken back at once.")


async def cancel_open(backend: Backend, replaced: Sequence[Message]) -> None:
    """Cancel those replies that are being written: only what has ended can be taken back."""
    for message in replaced:
        if message.role == "assistant" and message.status not in TERMINAL:
            await backend.open_replies.cancel(message.id)
