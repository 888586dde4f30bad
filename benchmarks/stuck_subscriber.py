"""Stuck subscribers: what they cost a reply's own stream, and the other subscribers.

    python -m benchmarks.stuck_subscriber [--quick] [--rate 75] [--answer-ms 10]

Four processes: the stream function's application under its server, with the scripted provider; the table; the
management API; and this one, which is the client of the reply's own stream. All see the same clock (CLOCK_MONOTONIC).
Replies take turns with nobody listening (twice, which shows how far two equal ones differ), with 100 subscribers who
read, with 89, and with 100 of which 89 read, ten are gone (410), and one's posts are never answered. Each subscriber
is one of the management API's connections; that API answers after a fixed time.

The provider keeps to its schedule, as a real one does, however late the relay is, and each chunk's text is its time in
that: so a loop that is late counts. The client looks at the clock when it gets the chunk, the table when it gets its
segment, the management API when it gets a post. What one who reads got is compared with what the client got, byte by
byte.

The 89 are what the 100 with the stuck one are judged against: a hundred who read are more posts than 89.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import statistics
import sys
import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

import aiohttp
import msgspec
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.events import ProviderEvent, Text
from tailrace.http.requests import Receive, Scope, Send
from tailrace.http.server import server
from tailrace.http.stream_app import create_stream_app
from tailrace.providers import Provider, ProviderRequest
from tailrace.providers.scripted import Scripted
from tailrace.settings import Settings
from tailrace.store.segment import unpack

from benchmarks import measure
from benchmarks.fan_out import written
from benchmarks.memory_table import MemoryTable
from benchmarks.server import Subject, Write, listen

SUBJECTS: Final = {
    "nobody": (0, 0, 0),
    "nobody, again": (0, 0, 0),
    "100 read": (100, 0, 0),
    "89 read": (89, 0, 0),
    "89 read, 1 stuck, 10 gone": (89, 1, 10),
}
"""How many subscribers read, are stuck, and are gone."""

OWN_BUDGET: Final = 1.05
OTHERS_BUDGET: Final = 1.10
MOST_LATE_MS: Final = 5.0
"""How late this process's own timers may be in a run that is judged (the 99th percentile, the replies' median)."""

SETTLE_SECONDS: Final = 1.5
"""After a reply: a feed gives up a second after the end."""

CHUNK: Final = re.compile(rb'"chunk":"(\d+) "')


# ---- the servers -----------------------------------------------------------------------------------


class Table(MemoryTable):
    """The table in memory. ``GET`` returns when each chunk was stored, and empties it."""

    def __init__(self) -> None:
        super().__init__()
        self._stored: list[tuple[int, int]] = []
        self._now = 0

    def answer(self, head: bytes, body: bytes, write: Write) -> None:
        """Answer one request."""
        self._now = time.monotonic_ns()
        if head.startswith(b"GET"):
            write(200, msgspec.json.encode(self._stored))
            self._stored = []
            self.forget()
            return
        super().answer(head, body, write)

    def made(self, operation: str, request: Mapping[str, Any]) -> None:
        """See ``MemoryTable.made``."""
        for item in written(request) if operation in ("PutItem", "TransactWriteItems") else ():
            if "e" in item:
                chunks = [event for event in unpack(b64decode(item["e"]["B"])) if isinstance(event, Text)]
                self._stored += [(int(chunk.text), self._now) for chunk in chunks]


class Management:
    """The management API. ``GET`` returns what it took since the last one: the socket, when, and the chunk.

    Args:
        seconds: how long an answer takes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._taken: list[tuple[str, int, bytes]] = []

    def answer(self, head: bytes, body: bytes, write: Write) -> None:
        """Answer one request, or do not."""
        now = time.monotonic_ns()
        if head.startswith(b"GET"):
            frames = [
                (name, when, msgspec.json.decode(frame)["data"].get("chunk", "")) for name, when, frame in self._taken
            ]
            self._taken = []
            write(200, msgspec.json.encode(frames))
            return
        name = unquote(head.partition(b"/@connections/")[2].partition(b" ")[0].decode())
        if name.startswith("stuck"):
            return
        status = 410 if name.startswith("gone") else 200
        if status == 200:
            self._taken.append((name, now, body))
        asyncio.get_running_loop().call_later(self._seconds, write, status, b"")


async def serve(subject: Subject) -> None:
    """Serve on a free port, which is printed."""
    async with await listen(subject) as server:
        await server.serve_forever()


# ---- the relay -------------------------------------------------------------------------------------


class Stamped:
    """The scripted provider; it keeps to a schedule, and each of its chunks is its time in that."""

    name = "scripted"

    def __init__(self) -> None:
        self._due = 0

    async def _sleep(self, seconds: float) -> None:
        self._due += round(seconds * 1e9)
        await asyncio.sleep(max(0.0, (self._due - time.monotonic_ns()) / 1e9))

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``."""
        return self._stamped(Scripted(sleep=self._sleep).stream(request))

    async def _stamped(
        self, source: AsyncGenerator[Sequence[ProviderEvent], None]
    ) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        self._due = time.monotonic_ns()
        async for batch in source:
            yield [Text(f"{self._due} ") if isinstance(event, Text) else event for event in batch]


class StampedBackend(Backend):
    """With that provider."""

    async def provider(self, name: str) -> Provider:
        return Stamped()


def relay(table: str, management: str) -> None:
    """Serve the stream function's application on a free port, which is printed. ``/cpu`` is its CPU seconds."""
    settings = Settings(table="t", dynamodb_endpoint=table, websocket_url=f"{management}/live")
    application = create_stream_app(StampedBackend(settings))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/cpu":
            await application(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(time.process_time()).encode()})

    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        print(port, flush=True)
        server(app, host="127.0.0.1", port=port).run([bound])


# ---- the measurements --------------------------------------------------------------------------------


class Run(msgspec.Struct, frozen=True):
    """One reply.

    Attributes:
        seconds: from the request to the last byte.
        own: milliseconds from each chunk's time until the client had it.
        posts: milliseconds from each chunk's time until each post of it arrived, at those who read.
        posted: the same from when it was stored.
        whole: how many of those who read got every byte.
        cpu: seconds of the relay's process.
        late: milliseconds that this process's own timers were late.
    """

    seconds: float
    own: Sequence[float]
    posts: Sequence[float]
    posted: Sequence[float]
    whole: int
    cpu: float
    late: Sequence[float]


class Bench:
    """The client, and the addresses of the others."""

    def __init__(self, table: str, management: str, relay: str, rate: float) -> None:
        self._table, self._management, self._relay, self._rate = table, management, relay, rate
        self._backend = Backend(Settings(table="t", dynamodb_endpoint=table))
        self._session = aiohttp.ClientSession()

    async def close(self) -> None:
        await self._session.close()
        await self._backend.close()

    async def _get(self, url: str) -> Any:
        async with self._session.get(url) as answer:
            return msgspec.json.decode(await answer.read())

    async def reply(self, subscribers: tuple[int, int, int], seconds: float) -> Run:
        """Have a reply written for so many subscribers."""
        await self._get(self._table)
        await self._get(self._management)
        conversation = await Conversation.create(backend=self._backend)
        for kind, count in zip(("live", "stuck", "gone"), subscribers, strict=True):
            for number in range(count):
                channel = f"conversation.{conversation.id}"
                await self._backend.store.subscriptions.put(channel, f"{kind}-{number:07d}=")
        late: list[float] = []
        watch = asyncio.create_task(self._watch(late))
        cpu = await self._get(f"{self._relay}/cpu")
        wall, own, text = await self._stream(conversation.id, round(seconds * self._rate))
        await asyncio.sleep(SETTLE_SECONDS)
        cpu = await self._get(f"{self._relay}/cpu") - cpu
        watch.cancel()
        stored = dict(await self._get(self._table))
        got: dict[str, str] = defaultdict(str)
        posts: list[float] = []
        posted: list[float] = []
        for name, when, chunk in await self._get(self._management):
            got[name] += chunk
            for stamp in map(int, chunk.split()):
                posts.append((when - stamp) / 1e6)
                posted.append((when - stored[stamp]) / 1e6)
        whole = sum(joined == text for name, joined in got.items() if name.startswith("live"))
        return Run(wall, own, posts, posted, whole, cpu, late)

    async def _stream(self, conversation_id: str, count: int) -> tuple[float, list[float], str]:
        body = {"input": "x", "options": {"script": {"chunks": count, "every": 1 / self._rate}}}
        begin = time.monotonic()
        own: list[float] = []
        text: list[str] = []
        rest = b""
        async with self._session.post(f"{self._relay}/conversations/{conversation_id}/stream", json=body) as answer:
            async for data in answer.content.iter_any():
                now = time.monotonic_ns()
                blocks, end, rest = (rest + data).rpartition(b"\n\n")
                for stamp in CHUNK.findall(blocks + end):
                    own.append((now - int(stamp)) / 1e6)
                    text.append(f"{stamp.decode()} ")
        if len(own) != count:
            raise SystemExit(f"the client got {len(own)} chunks of {count}")
        return time.monotonic() - begin, own, "".join(text)

    @staticmethod
    async def _watch(late: list[float]) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            late.append((time.monotonic() - before - 0.005) * 1000)


FIGURES: Final[dict[str, Callable[[Run], float]]] = {
    "seconds": lambda run: run.seconds,
    "own p50": lambda run: measure.percentile(run.own, 0.5),
    "own p95": lambda run: measure.percentile(run.own, 0.95),
    "posts p50": lambda run: measure.percentile(run.posts, 0.5),
    "posts p95": lambda run: measure.percentile(run.posts, 0.95),
    "stored p50": lambda run: measure.percentile(run.posted, 0.5),
    "stored p95": lambda run: measure.percentile(run.posted, 0.95),
    "stored p99": lambda run: measure.percentile(run.posted, 0.99),
    "CPU s": lambda run: run.cpu,
    "late p99": lambda run: measure.percentile(run.late, 0.99),
}


async def run(bench: Bench, seconds: float, turns: int) -> bool:
    """Measure, print, and return whether the budgets are kept."""
    runs: dict[str, list[Run]] = {name: [] for name in SUBJECTS}
    names = list(SUBJECTS)
    for turn in range(turns + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            one = await bench.reply(SUBJECTS[name], seconds if turn else 1.0)
            if turn:
                runs[name].append(one)
    await bench.close()

    measure.heading(f"One reply of {seconds:g} s, {turns} turns: milliseconds, but for the whole reply's seconds")
    print(f"{'':<27}" + "".join(f"{name:>11}" for name in FIGURES) + f"{'got every byte':>20}")
    for name, taken in runs.items():
        figures = "".join(f"{statistics.median(map(figure, taken)):>11.3f}" for figure in FIGURES.values())
        reading = SUBJECTS[name][0] * len(taken)
        print(f"{name:<27}{figures}{sum(one.whole for one in taken):>11} of {reading:>5}")

    def ratio(of: str, to: str, figure: str) -> float:
        """Return the median of the turns' ratios: what disturbed a turn disturbed both."""
        pairs = zip(runs[of], runs[to], strict=True)
        return statistics.median(FIGURES[figure](one) / FIGURES[figure](other) for one, other in pairs)

    stuck = "89 read, 1 stuck, 10 gone"
    measure.heading("Ratios: the median of the turns'")
    for of, to in (("nobody, again", "nobody"), ("100 read", "nobody"), (stuck, "nobody"), (stuck, "89 read")):
        shown = [name for name in FIGURES if name not in ("CPU s", "late p99")]
        if to == "nobody":
            shown = [name for name in shown if name == "seconds" or name.startswith("own")]
        print(f"{of} : {to:<10}" + "".join(f"  {name} {ratio(of, to, name):.3f}" for name in shown))
    print()
    within = [
        measure.verdict("the reply's time, with the stuck one beside nobody", ratio(stuck, "nobody", "seconds"), 1.05),
        measure.verdict("the same beside 89 who read", ratio(stuck, "89 read", "seconds"), OWN_BUDGET),
        measure.verdict("own stream's p95 beside 89 who read", ratio(stuck, "89 read", "own p95"), OWN_BUDGET),
        measure.verdict("others' p95 from the chunk", ratio(stuck, "89 read", "posts p95"), OTHERS_BUDGET),
        measure.verdict("others' p95 from stored", ratio(stuck, "89 read", "stored p95"), OTHERS_BUDGET),
    ]
    missing = sum(SUBJECTS[name][0] - one.whole for name, taken in runs.items() for one in taken)
    within.append(measure.verdict("who read and did not get every byte", missing, 0))
    late = statistics.median(FIGURES["late p99"](one) for taken in runs.values() for one in taken)
    if late > MOST_LATE_MS:
        print(f"too noisy to judge what is timed: this process's own timers were {late:.0f} ms late (p99)")
        return False
    return all(within)


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--rate", type=float, default=75, help="chunks a second")
    parser.add_argument("--answer-ms", type=float, default=10, help="how long the management API takes")
    parser.add_argument("--serve", nargs="+", help="be another process")
    given = parser.parse_args()
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
    match given.serve:
        case ["table"]:
            asyncio.run(serve(Table().answer))
        case ["management"]:
            asyncio.run(serve(Management(given.answer_ms / 1000).answer))
        case ["relay", table, management]:
            relay(table, management)
        case _:
            return measured(given.rate, given.answer_ms, given.quick)
    return 0


def measured(rate: float, answer_ms: float, quick: bool) -> int:
    """Start the others and measure; return the exit code."""
    name, host = "benchmarks.stuck_subscriber", "http://127.0.0.1"

    async def all_of_it(*ports: int) -> bool:
        table, management, relay = (f"{host}:{port}" for port in ports)
        return await run(Bench(table, management, relay, rate), *((2.0, 3) if quick else (5.0, 7)))

    with (
        measure.server(name, "--serve", "table") as table,
        measure.server(name, "--answer-ms", str(answer_ms), "--serve", "management") as management,
        measure.server(name, "--serve", "relay", f"{host}:{table}", f"{host}:{management}") as relaying,
    ):
        return 0 if asyncio.run(all_of_it(table, management, relaying)) else 1


if __name__ == "__main__":
    sys.exit(main())
