"""Answers that Lambda could not carry: a clear error, or a form without what is too long."""

from __future__ import annotations

from io import BytesIO

import msgspec
import pytest
from tailrace import Conversation
from tailrace.http.responses import LARGEST_ANSWER, is_too_large
from tailrace.protocols.bounded import LARGEST_CONTENT
from tailrace.settings import Settings

from tests.http.conftest import Client, Serve, events, script

pytestmark = pytest.mark.anyio

PIECE = "0123456789" * 20_000


async def answer(client: Client, pieces: int) -> str:
    """Return the id of a reply that has ended, of so many times 200,000 characters."""
    stream = await client.open_stream()
    for _ in range(pieces):
        await stream.append(PIECE)
    return (await stream.complete()).id


async def test_a_message_that_cannot_be_carried_says_how_it_is_read(client: Client) -> None:
    """By its stream and by pages, which have all of it."""
    message = await answer(client, 31)
    status, body = await client.json("GET", f"/messages/{message}")
    assert status == 413
    assert body["error"] == {
        "type": "too_large",
        "message": "The message is too long for one answer, which may have 6000000 bytes. Read it as a stream, "
        f"GET /messages/{message}/stream, or in pages, GET /messages/{message}/events.",
    }
    async with client.session.get(f"/messages/{message}/stream") as response:
        *chunks, end = events(await response.read())
    assert "".join(chunk["chunk"] for chunk in chunks) == PIECE * 31
    assert end["done"] is True
    assert end["message"]["truncated"] is True
    assert end["message"]["content"] == ""
    assert end["message"]["id"] == message
    assert end["message"]["metadata"]["stream_chunks"] == 31


async def test_a_whole_reply_likewise(settings: Settings, serve: Serve) -> None:
    """The reply is there: the answer's header says where."""
    async with serve(msgspec.structs.replace(settings, body_limit=4_000_000)) as client:
        conversation = await client.conversation()
        body = {"input": "Go", **script(*['"' * 200_000] * 8, every=0)}
        path = f"/conversations/{conversation}/stream"
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        async with client.session.post(path, data=BytesIO(msgspec.json.encode(body)), headers=headers) as response:
            answer = await response.json()
        assert response.status == 413, answer
        message = response.headers["X-Message-Id"]
        assert f"GET /messages/{message}/stream" in answer["error"]["message"]
        assert (await client.backend.store.messages.get(message)).status == "completed"


async def test_what_is_not_so_long_has_its_content(client: Client) -> None:
    """A million bytes is the bound of what the reader has already; more is carried where it is asked for."""
    short, long = await answer(client, 5), await answer(client, 6)
    for message, is_there in ((short, True), (long, False)):
        async with client.session.get(f"/messages/{message}/stream") as response:
            end = events(await response.read())[-1]["message"]
        assert (end["content"] != "") is is_there
        assert ("truncated" in end) is not is_there
        status, whole = await client.json("GET", f"/messages/{message}")
        assert status == 200
        assert len(whole["content"]) >= LARGEST_CONTENT
        assert "truncated" not in whole
        assert (await client.json("POST", f"/messages/{message}/cancel"))[1].get("truncated", False) is not is_there


async def test_pages_of_messages_are_bounded(client: Client) -> None:
    """A page ends early, and the next goes on; a message that no page could carry is listed without its content."""
    conversation = await client.conversation()
    loaded = await Conversation.load(conversation, backend=client.backend)
    sizes = (1_000_000, 1_500_000, 1_500_000, 7_000_000, 10)
    ids = [(await loaded.add_assistant_message("x" * size)).id for size in sizes]
    for order in ("asc", "desc"):
        found, cursor, pages = [], "", 0
        while True:
            status, page = await client.json("GET", f"/conversations/{conversation}/messages?order={order}{cursor}")
            assert status == 200
            found += page["messages"]
            pages += 1
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert [each["id"] for each in found] == (ids if order == "asc" else ids[::-1])
        assert pages > 2
        assert [each["id"] for each in found if each.get("truncated")] == [ids[3]]
        assert sum(len(each["content"]) for each in found) == 4_000_010


async def test_pages_of_conversations_are_bounded(client: Client) -> None:
    """By their metadata, which may be long."""
    for number in range(40):
        await client.conversation(metadata={"number": number, "long": "x" * 85_000})
    found, cursor, pages = [], "", 0
    while True:
        status, page = await client.json("GET", f"/conversations?limit=100{cursor}")
        assert status == 200
        found += [each["metadata"]["number"] for each in page["conversations"]]
        pages += 1
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == list(range(40))[::-1]
    assert pages == 2


def test_sizes_are_counted_as_lambda_carries_them() -> None:
    """The answer is a text in JSON of its own."""
    for content in ("x" * 5_999_990, '"' * 1_500_000, "\\" * 1_490_000, "\n" * 1_999_980, "ü" * 2_999_990):
        body = msgspec.json.encode({"a": content})
        carried = len(msgspec.json.encode(body.decode())) - 2
        assert is_too_large(body) == (carried > LARGEST_ANSWER), content[:1]
        more = msgspec.json.encode({"a": content + content[:20_000]})
        assert is_too_large(more)
