"""What DynamoDB would bill for a reply: write units, counted from the requests by AWS's published rules.

- An item's size is that of its attributes, names and values:
  https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
- A write costs a unit for each started KB of the item, before or after, whichever is larger; one whose condition
  fails costs too: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
- In a transaction twice that, to prepare and to commit:
  https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html
- A write that changes an index costs again, by the size of what the index holds:
  https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html
"""

from __future__ import annotations

import asyncio
import random
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.events import Event, Message, ProviderEvent, ResponseInfo, Text, Usage
from tailrace.reply.relay import Relay
from tailrace.settings import Settings
from tailrace.store import Calls, Store
from tailrace.store.dynamodb import ConditionFailed, Payload, TransactionCancelled
from tailrace.testing import ManualClock

INDEXES: Final = {
    "by_owner": (("owner", "created"), "ALL"),
    "by_sweep": (("sweep", "created"), "KEYS_ONLY"),
    "by_socket": (("socket",), "KEYS_ONLY"),
}
"""Of the table: each index's keys and what it holds. An item without both keys is not in it. A test compares."""

STORED_OVERHEAD: Final = 100
"""Bytes that DynamoDB adds to each stored item when it bills storage (https://aws.amazon.com/dynamodb/pricing/)."""


class CountingCalls:
    """Passes calls on to ``inner``, and counts what its writes cost.

    It looks at the items before and after each write, which is neither counted nor recorded.

    Attributes:
        units: write units so far, by operation, and those of all indexes as ``indexes``.
        made: calls so far, by operation.
    """

    def __init__(self, inner: Calls) -> None:
        self._inner = inner
        self.units: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self._waiting = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        self.made[operation] += 1
        self._waiting += 1
        self._quiet.clear()
        try:
            return await self._call(operation, payload)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no call waits for its answer."""
        await self._quiet.wait()

    async def _call(self, operation: str, payload: Payload) -> Payload:
        if operation in ("PutItem", "UpdateItem", "DeleteItem"):
            writes, factor = [payload], 1
        elif operation == "TransactWriteItems":
            writes, factor = [write for change in payload["TransactItems"] for write in change.values()], 2
        elif operation in ("GetItem", "BatchGetItem", "Query"):
            return await self._inner.call(operation, payload)
        else:
            raise NotImplementedError(operation)
        before = [await self._item(write) for write in writes]
        try:
            return await self._inner.call(operation, payload)
        except (ConditionFailed, TransactionCancelled):
            # What was refused is billed by what stands there: before and after are the same.
            raise
        finally:
            for write, old in zip(writes, before, strict=True):
                new = await self._item(write)
                self.units[operation] += factor * table_units(old, new)
                # AWS's pages do not say whether a transaction doubles these too: counted as if it did.
                self.units["indexes"] += factor * index_units(old, new)

    async def _item(self, write: Payload) -> Payload | None:
        source = write["Key"] if "Key" in write else write["Item"]
        key = {"pk": source["pk"], "sk": source["sk"]}
        request = {"TableName": write["TableName"], "Key": key, "ConsistentRead": True}
        return (await self._inner.call("GetItem", request)).get("Item")


def table_units(before: Payload | None, after: Payload | None) -> int:
    """Return the table's write units of one write outside a transaction, given the item before and after it."""
    return max(1, kilobytes(before), kilobytes(after))


def index_units(before: Payload | None, after: Payload | None) -> int:
    """Return the write units that all indexes add to that."""
    return sum(units for _, _, units in index_writes(before, after))


def index_writes(before: Payload | None, after: Payload | None) -> Iterator[tuple[str, str, int]]:
    """Yield each index that a write changes, the value of its hash key, and the write units there."""
    for index, (keys, projection) in INDEXES.items():
        old, new = _entry(before, keys, projection), _entry(after, keys, projection)
        if old == new:
            continue
        if old is not None and new is not None and all(old[key] == new[key] for key in keys):
            yield index, old[keys[0]]["S"], max(kilobytes(old), kilobytes(new))
            continue
        # A changed key is a deletion and a put.
        for entry in (old, new):
            if entry is not None:
                yield index, entry[keys[0]]["S"], kilobytes(entry)


def kilobytes(item: Payload | None) -> int:
    """Return how many KB an item starts; 0 for none."""
    return 0 if item is None else -(-item_bytes(item) // 1024)


def item_bytes(item: Payload) -> int:
    """Return an item's size by AWS's rules."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(typed: Mapping[str, Any]) -> int:
    ((kind, value),) = typed.items()
    match kind:
        case "S":
            return len(value.encode())
        case "N":
            return _number_bytes(value)
        case "B":
            return len(value if isinstance(value, bytes) else b64decode(value))
        case "BOOL" | "NULL":
            return 1
        case "L":
            return 3 + sum(1 + _value_bytes(element) for element in value)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_bytes(element) for name, element in value.items())
        case "SS" | "NS" | "BS":
            return sum(_value_bytes({kind[0]: element}) for element in value)
        case _:
            raise NotImplementedError(kind)


def _number_bytes(text: str) -> int:
    digits = text.lower().partition("e")[0].lstrip("-").replace(".", "").strip("0")
    return (len(digits) + 1) // 2 + 1


def _entry(item: Payload | None, keys: Sequence[str], projection: str) -> Payload | None:
    if item is None or any(key not in item for key in keys):
        return None
    return item if projection == "ALL" else {name: item[name] for name in ("pk", "sk", *keys)}


# ---- a reply to count ----

PER_SECOND: Final = 50
"""Chunks a second, of four characters each."""

TEXT: Final = "a tailrace carries water away ünï"


def chunk(number: int) -> Text:
    """Return four characters, not the same ones every time."""
    return Text("".join(TEXT[(4 * number + offset) % len(TEXT)] for offset in range(4)))


async def reply(
    inner: Calls,
    chunks: int,
    *,
    table: str = "memory",
    flush_interval: float | None = None,
    deliver: Callable[[Sequence[Event]], object] = lambda events: None,
    step: float = 1.0,
    websocket_url: str | None = None,
) -> tuple[Message, CountingCalls, Store]:
    """Relay a reply in no time; return how it ended, what it cost from its start on, and where it is stored.

    Args:
        step: seconds the clock is advanced at a time. An emulator behind a socket answers only in between.
        websocket_url: where to broadcast; not at all when None. Nobody listens, so nobody is called there.
    """
    calls = CountingCalls(inner)
    clock = ManualClock()
    store = Store(calls, table, clock=clock)
    settings = Settings(table=table, flush_interval=flush_interval, websocket_url=websocket_url)
    # The same in memory as in an emulator, and another for each way: DynamoDB knows a transaction's token again, in
    # whatever table it was.
    dice = random.Random(f"a reply, broadcast at {websocket_url}")
    backend = Backend(settings, store=store, clock=clock, random_bytes=dice.randbytes)
    conversation = await Conversation.create(backend=backend)
    calls.units.clear()
    calls.made.clear()
    stream = await conversation.stream_response("Tell me.", provider="scripted", model="model-1")
    source = _provider(clock, chunks)
    relaying = asyncio.create_task(Relay(stream, source, lambda first_seq, events: deliver(events), clock=clock).run())
    while not relaying.done():
        await clock.advance(step)
        await calls.quiet()
    draining = asyncio.ensure_future(stream.drain())
    while not draining.done():
        await clock.advance(step)
        await calls.quiet()
    await backend.close()
    return await relaying, calls, store


async def _provider(clock: ManualClock, chunks: int) -> AsyncGenerator[Sequence[ProviderEvent], None]:
    for number in range(chunks):
        yield [chunk(number)]
        await clock.sleep(1 / PER_SECOND)
    yield [Usage(12, chunks), ResponseInfo("model-1", "stop", "req_1")]
