"""Who listens: the subscriptions of channels.

A subscription lies under its channel, so a fan-out is one query. By its socket it is found through the index
``by_socket``, which only has to know it when the socket goes. TTL deletes late; readers look at ``expires`` themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from tailrace.clock import Clock
from tailrace.events import Json
from tailrace.ids import RandomBytes
from tailrace.store.dynamodb import Payload, TransactionCancelled
from tailrace.store.grants import Grant
from tailrace.store.items import (
    SubscriptionItem,
    from_json,
    is_expired,
    segment_key,
    subscription_key,
    to_json,
)
from tailrace.store.sockets import StoredSockets
from tailrace.store.table import Table, expressions

NEVER: Final = 2**53
"""A segment's number that is never reached."""


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """One socket on one channel.

    Attributes:
        expires: seconds since 1970.
        since: when it was put, microseconds since 1970. Another one on the same channel is later.
        member: of a presence channel, who it is.
        starts: message id to the first segment that a fan-out may send it, for what a catch-up sends before.
        delivery: how it wants its chunks, as text that is the same for those who want the same; None for every chunk.
        grant: the id of the grant by which it is there, or None.
    """

    channel: str
    socket: str
    expires: int
    since: int
    member: Json | None = None
    starts: Mapping[str, int] = msgspec.field(default_factory=dict)
    delivery: str | None = None
    grant: str | None = None


class Subscriptions:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table, sockets: StoredSockets, clock: Clock, random_bytes: RandomBytes) -> None:
        self._table = table
        self._sockets = sockets
        self._clock = clock
        self._random_bytes = random_bytes

    # ---- subscriptions ----

    async def put(
        self,
        channel: str,
        socket: str,
        *,
        member: Json | None = None,
        starts: Mapping[str, int] | None = None,
        delivery: str | None = None,
        grant: Grant | None = None,
    ) -> Subscription | None:
        """Put a subscription; return the one that was there before, or None. One write, and one of the index.

        Args:
            grant: by which it is there: it ends no later.
        """
        expires = self._sockets.expires()
        if grant is not None and grant.expires is not None:
            expires = min(expires, grant.expires)
        item = SubscriptionItem.serialized(
            subscription_key(channel, socket),
            socket=socket,
            expires=expires,
            since=self._clock.now(),
            member=to_json(member),
            delivery=delivery,
            grant=None if grant is None else grant.id,
        )
        if starts:
            item["from"] = {"M": {message_id: {"N": str(number)} for message_id, number in starts.items()}}
        before = await self._table.put(item, ReturnValues="ALL_OLD")
        return None if before is None or is_expired(before, self._clock.now()) else _subscription(before)

    async def get(self, channel: str, socket: str) -> Subscription | None:
        """Return a subscription, consistently, or None."""
        item = await self._table.get(subscription_key(channel, socket))
        return None if item is None or is_expired(item, self._clock.now()) else _subscription(item)

    async def remove(self, channel: str, socket: str) -> Subscription | None:
        """Remove a subscription; return the one that was there, to one of those who do it at once."""
        item = await self._table.delete(subscription_key(channel, socket))
        return None if item is None else _subscription(item)

    async def remove_granted(self, channel: str, grant_id: str) -> None:
        """Remove the subscriptions of a channel that are there by a grant. It reads all of them."""
        for socket in [each.socket async for each in self.of_channel(channel) if each.grant == grant_id]:
            await self.remove(channel, socket)

    async def of_channel(self, channel: str, *, limit: int | None = None) -> AsyncIterator[Subscription]:
        """Yield a channel's subscriptions, consistently, page after page, in no order that means anything.

        Args:
            limit: yield no more than so many, and read little more.
        """
        condition = SubscriptionItem.pk == subscription_key(channel, "")["pk"]
        options = {} if limit is None else {"Limit": limit}
        found = 0
        async for item in self._table.query(condition, **options):
            if is_expired(item, self._clock.now()):
                continue
            yield _subscription(item)
            found += 1
            if found == limit:
                return

    async def of_socket(self, socket: str) -> list[str]:
        """Return the channels of a socket. The index is eventually consistent: a new one may be missing."""
        condition = SubscriptionItem.socket == socket
        return [
            item["pk"]["S"][2:]
            async for item in self._table.query(condition, IndexName="by_socket", ConsistentRead=False)
        ]

    async def remove_socket(self, socket: str) -> list[Subscription]:
        """Remove all of a socket's subscriptions; return those that were there."""
        removed = [await self.remove(channel, socket) for channel in await self.of_socket(socket)]
        return [subscription for subscription in removed if subscription is not None]

    async def open_from(self, channel: str, socket: str, message_id: str, number: int) -> bool:
        """Let fan-outs send a reply's segments from ``number`` on, if there is no such segment yet.

        A fan-out of a segment looks for subscriptions after the segment was put. So each is sent either by whoever
        read the log up to here, or by its fan-out, and never by both.

        Args:
            message_id: ``NEVER`` among the ``starts`` that the subscription was put with.

        Returns:
            False when the segment is there, or the subscription is not any more or has been put again.
        """
        absent = {"ConditionCheck": {**self._on(segment_key(message_id, number)), **_ABSENT}}
        begin = {
            "Update": {
                **self._on(subscription_key(channel, socket)),
                "ConditionExpression": "#f.#m = :never",
                "UpdateExpression": "SET #f.#m = :n",
                "ExpressionAttributeNames": {"#f": "from", "#m": message_id},
                "ExpressionAttributeValues": {":n": {"N": str(number)}, ":never": {"N": str(NEVER)}},
            }
        }
        try:
            await self._table.transact([absent, begin], token=self._random_bytes(16).hex())
        except TransactionCancelled:
            return False
        return True

    def _on(self, key: Mapping[str, str]) -> dict[str, Any]:
        return {"TableName": self._table.name, "Key": {name: {"S": value} for name, value in key.items()}}


_ABSENT: Final[Payload] = expressions(condition=SubscriptionItem.pk.does_not_exist())


def _subscription(item: Payload) -> Subscription:
    starts = item.get("from", {}).get("M", {})
    return Subscription(
        channel=item["pk"]["S"][2:],
        socket=item["sk"]["S"],
        expires=int(item["expires"]["N"]),
        since=int(item["since"]["N"]),
        member=from_json(item, "member"),
        starts={message_id: int(number["N"]) for message_id, number in starts.items()},
        delivery=item.get("delivery", {}).get("S"),
        grant=item.get("grant", {}).get("S"),
    )
