"""One question and its streamed answer over HTTP: what all wires share.

The client is aiohttp. It is not the smallest import (urllib3 is), but the only one whose reads come near the budget of
1.5 times the floor (httpx2's are at ten times and more: ``benchmarks/provider_read.py``), and the lean DynamoDB calls
need it as well. ``lean_reader.py`` says what had to be done to it.

What waits for the network has a deadline: ``timeouts.py``. What can go wrong is sorted in ``failures.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from math import inf
from typing import Any, Protocol, TypeVar

import aiohttp
import msgspec

from tailrace.errors import ConfigurationError, ProviderError, ProviderTimeout, Unprocessable
from tailrace.events import Json, ProviderEvent
from tailrace.providers import ProviderConfig, ProviderRequest, failures
from tailrace.providers.lean_reader import lean
from tailrace.providers.timeouts import Timeouts, Watch
from tailrace.sse import ServerSentEvent, SSEDecoder

LINGER = 0.05
"""Seconds the whole answer's connection may take to end its body. One that does is used again, which spares the
next answer a TLS handshake; one that does not is closed."""

REFUSAL = 2.0
"""Seconds a refusal's body may take: another provider may be waiting for its turn."""

Options = TypeVar("Options", bound=msgspec.Struct)


class Parser(Protocol):
    """One wire's reading of one answer: server-sent events in, our events out.

    Attributes:
        done: the provider said that its answer is whole; nothing after that is read.
        whole: should the body end now, the answer is whole.
    """

    done: bool
    whole: bool

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """Append what ``events`` mean to ``out``, and return whether one of them was more than a ping.

        Raises:
            ProviderError: the provider reported an error. What came before it is in ``out``.
            ValueError: not this wire. What came before it is in ``out``.
        """
        ...


class Call(msgspec.Struct, frozen=True):
    """One request to a provider: where, with which headers (the key among them), and its JSON body."""

    provider: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeouts: Timeouts
    secret: str | None = None


ParserFactory = Callable[[Mapping[str, str]], Parser]
"""Makes a parser from the response's headers, which carry the request's id."""


async def answer(
    session: aiohttp.ClientSession, call: Call, parser_for: ParserFactory
) -> AsyncGenerator[Sequence[ProviderEvent], None]:
    """Ask, and yield what each read of the socket brought.

    Closing the generator closes the connection at once.

    Args:
        session: with whatever connector and TLS context its owner chose.
        call: the request.
        parser_for: makes the parser once the response's headers are here.

    Raises:
        ProviderError: refused, unreachable, broken off, ended early, unreadable.
        ProviderTimeout: a deadline of ``call.timeouts`` passed.
    """
    provider = call.provider
    loop = asyncio.get_running_loop()
    start = loop.time()
    response = await _ask(session, call)
    content = response.content
    lean(content)

    late: ProviderTimeout | None = None

    def expire(message: str) -> None:
        nonlocal late
        late = ProviderTimeout(message, provider=provider, retryable=True)
        content.set_exception(late)  # wakes the read that waits

    watch = Watch(call.timeouts, start, expire)
    try:
        await _check(response, provider)
        parser = parser_for(response.headers)
        decoder = SSEDecoder()
        started = False
        while not parser.done:
            data = await content.readany()
            if late is not None:  # came while the reader was busy and the provider was not
                raise late
            if not data:
                if parser.whole:
                    return
                raise failures.ended_early(provider, "inside an event" if decoder.flush() else "between two events")
            out: list[ProviderEvent] = []
            try:
                progress = parser.feed(decoder.feed(data), out)
            except (ProviderError, ValueError, RecursionError):  # RecursionError: JSON nested without end
                if out:  # came whole before the failure
                    watch.since = inf
                    yield out
                raise
            if out:
                watch.since = inf
                yield out
            if progress:
                watch.since = loop.time()
                if not started:
                    started = True
                    watch.first_event_came()
        watch.stop()
        await _let_end(content)
    except ProviderError as error:
        if call.secret and error.detail:
            error.detail = error.detail.replace(call.secret, "***")  # some servers repeat the key they refuse
        raise
    except aiohttp.ClientError as error:
        raise failures.by_exception(provider, error) from error
    except (ValueError, RecursionError) as error:
        raise failures.unreadable(provider, f"{type(error).__name__}: {error}") from error
    finally:
        watch.stop()
        if not content.at_eof():
            response.close()
        response.release()


async def _ask(session: aiohttp.ClientSession, call: Call) -> aiohttp.ClientResponse:
    timeouts = call.timeouts
    try:
        async with asyncio.timeout(min(timeouts.first_chunk, timeouts.total)):
            return await session.post(
                call.url,
                data=call.body,
                headers={
                    "Content-Type": "application/json",
                    "Accept": "text/event-stream",
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
        raise ProviderTimeout(
            "The provider was silent for too long.", provider=call.provider, retryable=True
        ) from error


async def _check(response: aiohttp.ClientResponse, provider: str) -> None:
    """Raise unless this is the beginning of a stream."""
    kind = response.headers.get("Content-Type", "")
    streamed = not kind or response.content_type == "text/event-stream"  # some local servers name no type
    if response.status == 200 and streamed:
        return
    body = bytearray()
    try:
        async with asyncio.timeout(REFUSAL):
            while len(body) < failures.DETAIL_BYTES and (data := await response.content.readany()):
                body += data
    except (aiohttp.ClientError, TimeoutError, ProviderTimeout):
        pass  # the status says enough
    detail = body[: failures.DETAIL_BYTES].decode("utf-8", "replace")
    if response.status == 200:
        raise failures.unreadable(provider, f"content type {kind[:100]}: {detail}")
    raise failures.by_status(provider, response.status, headers=response.headers, detail=detail)


async def _let_end(content: aiohttp.StreamReader) -> None:
    """Wait a moment for the body's end, so that the connection can be used again."""
    try:
        async with asyncio.timeout(LINGER):
            while await content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError):
        pass


def read_options(options: Json, shape: type[Options], provider: str) -> Options:
    """``options`` as the wire's own struct, before anything is sent.

    Raises:
        Unprocessable: an option that the provider does not have, or of the wrong type; the message names it.
    """
    try:
        return msgspec.convert(options, shape)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"Bad options for {provider}: {str(error)[:200]}.") from error


def choose_model(request: ProviderRequest, config: ProviderConfig, provider: str) -> str:
    """The request's model, or the configured one.

    Raises:
        Unprocessable: neither names one.
    """
    model = request.model or config.default_model
    if not model:
        raise Unprocessable(f"No model was named, and there is no default model for {provider}.")
    return model


def root_of(config: ProviderConfig, default: str, provider: str) -> str:
    """The API's root, without a slash at its end.

    Raises:
        ConfigurationError: it is no HTTP address.
    """
    root = (config.base_url or default).strip().rstrip("/")
    if not root.startswith(("https://", "http://")):
        raise ConfigurationError(f"The base URL for {provider} must begin with https:// or http://.")
    return root


def prompt_of(request: ProviderRequest) -> list[dict[str, Any]]:
    """The history as both wires spell it. Tool calls and their results are left out: they come with a later issue."""
    return [
        {"role": message.role, "content": message.content}
        for message in request.messages
        if message.role in ("user", "assistant")
    ]
