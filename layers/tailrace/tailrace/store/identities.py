"""What identities have used: one item each, which changes in the transaction of whatever uses something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tailrace.clock import Clock
from tailrace.events import TERMINAL, Usage
from tailrace.store.dynamodb import ConditionFailed, Payload, TransactionCancelled
from tailrace.store.items import IdentityItem, from_json, identity_key, message_key
from tailrace.store.table import Table

KEPT_SECONDS: Final = 3 * 24 * 3600
"""After the last use; what was used lies within a day."""


class IdentityChanged(Exception):
    """What an identity has used has changed since it was read. Nobody outside ever sees this."""


class Spent(msgspec.Struct, frozen=True):
    """What a reply came to that has ended.

    Attributes:
        completed: when; microseconds since 1970.
        tokens: of its prompt and its answer.
    """

    completed: int
    tokens: int


async def put_counted(table: Table, item: Payload, identity: Payload | None, nonce: bytes) -> None:
    """Put an item, with the update of what its owner has used, if it counts.

    Args:
        identity: as ``update_request`` gives it.
        nonce: 16 random bytes for the transaction.

    Raises:
        IdentityChanged: what its owner has used was changed by somebody else.
    """
    if identity is None:
        await table.put(item)
        return
    writes: list[Payload] = [{"Put": {"TableName": table.name, "Item": item}}, {"Update": identity}]
    try:
        await table.transact(writes, token=nonce.hex())
    except TransactionCancelled as error:
        raise IdentityChanged from error


class Identities:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def get(self, owner: str, what: str = "U") -> tuple[str, int]:
        """Return what was stored of an identity, JSON, and its version; an empty text and 0 if there is nothing.

        Args:
            what: of which kind, as ``identity_key`` has them.
        """
        item = await self._table.get(identity_key(owner, what))
        return ("", 0) if item is None else (item["held"]["S"], int(item["version"]["N"]))

    def update_request(self, owner: str, held: str, version: int, what: str = "U") -> Payload:
        """Return the update, for a transaction, that stores something in the place of a version."""
        known = IdentityItem.version == version if version else IdentityItem.pk.does_not_exist()
        expires = self._clock.now() // 1_000_000 + KEPT_SECONDS
        actions = [
            IdentityItem.held.set(held),
            IdentityItem.version.set(version + 1),
            IdentityItem.expires.set(expires),
        ]
        return self._table.update_request(identity_key(owner, what), known, actions)

    async def update(self, owner: str, held: str, version: int, what: str = "U") -> None:
        """Store something in the place of a version.

        Raises:
            IdentityChanged: it is another version by now.
        """
        try:
            await self._table.make(self.update_request(owner, held, version, what))
        except ConditionFailed as error:
            raise IdentityChanged from error

    async def spent(self, replies: Sequence[str]) -> dict[str, Spent]:
        """Return what those of the replies came to that have ended, by their ids. One that is gone came to nothing."""
        keys = {reply: message_key(reply) for reply in replies}
        items = await self._table.get_all([*keys.values()], are_all_there=False)
        found: dict[str, Spent] = {}
        for reply, key in keys.items():
            item = items.get((key["pk"], key["sk"]))
            if item is None:
                found[reply] = Spent(0, 0)
            elif item["status"]["S"] in TERMINAL:
                usage = msgspec.convert(from_json(item, "usage") or {}, Usage)
                tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
                found[reply] = Spent(int(item["completed"]["N"]), tokens)
        return found
