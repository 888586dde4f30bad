"""A provider's server: a real socket, and complete power over what goes through it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Literal

import msgspec

STREAM: Mapping[str, str] = MappingProxyType({"Content-Type": "text/event-stream; charset=utf-8"})

PACE = 0.03
"""Seconds between two repetitions."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the server answers.

    Attributes:
        pieces: the body, each piece an HTTP chunk of its own.
        ending: ``whole`` ends the body; ``cut`` closes the connection before its end; ``reset`` does it with a
            reset; ``stall`` says nothing more until the client leaves; ``repeat`` says ``again`` until then;
            ``bad_chunk`` breaks the chunked coding.
        again: what is repeated.
        head: whether there is a status line at all before the ending.
    """

    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=lambda: STREAM)
    pieces: Sequence[bytes] = ()
    ending: Literal["whole", "cut", "reset", "stall", "repeat", "bad_chunk"] = "whole"
    again: bytes = b""
    head: bool = True


class Request(msgspec.Struct, frozen=True):
    """What a client sent."""

    path: str
    headers: Mapping[str, str]
    body: Any


class FakeServer:
    """Answers every request with ``reply``, or the next of ``replies`` while there are any.

    Attributes:
        whole: what a chat completion gets that is not to be streamed; ``reply`` when None.
        requests: what came, in order.
        connections: how many there were.
        connected: set when there was one.
        answering: set when a reply has been sent as far as it goes.
        left: set when a client closed its connection.
    """

    def __init__(self, reply: Reply, *replies: Reply, whole: Reply | None = None) -> None:
        self.reply = reply
        self.replies = [reply, *replies] if replies else []
        self.whole = whole
        self.requests: list[Request] = []
        self.connections = 0
        self.connected = asyncio.Event()
        self.answering = asyncio.Event()
        self.left = asyncio.Event()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeServer]:
        """Listen on a free port until the end of the block."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.connected.set()
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and return whether the connection may bring another."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Request(first.split(" ")[1], headers, msgspec.json.decode(body)))
        reply = self.replies.pop(0) if self.replies else self.reply
        if self.whole is not None and self.requests[-1].body.get("stream") is False:
            reply = self.whole
        fields = {**reply.headers, "Transfer-Encoding": "chunked"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        if reply.head:
            writer.write(f"HTTP/1.1 {reply.status} X\r\n{head}\r\n".encode())
        for piece in reply.pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        match reply.ending:
            case "whole" if reply.head:
                writer.write(b"0\r\n\r\n")
            case "bad_chunk":
                writer.write(b"what is this?\r\n")
            case "reset":
                linger = struct.pack("ii", 1, 0)  # closing then sends RST
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            case "stall":
                await writer.drain()
                self.answering.set()
                await reader.readexactly(1)  # fails when the client leaves
            case "repeat":
                await self._repeat(reader, writer, reply.again)
        self.answering.set()
        return reply.ending == "whole" and reply.head

    async def _repeat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, again: bytes) -> None:
        gone = asyncio.ensure_future(reader.readexactly(1))
        try:
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(again), again))
                await writer.drain()
                self.answering.set()
                await asyncio.wait((gone,), timeout=PACE)
                if gone.done():
                    gone.result()  # raises: the client left
        finally:
            gone.cancel()
