"""A wire format for readers is one file and one line: this is the file, and the line is the fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import msgspec
import pytest
from tailrace.delivery import Part, Piece, Voided
from tailrace.events import Event, Message, Text
from tailrace.protocols import PROTOCOLS
from tailrace.protocols.reader import ReaderProtocol, Shown

from tests.http.conftest import Client, script

pytestmark = pytest.mark.anyio


class Bare(ReaderProtocol):
    """Text alone, without ids, and a word at the end."""

    has_ids: ClassVar[bool] = False
    headers: ClassVar[Sequence[tuple[bytes, bytes]]] = ((b"x-bare", b"v1"),)

    def objects(self, first_seq: int, events: Sequence[Event]) -> list[Shown]:
        """Return the text of each entry that has some."""
        return [
            Shown({"delta": event.text}, self.cursor(seq))
            for seq, event in enumerate(events, first_seq)
            if isinstance(event, Text)
        ]

    def piece_objects(self, pieces: Sequence[Piece | Voided | Part]) -> list[Shown]:
        """Return the text of each piece."""
        return [Shown({"delta": piece.text}, self.cursor(piece.seq)) for piece in pieces if isinstance(piece, Piece)]

    def end_objects(self, message: Message) -> list[Shown]:
        """Return two events, as some formats do."""
        end = self.end_cursor(message)
        return [Shown({"finish": message.status}, end), Shown({"usage": message.usage is not None}, end)]

    def failure_objects(self, seq: int, text: str, error_type: str) -> list[Shown]:
        """Return the failure."""
        return [Shown({"failure": text}, self.cursor(seq))]


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the line into the list."""
    monkeypatch.setitem(PROTOCOLS, "bare", f"{__name__}:Bare")


CHUNKS = ({"delta": "One. "}, {"delta": "Two."})
END = ({"finish": "completed"}, {"usage": True})


async def test_live_replay_and_poll_speak_it(client: Client) -> None:
    """The same events, whichever way the reader comes, and its own headers on what is streamed."""
    conversation = await client.conversation()
    expected = b"".join(b"data: %b\n\n" % msgspec.json.encode(each) for each in (*CHUNKS, *END))
    path = f"/conversations/{conversation}/stream?protocol=bare"
    async with asyncio.timeout(20), client.session.post(path, json=script("One. ", "Two.")) as response:
        assert await response.read() == expected
        assert response.headers["X-Bare"] == "v1"
        message = response.headers["X-Message-Id"]
    async with asyncio.timeout(20), client.session.get(f"/messages/{message}/stream?protocol=bare") as response:
        assert await response.read() == expected
        assert response.headers["X-Bare"] == "v1"
    for more in ("", "&by=sentence"):
        status, events = await client.json("GET", f"/messages/{message}/events?protocol=bare{more}")
        assert (status, [each["data"] for each in events]) == (200, [*CHUNKS, *END])
        assert {each["id"].split(":")[0] for each in events} == {message}


async def test_one_that_is_not_there_is_refused(client: Client) -> None:
    """Before anything is stored."""
    conversation = await client.conversation()
    refused = {"error": {"type": "invalid_request", "message": f"protocol must be one of: {', '.join(PROTOCOLS)}."}}
    path = f"/conversations/{conversation}/stream?protocol=morse"
    assert await client.json("POST", path, script("a")) == (400, refused)
    status, messages = await client.json("GET", f"/conversations/{conversation}/messages")
    assert (status, messages["messages"]) == (200, [])
