"""Replies larger than what may wait for one client: whole for each reader, at its own speed, in bounded memory."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tailrace.http.connection import LARGEST_BACKLOG
from tailrace.http.replay import message_stream
from tailrace.http.requests import Message, Receive, Scope
from tailrace.http.start import post_stream
from tailrace.reply.follow import LONGEST_PAGE

from tests.http.conftest import Client, events, script

pytestmark = pytest.mark.anyio

CHUNKS = 15_000
"""As server-sent events they have more than twice what may wait."""


class SlowReader:
    """A client that reads when it is told to; the server's end of an ASGI request."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.begun = asyncio.Event()
        self.body = bytearray()

    async def send(self, message: Message) -> None:
        """Take a message."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            self.begun.set()
            return
        await self.reading.wait()
        self.body += message["body"]


def scope(query: str = "", **parameters: str) -> Scope:
    """Return an ASGI request."""
    return {
        "type": "http",
        "headers": [(b"content-type", b"application/json")],
        "query_string": query.encode(),
        "path_params": parameters,
    }


def receiving(body: bytes) -> Receive:
    """Return what gives the body, and then waits for a client that never leaves."""
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if given:
            return given.pop()
        return await asyncio.Future[Message]()

    return receive


async def long_reply(client: Client) -> tuple[str, bytes]:
    """Return the id of a long reply that came at once, and what its starter got."""
    response, body = await client.start(script(*map(str, range(CHUNKS)), every=0))
    return response.headers["X-Message-Id"], body


def check_whole(body: bytes) -> None:
    """Every chunk once, in order, its number in its id, then the end."""
    *chunks, end = events(body)
    assert [chunk["chunk"] for chunk in chunks] == [str(number) for number in range(CHUNKS)]
    numbers = [int(chunk["id"].split(":")[1]) for chunk in chunks]
    assert numbers == list(range(numbers[0], numbers[0] + CHUNKS))
    assert end["done"] is True
    assert end["message"]["content"] == "".join(str(number) for number in range(CHUNKS))


async def test_a_burst_is_whole_for_its_starter_and_for_each_replay(client: Client) -> None:
    """Byte for byte the same, from the beginning and from a cursor far inside."""
    message, body = await long_reply(client)
    assert len(body) > 2 * LARGEST_BACKLOG
    check_whole(body)
    async with asyncio.timeout(60), client.session.get(f"/messages/{message}/stream") as response:
        assert await response.read() == body
    cursor = CHUNKS - 100
    async with asyncio.timeout(60), client.session.get(f"/messages/{message}/stream?after={cursor}") as response:
        assert (
            await response.read() == body[body.index(b"%b:%d\n\n" % (message.encode(), cursor)) :].split(b"\n\n", 1)[1]
        )


async def test_by_sentence_too(client: Client) -> None:
    """Also for a reader that resumes inside an entry, for whom all of the log is looked at."""
    said = "One. Two. " * 20
    response, body = await client.start({**script(*[said] * 400, every=0), "delivery": {"by": "sentence"}})
    message = response.headers["X-Message-Id"]
    *sentences, _ = events(body)
    assert "".join(each["sentence"] for each in sentences) == said * 400
    inside = next(each for each in sentences[-100:] if "." in each["id"].split(":")[1])
    place = sentences.index(inside)
    path = f"/messages/{message}/stream?by=sentence&after={inside['id']}"
    async with asyncio.timeout(60), client.session.get(path) as response:
        assert events(await response.read()) == events(body)[place + 1 :]


async def test_a_starter_that_reads_late_is_served_from_the_log(client: Client) -> None:
    """The relay does not wait for it; what it gets is what it would have got, and the end."""
    reader, conversation = SlowReader(), await client.conversation()
    body = script(*map(str, range(CHUNKS)), every=0)
    body["input"] = "slow"
    serving = asyncio.create_task(
        post_stream(
            client.backend, scope(conversation_id=conversation), receiving(msgspec.json.encode(body)), reader.send
        )
    )
    await asyncio.wait_for(reader.begun.wait(), 20)
    assert (await client.ended(reader.headers[b"x-message-id"].decode())).status == "completed"
    assert not reader.body
    reader.reading.set()
    await asyncio.wait_for(serving, 60)
    check_whole(bytes(reader.body))


async def test_a_replay_reads_no_further_than_its_reader(client: Client) -> None:
    """While the reader reads nothing, the log is left alone; then it goes on."""
    message, body = await long_reply(client)
    reader = SlowReader()
    serving = asyncio.create_task(
        message_stream(client.backend, scope(message_id=message), receiving(b""), reader.send)
    )
    await asyncio.wait_for(reader.begun.wait(), 20)
    made = -1
    while made != (made := len(client.calls.made)):
        await client.calls.finished(made)
        for _ in range(1_000):
            await asyncio.sleep(0)
    reader.reading.set()
    await asyncio.wait_for(serving, 60)
    assert bytes(reader.body) == body
    assert len(client.calls.made) > made


async def test_a_poll_is_answered_in_pages(client: Client) -> None:
    """Each goes on where the last one ended; the end comes with the last."""
    message, body = await long_reply(client)
    found: list[Any] = []
    pages = 0
    while not found or "done" not in found[-1]:
        after = found[-1]["id"] if found else "0"
        status, page = await client.json("GET", f"/messages/{message}/events?after={after}")
        assert status == 200
        assert 0 < len(page) < 2 * LONGEST_PAGE
        found += page
        pages += 1
    assert pages > 4
    assert found == events(body)
