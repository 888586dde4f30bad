"""What the lean reader gives: the same bytes, however they come, some at a time, and the others' turn in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tailrace.providers import PromptMessage, ProviderConfig, ProviderRequest, lean_reader, open_provider
from tailrace.providers.lean_reader import ALONE, AT_ONCE, LeanReader, lean

from tests.providers.fake_server import FakeServer, Reply
from tests.providers.helpers import KEY, fixture

pytestmark = pytest.mark.anyio

SIZES = {
    "many small ones": [241] * 4_000,
    "as large as one read": [AT_ONCE, AT_ONCE, 1],
    "one more byte": [AT_ONCE + 1] * 3,
    "larger than the buffer": [700_000, 5, 300_000],
    "small and large": [3, 90_000, 1, 1, 16_000, 400_000, 9] * 3,
    "nothing": [],
}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that writes pieces of the sizes of a list, each an HTTP chunk."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in pieces(request.query["of"]):
            await response.write(piece)
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


def pieces(name: str) -> list[bytes]:
    return [bytes([number % 251]) * size for number, size in enumerate(SIZES[name])]


@pytest.fixture(params=[True, False], ids=["beside another", "alone"])
def beside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether another answer is read in this process."""
    monkeypatch.setattr(lean_reader, "_read_now", int(request.param))
    return bool(request.param)


@pytest.mark.parametrize("name", SIZES)
async def test_the_same_bytes_come_some_at_a_time(url: str, name: str, beside: bool) -> None:
    """Also when the reader is slower than the socket, so that the connection is paused and goes on."""
    async with asyncio.timeout(20), aiohttp.ClientSession() as session, session.get(url, params={"of": name}) as got:
        lean(got.content)
        assert type(got.content) is LeanReader
        reads = []
        while data := await got.content.readany():
            reads.append(data)
            await asyncio.sleep(0)
        assert b"".join(reads) == b"".join(pieces(name))
        assert max(map(len, reads), default=0) <= (AT_ONCE if beside else inf)


async def test_others_have_their_turn_between_two_reads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is here already: a reply that comes as fast as it can holds up none that comes slowly."""
    monkeypatch.setattr(lean_reader, "_read_now", 1)
    large = {"of": "larger than the buffer"}
    async with asyncio.timeout(20), aiohttp.ClientSession() as session, session.get(url, params=large) as got:
        lean(got.content)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        reads = 0
        while await got.content.readany():
            reads += 1
        beside.cancel()
        assert turns >= reads > 1_000_000 // AT_ONCE


async def test_no_more_is_taken_from_a_socket_beside_others_than_a_read_gives(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or fifty have a quarter of a megabyte each in memory. One that is alone again has all that asyncio takes."""
    large = {"of": "larger than the buffer"}
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        for others, most in ((1, AT_ONCE), (0, ALONE)):
            monkeypatch.setattr(lean_reader, "_read_now", others)
            async with session.get(url, params=large) as got:
                received: list[int] = []
                protocol = got.content._protocol
                take = protocol.data_received

                def noted(data: bytes, take: Any = take, received: list[int] = received) -> None:
                    received.append(len(data))
                    take(data)

                monkeypatch.setattr(protocol, "data_received", noted)
                lean(got.content)
                while await got.content.readany():
                    pass
                assert max(received) <= most
                assert others or max(received) > AT_ONCE


async def test_who_reads_is_counted(url: str) -> None:
    """And not any more when it has ended, or was left."""
    before = lean_reader._read_now
    server = FakeServer(Reply(pieces=[fixture("openai")]))
    async with server.serving(), aiohttp.ClientSession() as session:
        provider = open_provider("openai", ProviderConfig(api_key=KEY, base_url=server.url), session)
        for leave in (False, True):
            answer = provider.stream(ProviderRequest(model="m", messages=[PromptMessage("user", "Hi")]))
            await anext(answer)
            assert lean_reader._read_now == before + 1
            if leave:
                await answer.aclose()
            else:
                async for _ in answer:
                    pass
            assert lean_reader._read_now == before
