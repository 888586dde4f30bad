"""Replies as they come: each as the real code wrote it in a run, many of them by a seeded simulation, second by second.

What is said of the traffic is assumed, below; what a reply does to the table is counted.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from tailrace.broadcast.fan_out import FanOut
from tailrace.conversation.admission import Admission
from tailrace.conversation.conversation import Conversation
from tailrace.identity.limits import Limits
from tailrace.ids import message_id, new_conversation_id
from tailrace.reply.follow import Follower
from tailrace.reply.relay import Relay
from tailrace.settings import Settings
from tailrace.store.dynamodb import Payload
from tailrace.store.items import open_shard
from tailrace.store.together import both

from benchmarks.partitions import PARTITION_WRITES
from benchmarks.under_load import OPEN, WEBSOCKET, Nobody, source
from benchmarks.virtual_table import Virtual
from tests.costs import PROVIDER_SECONDS
from tests.write_units import PER_SECOND

LENGTHS: Final[Mapping[int, float]] = {100: 0.20, 500: 0.35, 1_000: 0.25, 2_000: 0.15, 5_000: 0.05}
"""Chunks of replies, and how many replies have so many: a thousand on average, 20 seconds."""

BEFORE: Final = 3
"""Exchanges that a conversation has when a reply is started."""

NEW: Final = 0.25
"""Of the replies, how many are a conversation's first one."""

REPLACING: Final = 0.05
"""How many come instead of an earlier one, which is deleted."""

WATCHED: Final = 0.10
"""How many have subscribers."""

MOST_SUBSCRIBERS: Final = 100
"""Of one reply. How many have *n* falls with the square of *n* (Zipf): 3.2 on average."""

FOLLOWED: Final = 0.10
"""How many are followed over HTTP, by one reader."""

REPLIES_OF_OWNER: Final = 6
"""That one identity starts in the busiest hour, on average; the busier ones by Zipf, with this exponent:"""
ZIPF: Final = 0.7

DAY: Final = 0.5
"""An average hour by the busiest one: the rate follows a sine over the day."""

LEASE: Final = 30.0


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What one reply does to the table.

    Attributes:
        seconds: from its start to its end.
        log, rest: write units by the second since its start: of its log, and of all else.
        reads: read units by the second.
        indexes: write units of indexes: the second, the index, and how many.
        identity: write units of what its owner has used.
        segments: of its log.
    """

    seconds: float
    log: Sequence[float]
    rest: Sequence[float]
    reads: Sequence[float]
    indexes: Sequence[tuple[int, str, float]]
    identity: float
    segments: int

    @property
    def table_writes(self) -> float:
        """Write units of the table."""
        return sum(self.log) + sum(self.rest)

    @property
    def writes(self) -> float:
        """All write units, of the table and of indexes."""
        return self.table_writes + sum(units for _, _, units in self.indexes)


@cache
def trace(
    chunks: int,
    *,
    watched: bool = False,
    followed: bool = False,
    is_new: bool = False,
    replaces: bool = False,
    flush: float | None = None,
) -> Trace:
    """Write a reply with the real code, in virtual time, and return what it did."""
    virtual = Virtual(settings=Settings(websocket_url=WEBSOCKET, flush_interval=flush))
    backend, clock, table = virtual.backend, virtual.clock, virtual.table
    backend.broadcast.fan_out = FanOut(Nobody(), backend.store.subscriptions, clock=clock)
    backend.limits = Limits(open=OPEN)
    log: Counter[int] = Counter()
    rest: Counter[int] = Counter()
    reads: Counter[int] = Counter()
    indexes: list[tuple[int, str, float]] = []
    identity = 0.0
    seen: dict[str, Any] = {"writes": 0, "reads": 0.0, "indexes": Counter()}
    begun = 0.0

    def made(operation: str, request: Payload) -> None:
        nonlocal identity
        second = int(clock.monotonic() - begun)
        units = table.write_units - seen["writes"]
        is_log = operation == "PutItem" and request["Item"]["pk"]["S"].startswith("S#")
        (log if is_log else rest)[second] += units
        reads[second] += table.read_units - seen["reads"]
        for key, now in table.index_units.items():
            if more := now - seen["indexes"][key]:
                indexes.append((second, f"{key[0]} {key[1].split()[0] if key[0] == 'by_sweep' else ''}".strip(), more))
        for change in request.get("TransactItems", ()):
            for write in change.values():
                identity += 2 * (write.get("Key", write.get("Item"))["pk"]["S"].startswith("U#"))
        seen.update(writes=table.write_units, reads=table.read_units, indexes=Counter(table.index_units))

    async def whole() -> float:
        nonlocal begun
        table.is_instant = True
        conversation = await Conversation.create(backend=backend)
        said = {"content": "A question of some words, or an answer to one. " * 4}
        for _ in range(0 if is_new else BEFORE):
            await conversation.add_messages({"role": "user", **said}, {"role": "assistant", **said})
        last = await conversation.last_message()
        if watched:
            await backend.store.subscriptions.put(f"conversation.{conversation.id}", "a socket of a client")
        table.is_instant = False
        begun = clock.monotonic()
        table.when_made = made
        if is_new:  # what POST /conversations writes beside
            await Conversation.create(backend=backend, admission=Admission(backend, "anonymous"))
        loading = Conversation.load_with_past(conversation.id, None, has_question=True, backend=backend)
        (conversation, _), known = await both(loading, backend.store.identities.get("anonymous"))
        replaced = [last.id] if replaces and last is not None else []
        stream = await conversation.stream_response(
            "Tell me.",
            provider="scripted",
            model="model-1",
            replaced=replaced,
            admission=Admission(backend, "anonymous", known),
        )
        following = asyncio.ensure_future(_follow(virtual, stream.id)) if followed else None
        await clock.sleep(PROVIDER_SECONDS)
        ended = await Relay(stream, source(clock, chunks), lambda first, events: None, clock=clock).run()
        assert ended.status == "completed"
        seconds = clock.monotonic() - begun
        await stream.drain()
        if following is not None:
            await following
        return seconds

    seconds, _ = virtual.run(whole())
    segments = sum(sort.startswith("L#") for _, sort in table.memory.items)
    last = max((*log, *rest, *reads))
    return Trace(
        seconds=seconds,
        log=[log[second] for second in range(last + 1)],
        rest=[rest[second] for second in range(last + 1)],
        reads=[reads[second] for second in range(last + 1)],
        indexes=indexes,
        identity=identity,
        segments=segments,
    )


async def _follow(virtual: Virtual, message_id: str) -> None:
    backend = virtual.backend
    follower = Follower(backend.store, backend.open_replies, message_id, 0, clock=virtual.clock, lease=LEASE)
    await follower.open()
    async for _ in follower.follow():
        pass


def subscribers_weights() -> list[float]:
    """Return how likely 1, 2, 3... subscribers are for a reply that has any."""
    weights = [1 / number**2 for number in range(1, MOST_SUBSCRIBERS + 1)]
    return [weight / sum(weights) for weight in weights]


SUBSCRIBERS: Final = sum(number * weight for number, weight in enumerate(subscribers_weights(), 1))
"""Of a watched reply, on average."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a simulation saw, by the second.

    Attributes:
        replies: that were started.
        open: replies that are being written, at the end of each second.
        old: those of them that are older than the lease.
        writes, reads: units of the table.
        posts: to subscribers.
        index_keys: write units of each key of an index that many replies share.
        partition: write units of the busiest partition of the table, of so many.
        partitions: how many.
        over_limit: starts beyond what one identity may start a minute.
        busiest: starts of the busiest identity.
    """

    seconds: int
    replies: int
    open: Sequence[int]
    old: Sequence[int]
    writes: Sequence[float]
    reads: Sequence[float]
    posts: Sequence[float]
    index_keys: Mapping[str, Sequence[float]]
    partition: float
    partitions: int
    over_limit: int
    busiest: int


def traces() -> list[tuple[float, Trace, bool]]:
    """Return the kinds of replies: how many are of this kind, what they do, and whether they are watched."""
    shortest = min(LENGTHS)
    found = []
    for chunks, share in LENGTHS.items():
        plain = trace(chunks)
        found += [
            (share * (1 - WATCHED - FOLLOWED - NEW - REPLACING), plain, False),
            (share * WATCHED, trace(chunks, watched=True), True),
            (share * FOLLOWED, trace(chunks, followed=True), False),
            (share * NEW, _with_start(plain, trace(shortest), trace(shortest, is_new=True)), False),
            (share * REPLACING, _with_start(plain, trace(shortest), trace(shortest, replaces=True)), False),
        ]
    return found


def _with_start(plain: Trace, short: Trace, other: Trace) -> Trace:
    """Return a reply with another kind of start, which costs the same whatever the reply's length."""
    rest, reads = list(plain.rest), list(plain.reads)
    rest[0] += other.rest[0] - short.rest[0]
    reads[0] += other.reads[0] - short.reads[0]
    starting = [each for each in other.indexes if each[0] == 0]
    return msgspec.structs.replace(
        plain,
        rest=rest,
        reads=reads,
        indexes=[*starting, *(each for each in plain.indexes if each[0] != 0)],
        identity=other.identity,
    )


def simulate(per_hour: float, seconds: int, *, limit_starts: int = 60, seed: int = 1) -> Load:
    """Let replies come at this rate, one independent of the other (Poisson), and look at so many seconds, once all is
    under way."""
    dice = random.Random(seed)
    kinds = traces()
    longest = math.ceil(max(kind.seconds for _, kind, _ in kinds)) + 3
    length = longest + seconds + longest
    rate = per_hour / 3600
    arrivals: list[float] = []
    now = dice.expovariate(rate)
    while now < longest + seconds:
        arrivals.append(now)
        now += dice.expovariate(rate)
    owners = max(1, round(per_hour / REPLIES_OF_OWNER))
    weights = [1 / (number**ZIPF) for number in range(1, owners + 1)]
    by_owner: Counter[int] = Counter(dice.choices(range(owners), weights, k=len(arrivals)))
    chosen = dice.choices(kinds, [share for share, *_ in kinds], k=len(arrivals))
    audiences = dice.choices(range(1, MOST_SUBSCRIBERS + 1), subscribers_weights(), k=len(arrivals))

    mean_writes = rate * sum(share * (sum(kind.log) + sum(kind.rest)) for share, kind, _ in kinds)
    partitions = max(4, math.ceil(2 * mean_writes / PARTITION_WRITES))  # an on-demand table is ready for twice its peak
    heat = [[0.0] * length for _ in range(partitions)]
    open_now, old_now = [0] * (length + 1), [0] * (length + 1)
    writes, reads, posts = [0.0] * length, [0.0] * length, [0.0] * length
    keys: dict[str, list[float]] = {}
    tag = "AAAAAAAAAAAAAAAA"
    for at, (_, kind, watched), audience in zip(arrivals, chosen, audiences, strict=True):
        begin = int(at)
        end = int(at + kind.seconds)
        open_now[begin] += 1
        open_now[end] -= 1
        if kind.seconds > LEASE:
            old_now[int(at + LEASE)] += 1
            old_now[end] -= 1
        its_log, its_conversation = heat[dice.randrange(partitions)], heat[dice.randrange(partitions)]
        for second, units in enumerate(kind.log, begin):
            its_log[second] += units
            writes[second] += units
        for second, units in enumerate(kind.rest, begin):
            if units:
                its_conversation[second] += units
                writes[second] += units
        for second, units in enumerate(kind.reads, begin):
            reads[second] += units
        if watched:
            each = audience * kind.segments / max(1.0, kind.seconds)
            for second in range(begin, end):
                posts[second] += each
        shard = None
        for second, index, units in kind.indexes:
            name = index
            if index == "by_sweep open":
                shard = shard or open_shard(message_id(tag, begin, _random_part(dice)))
                name = f"by_sweep {shard}"
            elif index == "by_owner":
                continue  # each has its own key
            keys.setdefault(name, [0.0] * length)[begin + second] += units
    window = slice(longest, longest + seconds)
    minutes = (longest + seconds) / 60
    return Load(
        seconds=seconds,
        replies=sum(longest <= at < longest + seconds for at in arrivals),
        open=_running(open_now)[window],
        old=_running(old_now)[window],
        writes=writes[window],
        reads=reads[window],
        posts=posts[window],
        index_keys={name: units[window] for name, units in keys.items()},
        partition=max(max(units[window]) for units in heat),
        partitions=partitions,
        over_limit=sum(max(0, round(count - limit_starts * minutes)) for count in by_owner.values()),
        busiest=max(by_owner.values(), default=0),
    )


def _random_part(dice: random.Random) -> str:
    return new_conversation_id(dice.randbytes)  # as a message's random part: 16 bytes


def _running(changes: Sequence[int]) -> list[int]:
    total, found = 0, []
    for change in changes:
        total += change
        found.append(total)
    return found


def mean_seconds() -> float:
    """Return how long a reply takes, on average, with the wait for its provider."""
    return PROVIDER_SECONDS + sum(share * chunks for chunks, share in LENGTHS.items()) / PER_SECOND
