"""The table's stream, read from the emulator, and handed to a function as Lambda does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from tailrace.settings import Settings
from tailrace.testing import ManualClock

from local.event_source import EventSource, Record
from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction
from local.stream_reader import StreamReader
from local.table_stream import POLL_SECONDS, TableStream

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.anyio

DEADLINE = 30.0


def record(number: int, key: str = "a", *, created: float = 1_767_225_600.0) -> Record:
    stream = {
        "Keys": {"sk": {"S": str(number)}, "pk": {"S": key}},  # as DynamoDB Local orders them
        "SequenceNumber": str(number),
        "ApproximateCreationDateTime": created,
    }
    return {"eventName": "INSERT", "dynamodb": stream}


def numbers(event: Event) -> list[int]:
    return [int(each["dynamodb"]["SequenceNumber"]) for each in event["Records"]]


class Tape:
    """A reader that gives what a test put on it. A ``local.table_stream.Reader``."""

    def __init__(self, *looks: list[Record] | Exception) -> None:
        self._looks = list(looks)
        self.closed = False

    def begin(self) -> None:
        """See ``Reader``."""

    def read(self) -> list[Record]:
        """See ``Reader``."""
        look = self._looks.pop(0) if self._looks else []
        if isinstance(look, Exception):
            raise look
        return look

    def close(self) -> None:
        """See ``Reader``."""
        self.closed = True


class Function:
    """Answers a batch as the test says, and tells it which batches came, and when by the clock."""

    def __init__(self, clock: ManualClock, answer: Callable[[list[int]], Any] = lambda batch: None) -> None:
        self.calls: asyncio.Queue[tuple[float, list[int]]] = asyncio.Queue()
        self._answer = answer
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: Event, context: LambdaContext) -> Any:
        self._loop.call_soon_threadsafe(self.calls.put_nowait, (self._clock.monotonic(), numbers(event)))
        return self._answer(numbers(event))

    async def batches(self, clock: ManualClock, count: int) -> list[tuple[float, list[int]]]:
        """Return the next batches, with the clock turned on as far as that takes."""
        found: list[tuple[float, list[int]]] = []
        async with asyncio.timeout(DEADLINE):
            while len(found) < count:
                await clock.advance(0.25)
                while not self.calls.empty():
                    found.append(self.calls.get_nowait())
        return found


@asynccontextmanager
async def streaming(
    function: Function, reader: Tape | StreamReader, clock: ManualClock, source: EventSource | None = None
) -> AsyncIterator[None]:
    called = LambdaFunction("tailrace-broadcast", function, nullcontext)
    stream = TableStream(called, reader, source or EventSource(reports=True), clock=clock)
    await stream.begin()
    try:
        yield
    finally:
        async with asyncio.timeout(DEADLINE):
            await stream.close()
            await called.close()


async def test_batches() -> None:
    """What is there goes in batches of at most so many, in order; what the filters leave out is not seen."""
    clock = ManualClock()
    function = Function(clock)
    source = EventSource(patterns=({"dynamodb": {"Keys": {"pk": {"S": ["a"]}}}},), batch_size=3)
    looks = [record(1), record(2, "b"), *(record(number) for number in range(3, 9))]
    async with streaming(function, Tape(looks, [record(9)]), clock, source):
        found: list[list[int]] = []
        while 9 not in chain(*found):
            found += [batch for _, batch in await function.batches(clock, 1)]
    assert list(chain(*found)) == [1, 3, 4, 5, 6, 7, 8, 9]
    assert found[:2] == [[1, 3, 4], [5, 6, 7]]


async def test_lanes() -> None:
    """A record whose function is busy holds up its own partition key only."""
    clock = ManualClock()
    loop = asyncio.get_running_loop()
    busy = asyncio.Event()

    def answer(batch: list[int]) -> None:
        if batch == [1]:
            asyncio.run_coroutine_threadsafe(busy.wait(), loop).result(DEADLINE)

    function = Function(clock, answer)
    others = [record(number, f"key {number}") for number in range(2, 20)]
    source = EventSource(lanes=4, batch_size=1)
    async with streaming(function, Tape([record(1), *others, record(20)]), clock, source):
        seen: list[int] = []
        while len(seen) < 12:  # about a quarter shares the lane of the first
            for _, batch in await function.batches(clock, 1):
                seen += batch
        assert 20 not in seen
        busy.set()
        while len(seen) < 20:
            for _, batch in await function.batches(clock, 1):
                seen += batch
    assert seen.index(1) < seen.index(20)


async def test_what_is_reported_comes_again() -> None:
    """From the first record that the function reports on, and after a while that doubles."""
    clock = ManualClock()
    failures = iter([["3", "2"], ["2"], ["2"], []])

    def answer(batch: list[int]) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": each} for each in next(failures)]}

    function = Function(clock, answer)
    async with streaming(function, Tape([record(1), record(2), record(3)]), clock):
        calls = await function.batches(clock, 4)
    assert [batch for _, batch in calls] == [[1, 2, 3], [2, 3], [2, 3], [2, 3]]
    waits = [later - earlier for (earlier, _), (later, _) in pairwise(calls)]
    # The clock runs on while the function is being called, so a wait may look longer than it was.
    assert [wait >= least for wait, least in zip(waits, (0.25, 0.5, 1.0), strict=True)] == [True] * 3


@pytest.mark.parametrize("answer", [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}])
async def test_what_is_a_success(answer: Any) -> None:
    """Nothing, or an empty list, is a success of the whole batch."""
    clock = ManualClock()
    function = Function(clock, lambda batch: answer)
    async with streaming(function, Tape([record(1), record(2)], [record(3)]), clock):
        calls = await function.batches(clock, 2)
    assert [batch for _, batch in calls] == [[1, 2], [3]]


@pytest.mark.parametrize("failure", [{"itemIdentifier": ""}, {"itemIdentifier": None}, {"wrong": "2"}, "2"])
async def test_what_is_a_failure(failure: Any) -> None:
    """A report that names no record of the batch is a failure of all of it."""
    clock = ManualClock()
    answers = iter([{"batchItemFailures": [failure]}, None])
    function = Function(clock, lambda batch: next(answers))
    async with streaming(function, Tape([record(1), record(2)]), clock):
        calls = await function.batches(clock, 2)
    assert [batch for _, batch in calls] == [[1, 2], [1, 2]]


async def test_a_function_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """The batch is halved until the record that it fails for is alone; that one is given up, and the rest goes on."""
    clock = ManualClock()

    def answer(batch: list[int]) -> None:
        if 3 in batch:
            raise ValueError("with a secret in it")

    function = Function(clock, answer)
    source = EventSource(bisects=True, reports=True, retries=2)
    async with streaming(function, Tape([record(number) for number in range(1, 5)], [record(5)]), clock, source):
        calls = await function.batches(clock, 8)
    assert [batch for _, batch in calls] == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [3], [3], [4], [5]]
    assert capsys.readouterr().err == (
        "tailrace-broadcast: ValueError\ntailrace-broadcast: ValueError\n"
        "tailrace-broadcast: 1 records were given up, after 2 retries\n"
    )


async def test_records_that_are_too_old(capsys: pytest.CaptureFixture[str]) -> None:
    """They are given up, and younger ones in the same batch are not."""
    clock = ManualClock()
    now = clock.now() / 1_000_000
    function = Function(clock)
    looks = [record(1, created=now - 61), record(2, created=now)]
    async with streaming(function, Tape(looks), clock, EventSource(oldest=60)):
        calls = await function.batches(clock, 1)
    assert calls[0][1] == [2]
    assert "1 records were given up, which were too old" in capsys.readouterr().err


async def test_a_database_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    """It is looked at again and again, and told once."""
    clock = ManualClock()
    function = Function(clock)
    tape = Tape(OSError("away"), OSError("away"), [record(1)])
    async with streaming(function, tape, clock):
        calls = await function.batches(clock, 1)
    assert calls[0][1] == [1]
    assert capsys.readouterr().err == "the table's stream: OSError\n"
    assert tape.closed


# ---- the emulator's stream -----------------------------------------------------------------------------------------


@pytest.fixture
def dynamodb(settings: Settings) -> DynamoDBClient:
    return boto3.client("dynamodb", region_name=settings.region, endpoint_url=settings.dynamodb_endpoint)


@pytest.fixture
def reader(settings: Settings, dynamodb: DynamoDBClient) -> Iterator[StreamReader]:
    """A reader of a table that has an item by now."""
    dynamodb.put_item(TableName=settings.table, Item={"pk": {"S": "before"}, "sk": {"S": "0"}})
    reader = StreamReader(settings.table, region=settings.region, endpoint=settings.dynamodb_endpoint or "")
    yield reader
    reader.close()


async def test_what_the_function_gets(settings: Settings, dynamodb: DynamoDBClient, reader: StreamReader) -> None:
    """Insert, change and removal, in the form of Lambda's events: JSON, bytes as base64; nothing from before."""
    clock = ManualClock()
    events: asyncio.Queue[Event] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def handler(event: Event, context: LambdaContext) -> dict[str, Any]:
        loop.call_soon_threadsafe(events.put_nowait, event)
        return {}

    called = LambdaFunction("tailrace-broadcast", handler, nullcontext)
    stream = TableStream(called, reader, EventSource(), clock=clock)
    await stream.begin()
    key = {"pk": {"S": "a"}, "sk": {"S": "1"}}
    dynamodb.put_item(TableName=settings.table, Item={**key, "bytes": {"B": b"\xff"}, "list": {"L": [{"B": b"\0"}]}})
    dynamodb.update_item(
        TableName=settings.table,
        Key=key,
        UpdateExpression="SET n = :one",
        ExpressionAttributeValues={":one": {"N": "1"}},
    )
    dynamodb.delete_item(TableName=settings.table, Key=key)
    async with asyncio.timeout(DEADLINE):
        await clock.advance(POLL_SECONDS)
        event = await events.get()
        await stream.close()
        await called.close()
    assert [each["eventName"] for each in event["Records"]] == ["INSERT", "MODIFY", "REMOVE"]
    inserted, changed, removed = (each["dynamodb"] for each in event["Records"])
    assert inserted["Keys"] == key
    assert inserted["NewImage"] == {**key, "bytes": {"B": "/w=="}, "list": {"L": [{"B": "AA=="}]}}
    assert "OldImage" not in inserted
    assert changed["OldImage"] == inserted["NewImage"]
    assert changed["NewImage"]["n"] == {"N": "1"}
    assert "NewImage" not in removed
    assert isinstance(inserted["ApproximateCreationDateTime"], float)
    assert inserted["SequenceNumber"] < changed["SequenceNumber"] < removed["SequenceNumber"]
    assert event["Records"][0]["eventSource"] == "aws:dynamodb"
    assert settings.table in event["Records"][0]["eventSourceARN"]


async def test_a_transaction_that_is_rolled_back(
    settings: Settings, dynamodb: DynamoDBClient, reader: StreamReader
) -> None:
    """It changes nothing, leaves no record, and the reader hears of what comes after it."""
    first = {"pk": {"S": "a"}, "sk": {"S": "1"}, "n": {"N": "1"}}

    def fail() -> None:
        with pytest.raises(dynamodb.exceptions.TransactionCanceledException):
            dynamodb.transact_write_items(
                TransactItems=[
                    {
                        "Update": {
                            "TableName": settings.table,
                            "Key": {"pk": {"S": "before"}, "sk": {"S": "0"}},
                            "UpdateExpression": "SET n = :two",
                            "ExpressionAttributeValues": {":two": {"N": "2"}},
                        }
                    },
                    {"Put": {"TableName": settings.table, "Item": {**first, "sk": {"S": "2"}}}},
                    {
                        "Delete": {
                            "TableName": settings.table,
                            "Key": {"pk": {"S": "none"}, "sk": {"S": "0"}},
                            "ConditionExpression": "attribute_exists(pk)",
                        }
                    },
                ]
            )

    reader.begin()
    fail()
    assert reader.read() == []
    dynamodb.put_item(TableName=settings.table, Item=first)
    fail()
    assert [each["dynamodb"]["NewImage"] for each in reader.read()] == [first]
    fail()
    dynamodb.put_item(TableName=settings.table, Item={**first, "sk": {"S": "3"}})
    assert [each["dynamodb"]["Keys"]["sk"]["S"] for each in reader.read()] == ["3"]
    items = dynamodb.scan(TableName=settings.table)["Items"]
    assert sorted(item["sk"]["S"] for item in items) == ["0", "1", "3"]
    assert all("2" not in item.get("n", {}).values() for item in items)


async def test_more_than_one_look_returns(settings: Settings, dynamodb: DynamoDBClient, reader: StreamReader) -> None:
    """More records than a look has are all read, in order."""
    reader.begin()
    for start in range(0, 1100, 25):
        puts = [
            {"PutRequest": {"Item": {"pk": {"S": "many"}, "sk": {"S": f"{number:04}"}}}}
            for number in range(start, start + 25)
        ]
        dynamodb.batch_write_item(RequestItems={settings.table: puts})  # type: ignore[dict-item]
    found = [each["dynamodb"]["Keys"]["sk"]["S"] for each in reader.read()]
    assert found == [f"{number:04}" for number in range(1100)]
    assert reader.read() == []


async def test_a_transaction_costs_what_it_changes(settings: Settings, dynamodb: DynamoDBClient) -> None:
    """A table of two thousand items makes it hardly slower: moto itself would copy them all, which takes most of a
    second."""

    def fastest(name: str) -> float:
        loop = asyncio.get_running_loop()
        times = []
        for number in range(5):
            item = {"pk": {"S": name}, "sk": {"S": str(number)}}
            begun = loop.time()
            dynamodb.transact_write_items(TransactItems=[{"Put": {"TableName": settings.table, "Item": item}}])
            times.append(loop.time() - begun)
        return min(times)

    empty = fastest("empty")
    for start in range(0, 2000, 25):
        puts = [
            {"PutRequest": {"Item": {"pk": {"S": f"S#{start}"}, "sk": {"S": str(number)}, "e": {"B": b"x" * 100}}}}
            for number in range(25)
        ]
        dynamodb.batch_write_item(RequestItems={settings.table: puts})  # type: ignore[dict-item]
    assert fastest("full") < 10 * empty


async def test_a_table_without_a_stream(settings: Settings, dynamodb: DynamoDBClient) -> None:
    """The reader says so."""
    dynamodb.create_table(
        TableName="no-stream",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    reader = StreamReader("no-stream", region=settings.region, endpoint=settings.dynamodb_endpoint or "")
    with pytest.raises(LookupError, match="has no stream"):
        reader.begin()
    reader.close()
