"""The connection: never blocks who writes, keeps quiet connections alive, and tells who
writes that the reader is behind."""

from __future__ import annotations

import asyncio

import pytest
from tailrace.http.connection import LARGEST_BACKLOG, LARGEST_SEND, Connection
from tailrace.http.requests import Message
from tailrace.testing import ManualClock

pytestmark = pytest.mark.anyio


class Reader:
    """An ASGI server whose client reads when it is told to."""

    def __init__(self, reading: bool = True) -> None:
        self.sent: list[Message] = []
        self.reading = asyncio.Event()
        if reading:
            self.reading.set()

    async def send(self, message: Message) -> None:
        """Take a message."""
        await self.reading.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        """What was sent of the body."""
        return b"".join(message.get("body", b"") for message in self.sent)


async def test_what_waits_leaves_in_one_send() -> None:
    """A slow moment costs one send, not one for each event."""
    reader, clock = Reader(reading=False), ManualClock()
    connection = Connection(reader.send, [(b"a", b"b")], clock=clock, keep_alive=10)
    running = asyncio.create_task(connection.run())
    connection.write(b"1")
    await clock.advance(0)
    for piece in (b"2", b"3", b"4"):
        connection.write(piece)
    reader.reading.set()
    connection.close()
    await asyncio.wait_for(running, 5)
    start, body, end = reader.sent
    assert start == {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
    assert body["body"] == b"1234"
    assert end == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_silence_is_bridged_by_comments() -> None:
    """One line, no blank line, one interval after the last byte, and none while events come."""
    reader, clock = Reader(), ManualClock()
    connection = Connection(reader.send, [], clock=clock, keep_alive=10)
    running = asyncio.create_task(connection.run())
    await clock.advance(25)
    assert reader.body == b":\n:\n"
    for _ in range(10):
        connection.write(b"x")
        await clock.advance(5)
    assert reader.body == b":\n:\n" + b"x" * 10
    await clock.advance(4.9)
    assert reader.body.endswith(b"x")
    await clock.advance(0.2)
    assert reader.body.endswith(b"x:\n")
    connection.close()
    await asyncio.wait_for(running, 5)
    before = reader.body
    await clock.advance(100)
    assert reader.body == before


async def test_a_reader_far_behind_gets_everything_in_time() -> None:
    """Whoever writes learns that so much waits, and when to go on; nothing is lost, and no send is large."""
    reader, clock = Reader(reading=False), ManualClock()
    connection = Connection(reader.send, [], clock=clock, keep_alive=10)
    running = asyncio.create_task(connection.run())
    await clock.advance(0)
    written = b""
    while not connection.is_behind:
        written += b"%015d " % len(written) * 256
        connection.write(written[-4096:])
    assert len(written) == LARGEST_BACKLOG
    waiting = asyncio.create_task(connection.drained())
    await clock.advance(0)
    assert not waiting.done()
    reader.reading.set()
    assert await asyncio.wait_for(waiting, 5)
    assert not connection.is_behind
    connection.close()
    assert await asyncio.wait_for(connection.drained(0), 5)
    await asyncio.wait_for(running, 5)
    assert reader.body == written
    assert max(len(message.get("body", b"")) for message in reader.sent) == LARGEST_SEND


async def test_a_client_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for it to read is told after a while, and nothing is kept for it."""
    monkeypatch.setattr("tailrace.http.connection.STALLED_SECONDS", 0.01)
    reader, clock = Reader(reading=False), ManualClock()
    connection = Connection(reader.send, [], clock=clock, keep_alive=10)
    running = asyncio.create_task(connection.run())
    await clock.advance(0)
    connection.write(b"x" * LARGEST_BACKLOG)
    assert not await asyncio.wait_for(connection.drained(), 5)
    connection.write(b"more")
    reader.reading.set()
    await asyncio.wait_for(running, 5)
    assert reader.body == b""


async def test_a_client_that_left_is_no_error_to_the_writer() -> None:
    """Writing goes on without effect."""

    async def gone(message: Message) -> None:
        raise OSError("the client left")

    connection = Connection(gone, [], clock=ManualClock(), keep_alive=10)
    running = asyncio.create_task(connection.run())
    await asyncio.wait((running,), timeout=5)
    connection.write(b"1")
    connection.close()
    assert isinstance(running.exception(), OSError)
