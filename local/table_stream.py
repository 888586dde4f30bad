"""Lambda's event source on one machine: calls a function with the records of a table's stream.

https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-eventsourcemapping.html
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol
from zlib import crc32

from tailrace.clock import Clock

from local.event_source import EventSource, Record
from local.lambda_function import LambdaContext, LambdaFunction

POLL_SECONDS: Final = 0.25
"""Between two looks. Lambda too looks four times a second at each shard."""

AHEAD: Final = 1000
"""Records of a lane that wait for the function. While there are more, the stream is not read."""

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.25, 30.0
"""How long a batch that failed waits before it comes again: each time twice as long as the time before."""


class Reader(Protocol):
    """Where the records come from; called in a thread. ``local.stream_reader`` has one."""

    def begin(self) -> None:
        """Find the stream; what is in it by now is not read."""
        ...

    def read(self) -> list[Record]:
        """Return what is new."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class TableStream:
    """Calls one function with a stream's records, batch after batch.

    Args:
        source: which records, and what happens when the function fails.
    """

    def __init__(self, function: LambdaFunction, reader: Reader, source: EventSource, *, clock: Clock) -> None:
        self._function = function
        self._reader = reader
        self._source = source
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "table-stream")
        self._lanes: list[asyncio.Queue[Record]] = [asyncio.Queue(AHEAD) for _ in range(source.lanes)]
        self._tasks: list[asyncio.Task[None]] = []
        self._failing = ""

    async def begin(self) -> None:
        """Note where the stream ends, and read it from there until ``close``."""
        await self._in_thread(self._reader.begin)
        self._tasks = [asyncio.create_task(self._deliver(lane)) for lane in self._lanes]
        self._tasks.append(asyncio.create_task(self._poll()))

    async def close(self) -> None:
        """Read no more, and wait for calls that are running. What was read and not delivered is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        self._reader.close()

    async def _in_thread(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _poll(self) -> None:
        while True:
            await self._clock.sleep(POLL_SECONDS)
            try:
                records = await self._in_thread(self._reader.read)
            except Exception as error:  # the database is away, or does not know streams; Lambda goes on too
                self._tell(f"the table's stream: {type(error).__name__}")
                continue
            for record in records:
                if self._source.takes(record):
                    await self._lane_of(record).put(record)

    def _lane_of(self, record: Record) -> asyncio.Queue[Record]:
        key = record["dynamodb"]["Keys"]["pk"]  # by its name: DynamoDB Local gives the keys in no order
        return self._lanes[crc32(repr(key).encode()) % len(self._lanes)]

    async def _deliver(self, lane: asyncio.Queue[Record]) -> None:
        while True:
            batch = [await lane.get()]
            while len(batch) < self._source.batch_size and not lane.empty():
                batch.append(lane.get_nowait())
            await self._until_done(batch)

    async def _until_done(self, batch: Sequence[Record]) -> None:
        """Call the function until it has dealt with every record, or they are given up."""
        retries = 0
        while batch := self._young(batch):
            dealt_with = await self._call(batch)
            if dealt_with is None and self._source.bisects and len(batch) > 1:
                half = len(batch) // 2
                await self._until_done(batch[:half])
                batch, retries = batch[half:], 0
                continue
            if dealt_with:
                batch, retries = batch[dealt_with:], 0
            elif retries == self._source.retries:
                self._give_up(batch, f"after {retries} retries")
                return
            if batch:
                await self._clock.sleep(min(FIRST_RETRY_SECONDS * 2**retries, LAST_RETRY_SECONDS))
                retries += 1

    def _young(self, batch: Sequence[Record]) -> Sequence[Record]:
        """Return those that are not too old to be delivered."""
        if self._source.oldest is None:
            return batch
        since = self._clock.now() / 1_000_000 - self._source.oldest
        young = [record for record in batch if record["dynamodb"]["ApproximateCreationDateTime"] >= since]
        if len(young) < len(batch):
            self._give_up(batch[: len(batch) - len(young)], "which were too old")
        return young

    async def _call(self, batch: Sequence[Record]) -> int | None:
        """Return how many records, from the first on, the function has dealt with; None when it failed."""
        try:
            answer = await self._function.call({"Records": list(batch)}, LambdaContext(self._function.name))
        except Exception as error:  # whatever the function raised
            self._tell(f"{self._function.name}: {type(error).__name__}")
            return None
        self._failing = ""
        return _dealt_with(batch, answer) if self._source.reports else len(batch)

    def _give_up(self, batch: Sequence[Record], why: str) -> None:
        print(f"{self._function.name}: {len(batch)} records were given up, {why}", file=sys.stderr)

    def _tell(self, what: str) -> None:
        if self._failing != what:  # once, not every time while the database is away
            print(what, file=sys.stderr)
        self._failing = what


def _dealt_with(batch: Sequence[Record], answer: object) -> int:
    """Return how many records come before the first that the function reports as failed.

    https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html says what counts as a success:
    nothing, or an empty list; and that a number which is not in the batch is a failure of all of it.
    """
    if not answer:
        return len(batch)
    failed = answer.get("batchItemFailures") if isinstance(answer, Mapping) else None
    if not failed:
        return len(batch)
    places = {record["dynamodb"]["SequenceNumber"]: place for place, record in enumerate(batch)}
    return min(places.get(each.get("itemIdentifier"), 0) if isinstance(each, Mapping) else 0 for each in failed)
