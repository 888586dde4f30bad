"""The conversation API of the original: adding, looking back, owners, deleting and restoring."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tailrace.backend import Backend
from tailrace.conversation.additions import MOST_AT_ONCE, NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.owner import Owner
from tailrace.errors import Conflict, NotFound, Unprocessable
from tailrace.events import End
from tailrace.ids import new_message_id
from tailrace.store import Draft, Outcome

pytestmark = pytest.mark.anyio


@pytest.fixture
async def conversation(backend: Backend) -> Conversation:
    """An empty conversation of user-1's."""
    return await Conversation.create(owner="user-1", backend=backend)


async def contents(conversation: Conversation, **wanted: Any) -> list[str]:
    """Return what a conversation's messages say."""
    return [message.content for message in await conversation.messages(**wanted)]


CALLS = '[{"id": "1", "name": "weather", "arguments": "{}"}]'


@pytest.mark.parametrize(
    ("role", "content"),
    [
        ("user", "one"),
        ("assistant", "one"),
        ("system", "one"),
        ("tool_call", CALLS),
        ("tool_result", '[{"id": "1", "result": "sunny"}]'),
    ],
)
async def test_each_role_can_be_added_and_created(conversation: Conversation, role: str, content: str) -> None:
    """Both return the message, as it is stored."""
    added = await getattr(conversation, f"add_{role}_message")(content, {"a": 1, "private": {"b": 2}})
    created = await getattr(conversation, f"create_{role}_message")(content)
    assert (added.role, added.content, added.metadata) == (role, content, {"a": 1})
    assert await conversation.messages() == [added, created]


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
@pytest.mark.parametrize("condition", [True, False, "yes", "", None])
async def test_adding_under_a_condition(conversation: Conversation, role: str, condition: object) -> None:
    """One of if and unless adds it and returns it, the other returns None."""
    given = await getattr(conversation, f"add_{role}_message_if")(condition, "if", {"a": 1})
    refused = await getattr(conversation, f"add_{role}_message_unless")(condition, "unless")
    assert await conversation.messages() == [given if condition else refused]
    assert (given is None, refused is None) == (not condition, bool(condition))
    message = await conversation.add_message_if(condition, "tool_call", CALLS)
    assert (message is None) == (not condition)
    assert (await conversation.add_message_unless(condition, "tool_call", CALLS) is None) == bool(condition)


async def test_several_at_once(conversation: Conversation) -> None:
    """A text is the user's; the others say what they are; all in order, in one transaction."""
    added = await conversation.add_messages(
        "Hello",
        NewMessage("assistant", "Hi", {"source": "phone"}),
        {"role": "tool_call", "content": CALLS, "metadata": {"private": {"key": "k"}}},
    )
    assert await conversation.messages() == added
    assert [(m.role, m.content, m.metadata) for m in added] == [
        ("user", "Hello", {}),
        ("assistant", "Hi", {"source": "phone"}),
        ("tool_call", CALLS, {}),
    ]
    assert await conversation.add_messages() == []


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"type": "user", "content": "x"}, r"^Message 1 cannot be added: Object .* field"),
        ({"role": "user"}, r"^Message 1 cannot be added: Object missing required field `content`\.$"),
        (
            {"role": "robot", "content": "x"},
            r"^Message 1 cannot be added: Invalid enum value 'robot' - at `\$\.role`\.$",
        ),
        (NewMessage("robot", "x"), r"^Message 1 cannot be added: Invalid enum value 'robot'"),  # type: ignore[arg-type]  # on purpose
        (5, r"^Message 1 cannot be added: Expected `object`, got `int`\.$"),
        ({"role": "user", "content": "x", "metadata": {"private": 1}}, r"^metadata\.private must be an object\.$"),
    ],
)
async def test_what_cannot_be_added(conversation: Conversation, message: Any, error: str) -> None:
    """The sentence says which and why, and none of them was added."""
    with pytest.raises(Unprocessable, match=error):
        await conversation.add_messages("fine", message)
    assert await conversation.messages() == []


async def test_too_many_at_once(conversation: Conversation) -> None:
    """As many as a transaction takes, and no more."""
    with pytest.raises(Unprocessable, match=r"^At most 100 messages can be added at once\.$"):
        await conversation.add_messages(*["x"] * (MOST_AT_ONCE + 1))
    assert len(await conversation.add_messages(*map(str, range(MOST_AT_ONCE)))) == MOST_AT_ONCE
    assert await contents(conversation) == list(map(str, range(MOST_AT_ONCE)))


async def test_looking_back(conversation: Conversation) -> None:
    """The last ones in order, the last of a role, and nothing where there is nothing."""
    assert await conversation.last_message() is None
    assert await conversation.recent_messages(3) == []
    added = await conversation.add_messages("1", {"role": "assistant", "content": "2" * 3000}, "3", "4")
    assert await conversation.recent_messages(2) == added[2:]
    assert await conversation.recent_messages(99) == added
    assert await conversation.recent_messages(0) == []
    assert await conversation.last_message() == added[3]
    assert await conversation.last_message(role="assistant") == added[1]
    assert await conversation.last_message(role="system") is None
    assert await conversation.recent_messages(2, role="user") == added[2:]


async def test_filters_and_what_a_message_is(conversation: Conversation) -> None:
    """By role and by status; a reply is streaming, completed or failed, and never two of them."""
    opened = await conversation.stream_response("question")
    assert (await conversation.last_message()).is_streaming  # type: ignore[union-attr]
    await opened.append("text")
    done = await conversation.stream_response()
    await done.append("whole")
    whole = await done.complete()
    broken = await conversation.stream_response()
    await broken.append("half")
    half = await broken.fail("no")
    assert [(m.is_streaming, m.is_completed, m.is_failed) for m in (opened.message, whole, half)] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert await contents(conversation, role="user") == ["question"]
    assert await contents(conversation, status="completed") == ["question", "whole"]
    assert await contents(conversation, status="failed", role="assistant") == ["half"]
    assert (await opened.cancel()).is_failed
    assert await contents(conversation, status="failed") == ["half"]


async def test_owners(backend: Backend) -> None:
    """Each has its own, newest first; what was deleted is not among them; nobody finds another's."""
    team, user = Owner("team-5", backend=backend), Owner("user-5", backend=backend)
    first = await team.start_conversation(title="First", system="Be brief.", metadata={"a": 1})
    second = await team.start_conversation()
    assert (first.record.owner, first.record.title, first.record.system) == ("team-5", "First", "Be brief.")
    assert (await team.continue_conversation(first.id)).record == first.record
    with pytest.raises(NotFound, match=r"^No such conversation\.$"):
        await user.continue_conversation(first.id)
    await second.delete()
    records, cursor = await team.conversations()
    assert ([record.id for record in records], cursor) == ([first.id], None)
    assert await user.conversations() == ([], None)


async def test_deleting_and_restoring_a_conversation(backend: Backend, conversation: Conversation) -> None:
    """It is gone, and back as it was; the messages that were deleted one by one before stay deleted."""
    kept, gone = await conversation.add_messages("kept", "gone")
    await conversation.delete_message(gone.id)
    await conversation.delete()
    with pytest.raises(NotFound, match=r"^No such conversation\.$"):
        await Conversation.load(conversation.id, backend=backend)
    with pytest.raises(NotFound, match=r"^No such conversation\.$"):
        await conversation.delete()
    with pytest.raises(NotFound, match=r"^No such conversation\.$"):
        await Conversation.restore(conversation.id, owner="somebody else", backend=backend)
    restored = await Conversation.restore(conversation.id, owner="user-1", backend=backend)
    assert restored.record == conversation.record
    assert await restored.messages() == [kept]
    assert (await Owner("user-1", backend=backend).conversations())[0] == [conversation.record]
    with pytest.raises(NotFound, match=r"^No such conversation\.$"):  # it is not deleted any more
        await Conversation.restore(conversation.id, backend=backend)
    assert await backend.store.prune(backend.clock.now() + 1) == 0
    assert (await restored.restore_message(kept.id)) == kept


async def test_deleting_and_restoring_a_message(backend: Backend, conversation: Conversation) -> None:
    """It is in no list, no prompt and under no id; and back where it was."""
    messages = await conversation.add_messages("1", "2", "3")
    await conversation.delete_message(messages[1].id)
    assert await contents(conversation) == ["1", "3"]
    assert [message.content for message in await conversation.to_messages()] == ["1", "3"]
    assert [message.content for message in await conversation.recent_messages(2)] == ["1", "3"]
    for look in (backend.store.messages.get, backend.store.messages.peek, conversation.delete_message):
        with pytest.raises(NotFound, match=r"^No such message\.$"):
            await look(messages[1].id)
    assert await conversation.restore_message(messages[1].id) == messages[1]
    assert await conversation.messages() == messages
    assert await conversation.restore_message(messages[1].id) == messages[1]  # nothing to take back


async def test_a_message_that_is_being_written_is_not_deleted(conversation: Conversation) -> None:
    """Its writer and its readers need it; stopped first, it goes."""
    stream = await conversation.stream_response("question")
    await stream.append("text")
    with pytest.raises(Conflict, match=r"^The reply is still being written: cancel it first\.$"):
        await conversation.delete_message(stream.id)
    await stream.cancel()
    await conversation.delete_message(stream.id)
    assert await contents(conversation) == ["question"]


async def test_a_message_of_another_conversation(backend: Backend, conversation: Conversation) -> None:
    """It is not found here."""
    other = await Conversation.create(backend=backend)
    message = await other.add_user_message("theirs")
    for refused in (conversation.delete_message, conversation.restore_message):
        with pytest.raises(NotFound, match=r"^No such message\.$"):
            await refused(message.id)
    assert await other.messages() == [message]


async def test_pruning_deletes_a_message_for_good(backend: Backend, conversation: Conversation) -> None:
    """With its log; the rest of the conversation stays."""
    stream = await conversation.stream_response("question")
    await stream.append("text")
    await stream.complete()
    await conversation.delete_message(stream.id)
    async with asyncio.timeout(20):
        await backend.store.prune(backend.clock.now() + 1)
    with pytest.raises(NotFound, match=r"^No such message\.$"):
        await conversation.restore_message(stream.id)
    assert [segment async for segment in backend.store.log.read(stream.id)] == []
    assert await contents(conversation) == ["question"]


async def test_a_message_deleted_before_its_subscribers_had_it(backend: Backend, conversation: Conversation) -> None:
    """That they have it now does not keep it from being pruned."""
    store, now = backend.store, backend.clock.now()
    draft = Draft(
        id=new_message_id(conversation.id, now, os.urandom),
        conversation_id=conversation.id,
        role="assistant",
        content="",
        status="pending",
        created=now,
        feeding=True,
    )
    await store.messages.put([draft], nonce=b"n" * 16)
    outcome = Outcome(status="completed", content="text", seq=1, metadata={}, completed=now)
    await store.log.end(draft.id, 0, 1, [End("completed")], outcome, nonce=b"e" * 8, feeding=True)
    await conversation.delete_message(draft.id)
    await store.messages.fed(draft.id)
    async with asyncio.timeout(20):
        await store.prune(backend.clock.now() + 1)
    with pytest.raises(NotFound, match=r"^No such message\.$"):
        await conversation.restore_message(draft.id)
