"""One question and its streamed answer over HTTP: what all wires share.

The client is aiohttp. It is not the smallest import (urllib3 is), but the only one whose reads come near the budget of
1.5 times the floor (httpx2's are at ten times and more: ``benchmarks/provider_read.py``). ``lean_reader.py`` says what
had to be done to it.

What waits for the network has a deadline: ``timeouts.py``. What can go wrong is sorted in ``failures.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Protocol

import aiohttp
import msgspec

from tailrace.errors import FirstChunkTimeout, ProviderError, ProviderTimeout
from tailrace.events import ProviderEvent
from tailrace.protocols.sse import LIMIT, EventTooLargeError, ServerSentEvent, SSEDecoder
from tailrace.providers import failures
from tailrace.providers.lean_reader import lean, read_no_more
from tailrace.providers.timeouts import Timeouts, Watch
from tailrace.providers.tolerant import Halves

LINGER = 0.05
"""Seconds the whole answer's connection may take to end its body. One that does is used again, which spares the
next answer a TLS handshake; one that does not is closed."""

LAST_WORD = 2.0
"""Seconds of silence after a whole answer and its usage, where the provider has no word for the end, or leaves it out.
A reason for the end alone is not enough: some servers send one with every chunk."""

STREAM = "text/event-stream"
WHOLE = "application/json"

BLANK = b" \t\r\n\xef\xbb\xbf"
"""What may stand before a body's beginning: white space, and a byte order mark."""

FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a line of server-sent events begins."""

REFUSAL = 2.0
"""Seconds a refusal's body may take: another provider may be waiting for its turn."""


class Parser(Protocol):
    """One wire's reading of one answer: server-sent events in, our events out.

    Attributes:
        done: the provider said that its answer is whole; nothing after that is read.
        whole: should the body end now, or nothing come any more, the answer is whole.
        settled: it is, and its usage has come too: nothing more is to be expected.
        is_odd: an event came that is not quite this wire; from then on characters may come in halves.
    """

    # Every method may raise:
    #   ProviderError: the provider reported an error, or its filter stopped the answer.
    #   ValueError: not this wire.
    # What came before the failure is then in ``out``.

    done: bool
    whole: bool
    settled: bool
    is_odd: bool

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """Append what ``events`` mean to ``out``, and return whether one of them was more than a ping."""
        ...

    def end(self, rest: bytes, out: list[ProviderEvent]) -> None:
        """The body ended, with ``rest`` after its last whole event."""
        ...

    def read(self, body: bytes, out: list[ProviderEvent]) -> None:
        """Append what the body of an answer means that was not streamed."""
        ...


class Call(msgspec.Struct, frozen=True):
    """One request to a provider: where, with which headers (the key among them), and its JSON body.

    An answer that is not ``streamed`` comes in one piece after a long silence, so only ``timeouts.connect`` and
    ``timeouts.total`` count for it.
    """

    provider: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeouts: Timeouts
    secret: str | None = None
    streamed: bool = True


ParserFactory = Callable[[Mapping[str, str]], Parser]
"""Makes a parser from the response's headers, which carry the request's id."""


async def answer(
    session: aiohttp.ClientSession, call: Call, parser_for: ParserFactory
) -> AsyncGenerator[Sequence[ProviderEvent], None]:
    """Ask, and yield what each read of the socket brought; of an answer that is not streamed, everything at once.

    Closing the generator closes the connection at once.

    Args:
        session: with whatever connector and TLS context its owner chose.
        call: the request.
        parser_for: makes the parser once the response's headers are here.

    Raises:
        ProviderError: refused, unreachable, broken off, ended early, unreadable.
        ContentFiltered: the provider's filter refused or stopped the answer.
        ProviderTimeout: a deadline of ``call.timeouts`` passed.
    """
    provider = call.provider
    timeouts = call.timeouts
    if not call.streamed:
        timeouts = msgspec.structs.replace(timeouts, first_chunk=timeouts.total, idle=timeouts.total)
    loop = asyncio.get_running_loop()
    start = loop.time()
    response = await _ask(session, call, timeouts)
    content = response.content
    lean(content)

    late: ProviderTimeout | None = None

    def expire(kind: type[ProviderTimeout], message: str) -> None:
        nonlocal late
        late = kind(message, provider=provider, retryable=True)
        content.set_exception(late)  # wakes the read that waits

    watch = Watch(timeouts, start, expire)
    try:
        await _check(response, call)
        parser = parser_for(response.headers)
        decoder: SSEDecoder | _Body | None = None
        head = b""
        halves = Halves()
        started = settled = False
        while not parser.done:
            try:
                data = await content.readany()
                if late is not None:  # came while the reader was busy and the provider was not
                    raise late
            except ProviderTimeout:
                if not parser.whole:
                    raise
                data = b""  # no last word, and nothing was missing
            if decoder is None:
                head += data
                if data and not head.strip(BLANK):
                    continue
                data, decoder = head, _decoder(head, response, call)
            out: list[ProviderEvent] = []
            try:
                if data:
                    progress = parser.feed(decoder.feed(data), out)
                else:
                    progress = False
                    _end(parser, decoder, out, provider)
            except (ProviderError, ValueError, RecursionError):  # RecursionError: JSON nested without end
                if parser.is_odd:
                    out = [*halves.join(out), *halves.rest()]
                if out:  # came whole before the failure
                    watch.since = inf
                    yield out
                raise
            if parser.is_odd:
                out = halves.join(out)
                if parser.done:
                    out += halves.rest()
            if out:
                watch.since = inf
                yield out
            if progress:
                watch.since = loop.time()
                if not started:
                    started = True
                    watch.first_event_came()
                if parser.settled != settled:
                    settled = parser.settled
                    watch.allow(LAST_WORD if settled else None)
        watch.stop()
        await _let_end(content)
    except ProviderError as error:
        if error.detail:
            error.detail = _masked(error.detail, call)
        raise
    except aiohttp.ClientError as error:
        raise failures.by_exception(provider, error) from error
    except (ValueError, RecursionError) as error:
        raise failures.unreadable(provider, f"{type(error).__name__}: {error}") from error
    finally:
        watch.stop()
        read_no_more()
        if not content.at_eof():
            response.close()
        response.release()


class _Body:
    """What collects the body of an answer that is not streamed, where a stream has its decoder."""

    def __init__(self) -> None:
        self.rest = bytearray()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take in some of it."""
        self.rest += data
        if len(self.rest) > LIMIT:
            raise EventTooLargeError(f"an answer of more than {LIMIT} bytes")
        return []


def _end(parser: Parser, decoder: SSEDecoder | _Body, out: list[ProviderEvent], provider: str) -> None:
    """The body ended: bring the answer to its end, or raise."""
    rest = bytes(decoder.rest)
    if isinstance(decoder, _Body):
        parser.read(rest, out)
    else:
        with suppress(ValueError):  # half an event
            parser.feed(decoder.feed(b"\n\n"), out)  # a whole one, of which only the blank line is missing
        if not parser.done:
            parser.end(rest, out)
    if not parser.whole:
        raise failures.ended_early(provider, "inside an event" if rest.strip(b"\n") else "between two events")
    parser.done = True


async def _ask(session: aiohttp.ClientSession, call: Call, timeouts: Timeouts) -> aiohttp.ClientResponse:
    try:
        async with asyncio.timeout(min(timeouts.first_chunk, timeouts.total)):
            return await session.post(
                call.url,
                data=call.body,
                headers={
                    "Content-Type": "application/json",
                    "Accept": STREAM if call.streamed else WHOLE,
                    "Accept-Encoding": "identity",  # a compressor may hold chunks back
                    **call.headers,
                },
                allow_redirects=False,  # the key is for this host
                raise_for_status=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),
            )
    except aiohttp.ClientError as error:
        raise failures.by_exception(call.provider, error) from error
    except TimeoutError as error:
        late: type[ProviderTimeout] = FirstChunkTimeout
        said = "The provider was silent for too long."
        if timeouts.total < timeouts.first_chunk:
            late, said = ProviderTimeout, "The provider took too long."
        raise late(said, provider=call.provider, retryable=True) from error


def _decoder(head: bytes, response: aiohttp.ClientResponse, call: Call) -> SSEDecoder | _Body:
    """Return what reads a body by how it begins: proxies name any content type, and some servers answer in one body
    when a stream was asked for, or the other way round.

    Raises:
        ProviderError: it is neither, such as the page of a load balancer.
    """
    begin = head.lstrip(BLANK)
    if begin[:1] in (b"{", b"["):
        return _Body()
    kind = response.headers.get("Content-Type", "")
    is_named = response.content_type == STREAM or not kind
    if not begin or is_named or any(begin.startswith(name) or name.startswith(begin) for name in FIELDS):
        return SSEDecoder(keeps_bare=True) if call.streamed or begin else _Body()
    detail = _masked(head.decode("utf-8", "replace"), call)
    raise failures.unreadable(call.provider, f"content type {kind[:100]}: {detail}")


async def _check(response: aiohttp.ClientResponse, call: Call) -> None:
    """Raise unless the provider took the request."""
    provider = call.provider
    if 200 <= response.status < 300:
        return
    body = bytearray()
    try:
        async with asyncio.timeout(REFUSAL):
            while len(body) < 2 * failures.DETAIL_BYTES and (data := await response.content.readany()):
                body += data
    except (aiohttp.ClientError, TimeoutError, ProviderTimeout):
        pass  # the status says enough
    # Masked before it is cut, or the cut might leave the beginning of the key.
    detail = _masked(body.decode("utf-8", "replace"), call)[: failures.DETAIL_BYTES]
    raise failures.by_status(provider, response.status, headers=response.headers, detail=detail)


def _masked(detail: str, call: Call) -> str:
    """Without our key: some servers repeat the one they refuse."""
    return detail.replace(call.secret, "***") if call.secret else detail


async def _let_end(content: aiohttp.StreamReader) -> None:
    """Wait a moment for the body's end, so that the connection can be used again."""
    try:
        async with asyncio.timeout(LINGER):
            while await content.readany():
                pass
    except (TimeoutError, ProviderTimeout, aiohttp.ClientError):
        pass
