"""Bursts of any size, readers of any speed, cuts and resumes at any place: every chunk once, in order, then the end."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tailrace import Backend, Conversation
from tailrace.http.replay import message_stream
from tailrace.http.requests import Message
from tailrace.http.start import post_stream
from tailrace.settings import Settings
from tailrace.store import Store

from tests.http.conftest import events
from tests.http.test_sizes import scope
from tests.memory_calls import MemoryCalls


class Reader:
    """The client's side of a request: it takes turns of the event loop to read, and may leave.

    Args:
        turns: of the loop before it takes what was sent.
        most: bytes after which it leaves; never when None.
    """

    def __init__(self, body: bytes, turns: int, most: int | None) -> None:
        self._request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._turns = turns
        self._most = most
        self._left = asyncio.Event()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def receive(self) -> Message:
        """Give the body, then say when it has left."""
        if self._request:
            return self._request.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a message, at its own speed; what comes after it has left is lost."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            return
        for _ in range(self._turns):
            await asyncio.sleep(0)
        if not self._left.is_set():
            self.body += message["body"]
            if self._most is not None and len(self.body) >= self._most:
                self.body = self.body[: self._most]
                self._left.set()

    def blocks(self) -> list[dict[str, Any]]:
        """Return the whole events that it got."""
        whole = self.body[: self.body.rfind(b"\n\n") + 2] if b"\n\n" in self.body else b""
        return events(whole)


bursts = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([1, 7, 3_000, 30_000])), min_size=1, max_size=3)
"""How many chunks of which length follow each other."""
readers = st.lists(
    st.tuples(st.sampled_from([0, 1, 20, 500]), st.none() | st.integers(0, 300_000)), min_size=1, max_size=4
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bursts, st.integers(1, 200), readers, st.sampled_from(["chunk", "sentence"]))
def test_everything_once_and_in_order(
    bursts: list[tuple[int, int]], batch: int, speeds: list[tuple[int, int | None]], by: str
) -> None:
    """The starter first, then those who resume where the one before was cut; the last one stays to the end."""
    lengths = [length for count, length in bursts for _ in range(count)]
    said = [f"{number} " + "x" * length for number, length in enumerate(lengths)]
    asyncio.run(asyncio.wait_for(resumed(said, batch, speeds, by), 60))


async def resumed(said: list[str], batch: int, speeds: list[tuple[int, int | None]], by: str) -> None:
    backend = Backend(Settings(table="t", broadcast=False, body_limit=6_000_000), store=Store(MemoryCalls(), "t"))
    conversation = await Conversation.create(backend=backend)
    script = {"chunks": said, "every": 0, "batch": batch}
    body = {"input": "Go", "options": {"script": script}, "delivery": {"by": by}}
    starter = Reader(msgspec.json.encode(body), *speeds[0])
    path = scope(conversation_id=conversation.id)
    await post_stream(backend, path, starter.receive, starter.send)
    message_id = starter.headers[b"x-message-id"].decode()
    got = starter.blocks()
    for turns, most in [*speeds[1:], (0, None)]:
        if got and "done" in got[-1]:
            break
        cursor = got[-1]["id"] if got else f"{message_id}:0"
        reader = Reader(b"", turns, most)
        path = scope(f"after={cursor}&by={by}", message_id=message_id)
        await message_stream(backend, path, reader.receive, reader.send)
        got += reader.blocks()
    *pieces, end = got
    assert end["done"] is True
    assert "".join(piece.get("chunk", piece.get("sentence", "")) for piece in pieces) == "".join(said)
    if by == "chunk":
        assert [piece["chunk"] for piece in pieces] == said
    assert len({piece["id"] for piece in got}) == len(got)
    await backend.close()
