"""A reply costs one write unit a flush, a few at its start and end, and its text's own KB: O(n).

The budget is 10 units at start and end, everything included. The table alone keeps it; with the sparse index of
open replies it is exceeded, as ``benchmarks/write_units.py`` says. So the two are bounded apart here, to notice
if either grows: this is a guard against that, and no proof of the budget.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from tailrace.clock import SystemClock
from tailrace.events import Event, Text
from tailrace.settings import Settings
from tailrace.store import DynamoDB

from tests.memory_calls import MemoryCalls
from tests.write_units import INDEXES, PER_SECOND, chunk, index_units, item_bytes, reply, table_units

pytestmark = pytest.mark.anyio

START_AND_END = 10
INDEX_UNITS = 4
"""One to enter by_sweep and one to leave it, both in transactions and counted as doubled."""

NOBODY = "http://127.0.0.1:9/nobody-is-called"


@pytest.mark.parametrize(("interval", "seconds"), [(0.1, 0.1), (None, 0.5)])
@pytest.mark.parametrize("chunks", [100, 1_000, 10_000])
async def test_a_reply_costs_one_unit_a_flush(chunks: int, interval: float | None, seconds: float) -> None:
    """10,000 chunks of 4 characters cost the table 2,000 flushes of 100 ms, or 400 while nobody reads along, the text's
    KB and at most 10 units more."""
    delivered: list[Event] = []
    message, calls, store = await reply(MemoryCalls(), chunks, flush_interval=interval, deliver=delivered.extend)
    text = "".join(chunk(number).text for number in range(chunks))

    flushes = chunks / PER_SECOND / seconds
    kilobytes = math.ceil(len(text.encode()) / 1024)
    assert calls.units.total() - calls.units["indexes"] <= flushes + kilobytes + START_AND_END
    assert calls.units["indexes"] <= INDEX_UNITS
    assert calls.made["PutItem"] <= flushes + 2  # the first flush, and the content's part

    assert message.status == "completed"
    assert message.content == text
    assert message.metadata["stream_chunks"] == message.metadata["chunks"] == chunks
    assert message == await store.messages.get(message.id)
    stored = [event async for segment in store.log.read(message.id) for event in segment.events]
    assert [event for event in stored if isinstance(event, Text)] == [chunk(number) for number in range(chunks)]
    assert message.seq == len(stored) == len(delivered) + 1
    assert delivered == stored[:-1]


@pytest.mark.parametrize(
    ("chunks", "units", "indexes"),
    [(100, {"PutItem": 20, "TransactWriteItems": 10}, 4), (1_000, {"PutItem": 205, "TransactWriteItems": 8}, 4)],
)
async def test_what_is_not_broadcast_costs_nothing(chunks: int, units: dict[str, int], indexes: int) -> None:
    """Without subscribers' side everything is as it was before there was one: the same writes, no read, no attribute.

    The figures are those of the commit before.
    """
    memory = MemoryCalls()
    _, calls, _ = await reply(memory, chunks, flush_interval=0.1)
    assert calls.units == {**units, "indexes": indexes}
    assert calls.made == {"PutItem": chunks // 5 + (chunks == 1_000), "TransactWriteItems": 2}
    for item in memory.items.values():
        assert not item.keys() & {"channel", "except_socket", "feeding", "from", "socket"}


@pytest.mark.parametrize("chunks", [100, 1_000, 10_000])
async def test_what_broadcasting_costs(chunks: int) -> None:
    """One update more when the last chunk was sent, of an item of 1 to 2 KB. The index costs one less, as the reply
    leaves it outside of a transaction. While nobody listens the subscriptions are looked at once a second."""
    _, silent, _ = await reply(MemoryCalls(), chunks, flush_interval=0.1)
    memory = MemoryCalls()
    message, calls, _ = await reply(memory, chunks, flush_interval=0.1, websocket_url=NOBODY)
    assert message.status == "completed"
    assert calls.made["UpdateItem"] == 1
    assert calls.units["UpdateItem"] <= 2
    assert calls.units["indexes"] == silent.units["indexes"] - 1
    assert calls.units["PutItem"] == silent.units["PutItem"]
    # Channel and mark may bring the two messages over a KB each, in both transactions.
    assert calls.units["TransactWriteItems"] - silent.units["TransactWriteItems"] <= 6
    seconds = chunks / PER_SECOND
    assert 0 < calls.made["Query"] <= seconds + 2
    for key, item in memory.items.items():
        assert not item.keys() & {"feeding", "sweep"}, key
        assert ("channel" in item) == key[1].startswith("M#")


@pytest.mark.parametrize("url", [None, NOBODY])
async def test_memory_and_moto_are_billed_the_same(dynamodb_url: str, settings: Settings, url: str | None) -> None:
    """The DynamoDB in memory does with a reply's requests what the emulator does."""
    dynamodb = DynamoDB(region=settings.region, endpoint_url=dynamodb_url, clock=SystemClock())
    try:
        ways: dict[str, Any] = {"flush_interval": 0.1, "step": 1 / PER_SECOND, "websocket_url": url}
        emulated = await reply(dynamodb, 40, table=settings.table, **ways)
        remembered = await reply(MemoryCalls(), 40, **ways)
        assert emulated[1].units == remembered[1].units
        assert {**emulated[1].made, "Query": 0} == {**remembered[1].made, "Query": 0}
        assert await emulated[2].messages.get(emulated[0].id) == await remembered[2].messages.get(remembered[0].id)
    finally:
        await dynamodb.close()


def test_an_item_is_as_large_as_its_names_and_values() -> None:
    """The rules of AWS's page on item sizes, one attribute type each."""
    assert item_bytes({"name": {"S": "ü"}}) == 6
    assert item_bytes({"n": {"N": "-1200.50"}}) == 1 + 3 + 1  # five significant digits, two a byte
    assert item_bytes({"n": {"N": "0"}}) == 2
    assert item_bytes({"b": {"B": "AAAA"}}) == item_bytes({"b": {"B": b"123"}}) == 4
    assert item_bytes({"t": {"BOOL": True}, "f": {"NULL": True}}) == 4
    assert item_bytes({"l": {"L": []}, "m": {"M": {}}}) == 8
    assert item_bytes({"l": {"L": [{"S": "ab"}]}}) == 1 + 3 + 1 + 2


def test_a_write_costs_its_larger_side() -> None:
    """The item before counts as well as the one after, and a KB that is started counts whole."""
    small, large = {"pk": {"S": "k" * 1000}}, {"pk": {"S": "k" * 1100}}
    assert table_units(None, {"pk": {"S": ""}}) == table_units(None, small) == 1
    assert table_units(None, large) == table_units(large, small) == table_units(small, large) == 2
    assert table_units(large, None) == 2


def test_a_write_costs_for_each_index_that_it_changes() -> None:
    """An item without an index's keys costs nothing there, and a changed key is a deletion and a put."""
    plain = {"pk": {"S": "p"}, "sk": {"S": "s"}, "created": {"N": "1"}}
    owned, opened = {**plain, "owner": {"S": "a"}}, {**plain, "sweep": {"S": "open 1"}}
    assert index_units(None, plain) == index_units(owned, owned) == 0
    assert index_units(None, owned) == index_units(owned, plain) == 1
    assert index_units(owned, {**owned, "title": {"S": "t"}}) == 1
    assert index_units(opened, {**opened, "status": {"S": "t"}}) == 0  # by_sweep holds keys only
    assert index_units(owned, {**owned, "owner": {"S": "b"}}) == 2


async def test_every_index_of_the_table_is_counted(dynamodb_url: str, settings: Settings) -> None:
    """An index that is added to the models and not to the counting would be billed and not seen."""
    dynamodb = DynamoDB(region=settings.region, endpoint_url=dynamodb_url, clock=SystemClock())
    try:
        described = await dynamodb.call("DescribeTable", {"TableName": settings.table})
    finally:
        await dynamodb.close()
    assert {
        index["IndexName"]: (
            tuple(key["AttributeName"] for key in index["KeySchema"]),
            index["Projection"]["ProjectionType"],
        )
        for index in described["Table"]["GlobalSecondaryIndexes"]
    } == INDEXES
