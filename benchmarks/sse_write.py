"""Server CPU for one server-sent event (budgets: section 3 of benchmarks/README.md).

    python -m benchmarks.sse_write [--quick]

One uvicorn with httptools, configured as the stream function's, serves every way; it reads its own CPU clock
(``time.process_time``), so neither the client nor the pauses count. Twenty clients at once, in three paces:

- paced: 100 events a second each, as a provider sends them;
- one a read: as fast as it goes, one event at a time;
- 20 a read: as fast as it goes, what one read of a provider brings in a burst.

What the pacing itself costs is measured as a way that writes nothing, and taken off all others. Paced, that is over
half of the whole, and the machine's noise is as large as what is looked for. So there is a control: with one event
a read the two raw ways do the same work. Their mean is the floor, and when they differ by more than a quarter of it
the run says so and judges nothing.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from tailrace.clock import SystemClock
from tailrace.events import Text
from tailrace.http.connection import Connection
from tailrace.http.requests import App, Receive, Scope, Send
from tailrace.http.server import server
from tailrace.protocols.reader import Opening, Reading
from tailrace.protocols.simple import SimpleProtocol

from benchmarks import measure

BUDGET = 1.5
CLIENTS = 20
CONTROL = 0.25
PER_SECOND = 100
MESSAGE_ID = "BvTTQ3kJcqobLFauBmDfkn0gZdZMaGxOEKBifWnfEpP0exk"
HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
WORDS = [Text(word) for word in ("The ", "tail", "race ", "carries ", "the water ", "away. ")]

PACES: dict[str, tuple[int, bool]] = {"paced": (1, True), "one a read": (1, False), "20 a read": (20, False)}
"""How many events one read brings, and whether there is a pause between reads."""


# ---- the server -----------------------------------------------------------------------------------


async def source(count: int, pace: str) -> AsyncIterator[tuple[int, Sequence[Text]]]:
    """Yield the seq of the first event of each read, and the read's events."""
    size, paced = PACES[pace]
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for first in range(1, count + 1, size):
        await asyncio.sleep(begin + first / PER_SECOND - loop.time() if paced else 0)
        yield first, [WORDS[seq % len(WORDS)] for seq in range(first, min(first + size, count + 1))]


def block(seq: int) -> bytes:
    """Return one event as the simple protocol writes it."""
    return SimpleProtocol(Opening(message_id=MESSAGE_ID, conversation_id=""), Reading(monotonic=time.monotonic)).events(
        seq, [WORDS[seq % len(WORDS)]]
    )


BLOCKS = [block(seq) for seq in range(20_001)]


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """The source alone."""
    async for _ in source(*asked(scope)):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b""})


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """The floor: bytes that were ready before, one send for each event."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    async for first, events in source(*asked(scope)):
        for data in BLOCKS[first : first + len(events)]:
            await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def raw_joined(scope: Scope, receive: Receive, send: Send) -> None:
    """The same with one send for each read."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    async for first, events in source(*asked(scope)):
        data = b"".join(BLOCKS[first : first + len(events)])
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def tailrace(scope: Scope, receive: Receive, send: Send) -> None:
    """What the stream route does with what it delivers (tailrace/http/start.py)."""
    protocol = SimpleProtocol(Opening(message_id=MESSAGE_ID, conversation_id=""), Reading(monotonic=time.monotonic))
    connection = Connection(send, HEADERS, clock=SystemClock(), keep_alive=12.0)
    sending = asyncio.create_task(connection.run())
    async for first, events in source(*asked(scope)):
        connection.write(protocol.events(first, events))
    connection.close()
    await sending


async def starlette_response(request: Request) -> StreamingResponse:
    """Starlette's response around a generator of bytes that were ready before."""

    async def body() -> AsyncIterator[bytes]:
        async for first, events in source(*asked(request.scope)):
            for data in BLOCKS[first : first + len(events)]:
                yield data

    return StreamingResponse(body(), media_type="text/event-stream")


async def fastapi_generator(count: int, pace: str) -> AsyncIterator[ServerSentEvent]:
    """FastAPI's own server-sent events."""
    async for first, events in source(count, pace.replace("%20", " ")):
        for seq, event in enumerate(events, first):
            data = {"chunk": event.text, "message_id": MESSAGE_ID}
            yield ServerSentEvent(data=data, id=f"{MESSAGE_ID}:{seq}")


fastapi = FastAPI()
fastapi.get("/FastAPI generator/{count}/{pace}", response_class=EventSourceResponse)(fastapi_generator)

WAYS: dict[str, Any] = {
    "nothing": nothing,
    "raw ASGI": raw,
    "raw ASGI, a send a read": raw_joined,
    "Tailrace": tailrace,
    "StreamingResponse": Starlette(routes=[Route("/{way}/{count}/{pace}", starlette_response)]),
    "FastAPI generator": fastapi,
}


def asked(scope: Scope) -> tuple[int, str]:
    """Return the count and the pace of a request for ``/<way>/<count>/<pace>``."""
    _, _, count, pace = scope["path"].split("/")
    return int(count), pace


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Give a request to its way, or say how much CPU time was used."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/cpu":
        body = repr(time.process_time()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        return
    app: App = WAYS[scope["path"].split("/")[1]]
    await app(scope, receive, send)


def serve() -> None:
    """Serve on a free port, which is printed."""
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    server(application, host="127.0.0.1", port=0).run(sockets=[listening])


# ---- the clients ----------------------------------------------------------------------------------


async def get(port: int, path: str) -> bytes:
    """Return the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()


async def cpu(port: int) -> float:
    """Return the server's CPU seconds."""
    return float((await get(port, "/cpu")).rsplit(b"\r\n\r\n", 1)[1])


async def run(port: int, way: str, pace: str, count: int) -> float:
    """Return the server's CPU in microseconds an event."""
    before = await cpu(port)
    answers = await asyncio.gather(*(get(port, f"/{way}/{count}/{pace}") for _ in range(CLIENTS)))
    used = await cpu(port) - before
    expected = 0 if way == "nothing" else count
    for answer in answers:
        seen = answer.count(b'"chunk":')
        if seen != expected:
            raise SystemExit(f"{way}, {pace}: {seen} of {expected} events")
    return used / (count * CLIENTS) * 1e6


def subject(port: int, way: str, pace: str, count: int) -> Callable[[], list[float]]:
    """Return what measures one way in one pace."""
    return lambda: [asyncio.run(run(port, way, pace, count))]


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--serve", action="store_true", help="be the server")
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    within = []
    with measure.server("benchmarks.sse_write", "--serve") as port:
        for pace in PACES:
            count = (100 if given.quick else 200) if pace == "paced" else (500 if given.quick else 1_000)
            rows = measure.medians(
                {way: subject(port, way, pace, count) for way in WAYS},
                5 if given.quick else 15,
            )
            (pacing,) = rows.pop("nothing")
            net = {way: figure - pacing for way, (figure,) in rows.items()}
            first, second = net["raw ASGI"], net["raw ASGI, a send a read"]
            same_work = PACES[pace][0] == 1
            floor = (first + second) / 2 if same_work else first
            measure.heading(f"{pace}: server CPU for an event, less {pacing:.1f} µs of pacing")
            for way, figure in net.items():
                print(f"  {way:26}{figure:8.1f} µs {figure / floor:6.2f}")
            if same_work and abs(first - second) > CONTROL * floor:
                print(f"?    too noisy to judge: the control differs by {abs(first - second) / floor:.0%}")
                within.append(False)
            else:
                within.append(measure.verdict(f"Tailrace by raw ASGI, {pace}", net["Tailrace"] / floor, BUDGET))
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
