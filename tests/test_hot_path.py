"""What a chunk, a write and a post cost, counted: no clock is looked at, so no machine is too slow for it.

Counted are the calls that Python makes while something runs, of Python's functions and of C's, those of the event loop
and of the tests left out. They are the same in each run of one version of Python, and each stands for some 50 ns. Two
lengths are measured, and what the longer one has more is divided by how much longer it is: what is done once is in
neither. The figures are printed with -s. Whoever makes the hot path dearer has to raise one of them, and say why.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
import pytest
from tailrace.aws.credentials import Credentials
from tailrace.backend import Backend
from tailrace.broadcast.connections import Connections
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.events import ProviderEvent, Text
from tailrace.http.stream_app import create_stream_app
from tailrace.protocols.sse import SSEDecoder
from tailrace.providers.anthropic_parser import MessagesParser
from tailrace.providers.openai_parser import ChatParser
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store
from tailrace.testing import ManualClock

from benchmarks.server import Write, listen
from tests.broadcast.test_feed import Reply
from tests.memory_calls import MemoryCalls
from tests.test_cut_everywhere import Call
from tests.write_units import PER_SECOND, reply

NOT_COUNTED: Final = (
    str(Path(asyncio.__file__).parent),
    str(Path(__file__).parent),
    str(Path(__file__).parent.parent / "benchmarks"),
    "selectors.py",
    "tailrace/testing.py",
)


class Calls:
    """Counts calls while the block runs."""

    def __init__(self) -> None:
        self.count = 0
        self._counts: dict[Any, bool] = {}

    def __enter__(self) -> Calls:
        gc.collect()
        gc.disable()  # what it would free has destructors, which are calls
        sys.setprofile(self._called)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _called(self, frame: FrameType, event: str, arg: object) -> None:
        if event not in ("call", "c_call"):
            return
        code = frame.f_code
        counts = self._counts.get(code)
        if counts is None:
            counts = self._counts[code] = not any(part in code.co_filename for part in NOT_COUNTED)
        self.count += counts


def more_for_each(cost: Callable[[int], int], few: int, many: int) -> float:
    """Return what one more costs."""
    cost(few)  # what is imported, compiled or kept when it is first used
    return (cost(many) - cost(few)) / (many - few)


def check(what: str, calls: float, most: float) -> None:
    """Hold a figure against what it may be."""
    print(f"{what}: {calls:.2f} calls, at most {most:g}")  # noqa: T201
    assert calls <= most, f"{what} costs {calls:.2f} calls; it did not cost more than {most:g}"
    assert calls > most * 0.6, f"{what} costs {calls:.2f} calls: lower the {most:g}, so that it stays so cheap"


# ---- a chunk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "most"), [(None, 26.0), (0.1, 36.0)], ids=["alone", "with somebody who reads along"]
)
def test_a_paced_chunk_from_the_provider_to_the_table(interval: float | None, most: float) -> None:
    """One a read, fifty a second: relay, stream, log and the building of its writes."""

    def cost(chunks: int) -> int:
        with Calls() as calls:
            asyncio.run(reply(MemoryCalls(), chunks, flush_interval=interval, step=1 / PER_SECOND))
        return calls.count

    check("a paced chunk", more_for_each(cost, 100, 600), most)


@pytest.mark.parametrize(("together", "most"), [(1, 44.0), (20, 11.5)])
def test_a_chunk_through_the_whole_application(together: int, most: float) -> None:
    """From the provider to the server's own call, with as many chunks in a read."""
    script = {"batch": together, "chunks": []}

    async def run(chunks: int) -> Calls:
        calls, memory = Calls(), MemoryCalls()
        settings = Settings(table="t", broadcast=False, provider="scripted", model="fast")
        randomness = random.Random(1).randbytes
        backend = Backend(settings, store=Store(memory, "t"), random_bytes=randomness)
        app = create_stream_app(backend)
        conversation = await Conversation.create(backend=backend)
        options = {"script": {**script, "chunks": [f"chunk{number:03}" for number in range(chunks)]}}
        body = msgspec.json.encode({"input": "Tell me.", "model": "fast", "options": options})
        path = f"/conversations/{conversation.id}/stream"
        with calls:
            call = Call(app, "POST", path, {"Content-Type": "application/json"}, body)  # type: ignore[arg-type]
            await call.task
        assert call.status == 200
        assert call.body.count(b'"chunk":') == chunks
        await backend.close()
        return calls

    check(
        f"a chunk of {together} in a read",
        more_for_each(lambda chunks: asyncio.run(run(chunks)).count, 100, 500),
        most,
    )


OPENAI: Final = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'
)
ANTHROPIC: Final = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word"}}\n\n'
)
START: Final = (
    b"event: message_start\n"
    b'data: {"type":"message_start","message":{"id":"m","model":"m","usage":{"input_tokens":1}}}\n\n'
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)


@pytest.mark.parametrize(
    ("parser", "begin", "event", "most"),
    [(ChatParser, b"", OPENAI, 5.8), (MessagesParser, START, ANTHROPIC, 6.8)],
    ids=["openai", "anthropic"],
)
def test_a_chunk_of_a_provider_s_bytes(parser: Any, begin: bytes, event: bytes, most: float) -> None:
    """Ten in a read, from the bytes to our events."""

    def cost(chunks: int) -> int:
        reading, decoder = parser(), SSEDecoder(keeps_bare=True)
        out: list[ProviderEvent] = []
        reading.feed(decoder.feed(begin), out)
        with Calls() as calls:
            for _ in range(chunks // 10):
                reading.feed(decoder.feed(event * 10), out)
        assert sum(isinstance(each, Text) for each in out) == chunks
        return calls.count

    check("a chunk's bytes", more_for_each(cost, 100, 600), most)


# ---- a call ----------------------------------------------------------------------------------------


class Other:
    """The other end, in this process: what it does is not counted. It keeps the length of what it was sent."""

    def __init__(self) -> None:
        self.length = 0

    def answer(self, head: bytes, body: bytes, write: Write) -> None:
        """Answer with an empty object."""
        self.length = len(head) + 4 + len(body)
        write(200, b"{}")


async def counted(make: Callable[[str], tuple[Callable[[int], Awaitable[None]], Callable[[], Awaitable[None]]]]) -> Any:
    """Return what one more call costs, and how long its request was."""
    other = Other()
    async with await listen(other.answer) as server:
        port = server.sockets[0].getsockname()[1]
        call, close = make(f"http://127.0.0.1:{port}")
        found = []
        for count in (5, 10, 60):
            with Calls() as calls:
                for number in range(count):
                    await call(number)
            found.append(calls.count)
        await close()
    return (found[2] - found[1]) / 50, other.length


def credentials() -> Credentials:
    return Credentials("AKIDEXAMPLE", "secret", None)


def test_a_segment_s_write() -> None:
    """One call of the table, and the bytes that it sends: 100 ms of a reply."""

    def make(url: str) -> Any:
        calls = DynamoDB(region="us-east-1", clock=ManualClock(), endpoint_url=url, credentials=credentials)
        log = Store(calls, "table", clock=ManualClock()).log
        events = [Text(text) for text in ("a ta", "ilra", "ce c", "arri", "es w")]

        async def write(number: int) -> None:
            await log.append("m" * 48, number, number + 1, events, nonce=b"12345678")

        return write, calls.close

    calls, length = asyncio.run(counted(make))
    check("a segment's write", calls, 103)
    assert length <= 920, length


def test_a_post_to_a_subscriber() -> None:
    """One call of the management API, and what it sends beside the frame."""
    frame = b"x" * 200

    def make(url: str) -> Any:
        connections = Connections(url, region="us-east-1", clock=SystemClock(), credentials=credentials)

        async def post(number: int) -> None:
            await connections.post("L0SM9cOFvHcCIhw=", frame)

        return post, connections.close

    calls, length = asyncio.run(counted(make))
    check("a post", calls, 72)
    assert length - len(frame) <= 450, length


def test_a_stored_segment_for_a_subscriber() -> None:
    """From the log to the post, ten a second, with the looks for others that there are meanwhile."""

    async def run(segments: int, calls: Calls) -> None:
        reply = Reply()
        await reply.subscribe("one")
        reply.feed.start()
        await reply.pass_time()
        with calls:
            for number in range(segments):
                reply.feed.stored(number, 5 * number + 1, [Text("word ")] * 5)
                await reply.pass_time(0.1)
        assert len(reply.clients.chunks("one")) == segments

    def cost(segments: int) -> int:
        calls = Calls()
        asyncio.run(run(segments, calls))
        return calls.count

    check("a segment for a subscriber", more_for_each(cost, 30, 150), 172.0)
