"""The table: what is put is read back, pages follow on each other, and an append compares."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from typing import Any

import msgspec
import pytest
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.errors import AppendConflict, NotFound, RequestError
from tailrace.events import ConversationRecord, End, Text
from tailrace.ids import new_conversation_id, new_message_id
from tailrace.settings import Settings
from tailrace.store import Draft, DynamoDB, Outcome, Store
from tailrace.store.items import conversation_key
from tailrace.testing import ManualClock

pytestmark = pytest.mark.anyio


def record(owner: str = "user", created: int = 1) -> ConversationRecord:
    """Return a new conversation."""
    return ConversationRecord(
        id=new_conversation_id(os.urandom),
        owner=owner,
        title="Ünïcode ✓",
        system="be kind",
        metadata={"a": 1.0, "b": [None, {"": True}]},
        created=created,
        updated=created,
    )


def draft(conversation_id: str, position: int, content: str = "hello", status: str = "completed") -> Draft:
    """Return a new message."""
    return Draft(
        id=new_message_id(conversation_id, position, os.urandom),
        conversation_id=conversation_id,
        role="assistant",
        content=content,
        status=status,  # type: ignore[arg-type]
        created=position,
    )


def outcome(content: str, seq: int) -> Outcome:
    """Return a completed end."""
    return Outcome(status="completed", content=content, seq=seq, metadata={"k": "v"}, completed=5)


async def test_a_conversation_is_read_back_as_it_was(backend: Backend) -> None:
    """JSON values keep their types, text its characters."""
    conversation = record()
    await backend.store.conversations.put(conversation)
    assert await backend.store.conversations.get(conversation.id) == conversation


async def test_a_deleted_conversation_is_gone(backend: Backend) -> None:
    """It is neither read nor listed nor changed, and deleting it again says so."""
    conversation = record(owner=os.urandom(8).hex())
    conversations = backend.store.conversations
    await conversations.put(conversation)
    await conversations.delete(conversation.id, now=2)
    for again in (
        conversations.get(conversation.id),
        conversations.update(conversation.id, now=3, title="x"),
        conversations.delete(conversation.id, now=3),
        conversations.of_message(new_message_id(conversation.id, 1, os.urandom)),
    ):
        with pytest.raises(NotFound, match="No such"):
            await again
    assert await conversations.list(conversation.owner, 10, None) == ([], None)


async def test_pages_of_conversations_follow_on_each_other(backend: Backend) -> None:
    """Newest first, none twice, none lost, and the last page says that it is the last."""
    owner = os.urandom(8).hex()
    stored = [record(owner, created) for created in range(7)]
    for conversation in stored:
        await backend.store.conversations.put(conversation)
    found, cursor = await backend.store.conversations.list(owner, 3, None)
    while cursor is not None:
        page, cursor = await backend.store.conversations.list(owner, 3, cursor)
        found += page
    assert found == stored[::-1]


@pytest.mark.parametrize("cursor", ["x", "e30", "bnVsbA", "!!", "eyJwayI6IHsiUyI6ICJDI3gifX0"])
async def test_a_cursor_that_is_not_ours_is_refused(backend: Backend, cursor: str) -> None:
    """It is the caller's fault, and says so."""
    for page in (
        backend.store.conversations.list("user", 3, cursor),
        backend.store.messages.list(new_conversation_id(os.urandom), 3, cursor),
    ):
        with pytest.raises(RequestError, match=r"^The cursor is not one of ours\.$"):
            await page


FORGED = [
    {"sk": {"N": "1"}},
    {"sk": {"S": ""}},
    {"sk": {"S": "M#" + "x" * 1024}},
    {"sk": {"S": "C"}},
    {"sk": {"S": "M#1", "N": "1"}},
    {"sk": {"S": "M#1"}, "more": {"S": "1"}},
    {"sk": {"S": "M#1"}, "created": {"N": "1"}},
    {"sk": {"S": "M#1"}, "created": {"N": "x"}, "owner": {"S": "user"}},
    {"sk": {"S": "M#1"}, "created": {"S": "1"}, "owner": {"S": "user"}},
    {"sk": {"S": "M#1"}, "created": {"N": "1"}, "owner": {"S": "somebody else"}},
]
"""Start keys that DynamoDB refuses, each in words of its own; moto takes some and crashes at others."""


@pytest.mark.parametrize("forged", FORGED, ids=str)
async def test_a_forged_cursor_is_refused(backend: Backend, forged: dict[str, Any]) -> None:
    """Whoever makes up a cursor of the right partition learns no more than from any other nonsense."""
    conversation = new_conversation_id(os.urandom)
    start = {"pk": {"S": conversation_key(conversation)["pk"]}, **forged}
    cursor = urlsafe_b64encode(msgspec.json.encode(start)).rstrip(b"=").decode()
    for listing in (
        backend.store.conversations.list("user", 3, cursor),
        backend.store.messages.list(conversation, 3, cursor),
    ):
        with pytest.raises(RequestError, match=r"^The cursor is not one of ours\.$"):
            await listing


async def test_a_cursor_of_another_conversation_is_refused(backend: Backend) -> None:
    """Nobody reads on into a partition that is not theirs."""
    mine, other = new_conversation_id(os.urandom), new_conversation_id(os.urandom)
    for position in range(3):
        await backend.store.messages.put([draft(other, position)], nonce=os.urandom(16))
    _, cursor = await backend.store.messages.list(other, 1)
    assert cursor is not None
    with pytest.raises(RequestError, match="cursor"):
        await backend.store.messages.list(mine, 1, cursor)


@pytest.mark.parametrize("content", ["", "a", "é" * 1024, "é" * 1025, "x" * 350_001, "😀" * 500_000], ids=len)
async def test_content_of_any_length_is_read_back(backend: Backend, content: str) -> None:
    """Long content lies in items of its own and is never cut inside a character; 2 MB is no limit."""
    conversation = new_conversation_id(os.urandom)
    (put,) = await backend.store.messages.put([draft(conversation, 1, content)], nonce=os.urandom(16))
    assert put.content == content
    assert (await backend.store.messages.get(put.id)).content == content
    assert [m.content for m in (await backend.store.messages.list(conversation, 10))[0]] == [content]


async def test_a_page_of_long_messages_is_read_whole(backend: Backend) -> None:
    """DynamoDB's page ends at 1 MB and a batch at 100 keys; the reader sees neither."""
    conversation = new_conversation_id(os.urandom)
    contents = [f"{number} " * 100_000 for number in range(60)]
    for position, content in enumerate(contents):
        await backend.store.messages.put([draft(conversation, position, content)], nonce=os.urandom(16))
    found = [message.content async for message in backend.store.messages.history(conversation)]
    assert found == contents


async def test_two_writers_of_one_segment_one_wins(backend: Backend) -> None:
    """Compare-and-append: the second learns that it is not its place."""
    log = backend.store.log
    message = new_message_id(new_conversation_id(os.urandom), 1, os.urandom)
    await log.append(message, 0, 1, [Text("a")], nonce=b"one")
    with pytest.raises(AppendConflict):
        await log.append(message, 0, 1, [Text("b")], nonce=b"two")
    assert [segment.events async for segment in log.read(message)] == [[Text("a")]]


async def test_a_writer_knows_its_own_segment(backend: Backend) -> None:
    """A put that is sent again after its answer was lost is no conflict."""
    log = backend.store.log
    message = new_message_id(new_conversation_id(os.urandom), 1, os.urandom)
    for _ in range(2):
        await log.append(message, 0, 1, [Text("a")], nonce=b"one")
    assert [segment.events async for segment in log.read(message)] == [[Text("a")]]


async def test_a_reader_stops_at_a_gap(backend: Backend) -> None:
    """What does not follow on is not there yet."""
    log = backend.store.log
    message = new_message_id(new_conversation_id(os.urandom), 1, os.urandom)
    for number in (0, 1, 3):
        await log.append(message, number, number + 1, [Text(str(number))], nonce=b"n")
    assert [segment.number async for segment in log.read(message)] == [0, 1]
    assert [segment.number async for segment in log.read(message, after=0)] == [1]


async def test_the_end_is_all_or_nothing(backend: Backend) -> None:
    """A terminal segment that loses leaves the message as it was, and the other way round."""
    store = backend.store
    conversation = new_conversation_id(os.urandom)
    (open_message,) = await store.messages.put([draft(conversation, 1, "", "pending")], nonce=os.urandom(16))
    await store.log.append(open_message.id, 0, 1, [Text("a")], nonce=b"relay")
    with pytest.raises(AppendConflict):
        await store.log.end(open_message.id, 0, 1, [End("completed")], outcome("x", 1), nonce=b"late-end")
    assert (await store.messages.get(open_message.id)).status == "streaming"

    await store.log.end(open_message.id, 1, 2, [End("completed")], outcome("a", 2), nonce=b"good-end")
    with pytest.raises(AppendConflict):
        await store.log.end(open_message.id, 2, 3, [End("failed")], outcome("b", 3), nonce=b"next-end")
    message = await store.messages.get(open_message.id)
    assert (message.status, message.content, message.seq) == ("completed", "a", 2)
    assert [segment.number async for segment in store.log.read(open_message.id)] == [0, 1]


async def test_an_end_sent_again_is_recognised(settings: Settings) -> None:
    """The transaction whose answer was lost is one's own, not a conflict: DynamoDB knows its token, or we our nonce.

    The same bytes are sent, as a retry does: DynamoDB refuses a token that comes with others."""
    dynamodb = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=SystemClock())
    store = Store(dynamodb, settings.table, clock=ManualClock())
    (open_message,) = await store.messages.put(
        [draft(new_conversation_id(os.urandom), 1, "", "pending")], nonce=os.urandom(16)
    )
    for _ in range(2):
        await store.log.end(open_message.id, 0, 1, [End("completed")], outcome("", 1), nonce=b"same-end")
    assert (await store.messages.get(open_message.id)).status == "completed"
    await dynamodb.close()


async def test_a_conversation_of_another_owner_is_not_found(backend: Backend) -> None:
    """It looks as if it were not there."""
    conversation = await Conversation.create(owner="a", backend=backend)
    with pytest.raises(NotFound, match=r"^No such conversation\.$"):
        await Conversation.load(conversation.id, owner="b", backend=backend)
