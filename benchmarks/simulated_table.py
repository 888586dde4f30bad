"""The table of a simulation: in memory, found by partition, in pages of 1 MB, with what DynamoDB bills and its stream.

What it does with a request is ``tests/memory_calls.py``, which is compared with moto; what a write costs is
``tests/write_units.py``. Here is what a simulation of ten thousand subscribers needs beside that.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final

from tailrace.store.dynamodb import Payload

from tests.memory_calls import Item, Items, MemoryCalls
from tests.write_units import index_units, item_bytes, table_units

LARGEST_PAGE: Final = 1024**2
"""Bytes of items that one query looks at (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html)."""

READ_UNIT: Final = 4096
"""Bytes (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html)."""

PARTITION_ONLY: Final = re.compile(r"\(?#\w+ = (:\w+)\)?")
PARTITION_FIRST: Final = re.compile(r"\(?#\w+ = (:\w+)\b")

Key = tuple[str, str]
Record = dict[str, Any]


class SortedItems(Items):
    """Items by their keys, and those of a partition in their order, with their bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._sorted: dict[str, list[tuple[Item, int]]] = {}

    def __setitem__(self, key: Key, item: Item) -> None:
        super().__setitem__(key, item)
        self._bytes[key[0]][key[1]] = item_bytes(item)
        self._sorted.pop(key[0], None)

    def pop(self, key: Key, default: Any = None) -> Any:
        """Take an item out."""
        self._bytes[key[0]].pop(key[1], None)
        self._sorted.pop(key[0], None)
        return super().pop(key, default)

    def in_order(self, pk: str) -> Sequence[tuple[Item, int]]:
        """Return a partition's items in their order, each with its bytes."""
        found = self._sorted.get(pk)
        if found is None:
            sizes = self._bytes[pk]
            found = self._sorted[pk] = [(self[pk, sk], sizes[sk]) for sk in sorted(sizes, key=str.encode)]
        return found


class SimulatedTable(MemoryCalls):
    """One table.

    Attributes:
        read_units, write_units: so far, by the kind of the partition: the first letter of its key.
        when_put: called with each item that was put or changed.
        records: of its stream, that nobody has taken yet.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.items: SortedItems = SortedItems()
        self.read_units: Counter[str] = Counter()
        self.write_units: Counter[str] = Counter()
        self.when_put: Callable[[Item], object] = lambda item: None
        self.records: list[Record] = []
        self._now = now
        self._numbers = count(1)
        self._in_transaction = False

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call, and count what it reads."""
        answer = await super().call(operation, payload)
        if operation == "GetItem":
            self._read(payload["Key"]["pk"]["S"], [answer["Item"]] if "Item" in answer else [], consistent=True)
        elif operation == "BatchGetItem":
            for item in (item for items in answer["Responses"].values() for item in items):
                self._read(item["pk"]["S"], [item], consistent=True)
        elif operation == "DeleteItem" and "Attributes" in answer:
            self._wrote(answer["Attributes"], None)
        return answer

    def _transact(self, request: Mapping[str, Any]) -> None:
        self._in_transaction = True
        try:
            super()._transact(request)
        finally:
            self._in_transaction = False

    def _make(self, change: Mapping[str, Any]) -> None:
        (request,) = change.values()
        source = request["Item"] if "Put" in change else request["Key"]
        key = (source["pk"]["S"], source["sk"]["S"])
        before = self.items.get(key)
        super()._make(change)
        after = self.items.get(key)
        self._wrote(before, after)
        if after is not None and "ConditionCheck" not in change:
            self.when_put(after)
            if key[0].startswith("C#"):  # nothing else passes the filter of the event source
                self.records.append(self._record(before, after))

    def _wrote(self, before: Item | None, after: Item | None) -> None:
        factor = 2 if self._in_transaction else 1
        kind = (after or before or {"pk": {"S": "?"}})["pk"]["S"][0]
        self.write_units[kind] += factor * (table_units(before, after) + index_units(before, after))

    def _record(self, before: Item | None, after: Item) -> Record:
        number = str(next(self._numbers))
        keys = {name: after[name] for name in ("pk", "sk")}
        images = {"NewImage": after} if before is None else {"NewImage": after, "OldImage": before}
        stream = {"Keys": keys, **images, "SequenceNumber": number, "ApproximateCreationDateTime": self._now()}
        return {"eventID": number, "eventName": "MODIFY" if before else "INSERT", "dynamodb": stream}

    def _read(self, pk: str, items: Sequence[Item], *, consistent: bool) -> None:
        units = max(1, -(-sum(map(item_bytes, items)) // READ_UNIT))
        self.read_units[pk[0]] += units if consistent else -(-units // 2)

    def _query(self, request: Mapping[str, Any]) -> Payload:
        if "IndexName" in request:
            return super()._query(request)
        expression, values = request["KeyConditionExpression"], request["ExpressionAttributeValues"]
        first = PARTITION_FIRST.match(expression)
        assert first is not None, expression
        pk = values[first[1]]["S"]
        found = self.items.in_order(pk)
        if not PARTITION_ONLY.fullmatch(expression) or not request.get("ScanIndexForward", True):
            found = self._holding(request, found)
        elif "ExclusiveStartKey" in request:
            after = request["ExclusiveStartKey"]["sk"]["S"].encode()
            found = [each for each in found if each[0]["sk"]["S"].encode() > after]
        limit, size, page = request.get("Limit", len(found)), 0, 0
        while page < min(limit, len(found)) and size < LARGEST_PAGE:
            size += found[page][1]
            page += 1
        units = max(1, -(-size // READ_UNIT))
        self.read_units[pk[0]] += units if request.get("ConsistentRead") else -(-units // 2)
        answer: dict[str, Any] = {"Items": [item for item, _ in found[:page]]}
        if 0 < page < len(found):
            answer["LastEvaluatedKey"] = {name: found[page - 1][0][name] for name in ("pk", "sk")}
        return answer

    def _holding(self, request: Mapping[str, Any], items: Sequence[tuple[Item, int]]) -> Sequence[tuple[Item, int]]:
        """Return those that a longer condition finds, as ``MemoryCalls`` decides it."""
        sizes = {item["sk"]["S"]: size for item, size in items}
        without_limit = {name: value for name, value in request.items() if name != "Limit"}
        return [(item, sizes[item["sk"]["S"]]) for item in super()._query(without_limit)["Items"]]
