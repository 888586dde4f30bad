"""What sweep, prune, a day's report, starts, writers and catch-ups do under load: the real code in virtual time.

Each function returns what was seen. Seconds are of waiting for DynamoDB, as ``virtual_table.py`` assumes it; what CPU
adds is worked out from the calls in ``scale.py``.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
from tailrace.backend import Backend
from tailrace.broadcast.catch_up import CatchUp
from tailrace.broadcast.fan_out import FanOut
from tailrace.conversation.admission import Admission
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.owner import Owner
from tailrace.conversation.report import day_of
from tailrace.delivery import Delivery
from tailrace.errors import RateLimited, TailraceError
from tailrace.events import Message, ProviderEvent, ResponseInfo, Usage
from tailrace.identity.limits import Limits
from tailrace.reply.log_writer import READ_ALONG
from tailrace.reply.relay import Relay
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import NEVER
from tailrace.store.dynamodb import Payload

from benchmarks.virtual_table import Virtual
from tests.write_units import PER_SECOND, chunk

WEBSOCKET: Final = "http://127.0.0.1:9/nobody-is-called"
OPEN: Final = 20
"""Replies of one owner at once, by the template's default."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of a job took.

    Attributes:
        seconds: of waiting.
        calls: to DynamoDB.
        read_units: of DynamoDB.
        done: how many things it did.
    """

    seconds: float
    calls: int
    read_units: float
    done: int


def sweep(orphans: int, living: int = 0) -> Job:
    """Sweep so many replies whose writers are gone, and so many whose writers live, all older than the lease."""
    virtual = Virtual()

    backend = virtual.backend

    async def prepare() -> None:
        # Only their ids are kept, so their writers are gone.
        ids = [(await _open(backend)).id for _ in range(orphans + living)]
        for each in ids:
            await backend.store.log.append(each, 0, 1, [chunk(0)], nonce=b"00000000")
        await virtual.clock.sleep(backend.settings.lease + 1)
        for each in ids[orphans:]:
            await backend.store.log.append(each, 1, 2, [chunk(1)], nonce=b"00000001")

    return _job(virtual, prepare(), backend.open_replies.sweep(), lambda swept: swept.ended)


def prune(messages: int, kept: int = 0) -> Job:
    """Prune so many messages that were deleted long ago, among so many that were deleted lately."""
    virtual = Virtual()
    backend = virtual.backend

    async def delete(count: int) -> None:
        for _ in range(count):
            conversation = await Conversation.create(backend=backend)
            (message,) = await conversation.add_messages({"role": "user", "content": "hello"})
            await conversation.delete_message(message.id)

    async def prepare() -> None:
        await delete(messages)
        await virtual.clock.sleep(2)
        await delete(kept)

    before = backend.clock.now() + 1_000_000
    return _job(virtual, prepare(), backend.store.prune(before), lambda _: messages)


def report(conversations: int) -> Job:
    """Report a day of an owner with so many conversations, none of which had a reply that day."""
    virtual = Virtual()
    backend = virtual.backend
    owner = Owner("o", backend=backend)

    async def prepare() -> None:
        for _ in range(conversations):
            await owner.start_conversation(title="A question of some words")

    day = day_of(backend.clock.now()) + timedelta(days=1)
    return _job(virtual, prepare(), owner.report(day), lambda found: conversations)


def _job(virtual: Virtual, preparing: Any, work: Any, done: Any) -> Job:
    table = virtual.table
    table.is_instant = True
    virtual.run(preparing)
    table.is_instant = False
    result, seconds = virtual.run(work)
    return Job(seconds=seconds, calls=table.calls.total(), read_units=table.read_units, done=done(result))


async def _open(backend: Backend, **options: Any) -> MessageStream:
    return await (await Conversation.create(backend=backend)).stream_response("Tell me.", **options)


# ---- starts of one owner ----


class Starts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of starts of one owner.

    Attributes:
        admitted, refused, failed: how many; the latter had no answer in time.
        median, longest: seconds that those took which were admitted.
    """

    admitted: int
    refused: int
    failed: int
    median: float
    longest: float


def starts_of_one_owner(count: int, per_second: float | None = None) -> Starts:
    """Start so many replies of one owner, evenly or all at once; only the count of those that are open is limited, and
    not reached."""
    virtual = Virtual()
    backend, clock = virtual.backend, virtual.clock
    backend.limits = Limits(open=max(OPEN, count))
    taken: list[float] = []
    refused = failed = 0

    async def start(conversation: Conversation, number: int) -> None:
        nonlocal refused, failed
        if per_second is not None:
            await clock.sleep(number / per_second)
        begun = clock.monotonic()
        known = await backend.store.identities.get("o")
        try:
            await conversation.stream_response("Tell me.", admission=Admission(backend, "o", known))
        except RateLimited:
            refused += 1
        except TailraceError:
            failed += 1
        else:
            taken.append(clock.monotonic() - begun)

    async def all_starts() -> None:
        virtual.table.is_instant = True
        conversations = [await Conversation.create(owner="o", backend=backend) for _ in range(count)]
        virtual.table.is_instant = False
        await asyncio.gather(*(start(each, number) for number, each in enumerate(conversations)))

    virtual.run(all_starts())
    return Starts(
        admitted=len(taken),
        refused=refused,
        failed=failed,
        median=statistics.median(taken) if taken else 0.0,
        longest=max(taken, default=0.0),
    )


# ---- writers on a table that takes less than they write ----


class Writers(msgspec.Struct, frozen=True, kw_only=True):
    """What became of replies.

    Attributes:
        completed, failed: how many.
        units: write units of one.
        median, late: seconds from a chunk to its being stored, the median and the 99th of a hundred.
    """

    completed: int
    failed: int
    units: float
    median: float
    late: float


def throttled(replies: int, share: float, seconds: float = 20.0) -> Writers:
    """Write so many replies at once, as if somebody read along, on a table that takes this share of what they write
    when nothing is in the way."""
    settings = Settings(broadcast=False, flush_interval=READ_ALONG)
    virtual = Virtual(settings=settings, writes=None if share >= 1 else share * replies / READ_ALONG)
    backend, clock, table = virtual.backend, virtual.clock, virtual.table
    waits: list[float] = []
    begun: dict[str, float] = {}

    def stored(operation: str, request: Payload) -> None:
        if operation == "PutItem" and "f" in request["Item"]:
            first = (int(request["Item"]["f"]["N"]) - 1) / PER_SECOND
            waits.append(clock.monotonic() - begun[request["Item"]["pk"]["S"]] - first)

    async def write(number: int) -> str:
        table.is_instant = True
        stream = await _open(backend)
        table.is_instant = False
        await clock.sleep(0.1 * number / replies)
        begun[f"S#{stream.id}"] = clock.monotonic()
        chunks = source(clock, round(seconds * PER_SECOND))
        try:
            return (await Relay(stream, chunks, lambda first, events: None, clock=clock).run()).status
        except TailraceError:  # not even its end could be stored: the sweep does it
            return "open"

    async def all_writes() -> list[str]:
        table.when_made = stored
        return await asyncio.gather(*(write(number) for number in range(replies)))

    ends, _ = virtual.run(all_writes())
    waits.sort()
    return Writers(
        completed=ends.count("completed"),
        failed=replies - ends.count("completed"),
        units=table.write_units / replies,
        median=statistics.median(waits),
        late=waits[int(0.99 * len(waits))],
    )


async def source(clock: Any, chunks: int) -> AsyncGenerator[Sequence[ProviderEvent], None]:
    for number in range(0, chunks, 5):
        yield [chunk(number + each) for each in range(5)]
        await clock.sleep(5 / PER_SECOND)
    yield [Usage(12, chunks), ResponseInfo("model-1", "stop", "req_1")]


# ---- catch-ups of one reply ----


class CatchUps(msgspec.Struct, frozen=True, kw_only=True):
    """What became of those who caught up, and of the reply.

    Attributes:
        served, failed: how many.
        reply: how it ended.
        median, longest: seconds of a catch-up.
        late: seconds from a chunk to its being stored, the longest.
    """

    served: int
    failed: int
    reply: str
    median: float
    longest: float
    late: float


class Nobody:
    """Takes posts."""

    async def post(self, socket: str, data: bytes) -> None:
        pass


def catch_ups(per_second: float, seconds: float) -> CatchUps:
    """Let subscribers of one reply that is being written come back at this rate, with a cursor each."""
    virtual = Virtual(settings=Settings(websocket_url=WEBSOCKET))
    backend, clock, store = virtual.backend, virtual.clock, virtual.backend.store
    broadcast = backend.broadcast
    broadcast.fan_out = FanOut(Nobody(), store.subscriptions, clock=clock)
    catch_up = CatchUp(store, broadcast.fan_out, broadcast.frames, clock)
    taken: list[float] = []
    waits: list[float] = []
    failed = 0
    begun = 0.0

    def stored(operation: str, request: Payload) -> None:
        if operation == "PutItem" and "f" in request["Item"]:
            waits.append(clock.monotonic() - begun - (int(request["Item"]["f"]["N"]) - 1) / PER_SECOND)

    async def come(stream: MessageStream, number: int) -> None:
        nonlocal failed
        await clock.sleep(1 + number / per_second)
        since, socket, channel = clock.monotonic(), f"socket-{number}", "watched"
        try:
            missed = await catch_up.missed(channel, socket, {stream.id: 1}, Delivery())
            await store.subscriptions.put(channel, socket, starts={each.id: NEVER for each in missed})
            await catch_up.run(missed)
        except TailraceError:
            failed += 1
        else:
            taken.append(clock.monotonic() - since)

    async def everybody() -> str:
        nonlocal begun
        stream = await _open(backend, channel="watched")
        begun = clock.monotonic()
        virtual.table.when_made = stored
        writing = Relay(stream, source(clock, 500 + round(seconds * PER_SECOND)), lambda *_: None, clock=clock).run()
        coming = [come(stream, number) for number in range(int(per_second * seconds))]
        ended: list[Any] = await asyncio.gather(writing, *coming, return_exceptions=True)
        return str(ended[0].status) if isinstance(ended[0], Message) else "open"

    ended, _ = virtual.run(everybody())
    return CatchUps(
        served=len(taken),
        failed=failed,
        reply=ended,
        median=statistics.median(taken) if taken else 0.0,
        longest=max(taken, default=0.0),
        late=max(waits),
    )
