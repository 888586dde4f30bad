"""DynamoDB in virtual time: the store's own client, with its retries and deadlines, on a table in memory.

An answer takes as long as is assumed below, on a clock that is turned by hand. Writes are throttled above what the
table, or a key of an index, takes a second; a transaction conflicts with whatever touches one of its items meanwhile
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html). So the code that is measured
is the one that is deployed, and what it does under load is seen in no time and without AWS.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec
from tailrace.backend import Backend
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store
from tailrace.store.dynamodb import Payload
from tailrace.store.dynamodb import _refused as refused
from tailrace.testing import ManualClock

from benchmarks.partitions import Bucket
from tests.memory_calls import MemoryCalls
from tests.write_units import INDEXES, index_writes, item_bytes, table_units

LATENCY: Final = 0.005
"""Assumed: seconds of a call, half of it on its way and half on the way back; AWS says single-digit milliseconds
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Introduction.html)."""

TRANSACTION: Final = 0.015
"""Assumed: seconds of a transaction, all of which it holds its items."""

SPREAD: Final = 0.5
"""Assumed: any answer may take so much less or more of that."""

_Result = TypeVar("_Result")
_Key = tuple[str, str]


class VirtualTable(DynamoDB):
    """One table.

    Args:
        writes: units a second that it takes; any when None.
        index_writes: units a second that one key of an index takes; any when None.

    Attributes:
        memory: what is in it.
        calls: attempts so far, by operation.
        write_units, read_units: so far.
        throttled, conflicts: attempts that were refused so far.
        index_units: by index and key.
        is_instant: whether calls take no time and are not counted: for what is there before.
        when_made: is told of each request that was not refused.
    """

    def __init__(
        self, clock: ManualClock, *, writes: float | None = None, index_writes: float | None = None, seed: int = 1
    ) -> None:
        self._dice = random.Random(seed)
        super().__init__(region="us-east-1", clock=clock, jitter=self._dice.random)
        self._virtual = clock
        self.memory = MemoryCalls()
        self.is_instant = False
        self.calls: Counter[str] = Counter()
        self.write_units = 0
        self.read_units = 0.0
        self.throttled = self.conflicts = 0
        self.index_units: Counter[tuple[str, str]] = Counter()
        self._writes = None if writes is None else Bucket(writes)
        self._per_key = index_writes
        self._keys: dict[tuple[str, str], Bucket] = {}
        self._held: set[_Key] = set()
        self.when_made: Callable[[str, Payload], object] | None = None

    async def _attempt(self, operation: str, body: bytes) -> Payload:
        request = msgspec.json.decode(body)
        if self.is_instant:
            return await self.memory.call(operation, request)
        self.calls[operation] += 1
        changes = _changes(operation, request)
        if changes and not self._has_room(changes):
            await self._travel(LATENCY)
            self.throttled += 1
            return refused(400, {"__type": "ThrottlingException"})
        if operation == "TransactWriteItems":
            return await self._transact(request, changes)
        await self._travel(LATENCY / 2)
        if self._held.intersection(changes):
            self.conflicts += 1
            await self._travel(LATENCY / 2)
            return refused(400, {"__type": "TransactionConflictException"})
        try:
            return await self._make(operation, request, changes)
        finally:
            await self._travel(LATENCY / 2)

    async def _transact(self, request: Payload, changes: Mapping[_Key, Payload]) -> Payload:
        if self._held.intersection(changes):
            self.conflicts += 1
            await self._travel(LATENCY)
            reasons = [{"Code": "TransactionConflict"}]
            return refused(400, {"__type": "TransactionCanceledException", "CancellationReasons": reasons})
        self._held.update(changes)
        try:
            await self._travel(TRANSACTION)
            return await self._make("TransactWriteItems", request, changes)
        finally:
            self._held.difference_update(changes)

    async def _make(self, operation: str, request: Payload, changes: Mapping[_Key, Payload]) -> Payload:
        before = {key: self.memory.items.get(key) for key in changes}
        try:
            answer = await self.memory.call(operation, request)
        finally:
            if changes:
                self._bill(operation, before)
        self.read_units += read_units(operation, request, answer)
        if self.when_made is not None:
            self.when_made(operation, request)
        return answer

    def _bill(self, operation: str, before: Mapping[_Key, Payload | None]) -> None:
        factor = 2 if operation == "TransactWriteItems" else 1
        for key, old in before.items():
            new = self.memory.items.get(key)
            units = factor * table_units(old, new)
            self.write_units += units
            if self._writes is not None:
                self._writes.owe(units)
            for index, value, more in index_writes(old, new):
                self.index_units[index, value] += factor * more
                if self._per_key is not None:
                    self._keys.setdefault((index, value), Bucket(self._per_key)).owe(factor * more)

    def _has_room(self, changes: Mapping[_Key, Payload]) -> bool:
        """Whether neither the table nor a key of an index is over what it takes: a hot key of an index throttles the
        writes to the table that change it."""
        now = self._virtual.monotonic()
        if self._writes is not None and not self._writes.is_free(now):
            return False
        if self._per_key is None:
            return True
        for key, change in changes.items():
            old = self.memory.items.get(key)
            for index, (names, _) in INDEXES.items():
                for item in (old, change.get("Item")):
                    value = None if item is None or names[0] not in item else item[names[0]]["S"]
                    bucket = None if value is None else self._keys.get((index, value))
                    if bucket is not None and not bucket.is_free(now):
                        return False
        return True

    async def _travel(self, seconds: float) -> None:
        await self._virtual.sleep(seconds * (1 + SPREAD * (2 * self._dice.random() - 1)))


def _changes(operation: str, request: Payload) -> dict[_Key, Payload]:
    """Return what a request writes, or checks in a transaction, by the items' keys."""
    match operation:
        case "PutItem" | "UpdateItem" | "DeleteItem":
            writes = [request]
        case "TransactWriteItems":
            writes = [write for change in request["TransactItems"] for write in change.values()]
        case "BatchWriteItem":
            writes = [change["DeleteRequest"] for changes in request["RequestItems"].values() for change in changes]
        case _:
            writes = []
    found: dict[_Key, Payload] = {}
    for write in writes:
        source = write["Key"] if "Key" in write else write["Item"]
        found[source["pk"]["S"], source["sk"]["S"]] = write
    return found


def read_units(operation: str, request: Payload, answer: Payload) -> float:
    """Return what a read costs, by AWS's rules
    (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html)."""
    match operation:
        case "Query":
            units = math.ceil(sum(map(item_bytes, answer["Items"])) / 4096) or 1
            return units if request["ConsistentRead"] else units / 2
        case "GetItem":
            return math.ceil(item_bytes(answer.get("Item", {})) / 4096) or 1
        case "BatchGetItem":
            found = [item for items in answer["Responses"].values() for item in items]
            asked = sum(len(each["Keys"]) for each in request["RequestItems"].values())
            return sum(math.ceil(item_bytes(item) / 4096) for item in found) + asked - len(found)
    return 0


class Virtual:
    """A backend on a virtual table, and the loop that turns the clock."""

    def __init__(self, *, settings: Settings | None = None, **limits: Any) -> None:
        self.clock = ManualClock()
        self.table = VirtualTable(self.clock, **limits)
        dice = random.Random(2)
        store = Store(self.table, "virtual", clock=self.clock, random_bytes=dice.randbytes)
        self.backend = Backend(
            settings or Settings(broadcast=False), store=store, clock=self.clock, random_bytes=dice.randbytes
        )

    def run(self, work: Coroutine[Any, Any, _Result]) -> tuple[_Result, float]:
        """Run something to its end; return its result, and the virtual seconds that it took."""
        return asyncio.run(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, _Result]) -> tuple[_Result, float]:
        begun = self.clock.monotonic()

        async def timed() -> tuple[_Result, float]:
            result = await work
            return result, self.clock.monotonic() - begun

        task = asyncio.ensure_future(timed())
        while not task.done():
            await self.clock.advance(0.5)
        return await task
