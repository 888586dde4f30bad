"""The provider that all subjects ask: OpenAI's chat completions, from a process of its own, as cheaply as can be.

    python -m benchmarks.peers.provider

Its events have the fields that the real ones have, each in an HTTP chunk of its own. Paced replies are sent by one
timer, each at times of its own, if not asked for in step: what comes at the same time at many streams costs a server
less, since it is woken up once for all of them.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable
from functools import cache
from typing import Final

from benchmarks.peers.asked import DISTINCT, MARK, Asked, read_asked
from benchmarks.server import Requests, listen_by

_EVENT: Final = (
    b'data: {"id":"chatcmpl-CZn0Y1VqNbW5eYlD3cQ0","object":"chat.completion.chunk","created":1762000000,'
    b'"model":"gpt-5-mini-2025-08-07","service_tier":"default","system_fingerprint":null,'
    b'"choices":[%b],"usage":%b,"obfuscation":"a8Xk2p"}\n\n'
)
_CHOICE: Final = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}'
_USAGE: Final = (
    b'{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0}}'
)
GOLDEN: Final = 0.6180339887498949
"""A multiple's fraction is far from those of the multiples before it."""


def framed(event: bytes) -> bytes:
    """Return an event in an HTTP chunk of its own."""
    return b"%x\r\n%b\r\n" % (len(event), event)


def said(delta: bytes, finish: bytes = b"null") -> bytes:
    """Return an event with a choice."""
    return framed(_EVENT % (_CHOICE % (delta, finish), b"null"))


HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"x-request-id: req_1\r\n\r\n" + said(b'{"role":"assistant","content":"","refusal":null}')
)
END: Final = said(b"{}", b'"stop"')
WITH_USAGE: Final = END + framed(_EVENT % (b"", _USAGE))
LAST: Final = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
TEXTS: Final = [said(b'{"content":"w%03d%b"}' % (number, MARK.encode())) for number in range(DISTINCT)]


@cache
def texts(chunks: int) -> bytes:
    """Return the events of a whole reply."""
    whole, rest = divmod(chunks, DISTINCT)
    return b"".join(TEXTS) * whole + b"".join(TEXTS[:rest])


class Pace:
    """Sends the chunks of paced replies when they are due, by one timer."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, int, Reply]] = []
        self._begun = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, reply: Reply) -> None:
        """Send a reply's first chunk at once, and the others when they are due."""
        self._begun += 1
        steps = time.monotonic() * reply.asked.rate
        due = math.ceil(steps) if reply.asked.in_step else steps + self._begun * GOLDEN % 1
        reply.send(0)
        if reply.asked.chunks > 1:
            heapq.heappush(self._due, (due / reply.asked.rate, self._begun, 1, reply))
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._due[0][0], self._send) if self._due else None

    def _send(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, stream, number, reply = self._due[0]
            reply.send(number)
            if number + 1 < reply.asked.chunks and not reply.transport.is_closing():
                heapq.heapreplace(self._due, (due + 1 / reply.asked.rate, stream, number + 1, reply))
            else:
                heapq.heappop(self._due)
        self._arm()


class Reply:
    """A paced reply to one request."""

    def __init__(self, transport: asyncio.Transport, asked: Asked, end: Callable[[], None]) -> None:
        self.transport = transport
        self.asked = asked
        self._end = end

    def send(self, number: int) -> None:
        """Send a chunk, and after the last one the end."""
        if self.transport.is_closing():
            return
        if self.asked.stamped:
            event = said(b'{"content":"%d%b"}' % (time.monotonic_ns(), MARK.encode()))
        else:
            event = TEXTS[number % DISTINCT]
        self.transport.write(event)
        if number + 1 == self.asked.chunks:
            self._end()


class Provider(Requests):
    """One connection."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def answer(self, head: bytes, body: bytes) -> None:
        """Answer one request with the reply that its message asks for."""
        asked = read_asked(body)
        if asked is None:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
            return
        last = (WITH_USAGE if b"include_usage" in body else END) + LAST
        closes = b"connection: close" in head.lower()

        def end() -> None:
            self.transport.write(last)
            if closes:
                self.transport.close()

        self.transport.write(HEAD)
        if asked.rate:
            self._pace.begin(Reply(self.transport, asked, end))
        else:
            self.transport.write(texts(asked.chunks))
            end()


async def serve() -> None:
    """Serve on a free port, which is printed."""
    pace = Pace()
    async with await listen_by(lambda: Provider(pace)) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
