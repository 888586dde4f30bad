"""Requests to one table: built by pynamodb's conditions and updates, sent by ``dynamodb.py``.

Each write is safe to send again after its answer was lost: items under fresh random ids are only ever
put once, updates set fixed values, and an append that finds its place taken looks whose nonce is there.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action, Update

from tailrace.errors import RequestError, StoreError
from tailrace.store.dynamodb import Calls, Payload

Key = Mapping[str, str]

LONGEST_SORT_KEY: Final = 1024
"""Bytes (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html). A partition's key may have
twice as many; none of ours comes near."""

MOST_KEYS: Final = 100
"""Of one read of many items
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html)."""

LARGEST_PAGE: Final = 3_000_000
"""Bytes that are listed together: half of what Lambda carries (http/responses.py), for what JSON adds."""

_TABLE_KEY: Final = {"pk": ["S"], "sk": ["S"]}
_INDEX_KEY: Final = {**_TABLE_KEY, "owner": ["S"], "created": ["N"]}
_DIGITS: Final = re.compile("[0-9]{1,18}")


class Table:
    """One table.

    Args:
        calls: DynamoDB, or a stand-in that passes its tests.
        name: the table's name.
    """

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls = calls
        self.name = name

    async def put(self, item: Payload, **options: Any) -> Payload | None:
        """Put an item; return the one that was there before if the options ask for it."""
        answer = await self._calls.call("PutItem", {"TableName": self.name, "Item": item, **options})
        return answer.get("Attributes")

    async def get(self, key: Key, *, consistent: bool = True) -> Payload | None:
        """Return an item or None."""
        request = {"TableName": self.name, "Key": key_of(key), "ConsistentRead": consistent}
        answer = await self._calls.call("GetItem", request)
        return answer.get("Item")

    async def update(self, key: Key, condition: Condition, actions: Sequence[Action]) -> Payload:
        """Change an item if the condition holds; return it whole.

        Raises:
            ConditionFailed: it does not hold.
        """
        return await self.make(self.update_request(key, condition, actions))

    async def make(self, update: Payload) -> Payload:
        """Make an update that could also be a part of a transaction; return the item whole.

        Raises:
            ConditionFailed: its condition does not hold.
        """
        answer = await self._calls.call("UpdateItem", {**update, "ReturnValues": "ALL_NEW"})
        attributes: Payload = answer["Attributes"]
        return attributes

    def update_request(self, key: Key, condition: Condition, actions: Sequence[Action]) -> dict[str, Any]:
        """Return an update as a part of a transaction."""
        return {"TableName": self.name, "Key": key_of(key), **expressions(condition=condition, actions=actions)}

    async def transact(self, writes: Sequence[Payload], token: str) -> None:
        """Make all writes or none.

        Args:
            token: DynamoDB makes writes of one token once within ten minutes.

        Raises:
            TransactionCancelled: a condition does not hold.
        """
        await self._calls.call("TransactWriteItems", {"TransactItems": writes, "ClientRequestToken": token})

    async def delete(self, key: Key) -> Payload | None:
        """Delete an item; return it, or None if there was none."""
        request = {"TableName": self.name, "Key": key_of(key), "ReturnValues": "ALL_OLD"}
        return (await self._calls.call("DeleteItem", request)).get("Attributes")

    async def query(self, condition: Condition, **options: Any) -> AsyncIterator[Payload]:
        """Yield all items, consistently."""
        async for items in self.pages(condition, **options):
            for item in items:
                yield item

    async def pages(self, condition: Condition, **options: Any) -> AsyncIterator[Sequence[Payload]]:
        """Yield all items, consistently, page by page; one holds ``Limit`` items and 1 MB at most."""
        request = {
            "TableName": self.name,
            "ConsistentRead": True,
            **expressions(key_condition=condition),
            **options,
        }
        while True:
            answer = await self._calls.call("Query", request)
            yield answer["Items"]
            last = answer.get("LastEvaluatedKey")
            if last is None:
                return
            request["ExclusiveStartKey"] = last

    async def one_page(self, condition: Condition, **options: Any) -> tuple[Sequence[Payload], Payload | None]:
        """Make one query, consistently; return its items, and the key of the last one where there are more."""
        request = {"TableName": self.name, "ConsistentRead": True, **expressions(key_condition=condition), **options}
        answer = await self._calls.call("Query", request)
        return answer["Items"], answer.get("LastEvaluatedKey")

    async def page(
        self, condition: Condition, limit: int, cursor: str | None, *, size: Callable[[Payload], int], **options: Any
    ) -> tuple[list[Payload], str | None]:
        """Return up to ``limit`` items, and the cursor of the next page or None.

        Args:
            size: how many bytes an item comes to, for whoever is sent the page. It ends at ``LARGEST_PAGE`` of them,
                and has one item at least.

        Raises:
            RequestError: the cursor is not one that this query gave.
        """
        request = {"TableName": self.name, **expressions(key_condition=condition), **options}
        if cursor is not None:
            request["ExclusiveStartKey"] = _from_cursor(cursor, request)
        items: list[Payload] = []
        while True:
            request["Limit"] = limit - len(items)
            answer = await self._calls.call("Query", request)
            items += answer["Items"]
            last = answer.get("LastEvaluatedKey")
            if len(fitting := _fitting(items, size)) < len(items):
                names = _INDEX_KEY if "IndexName" in request else _TABLE_KEY
                return fitting, _to_cursor({name: fitting[-1][name] for name in names})
            if last is None or len(items) >= limit:
                return items, None if last is None else _to_cursor(last)
            request["ExclusiveStartKey"] = last

    def cursor_at(self, key: Key) -> str:
        """Return the cursor of a page that begins behind a key, whether an item is there or not; not of an index."""
        return _to_cursor(key_of(key))

    async def get_all(self, keys: Sequence[Key], *, are_all_there: bool = True) -> dict[tuple[str, str], Payload]:
        """Return the items of many keys by ``(pk, sk)``, consistently.

        Args:
            are_all_there: whether each key must have its item.

        Raises:
            StoreError: one of them is not there.
        """
        found: dict[tuple[str, str], Payload] = {}
        pending = [key_of(key) for key in keys]
        while pending:
            # As much of them as fits into 16 MB; the rest comes back as unprocessed.
            asked = pending[:MOST_KEYS]
            request = {self.name: {"Keys": asked, "ConsistentRead": True}}
            answer = await self._calls.call("BatchGetItem", {"RequestItems": request})
            items = answer["Responses"].get(self.name, ())
            left = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            if are_all_there and len(items) + len(left) < len(asked):
                raise StoreError("A stored message cannot be read.")
            found.update({(item["pk"]["S"], item["sk"]["S"]): item for item in items})
            pending = left + pending[MOST_KEYS:]
        return found

    async def delete_all(self, keys: Sequence[Key]) -> None:
        """Delete items, whether they are there or not."""
        pending = [{"DeleteRequest": {"Key": key_of(key)}} for key in keys]
        while pending:
            # 25 writes a call; those that were throttled come back as unprocessed.
            answer = await self._calls.call("BatchWriteItem", {"RequestItems": {self.name: pending[:25]}})
            left = answer.get("UnprocessedItems", {}).get(self.name, [])
            if len(left) == len(pending[:25]):
                raise StoreError("The store is not available. Please try again.")
            pending = left + pending[25:]


def expressions(
    *,
    condition: Condition | None = None,
    key_condition: Condition | None = None,
    actions: Sequence[Action] = (),
) -> dict[str, Any]:
    """Return the expressions of a request with their names and values."""
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    request: dict[str, Any] = {}
    if condition is not None:
        request["ConditionExpression"] = condition.serialize(names, values)
    if key_condition is not None:
        request["KeyConditionExpression"] = key_condition.serialize(names, values)
    if actions:
        request["UpdateExpression"] = Update(*actions).serialize(names, values)
    request["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in names.items()}
    if values:
        request["ExpressionAttributeValues"] = values
    return request


def changes(condition: Payload, values: Payload, removed: Sequence[str] = ()) -> dict[str, Any]:
    """Return the expressions of an update that sets attributes to fixed values and removes others: what pynamodb's
    actions come to, at an eighth of what they take. Every reply ends with one.

    Args:
        condition: as ``expressions`` returns one.
        values: by the attributes' names, in DynamoDB's JSON.
        removed: the names of those that are removed.
    """
    update = "SET " + ", ".join([f"#{name} = :{name}" for name in values])
    if removed:
        update += " REMOVE " + ", ".join([f"#{name}" for name in removed])
    return {
        **condition,
        "UpdateExpression": update,
        "ExpressionAttributeNames": {
            **condition["ExpressionAttributeNames"],
            **{f"#{name}": name for name in (*values, *removed)},
        },
        "ExpressionAttributeValues": {
            **condition.get("ExpressionAttributeValues", {}),
            **{f":{name}": value for name, value in values.items()},
        },
    }


def key_of(key: Key) -> Payload:
    """Return a key in DynamoDB's JSON."""
    return {name: {"S": value} for name, value in key.items()}


def _fitting(items: list[Payload], size: Callable[[Payload], int]) -> list[Payload]:
    """Return the first items, as many as are a page together."""
    total = 0
    for place, item in enumerate(items):
        total += size(item)
        if total > LARGEST_PAGE and place:
            return items[:place]
    return items


def _to_cursor(last: Payload) -> str:
    return urlsafe_b64encode(msgspec.json.encode(last)).rstrip(b"=").decode()


def _from_cursor(cursor: str, request: Payload) -> dict[str, Any]:
    """Return the start key of a cursor. One that cannot be of this query is refused here: DynamoDB would refuse the
    whole request, and an emulator might crash or read elsewhere."""
    try:
        start = msgspec.json.decode(
            urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=dict[str, dict[str, str]]
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RequestError("The cursor is not one of ours.") from error
    partition, *bounds = (value["S"] for value in request["ExpressionAttributeValues"].values())
    in_index = "IndexName" in request
    if (
        {name: [*typed] for name, typed in start.items()} != (_INDEX_KEY if in_index else _TABLE_KEY)
        or start["owner" if in_index else "pk"]["S"] != partition
        or not _is_between(start["sk"]["S"], bounds)
        or not all(0 < len(start[name]["S"].encode()) <= LONGEST_SORT_KEY for name in ("pk", "sk"))
        or (in_index and not _DIGITS.fullmatch(start["created"]["N"]))
    ):
        raise RequestError("The cursor is not one of ours.")
    return start


def _is_between(sort_key: str, bounds: Sequence[str]) -> bool:
    """Return whether a query for a prefix, or for what lies between two keys, could have given a sort key."""
    if len(bounds) < 2:
        return all(sort_key.startswith(prefix) for prefix in bounds)
    low, high = (bound.encode() for bound in bounds)
    return low <= sort_key.encode() <= high
