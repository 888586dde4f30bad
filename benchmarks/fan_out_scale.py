"""Fan-out above what one machine holds: 1 to 10,000 subscribers of a reply, and 1,000 channels at once, simulated.

    python -m benchmarks.fan_out_scale [--quick] [--seconds 30] [--only 10000] [--post-ms 0.39]

The relay's feed and the broadcast function run as they are, in virtual time, on AWS in memory with the limits that AWS
documents (simulated_aws.py). How long AWS takes to answer is assumed, and drawn with a seed; what our code costs is
measured first, in this run, on this machine, unless it is given. What 50 subscribers really take is measured beside
the simulation of the same, and both are printed: that is how far the simulation is off.

Each subscriber's frames are judged: whether they follow on each other without a gap, and their text is the reply's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import statistics
import sys
import time
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from tailrace.backend import Backend
from tailrace.broadcast.paged_fan_out import Page, Run
from tailrace.conversation.conversation import Conversation
from tailrace.events import End, Text
from tailrace.settings import Settings
from tailrace.store import Store, Subscription
from tailrace.store.dynamodb import Payload
from tailrace.store.segment import unpack

from benchmarks import fan_out, measure
from benchmarks.simulated_aws import AWS, NO_TIME, VCPU_MB, Costs, Environment, Latencies, Limits
from local.event_source import Record, read_event_source
from local.lambda_function import LambdaContext
from local.table_stream import TableStream
from tests import virtual_time
from tests.costs import price
from tests.memory_calls import Item
from tests.write_units import chunk

CHUNKS_A_SECOND: Final = 50
SEED: Final = 20261129
AFTER_SECONDS: Final = 60.0
"""After the last reply's end, for what is still posted then."""

MANY_SECONDS: Final = 10.0
"""Of a reply at most, where there are 1,000 at once: each second of them is half a minute here."""

ONE_REPLY: Final = (1, 10, 100, 1_000, 10_000)

SHARDS: Final = 4
"""Of the table's stream: a new table on demand has four partitions."""

MEMORY: Final = 1024
"""Megabytes of a function, the template's default."""


# ---- the subscribers -----------------------------------------------------------------------------------


class Subscriber:
    """One socket, and what it has of one reply.

    Attributes:
        seq: the last entry of the log.
        whole: whether nothing is missing up to there.
        told: seconds from the stored end until it was told of it.
    """

    __slots__ = ("frames", "seq", "text", "told", "whole")

    def __init__(self) -> None:
        self.seq = 0
        self.frames = 0
        self.whole = True
        self.text: list[str] = []
        self.told: float | None = None


class Subscribers:
    """All of them: the far side of the management API.

    Attributes:
        late: how often a chunk was so many milliseconds late, from stored to posted.
        gone: sockets that answer 410.
        stuck: sockets that answer 429.
        ended: when each reply's end was stored.
    """

    def __init__(self) -> None:
        self.late: Counter[int] = Counter()
        self.gone: set[str] = set()
        self.stuck: set[str] = set()
        self.sockets: dict[str, Subscriber] = {}
        self.ended: dict[str, float] = {}
        self._stored: defaultdict[str, list[tuple[int, int, float]]] = defaultdict(list)
        self._decoded: dict[bytes, Any] = {}

    def stored(self, item: Item, now: float) -> None:
        """Note when the entries of a segment were stored."""
        message_id = item["pk"]["S"]
        if not message_id.startswith("S#") or "e" not in item:
            return
        events = unpack(b64decode(item["e"]["B"]))
        if any(isinstance(event, Text) for event in events):
            first = int(item["f"]["N"])
            self._stored[message_id[2:]].append((first, first + len(events) - 1, now))
        if any(isinstance(event, End) for event in events):
            self.ended[message_id[2:]] = now

    def take(self, socket: str, body: bytes, now: float) -> int:
        """Take a frame; return the status."""
        if socket in self.gone:
            return 410
        if socket in self.stuck:
            return 429
        frame = self._decoded.get(body)
        if frame is None:
            if len(self._decoded) > 4_000:
                self._decoded.clear()
            frame = self._decoded[body] = msgspec.json.decode(body)
        subscriber = self.sockets[socket]
        if frame["event"].endswith("MessageChunkReceived"):
            self._chunk(subscriber, frame["data"], now)
        elif not frame["event"].endswith("MessageCreated"):
            subscriber.told = now - self.ended[frame["data"]["message_id"]]
        return 200

    def _chunk(self, subscriber: Subscriber, data: Any, now: float) -> None:
        subscriber.frames += 1
        if data["first_seq"] > subscriber.seq + 1:
            subscriber.whole = False
        if data["seq"] <= subscriber.seq:
            return  # a post whose answer was lost is made again
        subscriber.seq = data["seq"]
        subscriber.text.append(data["chunk"])
        for first, last, stored in reversed(self._stored[data["message_id"]]):
            if last < data["first_seq"]:
                break
            if first <= data["seq"]:
                self.late[round((now - stored) * 1000)] += last - first + 1


# ---- a run ---------------------------------------------------------------------------------------------


class Stream(TableStream):
    """Lambda's event source: the records of the table's stream, for the broadcast function."""

    async def _in_thread(self, call: Any) -> Any:
        return call()


class Caller:
    """Calls the broadcast function with them."""

    name = "broadcast"

    def __init__(self, aws: AWS) -> None:
        self._aws = aws

    async def call(self, event: Any, context: LambdaContext) -> Any:
        """Be Lambda's poller."""
        returned = await self._aws.broadcast.call(event, len(msgspec.json.encode(event)))
        if returned is None:
            raise RuntimeError("throttled")
        return returned


class Reader:
    """Reads the table's stream."""

    def __init__(self, aws: AWS) -> None:
        self._aws = aws

    def begin(self) -> None:
        """What there is by now is not read."""
        self._aws.table.records.clear()

    def read(self) -> list[Record]:
        """Return what is new."""
        found, self._aws.table.records = self._aws.table.records, []
        return found

    def close(self) -> None:
        """Nothing is open."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run.

    Attributes:
        late50, late99: milliseconds from stored to posted, of all chunks of all subscribers.
        posted: frames of chunks that arrived, and refused: posts that were answered with 429.
        busiest: posts that were taken in one second, at most.
        calls: of the broadcast function; refused_calls for want of an environment.
        environments: of it that worked at a time, and of everything.
        read_units: for who listens, and all.
        relays, functions: CPU seconds.
        whole: subscribers who got every byte, of those who read.
        told: of the end; told99: seconds after it was stored.
        slowest: seconds that the slowest reply took, from its first chunk to its stored end.
        dollars: posts, and everything.
    """

    late50: float
    late99: float
    posted: int
    refused: int
    busiest: int
    calls: int
    refused_calls: int
    started: int
    environments: int
    most_at_work: int
    listener_units: int
    read_units: int
    write_units: int
    throttled: int
    relays: float
    functions: float
    readers: int
    whole: int
    told: int
    told99: float
    slowest: float
    replies: int
    not_begun: int
    posts_dollars: float
    dollars: float


class Simulation:
    """One run: replies that are written at once, each for so many subscribers.

    Args:
        channels: how many subscribers each has.
        seconds: of a reply.
        gone, stuck: which part of them.
    """

    def __init__(
        self,
        channels: Sequence[int],
        seconds: float,
        costs: Costs,
        *,
        limits: Limits | None = None,
        latencies: Latencies | None = None,
        memory: int = MEMORY,
        fan_out_limit: int = 100,
        gone: float = 0.0,
        stuck: float = 0.0,
        seed: int = SEED,
    ) -> None:
        self._channels, self._seconds, self._memory = channels, seconds, memory
        self._gone, self._stuck = gone, stuck
        self._aws_options: dict[str, Any] = {
            "limits": limits or Limits(),
            "latencies": latencies or Latencies(),
            "costs": costs,
            "memory": memory,
            "fan_out_limit": fan_out_limit,
            "seed": seed,
        }

    def run(self) -> Figures:
        """Run it, in virtual time."""
        return virtual_time.run(self._run())

    async def _run(self) -> Figures:
        self._aws = aws = AWS(**self._aws_options)
        self._subscribers = Subscribers()
        self._relays: list[Environment] = []
        self._texts: dict[str, str] = {}
        self._of: dict[str, list[str]] = {}
        self._not_begun = 0
        self._slowest = 0.0
        aws.take = self._subscribers.take
        aws.table.when_put = lambda item: self._subscribers.stored(item, aws.clock.monotonic())
        source = read_event_source("BroadcastOnChanges")
        source = dataclasses.replace(source, lanes=source.lanes * SHARDS)
        stream = Stream(Caller(aws), Reader(aws), source, clock=aws.clock)  # type: ignore[arg-type]
        with aws.answering():
            relays = []
            for count in self._channels:
                relay = Environment("stream", self._memory / VCPU_MB)
                self._relays.append(relay)
                backend = Backend(aws.settings("stream"), clock=aws.clock)
                conversation = await relay.create_task(Conversation.create(backend=backend))
                await self._subscribe(f"conversation.{conversation.id}", count)
                relays.append((relay, conversation))
            await stream.begin()
            before = aws.table.read_units.copy(), aws.table.write_units.copy()
            replies = [relay.create_task(self._reply(relay, conversation)) for relay, conversation in relays]
            await asyncio.gather(*replies)
            await asyncio.sleep(AFTER_SECONDS)
        return self._figures(*before)

    async def _subscribe(self, channel: str, count: int) -> None:
        store = Store(self._aws.table, "t", clock=self._aws.clock)
        self._of[channel] = []
        for number in range(count):
            socket = f"L0S{len(self._of):05d}{number:06d}="
            await store.subscriptions.put(channel, socket)
            dice = self._aws.dice.random()
            if dice < self._gone:
                self._subscribers.gone.add(socket)
            elif dice < self._gone + self._stuck:
                self._subscribers.stuck.add(socket)
            else:
                self._of[channel].append(socket)
            self._subscribers.sockets[socket] = Subscriber()

    async def _reply(self, relay: Environment, conversation: Conversation) -> None:
        aws, channel = self._aws, f"conversation.{conversation.id}"
        if len(self._channels) > 1:
            await asyncio.sleep(aws.dice.random())
        if not aws.begin_work():
            self._not_begun += 1
            return
        stream = await conversation.stream_response("Tell me.", channel=channel)
        begun = aws.clock.monotonic()
        for number in range(round(self._seconds * CHUNKS_A_SECOND)):
            await asyncio.sleep(relay.work(aws.costs.chunk))
            await stream.append(chunk(number))
            await asyncio.sleep(max(0.0, begun + (number + 1) / CHUNKS_A_SECOND - aws.clock.monotonic()))
        message = await stream.complete()
        aws.end_work()
        self._slowest = max(self._slowest, self._subscribers.ended[message.id] - begun)
        self._texts[channel] = message.content

    def _figures(self, read_before: Counter[str], written_before: Counter[str]) -> Figures:
        aws, took = self._aws, self._subscribers
        read = aws.table.read_units - read_before
        written = aws.table.write_units - written_before
        readers = [
            (took.sockets[socket], self._texts[channel])
            for channel, sockets in self._of.items()
            if channel in self._texts
            for socket in sockets
        ]
        told = sorted(each.told for each, _ in readers if each.told is not None)
        late = percentiles(took.late)
        posts_dollars = aws.messages * price("message")
        gigabytes = self._memory / 1024 * price("gb_second_arm")
        function = aws.broadcast
        return Figures(
            late50=late[0],
            late99=late[1],
            posted=sum(each.frames for each, _ in readers),
            refused=aws.answers[429],
            busiest=max(aws.a_second.values(), default=0),
            calls=function.calls,
            refused_calls=function.refused,
            started=function.started,
            environments=function.most,
            most_at_work=aws.most_at_work,
            listener_units=read["N"],
            read_units=read.total(),
            write_units=written.total(),
            throttled=aws.answers[-429],
            relays=sum(each.used for each in self._relays),
            functions=function.cpu,
            readers=len(readers),
            whole=sum(each.whole and "".join(each.text) == text for each, text in readers),
            told=len(told),
            told99=told[int(0.99 * (len(told) - 1))] if told else float("inf"),
            slowest=self._slowest,
            replies=len(self._texts),
            not_begun=self._not_begun,
            posts_dollars=posts_dollars,
            dollars=posts_dollars
            + read.total() * price("read_unit")
            + written.total() * price("write_unit")
            + function.seconds * gigabytes
            + function.calls * price("request")
            + len(self._texts) * (self._seconds * gigabytes + price("request")),
        )


def percentiles(late: Counter[int]) -> tuple[float, float]:
    """Return the median and the 99th percentile of what was counted by the millisecond."""
    found = []
    for part in (0.5, 0.99):
        left = part * late.total()
        for milliseconds in sorted(late):
            left -= late[milliseconds]
            if left <= 0:
                break
        found.append(float(milliseconds) if late else float("inf"))
    return found[0], found[1]


# ---- what our code costs -------------------------------------------------------------------------------


class Canned:
    """DynamoDB that gives one answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def call(self, operation: str, payload: Payload) -> Payload:
        """See ``Calls.call``."""
        answer: Payload = msgspec.json.decode(self._answer)
        return answer


async def item_seconds() -> float:
    """Return the CPU seconds of a subscription that is read."""
    count = 10_000
    store = Store(Canned(fan_out.subscriptions(f"room-{count}")), "t")
    before = time.process_time()
    assert len([each async for each in store.subscriptions.of_channel("room")]) == count
    return (time.process_time() - before) / count


def byte_seconds() -> float:
    """Return the CPU seconds of a byte of a page that is given to another environment, on the dearer side."""
    subscriptions = [
        Subscription(channel="conversation.x" * 3, socket=f"L0SM9cOF{number:07d}=", expires=1, since=1)
        for number in range(500)
    ]
    page = Page([Run(["x" * 200], subscriptions)])
    begin = time.process_time()
    for _ in range(20):
        body = msgspec.json.encode({"post": msgspec.to_builtins(page)})
    gave = time.process_time() - begin
    for _ in range(20):
        msgspec.convert(json.loads(body)["post"], Page)  # Lambda's runtime decodes with the standard library's
    took = time.process_time() - begin - gave
    return max(gave, took) / 20 / len(body)


class Measured(msgspec.Struct, frozen=True):
    """What was measured here: the costs, and one reply to 50 subscribers.

    Attributes:
        share: of a core that this process got while it asked for a whole one.
    """

    costs: Costs
    share: float
    late50: float
    late99: float
    relay: float
    noise: float


async def measured(url: str, seconds: float, turns: int) -> Measured:
    """Measure on this machine, with the services in another process (see ``fan_out.py``)."""
    settings = Settings(table="t", dynamodb_endpoint=url, websocket_url=f"{url}/live")
    backend = Backend(settings)
    quiet = Backend(msgspec.structs.replace(settings, broadcast=False))
    posts, chunks, runs, shares = [], [], [], []
    for turn in range(turns + 1):
        speed, milliseconds = await fan_out.throughput(backend, 50, seconds / 4)
        post = milliseconds / 1000
        off = await fan_out.reply(quiet, url, 0, seconds)
        on = await fan_out.reply(backend, url, 50, seconds)
        if turn:
            posts.append(post)
            shares.append(speed * post)
            chunks.append(max(0.0, off.cpu - seconds * 10 * post) / (seconds * CHUNKS_A_SECOND))
            runs.append(on)
    await backend.close()
    await quiet.close()
    items = [await item_seconds() for _ in range(5)]
    costs = Costs(
        post=statistics.median(posts),
        item=statistics.median(items),
        byte=statistics.median(byte_seconds() for _ in range(5)),
        chunk=statistics.median(chunks),
    )
    late50, late99, noise = (
        statistics.median(measure.percentile(delays, part) for delays in each)
        for each, part in (
            ([run.stored for run in runs], 0.5),
            ([run.stored for run in runs], 0.99),
            ([run.late for run in runs], 0.99),
        )
    )
    relay = statistics.median(run.cpu / run.wall for run in runs)
    return Measured(costs, statistics.median(shares), late50, late99, relay, noise)


# ---- the report ----------------------------------------------------------------------------------------

HEADS: Final = {
    "subscribers": 33,
    "late p50": 10,
    "p99 ms": 8,
    "frames each": 13,
    "most posts/s": 14,
    "429": 9,
    "calls": 7,
    "at once": 9,
    "read units": 12,
    "CPU s": 8,
    "got every byte": 18,
    "end p99 s": 11,
    "$ posts": 10,
    "$ all": 10,
}


def heads() -> str:
    """Return the first line of a table."""
    return "".join(f"{head:>{width}}" for head, width in HEADS.items())


def line(name: str, found: Figures) -> str:
    """Return a run's line."""
    values = [
        name,
        f"{found.late50:.0f}",
        f"{found.late99:.0f}",
        f"{found.posted / max(1, found.readers):.1f}",
        f"{found.busiest:,}",
        f"{found.refused:,}",
        f"{found.calls:,}",
        f"{found.environments}",
        f"{found.read_units:,}",
        f"{found.relays + found.functions:.1f}",
        f"{found.whole:,} of {found.readers:,}",
        f"{found.told99:.1f}",
        f"{found.posts_dollars:.5f}",
        f"{found.dollars:.5f}",
    ]
    return "".join(f"{value:>{width}}" for value, width in zip(values, HEADS.values(), strict=True))


def many_channels(count: int, environments: int) -> dict[str, dict[str, Any]]:
    """Return runs of so many channels at once. Fewer than 1,000 have as much less of every quota.

    Args:
        environments: that may be at work, in all but the last: as many relays as an account has leave none for anything
            else.
    """
    part, quotas = count / 1_000, Limits()
    limits = Limits(
        posts=quotas.posts * part,
        burst=quotas.burst * part,
        environments=round(quotas.environments * part),
        starts=quotas.starts * part,
    )
    raised = msgspec.structs.replace(limits, environments=environments)
    large = round(10_000 * part)
    return {
        f"{count:,} x 10": {"channels": [10] * count, "limits": raised},
        f"{count:,} x 10, 1 x {large:,}": {"channels": [large, *[10] * count], "limits": raised},
        "the same, environments by quota": {"channels": [large, *[10] * count], "limits": limits},
    }


def simulated(costs: Costs, seconds: float, count: int, only: int | None) -> bool:
    """Simulate and print; return whether everybody got everything."""
    runs: dict[str, dict[str, Any]] = {f"{each:,}": {"channels": [each]} for each in ONE_REPLY}
    runs["1,000, 10% gone, 1% stuck"] = {"channels": [1_000], "gone": 0.1, "stuck": 0.01}
    runs |= many_channels(count, 5_000)
    if only is not None:
        runs = {f"{only:,}": {"channels": [only]}}
    measure.heading(
        f"Replies of {seconds:g} s, {CHUNKS_A_SECOND} chunks/s, in virtual time: late from stored to posted"
    )
    print(f"assumed seconds, median and p99: {Latencies()}")
    print(f"CPU seconds, of which a function of {MEMORY} MB has {MEMORY / VCPU_MB:.2f} a second: {costs}")
    print(f"of 1,000 channels each reply takes {min(seconds, MANY_SECONDS):g} s")
    if count < 1_000:
        print(f"{count} channels, and {count / 1_000:g} of every quota, stand for 1,000")
    print(heads(), flush=True)
    missing = silent = 0
    for name, options in runs.items():
        lasting = min(seconds, MANY_SECONDS) if len(options["channels"]) > 1 else seconds
        found = Simulation(seconds=lasting, costs=costs, **options).run()
        print(line(name, found), flush=True)
        if found.not_begun:
            print(f"{'':>33}  {found.not_begun} replies were not begun: no environment was free")
        if found.refused_calls:
            print(f"{'':>33}  {found.refused_calls:,} calls of the broadcast function found no environment free")
        if found.throttled:
            print(f"{'':>33}  {found.throttled:,} calls of DynamoDB were throttled: too much of one partition")
        missing += found.readers - found.whole
        silent += found.readers - found.told
    print()
    return measure.verdict("who read and did not get every byte", missing, 0) & measure.verdict(
        "who read and was not told of the end", silent, 0
    )


def checked(found: Measured, seconds: float) -> None:
    """Print what 50 subscribers took beside the simulation of the same, with services that answer at once."""
    memory = round(found.share * VCPU_MB)
    simulation = Simulation([50], seconds, found.costs, latencies=NO_TIME, memory=memory).run()
    measure.heading(
        f"50 subscribers, measured here and simulated, with {found.share:.2f} of a core, as this process got"
    )
    print(f"{'':>12}{'from stored p50':>17}{'p99 ms':>8}{'CPU %':>8}")
    print(f"{'measured':>12}{found.late50:>17.1f}{found.late99:>8.1f}{100 * found.relay:>8.1f}")
    cpu = 100 * simulation.relays / seconds
    print(f"{'simulated':>12}{simulation.late50:>17.1f}{simulation.late99:>8.1f}{cpu:>8.1f}")
    print(f"the other process's own timers were {found.noise:.0f} ms late (p99)")


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--seconds", type=float, help="of a reply; 30, or 2 with --quick")
    parser.add_argument("--only", type=int, help="subscribers of one reply, and nothing else")
    parser.add_argument("--post-ms", type=float, help="CPU of a post; then nothing is measured")
    given = parser.parse_args()
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
    logging.disable(logging.ERROR)  # each subscriber that is dropped is a line; here they are counted
    seconds = given.seconds or (2.0 if given.quick else 30.0)
    if given.post_ms is None:
        with measure.server("benchmarks.fan_out", "--serve") as port:
            measuring = measured(f"http://127.0.0.1:{port}", *((1.0, 2) if given.quick else (4.0, 5)))
            found = asyncio.run(measuring)
        checked(found, 4.0)
        costs = found.costs
    else:
        costs = Costs(post=given.post_ms / 1000, item=4e-6, byte=1e-8, chunk=given.post_ms / 1000)
    return 0 if simulated(costs, seconds, 100 if given.quick else 1_000, given.only) else 1


if __name__ == "__main__":
    sys.exit(main())
