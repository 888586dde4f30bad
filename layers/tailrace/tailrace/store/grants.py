"""What owners let others do: grants, which lie by the conversation that they are of.

A grant is found by what it was made for, the hash of its token or of its reader's name, so asking for one is one read
and nothing is compared. TTL deletes late; readers look at ``expires`` themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tailrace.clock import Clock
from tailrace.store.dynamodb import Payload
from tailrace.store.items import GrantItem, grant_key, is_expired
from tailrace.store.table import Table


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A right of somebody else in one conversation.

    Attributes:
        id: names it, and opens nothing.
        owner: whose conversation it is.
        right: ``read``, or ``write``, which is reading and answering too.
        message: the only message that it is for, or None for all of the conversation.
        reader: the owner that it is for; None where it is for whoever has its token.
        created: microseconds since 1970.
        expires: seconds since 1970, or None.
    """

    id: str
    conversation: str
    owner: str
    right: str
    message: str | None = None
    reader: str | None = None
    created: int
    expires: int | None = None


class StoredGrants:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline.

    A conversation is named by its tag (see ids.py).
    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def put(self, tag: str, grant: Grant) -> None:
        """Put a grant, in the place of one of its id."""
        await self._table.put(GrantItem.serialized(grant_key(tag, grant.id), **msgspec.structs.asdict(grant)))

    async def get(self, tag: str, ids: Sequence[str]) -> list[Grant]:
        """Return those of the grants that there are, consistently."""
        found = await self._table.get_all([grant_key(tag, each) for each in ids], are_all_there=False)
        return self._live([*found.values()])

    async def of_conversation(self, tag: str, limit: int) -> list[Grant]:
        """Return the grants of a conversation, up to a limit, the oldest first."""
        found: list[Grant] = []
        async for items in self._table.pages(GrantItem.pk == grant_key(tag, "")["pk"], Limit=limit):
            found += self._live(items)
            if len(found) >= limit:
                break
        return sorted(found[:limit], key=lambda grant: (grant.created, grant.id))

    async def remove(self, tag: str, grant_id: str) -> bool:
        """Remove a grant; return whether there was one."""
        item = await self._table.delete(grant_key(tag, grant_id))
        return item is not None and not is_expired(item, self._clock.now())

    def _live(self, items: Sequence[Payload]) -> list[Grant]:
        return [_grant(item) for item in items if not is_expired(item, self._clock.now())]


def _grant(item: Payload) -> Grant:
    return Grant(
        id=item["sk"]["S"],
        conversation=item["conversation"]["S"],
        owner=item["owner_name"]["S"],
        right=item["right"]["S"],
        message=item.get("message", {}).get("S"),
        reader=item.get("reader", {}).get("S"),
        created=int(item["made"]["N"]),
        expires=int(item["expires"]["N"]) if "expires" in item else None,
    )
