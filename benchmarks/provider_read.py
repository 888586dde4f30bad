"""CPU per chunk from the provider's socket to a typed event (budgets.md, section 2).

    python benchmarks/provider_read.py [--quick] [--wire openai|anthropic]

Three ways to read the same bytes, from a fake provider in another process over loopback:
- floor: asyncio.Protocol, httptools, msgspec and a splitter that knows nothing but this stream;
- tailrace: aiohttp and the provider, as the relay uses it;
- httpx2: its ``.sse()`` and msgspec.

Once as fast as it comes, once paced: 2,000 chunks a second, each its own write. CPU is the reading process's
(``time.process_time``), medians of runs that take turns. Budget: tailrace at most 1.5 times the floor in both.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine

import aiohttp
import httptools
import httpx2
import msgspec
from tailrace.events import Text
from tailrace.providers import PromptMessage, ProviderConfig, ProviderRequest, open_provider

BUDGET = 1.5
PER_SECOND = 2000
WORDS = ["The ", "tail", "race ", "carries ", "the water ", "away. "]
Reader = Callable[[str, str], Coroutine[None, None, int]]


# ---- the fake provider: another process, plain blocking sockets ---------------------------------------------------


def events(wire: str, count: int) -> list[bytes]:
    """The stream, one event a piece, with the fields that the real ones carry."""
    if wire == "openai":
        head = b'{"id":"chatcmpl-CZn0Y1VqNbW5eYlD3cQ0","object":"chat.completion.chunk","created":1762000000,'
        head += b'"model":"gpt-5-mini-2025-08-07","service_tier":"default","system_fingerprint":null,'
        text = b'data: %b"choices":[{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}],'
        text += b'"usage":null,"obfuscation":"a8Xk2p"}\n\n'
        finish = b'data: %b"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n' % head
        middle = [text % (head, WORDS[i % 6].encode()) for i in range(count)]
        return [*middle, finish + b"data: [DONE]\n\n"]
    text = b"event: content_block_delta\ndata: "
    text += b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'
    middle = [text % WORDS[i % 6].encode() for i in range(count)]
    return [*middle, b'event: message_stop\ndata: {"type":"message_stop"}\n\n']


def answer(client: socket.socket) -> None:
    """Serve one connection: the path is /<wire>/<count>/<burst or paced>/..."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(65536)
        _, wire, count, pace, *_ = request.split(b" ")[1].decode().split("/")
        # One HTTP chunk an event, as the vendors' servers send them.
        pieces = [b"%x\r\n%b\r\n" % (len(event), event) for event in events(wire, int(count))]
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close\r\n\r\n"
        )
        if pace == "paced":
            begin = time.perf_counter()
            for index, piece in enumerate(pieces):
                time.sleep(max(0.0, begin + index / PER_SECOND - time.perf_counter()))
                client.sendall(piece)
        else:
            client.sendall(b"".join(pieces))
        client.sendall(b"0\r\n\r\n")


def serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()


# ---- the three readers: each returns the number of texts ----------------------------------------------------------


class Delta(msgspec.Struct, gc=False):
    content: str | None = None
    text: str | None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] = []
    delta: Delta | None = None


decode = msgspec.json.Decoder(Chunk).decode


def text_of(data: bytes, wire: str) -> str | None:
    chunk = decode(data)
    if wire == "openai":
        return chunk.choices[0].delta.content if chunk.choices else None
    return chunk.delta.text if chunk.delta is not None else None


class Floor(asyncio.Protocol):
    """What cannot be avoided in Python: read, undo HTTP's chunks, split, decode."""

    def __init__(self, request: bytes, wire: str) -> None:
        self.request = request
        self.wire = wire
        self.parser = httptools.HttpResponseParser(self)
        self.body: list[bytes] = []
        self.rest = b""
        self.count = 0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        if not self.done.done():
            self.done.set_result(0)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        *whole, self.rest = (self.rest + b"".join(self.body)).split(b"\n\n")
        self.body.clear()
        for event in whole:
            payload = event[event.index(b"data: ") + 6 :]
            if payload != b"[DONE]" and text_of(payload, self.wire):
                self.count += 1


async def read_floor(url: str, wire: str) -> int:
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    request = f"POST /{path}/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(lambda: Floor(request, wire), name, int(port))
    await protocol.done
    transport.close()
    return protocol.count


async def read_tailrace(url: str, wire: str) -> int:
    count = 0
    async with aiohttp.ClientSession() as session:
        provider = open_provider(wire, ProviderConfig(api_key="k", base_url=url, default_model="m"), session)
        async for batch in provider.stream(ProviderRequest(model=None, messages=[PromptMessage("user", "Tell.")])):
            for event in batch:
                if type(event) is Text:
                    count += 1
    return count


async def read_httpx2(url: str, wire: str) -> int:
    count = 0
    async with httpx2.AsyncClient(timeout=60, verify=False) as client, client.sse(url + "/x", method="POST") as source:
        async for event in source:
            if event.data != "[DONE]" and text_of(event.data.encode(), wire):
                count += 1
    return count


READERS: dict[str, Reader] = {"floor": read_floor, "tailrace": read_tailrace, "httpx2 sse()": read_httpx2}


def measure(port: int, wire: str, pace: str, count: int, runs: int) -> dict[str, float]:
    """Medians in µs a chunk."""
    url = f"http://127.0.0.1:{port}/{wire}/{count}/{pace}"
    took: dict[str, list[float]] = {name: [] for name in READERS}
    for run in range(runs + 1):
        for name, reader in READERS.items():
            gc.collect()
            before = time.process_time()
            seen = asyncio.run(reader(url, wire))
            used = time.process_time() - before
            if seen != count:
                raise SystemExit(f"{name} saw {seen} of {count} chunks")
            if run:  # the first is warming up
                took[name].append(used / count * 1e6)
    return {name: statistics.median(values) for name, values in took.items()}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="fewer chunks and runs, for a smoke test")
    arguments.add_argument("--wire", choices=["openai", "anthropic"], action="append")
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        serve()
    within = True
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as provider:
        try:
            assert provider.stdout is not None
            port = int(provider.stdout.readline())
            for wire in given.wire or ["openai", "anthropic"]:
                for pace, count, runs in (
                    ("burst", 5_000 if given.quick else 20_000, 3 if given.quick else 7),
                    ("paced", 500 if given.quick else 4_000, 3 if given.quick else 7),
                ):
                    result = measure(port, wire, pace, count, runs)
                    print(f"\n{wire}, {pace}: CPU µs a chunk (times the floor)")
                    for name, value in result.items():
                        print(f"  {name:14}{value:8.2f}  ({value / result['floor']:.2f})")
                    within &= result["tailrace"] <= BUDGET * result["floor"]
        finally:
            provider.terminate()
    print("\nwithin the budget" if within else f"\nOVER THE BUDGET of {BUDGET} times the floor")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
