"""The requests of chats that came over a WebSocket: each is served once, and may be taken back.

A request and what takes it back are two frames, and API Gateway calls a function for each, in any order. Both write to
one item, whose conditions decide which came first.
"""

from __future__ import annotations

from typing import Final

from tailrace.clock import Clock
from tailrace.store.dynamodb import ConditionFailed
from tailrace.store.items import ChatRequestItem, chat_request_key
from tailrace.store.sockets import GRACE, LONGEST_CONNECTION
from tailrace.store.table import Table, expressions

_NOT_THERE: Final = ChatRequestItem.pk.does_not_exist()


class ChatRequests:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline.

    A request is a socket and the id that its client gave it.
    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def begin(self, socket: str, request: str, nonce: str) -> bool:
        """Return whether a request is to be served now: not if it has begun before, or was taken back.

        Args:
            nonce: of this attempt, so that a write whose answer was lost is known for its own.
        """
        key = chat_request_key(socket, request)
        item = ChatRequestItem.serialized(key, nonce=nonce, expires=self._expires())
        mine = (ChatRequestItem.nonce == nonce) & ChatRequestItem.aborted.does_not_exist()
        try:
            await self._table.put(item, **expressions(condition=_NOT_THERE | mine))
        except ConditionFailed:
            return False
        return True

    async def answered_by(self, socket: str, request: str, message_id: str) -> bool:
        """Note the reply that answers a request; return whether the request was taken back meanwhile."""
        item = await self._table.update(
            chat_request_key(socket, request),
            ChatRequestItem.pk.exists(),
            [ChatRequestItem.message.set(message_id)],
        )
        return "aborted" in item

    async def abort(self, socket: str, request: str) -> str | None:
        """Take a request back; return the reply that answers it, if that is known yet."""
        item = await self._table.update(
            chat_request_key(socket, request),
            _NOT_THERE | ChatRequestItem.pk.exists(),  # always: what comes first is remembered for what comes later
            [ChatRequestItem.aborted.set(1), ChatRequestItem.expires.set(self._expires())],
        )
        return str(item["message"]["S"]) if "message" in item else None

    async def is_aborted(self, socket: str, request: str) -> bool:
        """Return whether a request was taken back."""
        return "aborted" in (await self._table.get(chat_request_key(socket, request)) or {})

    def _expires(self) -> int:
        return self._clock.now() // 1_000_000 + LONGEST_CONNECTION + GRACE
