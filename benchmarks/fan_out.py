"""Subscribers: how late a chunk reaches them, and what a post costs.

    python -m benchmarks.fan_out [--quick]

One reply of 50 chunks a second, stored every 100 ms and fed to 1, 50 and 500 subscribers by its relay alone. The table
and the management API are another process, which answers at once: so it is our part of the delay that is measured, and
the client's CPU. Each chunk's text is the time at which it was appended; that process looks at the clock when it gets
the segment, and when it gets each post. Both see the same clock (CLOCK_MONOTONIC). That process also measures how late
its own timers are: where that is a good part of the budget, the machine was busy with something else.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import Any, Final

import aiohttp
import msgspec
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.events import Text
from tailrace.settings import Settings
from tailrace.store.segment import unpack

from benchmarks import measure
from benchmarks.server import Write, listen

SUBSCRIBERS: Final = (1, 50, 500)
CHUNKS_A_SECOND: Final = 50
BUDGET_MS: Final = 50.0
"""From stored to posted at 50 subscribers, the 99th percentile, on one vCPU."""


# ---- the table and the management API ----------------------------------------------------------------


class Record:
    """What came, and when, in nanoseconds."""

    def __init__(self) -> None:
        self.stored: dict[int, int] = {}
        self.since_appended: list[int] = []
        self.since_stored: list[int] = []
        self.late: list[int] = []
        self.posts = 0

    def segment(self, packed: bytes, now: int) -> None:
        """Note when the chunks of a segment were stored."""
        for event in unpack(packed):
            if isinstance(event, Text):
                self.stored[int(event.text)] = now

    def post(self, frame: Any, now: int) -> None:
        """Note how late the chunks of a frame are."""
        self.posts += 1
        for appended in map(int, frame["data"].get("chunk", "").split()):
            self.since_appended.append(now - appended)
            self.since_stored.append(now - self.stored[appended])


class Services:
    """Answers as DynamoDB, as the management API, or with the record."""

    def __init__(self) -> None:
        self.record = Record()

    def answer(self, head: bytes, body: bytes, write: Write) -> None:
        """Answer one request."""
        write(200, self._answer(head.lower(), body))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        now = time.monotonic_ns()
        if b"/@connections/" in head[:200]:
            self.record.post(msgspec.json.decode(body), now)
            return b""
        if b"dynamodb_20120810." not in head:
            taken, self.record = self.record, Record()
            return msgspec.json.encode([taken.posts, taken.since_appended, taken.since_stored, taken.late])
        request = msgspec.json.decode(body)
        if b".query" in head:
            (channel,) = request["ExpressionAttributeValues"].values()
            return subscriptions(channel["S"])
        for item in written(request):
            if "e" in item:
                self.record.segment(b64decode(item["e"]["B"]), now)
        return b'{"Attributes":{}}'


def written(request: Any) -> Iterator[Any]:
    """Yield the items that a request puts."""
    for write in request.get("TransactItems", [{"Put": request}]):
        if "Item" in write.get("Put", {}):
            yield write["Put"]["Item"]


def subscriptions(channel: str) -> bytes:
    """Return a query's answer: as many subscriptions as the channel's name says."""
    items = [
        {
            "pk": {"S": channel},
            "sk": {"S": f"L0SM9cOF{number:07d}="},
            "socket": {"S": f"L0SM9cOF{number:07d}="},
            "expires": {"N": "4000000000"},
            "since": {"N": "1795339800000000"},
        }
        for number in range(int(channel.rpartition("-")[2]))
    ]
    return msgspec.json.encode({"Items": items, "Count": len(items)})


async def serve() -> None:
    """Serve on a free port, which is printed."""
    services = Services()
    async with await listen(services.answer):
        while True:
            before = time.monotonic_ns()
            await asyncio.sleep(0.005)
            services.record.late.append(time.monotonic_ns() - before - 5_000_000)


# ---- the measurements --------------------------------------------------------------------------------


class Run(msgspec.Struct, frozen=True):
    """One reply.

    Attributes:
        appended, stored: milliseconds until a post arrived, from the chunk's append and from its segment's.
        late: milliseconds that the other process's timers were late.
        cpu: seconds of the relay's process.
    """

    posts: int
    appended: Sequence[float]
    stored: Sequence[float]
    late: Sequence[float]
    cpu: float
    wall: float


async def reply(backend: Backend, url: str, subscribers: int, seconds: float) -> Run:
    """Write a reply that is fed to so many subscribers."""
    conversation = await Conversation.create(backend=backend)
    async with aiohttp.ClientSession() as session:
        await (await session.get(url)).read()  # forget what was before
        cpu, wall = time.process_time(), time.monotonic()
        stream = await conversation.stream_response(channel=f"room-{subscribers}")
        for number in range(round(seconds * CHUNKS_A_SECOND)):
            await stream.append(f"{time.monotonic_ns()} ")
            await asyncio.sleep(max(0.0, wall + (number + 1) / CHUNKS_A_SECOND - time.monotonic()))
        await stream.complete()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        posts, *delays = msgspec.json.decode(await (await session.get(url)).read())
    appended, stored, late = ([nanoseconds / 1e6 for nanoseconds in each] for each in delays)
    return Run(posts, appended, stored, late, cpu, wall)


async def throughput(backend: Backend, subscribers: int, seconds: float) -> tuple[float, float]:
    """Return posts a second and CPU milliseconds a post, one fan-out after the other as fast as it goes."""
    fan_out = backend.broadcast.fan_out
    posts, cpu, wall = 0, time.process_time(), time.monotonic()
    while time.monotonic() < wall + seconds:
        posts += (await fan_out.send(f"room-{subscribers}", [b'{"data":{}}'])).posted
    return posts / (time.monotonic() - wall), (time.process_time() - cpu) / posts * 1000


async def run(url: str, seconds: float, turns: int) -> bool:
    """Measure, print, and return whether the budget is kept."""
    settings = Settings(table="t", dynamodb_endpoint=url, websocket_url=f"{url}/live")
    backend = Backend(settings)
    quiet = Backend(msgspec.structs.replace(settings, broadcast=False))
    runs: dict[int, list[Run]] = {count: [] for count in (0, *SUBSCRIBERS)}
    speeds: dict[int, list[tuple[float, float]]] = {count: [] for count in SUBSCRIBERS}
    for turn in range(turns + 1):
        for count in runs:
            one = await reply(backend if count else quiet, url, count, 1.0 if turn == 0 else seconds)
            if turn:
                runs[count].append(one)
        for count, found in speeds.items():
            speed = await throughput(backend, count, seconds / 4)
            if turn:
                found.append(speed)
    await backend.close()
    await quiet.close()

    measure.heading(f"One reply, {CHUNKS_A_SECOND} chunks/s, flushed every 100 ms: milliseconds to the subscribers")
    print(
        f"{'subscribers':>12}{'from append p50':>17}{'p99':>8}"
        f"{'from stored p50':>17}{'p99':>8}{'posts/s':>10}{'CPU %':>8}"
    )
    for count, taken in runs.items():
        cpu = 100 * statistics.median(one.cpu / one.wall for one in taken)
        if not count:
            print(f"{'(off)':>12}{'':>60}{cpu:>8.1f}")
            continue
        columns = [
            statistics.median(measure.percentile(delays, part) for delays in each)
            for each in ([one.appended for one in taken], [one.stored for one in taken])
            for part in (0.5, 0.99)
        ]
        posts = statistics.median(one.posts / one.wall for one in taken)
        print(
            f"{count:>12}{columns[0]:>17.1f}{columns[1]:>8.1f}{columns[2]:>17.1f}{columns[3]:>8.1f}{posts:>10.0f}{cpu:>8.1f}"
        )
    measure.heading("One fan-out after the other, as fast as it goes")
    print(f"{'subscribers':>12}{'posts/s':>10}{'CPU ms a post':>16}")
    for count, found in speeds.items():
        print(
            f"{count:>12}{statistics.median(f[0] for f in found):>10.0f}{statistics.median(f[1] for f in found):>16.2f}"
        )
    print()
    noise = statistics.median(measure.percentile(one.late, 0.99) for one in runs[50])
    late = statistics.median(measure.percentile(one.stored, 0.99) for one in runs[50])
    within = measure.verdict("ms from stored to posted at 50 subscribers, p99", late, BUDGET_MS)
    if noise > BUDGET_MS / 5:
        print(f"too noisy to judge: the other process's own timers were {noise:.0f} ms late (p99)")
        return False
    return within


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--serve", action="store_true", help="be the other process")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve())
        return 0
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
    with measure.server("benchmarks.fan_out", "--serve") as port:
        seconds, turns = (2.0, 3) if given.quick else (8.0, 7)
        return 0 if asyncio.run(run(f"http://127.0.0.1:{port}", seconds, turns)) else 1


if __name__ == "__main__":
    sys.exit(main())
