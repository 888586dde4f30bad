"""Client CPU of a post to a subscriber (budgets: section 6 of benchmarks/README.md).

    python -m benchmarks.post [--quick] [--profile]

The server is another process that answers everything, so that only the client's CPU is measured
(``time.process_time``). One frame is what a reply of 50 chunks a second sends for 100 ms. Each way alone, and 50 at
once: coroutines for Tailrace, threads for boto3, which blocks.
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import pstats
import sys
import time
from collections.abc import Callable
from functools import partial

import boto3
import botocore.config
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from tailrace.aws.credentials import Credentials
from tailrace.aws.signing import Signing
from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.broadcast.connections import Connections
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.clock import SystemClock
from tailrace.store import Store
from yarl import URL

from benchmarks import measure
from benchmarks.segment_write import EVENTS, MESSAGE_ID, Discard, blocking, cpu

BUDGET = 0.33
AT_ONCE = 50
SOCKET = "L0SM9cOFvHcCIhw="
CHANNEL = "conversation.Zp7Gq0m3kq1hQn0w8c5R2A"
(FRAME,) = ChunkFrames(Frames("App\\Events\\"), CHANNEL, MESSAGE_ID).run(EVENTS)
CREDENTIALS = Credentials("test", "test", None)


def tailrace(url: str) -> Callable[[int, int], None]:
    """``FanOut.post`` over the lean management client."""

    async def post(count: int, at_once: int) -> None:
        # The machine may pause for longer than a subscriber would be given.
        connections = Connections(url, region="us-east-1", credentials=lambda: CREDENTIALS, attempt_timeout=60.0)
        fan_out = FanOut(connections, Store(Discard(), "table").subscriptions, clock=SystemClock())

        async def one_after_the_other(first: int) -> None:
            for _ in range(first, count, at_once):
                assert await fan_out.post(SOCKET, CHANNEL, FRAME)

        try:
            await asyncio.gather(*(one_after_the_other(first) for first in range(at_once)))
        finally:
            await connections.close()

    return lambda count, at_once: asyncio.run(post(count, at_once))


def boto3_client(url: str) -> Callable[[int, int], None]:
    """boto3's ``post_to_connection``."""
    config = botocore.config.Config(max_pool_connections=AT_ONCE)
    client = boto3.client("apigatewaymanagementapi", region_name="us-east-1", endpoint_url=url, config=config)
    return blocking(lambda number: client.post_to_connection(ConnectionId=SOCKET, Data=FRAME))


PATH = "/live/@connections/L0SM9cOFvHcCIhw%3D"


def signing(count: int, at_once: int) -> None:
    """Sign such requests as Tailrace does."""
    signer = Signing("execute-api", "us-east-1", URL("http://127.0.0.1:8000"))
    for _ in range(count):
        signer.headers("POST", PATH, FRAME, CREDENTIALS, int(time.time()))


def signing_of_botocore(count: int, at_once: int) -> None:
    """Sign them with botocore's signer."""
    for _ in range(count):
        request = AWSRequest(method="POST", url="http://127.0.0.1:8000" + PATH, data=FRAME)
        SigV4Auth(ReadOnlyCredentials(*CREDENTIALS), "execute-api", "us-east-1").add_auth(request)


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--profile", action="store_true", help="only say where Tailrace's post spends its time")
    given = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    count = 300 if given.quick else 1_000
    within = []
    with measure.server("benchmarks.segment_write", "--serve") as port:
        url = f"http://127.0.0.1:{port}/live"
        ways = {"boto3": boto3_client(url), "Tailrace": tailrace(url)}
        if given.profile:
            profile = cProfile.Profile()
            profile.runcall(ways["Tailrace"], count, AT_ONCE)
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
            return 0
        for at_once in (1, AT_ONCE):
            parts = {"of it, signing": signing, "botocore's signing": signing_of_botocore}
            subjects = {**ways, **(parts if at_once == 1 else {})}
            rows = measure.medians(
                {name: partial(cpu, way, count, at_once) for name, way in subjects.items()},
                5 if given.quick else 9,
            )
            measure.heading(f"{at_once} at once: client CPU of a post")
            base = rows["boto3"][0]
            for name, (figure,) in rows.items():
                print(f"  {name:30}{figure:7.3f} ms {figure / base:6.2f}")
            within.append(measure.verdict(f"Tailrace by boto3, {at_once} at once", rows["Tailrace"][0] / base, BUDGET))
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
