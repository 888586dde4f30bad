"""P3 and P8: a body cut after any byte is seen to be cut, and resumed exactly; so is any change of transport."""

from __future__ import annotations

import asyncio
import codecs
import random
from collections.abc import Iterator, MutableMapping
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.events import Reasoning, Reset, Usage
from tailrace.http.api_app import create_api_app
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.testing import ManualClock

from tests.faults import FaultyCalls
from tests.histories import Cut, History, Snapshot, check, observed, read_final
from tests.memory_calls import MemoryCalls
from tests.test_sse import JUDGE

pytestmark = pytest.mark.anyio

Event = tuple[str, str]
"""An event's data and its id."""

CHUNKS = [
    "The ",
    "wheel ",
    "水车",
    "🌊",
    "naïve",
    "e\u0301",
    "👩‍👩‍👧",
    "\n\n",
    "data: x",
    '"\\',
    "\u2028",
    "\r",
    "id: 7",
    "𝄞",
    "ü" * 30,
]


class World:
    """A backend in memory with a clock that is turned by hand, and its application."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        memory = MemoryCalls()
        self.writing = FaultyCalls(memory)
        store = Store(memory, "memory", clock=self.clock)
        randomness = random.Random(1).randbytes
        self.backend = Backend(
            Settings(table="memory", flush_interval=0.1), store=store, clock=self.clock, random_bytes=randomness
        )
        self.app = create_api_app(self.backend)

    async def stream(self) -> MessageStream:
        """Return the stream of a new reply, whose writer dies when ``crash`` is called."""
        conversation = await Conversation.create(backend=self.backend)
        writer = Backend(
            self.backend.settings,
            store=Store(self.writing, "memory", clock=self.clock),
            clock=self.clock,
            random_bytes=self.backend.random_bytes,
        )
        return await Conversation(conversation.record, writer).stream_response("Tell me.")

    def crash(self) -> None:
        """Nothing that the writer does reaches the table any more."""
        self.writing.choose = lambda operation, payload: "refused"

    async def body(self, path: str, cursor: str | None = None) -> bytes:
        """Return the whole body of an answer; empty for 204."""
        call = Call(self.app, "GET", path, {} if cursor is None else {"Last-Event-ID": cursor})
        await call.task
        assert call.status in (200, 204)
        return bytes(call.body)


class Call:
    """One request, made to the application without a socket."""

    def __init__(self, app: FastAPI, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        self.status = 0
        self.body = bytearray()
        self._request: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
        self._left = asyncio.Event()
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> MutableMapping[str, Any]:
        if self._request:
            return self._request.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    async def cut(self) -> None:
        """The client leaves."""
        self._left.set()
        await self.task


def events(body: bytes) -> list[Event]:
    """Return what a body has of complete events, as httpx-sse sees them."""
    # A character that is cut is not there yet; a line without its end, and an event without its blank line, neither.
    text = codecs.getincrementaldecoder("utf-8")().decode(body)
    decoder = JUDGE.SSEDecoder()
    found = (decoder.decode(line) for line in JUDGE.SSELineDecoder().decode(text))
    return [(event.data, event.id) for event in found if event is not None and event.data]


def is_terminal(event: Event) -> bool:
    """Whether this event says how the reply ended."""
    return bool(msgspec.json.decode(event[0]).keys() & {"done", "error"})


# ---- every byte of a finished reply ----------------------------------------------------------------


async def written(world: World, how: str) -> str:
    """Write a reply of about 40 events, over several segments; return its id."""
    stream = await world.stream()
    await stream.append(Usage(prompt_tokens=3))
    for number, chunk in enumerate([*CHUNKS, *CHUNKS]):
        await stream.append(chunk)
        if number % 4 == 3:
            await world.clock.advance(0.1)
        if number == 9:
            await stream.append(Reset())
        if number == 20:
            await stream.append(Reasoning("hm"))
    await (stream.complete() if how == "completed" else stream.cancel())
    return stream.id


async def live(world: World) -> tuple[str, bytes]:
    """Have a reply relayed to its starting connection; return its id and that connection's body."""
    conversation = await Conversation.create(backend=world.backend)
    script = {"chunks": [*CHUNKS, *CHUNKS[::-1]], "batch": 3}
    body = msgspec.json.encode({"input": "Tell me.", "model": "fast", "options": {"script": script}})
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    call = Call(world.app, "POST", f"/conversations/{conversation.id}/stream", headers, body)
    await call.task
    message = await world.backend.store.messages.newest_reply(conversation.id)
    return message, bytes(call.body)


@pytest.mark.parametrize("how", ["completed", "cancelled", "live"])
async def test_a_body_cut_after_every_byte(how: str) -> None:
    """What is left of it and what is resumed from its last id are the whole, and only the whole has an end."""
    world = World()
    if how == "live":
        message, whole = await live(world)
        assert await world.body(f"/messages/{message}/stream") == whole  # the log's readers get the same bytes
    else:
        message = await written(world, how)
        whole = await world.body(f"/messages/{message}/stream")
    everything = events(whole)
    assert len(everything) >= 30
    assert [is_terminal(event) for event in everything] == [False] * (len(everything) - 1) + [True]
    resumed: dict[str | None, list[Event]] = {}
    for end in range(len(whole) + 1):
        before = events(whole[:end])
        assert any(map(is_terminal, before)) == (end == len(whole))
        cursor = before[-1][1] if before else None
        if cursor not in resumed:
            resumed[cursor] = events(await world.body(f"/messages/{message}/stream", cursor))
            polled = msgspec.json.decode(await world.body(f"/messages/{message}/events?after={cursor or 0}"))
            assert [(event.pop("id"), event) for event in polled] == [
                (event_id, msgspec.json.decode(data)) for data, event_id in resumed[cursor]
            ]
        assert before + resumed[cursor] == everything, f"cut after {end} bytes"
    assert len(resumed) == len(everything) + 1
    await world.backend.close()


# ---- any transport, while it is being written ----------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 6)),
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.1, 0.4, 2.0])),
    st.tuples(st.just("read"), st.tuples(st.sampled_from([0.0, 0.1, 0.6, 3.0]), st.floats(0, 1))),
    st.tuples(st.just("poll"), st.sampled_from([0, 1])),
    st.tuples(st.just("snapshot"), st.none()),
    st.tuples(st.just("reset"), st.none()),
)


class Switching:
    """A reader that takes whatever transport comes next, from its own cursor."""

    def __init__(self, world: World, message: str) -> None:
        self.history = History("switching", "resumed")
        self.looks = History("looking", "snapshots", left=True)
        self._world = world
        self._message = message

    async def read(self, seconds: float, share: float) -> None:
        """Read events for some seconds, then be cut so that only a share of the bytes got through."""
        path = f"/messages/{self._message}/stream"
        cursor = self.history.cursor
        call = Call(self._world.app, "GET", path, {"Last-Event-ID": f"{self._message}:{cursor}"} if cursor else {})
        await self._world.clock.advance(seconds)
        await call.cut()
        self._saw(events(bytes(call.body[: round(len(call.body) * share)])))
        if not self.history.ended:
            self.history.seen.append(Cut())

    async def poll(self, wait: int) -> None:
        """Make one long poll, in which up to half a second passes."""
        path = f"/messages/{self._message}/events?after={self.history.cursor}&wait={wait}"
        call = Call(self._world.app, "GET", path, {})
        await self._world.clock.advance(0.5)
        if call.task.done():
            polled = msgspec.json.decode(bytes(call.body))
            self._saw([(msgspec.json.encode(event).decode(), event["id"]) for event in polled])
        else:
            call.task.cancel()
            await asyncio.wait((call.task,))
            self.history.seen.append(Cut())

    async def snapshot(self) -> None:
        """Look at the message."""
        message = msgspec.json.decode(await self._world.body(f"/messages/{self._message}"))
        names = ("seq", "status", "content", "error")
        self.looks.seen.append(Snapshot(**{name: message[name] for name in names}))

    def _saw(self, seen: list[Event]) -> None:
        self.history.seen += [observed(msgspec.json.decode(data), event_id) for data, event_id in seen]


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=25), st.sampled_from(["complete", "cancel", "crash"]))
def test_any_transport_at_any_time(steps: list[tuple[str, Any]], end: str) -> None:
    """Streams that are cut, long polls and snapshots, in any order during a reply: no gap, no double, the same end."""
    asyncio.run(switched(steps, end))


async def switched(steps: list[tuple[str, Any]], end: str) -> None:
    """Take the steps, end the reply in one of the ways, and have it read to its end."""
    world = World()
    stream = await world.stream()
    reader = Switching(world, stream.id)
    words = words_of_a_reply()
    for name, what in steps:
        match name:
            case "write":
                for _ in range(what):
                    await stream.append(next(words))
            case "reset":
                await stream.append(Reset())
            case "wait":
                await world.clock.advance(what)
            case "read":
                await reader.read(*what)
            case "poll":
                await reader.poll(what)
            case "snapshot":
                await reader.snapshot()
        assert check([reader.history, reader.looks], await read_final(world.backend.store, stream.id)) == []
    if end == "complete":
        await stream.complete()
    elif end == "cancel":
        await world.backend.open_replies.cancel(stream.id)
    else:
        world.crash()  # and the reader itself ends it
    while not reader.history.ended:
        await reader.read(40.0, 1.0)
    await reader.snapshot()
    final = await read_final(world.backend.store, reader._message)
    assert check([reader.history, reader.looks], final) == []


def words_of_a_reply() -> Iterator[str]:
    """Yield chunks, no two of them the same."""
    number = 0
    while True:
        number += 1
        yield f"{CHUNKS[number % len(CHUNKS)]}{number} "
