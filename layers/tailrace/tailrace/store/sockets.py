"""WebSocket connections: for whom each acts, and what it has used. One item each, which goes with its connection."""

from __future__ import annotations

from typing import Final

import msgspec
from pynamodb.expressions.condition import size

from tailrace.clock import Clock
from tailrace.store.dynamodb import ConditionFailed, Payload
from tailrace.store.identities import put_counted
from tailrace.store.items import SocketItem, is_expired, socket_key
from tailrace.store.table import Table

LONGEST_CONNECTION: Final = 2 * 3600
"""Seconds that API Gateway keeps a connection
(https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html)."""

GRACE: Final = 600
"""Seconds more, for clocks that differ."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a socket acts.

    Attributes:
        grant: the id of the grant that it was made with, or None.
        conversation: the only conversation that it is for then.
        may_chat: whether it may ask for replies.
        is_over: whether it is one more than its owner may have; what it asks for is refused then.
    """

    owner: str
    grant: str | None = None
    conversation: str | None = None
    may_chat: bool = True
    is_over: bool = False


class StoredSockets:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def put(self, socket: str, caller: Caller, *, identity: Payload | None = None, nonce: bytes = b"") -> None:
        """Remember for whom a socket acts: one write.

        Args:
            identity: the update of what its owner has open, for the same transaction.
            nonce: 16 random bytes for that.

        Raises:
            IdentityChanged: what its owner has open was changed by somebody else.
        """
        item = SocketItem.serialized(
            socket_key(socket),
            owner=caller.owner,
            grant=caller.grant,
            conversation=caller.conversation,
            may_chat=None if caller.may_chat else False,
            is_over=True if caller.is_over else None,
            expires=self.expires(),
        )
        await put_counted(self._table, item, identity, nonce)

    async def caller(self, socket: str) -> Caller | None:
        """Return for whom a socket acts, or None if nobody was seen behind it."""
        item = await self._table.get(socket_key(socket))
        return None if item is None or is_expired(item, self._clock.now()) else _caller(item)

    async def remove(self, socket: str) -> Caller | None:
        """Forget a socket; return for whom it acted, or None."""
        item = await self._table.delete(socket_key(socket))
        return None if item is None else _caller(item)

    async def add_channel(self, socket: str, channel: str, most: int) -> bool:
        """Count a channel that a socket subscribes to; return False if that would be more than it may have.

        Exact, however many frames come at once: the count is the condition of the write.
        """
        channels = SocketItem.channels
        few = size(channels) < most  # type: ignore[no-untyped-call]  # pynamodb leaves it untyped
        room = channels.does_not_exist() | few | channels.contains(channel)
        try:
            await self._table.update(
                socket_key(socket), room, [channels.add({channel}), SocketItem.expires.set(self.expires())]
            )
        except ConditionFailed:
            return False
        return True

    async def drop_channel(self, socket: str, channel: str) -> None:
        """Count a channel no more."""
        channels = SocketItem.channels
        try:
            await self._table.update(socket_key(socket), channels.contains(channel), [channels.delete({channel})])
        except ConditionFailed:
            return

    async def whispered(self, socket: str, most: int) -> bool:
        """Count a whisper; return False if it is one too many for this second.

        As many as ``most`` may come at once; then they come back evenly: a bucket that is kept as the moment at which
        all will be paid off (the generic cell rate algorithm of ITU-T I.371).
        """
        now, each, due = self._clock.now(), 1_000_000 // most, SocketItem.whispers_due
        expires = SocketItem.expires.set(self.expires())
        owes = ((due > now) & (due <= now + each * (most - 1)), [due.add(each), expires])
        owes_nothing = (due.does_not_exist() | (due <= now), [due.set(now + each), expires])
        # Another whisper may have come between the first two; then it owes, and is asked again.
        for condition, actions in (owes, owes_nothing, owes):
            try:
                await self._table.update(socket_key(socket), condition, actions)
            except ConditionFailed:
                continue
            return True
        return False

    def expires(self) -> int:
        """Return when a connection of now will be gone at the latest: seconds since 1970."""
        return self._clock.now() // 1_000_000 + LONGEST_CONNECTION + GRACE


def _caller(item: Payload) -> Caller | None:
    if "owner" not in item:
        return None
    return Caller(
        owner=item["owner"]["S"],
        grant=item.get("grant", {}).get("S"),
        conversation=item.get("conversation", {}).get("S"),
        may_chat="may_chat" not in item,
        is_over="is_over" in item,
    )
