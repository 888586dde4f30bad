"""The connection: never blocks who writes, keeps quiet connections alive, and tells who
writes that the reader is behind."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailrace.http.connection import LARGEST_BACKLOG, LARGEST_SEND, Connection
from tailrace.http.requests import Message, Send
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


# ---- what is begun by whoever writes -----------------------------------------------------------------


async def idle(send: Send) -> tuple[Connection, asyncio.Task[None]]:
    """Return a connection that has sent its headers and has nothing to do."""
    connection = Connection(send, [], clock=ManualClock(), keep_alive=10)
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    return connection, running


async def test_what_is_written_while_nothing_waits_leaves_at_once() -> None:
    """Before the event loop comes round again."""
    reader = Reader()
    connection, running = await idle(reader.send)
    for piece in (b"1", b"2"):
        connection.write(piece)
        assert reader.sent[-1] == {"type": "http.response.body", "body": piece, "more_body": True}
    connection.close()
    await asyncio.wait_for(running, 5)
    assert reader.body == b"12"


async def test_a_send_that_has_to_wait_keeps_nobody_waiting_and_comes_first() -> None:
    reader = Reader()
    connection, running = await idle(reader.send)
    reader.reading.clear()
    for piece in (b"1", b"2", b"3" * LARGEST_BACKLOG):
        connection.write(piece)
    assert connection.is_behind
    assert reader.body == b""
    drained = asyncio.create_task(connection.drained(0))
    await asyncio.sleep(0)
    assert not drained.done()
    reader.reading.set()
    assert await asyncio.wait_for(drained, 5)
    connection.write(b"4")
    connection.close()
    await asyncio.wait_for(running, 5)
    assert reader.body == b"12" + b"3" * LARGEST_BACKLOG + b"4"


@pytest.mark.parametrize("waits", [True, False])
async def test_a_send_is_made_in_one_task_whoever_begins_it(waits: bool) -> None:
    """A time-out around it is of the task that ends it, and none of the writer's."""
    tasks: list[object] = []
    may = asyncio.Event()

    async def send(message: Message) -> None:
        async with asyncio.timeout(5):
            tasks.append(asyncio.current_task())
            if waits and message.get("body"):
                await may.wait()
                await asyncio.sleep(0)
            tasks.append(asyncio.current_task())

    connection, running = await idle(send)
    writer = asyncio.current_task()
    connection.write(b"1")
    assert asyncio.current_task() is writer
    may.set()
    connection.close()
    await asyncio.wait_for(running, 5)
    assert tasks == [running] * 6


async def test_a_failure_in_a_send_that_was_begun_is_not_the_writer_s() -> None:
    fails = False

    async def send(message: Message) -> None:
        if fails:
            raise OSError("the client left")

    connection, running = await idle(send)
    fails = True
    connection.write(b"1")
    await asyncio.wait((running,), timeout=5)
    connection.write(b"2")
    assert isinstance(running.exception(), OSError)


async def test_a_failure_while_it_waits_is_the_task_s_too() -> None:
    may: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        if message.get("body"):
            await may

    connection, running = await idle(send)
    connection.write(b"1")
    may.set_exception(OSError("the client left"))
    await asyncio.wait((running,), timeout=5)
    assert isinstance(running.exception(), OSError)
    assert not await connection.drained(0)


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_send_that_waits_ends_with_its_connection(turns: int) -> None:
    """Cancelled before or after the task has gone on with it."""
    ended = []

    async def send(message: Message) -> None:
        try:
            if message.get("body"):
                await asyncio.Event().wait()
        finally:
            ended.append(message.get("body"))

    connection, running = await idle(send)
    connection.write(b"1")
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,), timeout=5)
    assert running.cancelled()
    assert ended == [None, b"1"]
    connection.write(b"2")
    assert not connection.is_behind


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from(["turn", "slow", "quick"])), max_size=40))
def test_any_writes_to_any_client(program: list[bytes | str]) -> None:
    """Everything comes, in its order, whenever the client reads and the loop comes round."""

    async def run() -> None:
        reader = Reader()
        connection, running = await idle(reader.send)
        written = b""
        for step in program:
            if isinstance(step, bytes):
                connection.write(step)
                written += step
            elif step == "turn":
                await asyncio.sleep(0)
            elif step == "slow":
                reader.reading.clear()
            else:
                reader.reading.set()
        reader.reading.set()
        connection.close()
        await asyncio.wait_for(running, 5)
        assert reader.body == written
        assert not connection.is_behind

    asyncio.run(run())
