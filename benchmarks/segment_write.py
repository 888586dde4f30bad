"""Client CPU of the hot write, one segment put on a condition (budgets: section 5 of benchmarks/README.md).

    python -m benchmarks.segment_write [--quick] [--profile]

The server is another process that answers ``{}`` to everything, so that only the client's CPU is measured
(``time.process_time``). One segment is what a reply of 50 chunks a second gathers in 100 ms. Each way alone, and
50 at once: coroutines for Tailrace, threads for pynamodb and boto3, which block.
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import pstats
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import boto3
import botocore.config
from pynamodb.models import Model
from tailrace.aws.credentials import Credentials
from tailrace.aws.signing import Signing
from tailrace.clock import SystemClock
from tailrace.events import Text
from tailrace.store import DynamoDB, Store
from tailrace.store.items import SegmentItem, segment_sort_key
from tailrace.store.segment import pack
from yarl import URL

from benchmarks import measure
from benchmarks.server import Write, listen

BUDGET = 0.35
AT_ONCE = 50
MESSAGE_ID = "BvTTQ3kJcqobLFauBmDfkn0gZdZMaGxOEKBifWnfEpP0exk"
EVENTS = [Text(text) for text in ("a ta", "ilra", "ce c", "arri", "es w")]
NONCE = b"12345678"
NOW = 1_795_363_212_025_268
EXPIRES = NOW // 1_000_000 + 86_400


# ---- the server -----------------------------------------------------------------------------------


def answer(head: bytes, body: bytes, write: Write) -> None:
    """Answer each request with an empty object."""
    write(200, b"{}")


async def serve() -> None:
    """Serve on a free port, which is printed."""
    async with await listen(answer) as server:
        await server.serve_forever()


# ---- the ways -------------------------------------------------------------------------------------


def tailrace(url: str) -> Callable[[int, int], None]:
    """``store.log.append`` over the lean calls."""

    async def write(count: int, at_once: int) -> None:
        credentials = Credentials("test", "test", None)
        calls = DynamoDB(region="us-east-1", clock=SystemClock(), endpoint_url=url, credentials=lambda: credentials)
        log = Store(calls, "table").log

        async def one_after_the_other(first: int) -> None:
            for number in range(first, count, at_once):
                await log.append(MESSAGE_ID, number, number + 1, EVENTS, nonce=NONCE)

        try:
            await asyncio.gather(*(one_after_the_other(first) for first in range(at_once)))
        finally:
            await calls.close()

    return lambda count, at_once: asyncio.run(write(count, at_once))


def blocking(put: Callable[[int], object]) -> Callable[[int, int], None]:
    """A call that blocks, from as many threads as are to be at it at once."""

    def write(count: int, at_once: int) -> None:
        if at_once == 1:
            for number in range(count):
                put(number)
        else:
            with ThreadPoolExecutor(at_once) as threads:
                list(threads.map(put, range(count)))

    return write


def pynamodb(url: str) -> Callable[[int, int], None]:
    """A pynamodb model of the same attributes: its ``save`` on the same condition."""
    meta = {"table_name": "table", "region": "us-east-1", "host": url, "max_pool_connections": AT_ONCE}
    model: Any = type("Saved", (Model,), {**SegmentItem.get_attributes(), "Meta": type("Meta", (), meta)})

    def put(number: int) -> object:
        item = model(
            f"S#{MESSAGE_ID}",
            segment_sort_key(number),
            nonce=NONCE,
            first_seq=number + 1,
            at=NOW,
            events=pack(EVENTS),
            expires=EXPIRES,
        )
        return item.save(condition=SegmentItem.pk.does_not_exist())

    return blocking(put)


def boto3_client(url: str) -> Callable[[int, int], None]:
    """boto3's ``put_item``."""
    config = botocore.config.Config(max_pool_connections=AT_ONCE)
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=url, config=config)

    def put(number: int) -> object:
        return client.put_item(
            TableName="table",
            Item={
                "pk": {"S": f"S#{MESSAGE_ID}"},
                "sk": {"S": segment_sort_key(number)},
                "n": {"B": NONCE},
                "f": {"N": str(number + 1)},
                "t": {"N": str(NOW)},
                "e": {"B": pack(EVENTS)},
                "expires": {"N": str(EXPIRES)},
            },
            ConditionExpression="attribute_not_exists (#0)",
            ExpressionAttributeNames={"#0": "pk"},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    return blocking(put)


# ---- what the write is made of --------------------------------------------------------------------


class Discard:
    """Calls that go nowhere: what is left is building the request."""

    async def call(self, operation: str, payload: Any) -> Any:
        """Make none."""
        return {}


def building(count: int, at_once: int) -> None:
    """Build the requests and drop them."""

    async def build() -> None:
        log = Store(Discard(), "table").log
        for number in range(count):
            await log.append(MESSAGE_ID, number, number + 1, EVENTS, nonce=NONCE)

    asyncio.run(build())


def signing(count: int, at_once: int) -> None:
    """Sign requests of that size."""
    signer = Signing("dynamodb", "us-east-1", URL("http://127.0.0.1:8000/"))
    credentials = Credentials("test", "test", None)
    further = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.PutItem"}
    for _ in range(count):
        signer.headers("POST", "/", b"x" * 420, credentials, int(time.time()), further)


def cpu(way: Callable[[int, int], None], count: int, at_once: int) -> list[float]:
    """Return the CPU milliseconds of one write."""
    before = time.process_time()
    way(count, at_once)
    return [(time.process_time() - before) / count * 1000]


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--profile", action="store_true", help="only say where Tailrace's write spends its time")
    parser.add_argument("--serve", action="store_true", help="be the server")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve())
        return 0
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    count = 300 if given.quick else 1_000
    within = []
    with measure.server("benchmarks.segment_write", "--serve") as port:
        url = f"http://127.0.0.1:{port}"
        ways = {"pynamodb": pynamodb(url), "boto3": boto3_client(url), "Tailrace": tailrace(url)}
        if given.profile:
            profile = cProfile.Profile()
            profile.runcall(ways["Tailrace"], count, 1)
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
            return 0
        parts = {"of it, building the request": building, "of it, signing": signing}
        for at_once in (1, AT_ONCE):
            subjects = {**ways, **(parts if at_once == 1 else {})}
            rows = measure.medians(
                {name: partial(cpu, way, count, at_once) for name, way in subjects.items()},
                5 if given.quick else 9,
            )
            measure.heading(f"{at_once} at once: client CPU of a segment's write")
            base = rows["pynamodb"][0]
            for name, (figure,) in rows.items():
                print(f"  {name:30}{figure:7.3f} ms {figure / base:6.2f}")
            within.append(
                measure.verdict(f"Tailrace by pynamodb, {at_once} at once", rows["Tailrace"][0] / base, BUDGET)
            )
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
