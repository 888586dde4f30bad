"""The table of docs/providers.md: what a provider does wrong on a socket, and how the reply ends, for every wire.

    python -m tests.providers.fault_table

writes it anew. Each row is a run of the whole engine, from the conversation to the stored message; nothing in it is
written by hand but the names of the faults.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.request import Choice, open_source, provider_request
from tailrace.events import Message
from tailrace.providers import variables
from tailrace.providers.options import read_options
from tailrace.reply.relay import Relay
from tailrace.settings import Settings
from tailrace.store import Store

from tests.memory_calls import MemoryCalls

from . import event_stream
from .fake_server import STREAM, FakeServer, Reply
from .helpers import ALL_WIRES, KEY, fixture

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
BEGIN, END = "<!-- faults: made by python -m tests.providers.fault_table -->\n", "<!-- end of faults -->\n"

PATIENT: Mapping[str, float] = {"connect": 10.0, "first_chunk": 10.0, "idle": 10.0, "total": 20.0}
IMPATIENT: Mapping[str, Mapping[str, float]] = {
    "gives no connection": {"connect": 0.3},
    "takes the connection and says nothing": {"first_chunk": 0.3},
    "says 200 and nothing more": {"first_chunk": 0.3},
    "sends only pings": {"first_chunk": 0.3},
    "sends only comments": {"first_chunk": 0.3},
    "falls silent in the middle": {"idle": 0.3},
    "only pings in the middle": {"idle": 0.3},
    "never comes to an end": {"total": 1.5},
}
"""Which limit each runs into. It is short, and all others are so long that a slow machine makes no difference."""

EVENT_STREAM = {"Content-Type": "application/vnd.amazon.eventstream"}
ERRORS: Mapping[str, bytes] = {
    "anthropic": b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Secret"}}\n\n',
    "bedrock": event_stream.failure("serviceUnavailableException", {"message": "Secret"}),
    "gemini": b'data: {"error":{"code":503,"message":"Secret","status":"UNAVAILABLE"}}\n\n',
    "openai": b'data: {"error":{"message":"Secret","type":"server_error","code":503}}\n\n',
    "openai-responses": b'event: error\ndata: {"type":"error","code":"server_error","message":"Secret"}\n\n',
}
PINGS: Mapping[str, bytes] = {
    "anthropic": b'event: ping\ndata: {"type": "ping"}\n\n',
    "bedrock": event_stream.event("somethingNew", {}),
}
COMMENT = b": ping\n\n"


def headers(wire: str) -> Mapping[str, str]:
    """Those of a stream."""
    return EVENT_STREAM if wire == "bedrock" else STREAM


def half(wire: str, then: bytes = b"", **more: object) -> Reply:
    """Return an answer that begins well, and what comes after that."""
    return Reply(headers=headers(wire), pieces=[piece for piece in (fixture(f"{wire}_half"), then) if piece], **more)  # type: ignore[arg-type]


def opening(wire: str, *pieces: bytes, **more: object) -> Reply:
    """Return an answer that begins badly."""
    return Reply(headers=headers(wire), pieces=pieces, **more)  # type: ignore[arg-type]


def page(wire: str, kind: str) -> Reply:
    """Return what a proxy says in a provider's place, with status 200."""
    return Reply(headers={"Content-Type": kind}, pieces=[b"<h1>Secret</h1>"])


def huge(wire: str) -> bytes:
    """Return one event of 17 MB."""
    return last(wire, "x" * 17_000_000)


def bytewise(wire: str) -> Reply:
    """Return a whole answer, one byte at a time."""
    return opening(wire, *(fixture(wire)[at : at + 1] for at in range(len(fixture(wire)))))


def last(wire: str, text: str = "Half 水") -> bytes:
    """Return an event with text, like the last of the half answer."""
    if wire == "bedrock":
        return event_stream.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})
    event = fixture(f"{wire}_half").split(b"\n\n")[-2] + b"\n\n"
    return event.replace("Half 水".encode(), text.encode())


def odd(wire: str) -> bytes:
    """Return an event whose fields have types that nobody expects."""
    if wire == "bedrock":
        return event_stream.event("metadata", {"usage": "strange", "metrics": 7})
    return b'data: {"model":7,"choices":7,"candidates":7,"usage":"strange","delta":[],"item":[],"index":"x"}\n\n'


Fault = Callable[[str], Reply]

FAULTS: Mapping[str, Fault] = {
    "takes the connection and says nothing": lambda wire: Reply(head=False, ending="stall"),
    "hangs up before its status": lambda wire: Reply(head=False, ending="cut"),
    "resets before its status": lambda wire: Reply(head=False, ending="reset"),
    "says 200 and nothing more": lambda wire: opening(wire, ending="stall"),
    "sends only pings": lambda wire: opening(wire, ending="repeat", again=PINGS.get(wire, COMMENT)),
    "sends only comments": lambda wire: opening(wire, ending="repeat", again=COMMENT),
    "ends without a word": lambda wire: opening(wire),
    "resets before its first event": lambda wire: opening(wire, ending="reset"),
    "breaks the transfer coding": lambda wire: opening(wire, ending="bad_chunk"),
    "sends HTML": lambda wire: page(wire, "text/html"),
    "sends plain text": lambda wire: page(wire, "text/plain"),
    "sends JSON in place of a stream": lambda wire: page(wire, "application/json"),
    "sends garbage at once": lambda wire: opening(wire, b"data: {garbage\n\n" * 4),
    "sends bytes that are no text": lambda wire: opening(wire, bytes(range(256)) * 4),
    "sends an event of 17 MB": lambda wire: opening(wire, huge(wire)),
    "reports an error at once": lambda wire: opening(wire, ERRORS[wire]),
    "redirects": lambda wire: Reply(status=307, headers={"Location": "http://127.0.0.1:1/"}),
    "falls silent in the middle": lambda wire: half(wire, ending="stall"),
    "only pings in the middle": lambda wire: half(wire, ending="repeat", again=PINGS.get(wire, COMMENT)),
    "never comes to an end": lambda wire: half(wire, ending="repeat", again=last(wire, "more")),
    "ends early": lambda wire: half(wire),
    "hangs up in the middle": lambda wire: half(wire, ending="cut"),
    "sends garbage in the middle": lambda wire: half(wire, b"data: {garbage\n\n" * 4),
    "reports an error in the middle": lambda wire: half(wire, ERRORS[wire]),
    "sends a chunk twice, then ends early": lambda wire: half(wire, last(wire)),
    "sends one byte at a time": bytewise,
    "goes on after its end": lambda wire: opening(wire, fixture(wire) + b"data: {garbage\n\n"),
    "says 200 to an error in one body": lambda wire: Reply(
        headers={"Content-Type": "application/json"}, pieces=[b'{"error":{"code":503,"message":"Secret"}}']
    ),
    "names an error in the middle and says text": lambda wire: half(wire, b"event: error\ndata: Secret\n\n"),
    "lets an error fall into the middle as bare JSON": lambda wire: half(wire, b'{"error":{"code":429,"a":"Secret"}}'),
    "calls its stream plain text": lambda wire: Reply(headers={"Content-Type": "text/plain"}, pieces=[fixture(wire)]),
    "answers with 201": lambda wire: opening(wire, fixture(wire), status=201),
    "compresses against our wish": lambda wire: Reply(
        headers={**headers(wire), "Content-Encoding": "gzip"}, pieces=[gzip.compress(fixture(wire))]
    ),
    "has events that are no JSON": lambda wire: opening(wire, b"data: ping\n\n", fixture(wire)),
    "gives its fields other types": lambda wire: opening(wire, odd(wire), fixture(wire)),
}
"""What each does, for a wire. Comments are nothing to Bedrock, whose stream has none."""

NOT_FOR: Mapping[str, set[str]] = {
    "sends only comments": {"bedrock"},
    "goes on after its end": {"bedrock", "gemini"},
    "says 200 to an error in one body": {"bedrock"},
    "names an error in the middle and says text": {"bedrock"},
    "lets an error fall into the middle as bare JSON": {"bedrock"},
    "calls its stream plain text": {"bedrock"},
    "compresses against our wish": {"bedrock"},
    "has events that are no JSON": {"bedrock"},
}
"""Bedrock knows no comments and no text, and botocore looks at no content type; the ends of these two are the end of
the body."""

STATUSES = range(400, 530)


class Ending(msgspec.Struct, frozen=True, order=True):
    """How a reply ended.

    Attributes:
        error_type: of its end, or None when it completed.
        status_code: what the metadata says, where that is not in the fault's name.
        tried: what was tried before.
        text: what is left of it: ``none``, ``kept``, ``kept, twice`` or ``whole``.
        message: what its readers are told.
    """

    status: str
    error_type: str | None
    status_code: int | None
    tried: str
    text: str
    message: str | None


class Hurried(SystemClock):
    """Pauses between two attempts are short."""

    async def sleep(self, seconds: float) -> None:
        """Wait, but not long."""
        await asyncio.sleep(min(seconds, 0.02))


class Table:
    """The engine on a table in memory, with connections that are kept."""

    def __init__(self, server: FakeServer, wire: str) -> None:
        self.server = server
        self.wire = wire
        read = variables(wire)
        environment = {read.base_url: server.url, **dict.fromkeys(read.keys, KEY)}
        settings = Settings(table="t", provider=wire, model="some-model", environment=environment)
        clock = Hurried()
        self.backend = Backend(settings, store=Store(MemoryCalls(), "t", clock=clock), clock=clock)

    async def ask(self, reply: Reply, fault: str = "") -> Ending:
        """Return how a reply ends whose provider answers so."""
        self.server.reply = reply
        conversation = await Conversation.create(backend=self.backend)
        options = read_options({"retries": 1, "timeouts": {**PATIENT, **IMPATIENT.get(fault, {})}})
        await conversation.add_user_message("Tell.")
        request = provider_request(conversation.record, await conversation.to_messages(), options)
        choices = [Choice(self.wire)]
        source = await open_source(self.backend, choices, request, options, "before_first_chunk")
        stream = await conversation.stream_response(provider=self.wire)
        relay = Relay(stream, source, lambda first_seq, events: None, clock=self.backend.clock)
        message = await relay.run()
        assert message == await self.backend.store.messages.get(stream.id)
        assert "Secret" not in repr(message)
        return ending_of(message)


def ending_of(message: Message) -> Ending:
    """Read it from the message."""
    metadata = message.metadata
    attempts = len(metadata.get("attempts", ()))
    whole = not metadata["streamed"]
    tried = {(0, False): "", (1, False): "again", (1, True): "whole", (2, True): "again, whole"}[attempts, whole]
    if message.status == "failed":
        text = {"": "none", "Half 水" * 2: "kept, twice"}.get(message.content, "kept")
    else:
        text = "whole"
    return Ending(
        message.status,
        metadata.get("error_type"),
        metadata.get("status_code"),
        tried,
        text,
        (message.error or {}).get("message"),
    )


async def endings(wire: str) -> dict[str, Ending]:
    """Return what becomes of every fault of a wire."""
    found: dict[str, Ending] = {}
    server = FakeServer(Reply())
    async with server.serving():
        table = Table(server, wire)
        await table.ask(opening(wire, fixture(wire)))  # the first use imports the vendor's code, which takes its time
        for name, fault in FAULTS.items():
            if wire not in NOT_FOR.get(name, ()):
                async with asyncio.timeout(60):
                    found[name] = await table.ask(fault(wire), name)
        await table.backend.close()
    return {**await unreachable(wire), **found}


async def unreachable(wire: str) -> dict[str, Ending]:
    """Return what becomes of a provider to which there is no connection."""
    found: dict[str, Ending] = {}
    with socket.socket() as unused, socket.socket() as full:
        unused.bind(("127.0.0.1", 0))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # Linux drops what comes when the queue of connections that nobody accepts is full.
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        for name, where in (("refuses the connection", unused), ("gives no connection", full)):
            server = FakeServer(Reply())
            server.url = f"http://127.0.0.1:{where.getsockname()[1]}"
            table = Table(server, wire)
            async with asyncio.timeout(60):
                found[name] = await table.ask(Reply(), name)
            await table.backend.close()
        for each in waiting:
            each.close()
    return found


async def statuses(wire: str) -> dict[int, Ending]:
    """Return what becomes of every status from 400 to 529."""
    found: dict[int, Ending] = {}
    server = FakeServer(Reply())
    async with server.serving():
        table = Table(server, wire)
        for status in STATUSES:
            body = [b'{"error":{"message":"Secret"}}']
            reply = Reply(status=status, headers={"Content-Type": "application/json"}, pieces=body)
            async with asyncio.timeout(60):
                found[status] = await table.ask(reply)
        await table.backend.close()
    return found


def table(faults: Mapping[str, Mapping[str, Ending]], refusals: Mapping[str, Mapping[int, Ending]]) -> str:
    """Return the two tables."""
    lines = [
        "| a provider that | is asked | the reply ends as | text | its readers are told |",
        "|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(name for found in faults.values() for name in found))
    for name in names:
        of_wire = {wire: found[name] for wire, found in faults.items() if name in found}
        all_endings = list(of_wire.values())
        for ending in sorted(dict.fromkeys(all_endings), key=all_endings.count, reverse=True):
            wires = [wire for wire, found in of_wire.items() if found == ending]
            note = "" if len(wires) == len(of_wire) else f" ({', '.join(wires)})"
            lines.append(f"| {name}{note} | {_row(ending)} |")
    lines += ["", "| status | is asked | the reply ends as | text | its readers are told |", "|---|---|---|---|---|"]
    first = refusals[ALL_WIRES[0]]
    for _, group in groupby(first.items(), key=lambda entry: _row(_general(entry[1]))):
        span = list(group)
        numbers = f"{span[0][0]}" if len(span) == 1 else f"{span[0][0]} to {span[-1][0]}"
        lines.append(f"| {numbers} | {_row(_general(span[0][1]))} |")
    for wire, found in refusals.items():
        for status, ending in found.items():
            if ending != first[status]:
                lines.append(f"| {status} ({wire}) | {_row(_general(ending))} |")
    return "\n".join(lines) + "\n"


def _general(ending: Ending) -> Ending:
    """Leave out the status, of which the message tells too."""
    message = (ending.message or "").replace(f" (status {ending.status_code})", " (status …)")
    return msgspec.structs.replace(ending, status_code=None, message=message)


def _row(ending: Ending) -> str:
    ended = f"`{ending.status}`" + (f", `{ending.error_type}`" if ending.error_type else "")
    if ending.status_code is not None:
        ended += f", status code {ending.status_code}"
    asked = {"": "once", "again": "again", "whole": "not streamed", "again, whole": "again, then not streamed"}
    return f"{asked[ending.tried]} | {ended} | {ending.text} | {ending.message or ''}"


async def made(wires: Sequence[str] = ALL_WIRES) -> str:
    """Return the tables as they are now."""
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
    os.environ.setdefault("AWS_REGION", "us-east-1")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    faults = await asyncio.gather(*(endings(wire) for wire in wires))
    refusals = await asyncio.gather(*(statuses(wire) for wire in wires))
    return table(dict(zip(wires, faults, strict=True)), dict(zip(wires, refusals, strict=True)))


def shown() -> str:
    """Return the tables as the page has them."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0].strip() + "\n"


if __name__ == "__main__":
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + asyncio.run(made()) + "\n" + END + rest.split(END)[1])
