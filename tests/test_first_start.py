"""A start that makes its conversation, adds several messages, or takes the place of others: all in one transaction."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tailrace.backend import Backend
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.errors import AlreadyStarted, Conflict, NotFound, StoreError, Unprocessable
from tailrace.http.begin import LONGEST_PAGE_ID, find_conversation, new_record
from tailrace.ids import conversation_tag, page_conversation_id
from tailrace.store import Start
from tailrace.testing import ManualClock

pytestmark = pytest.mark.anyio


async def first(backend: Backend, page_id: str = "page-1", owner: str = "me") -> Conversation:
    """Return the conversation of a page, stored or not yet."""
    conversation_id = await find_conversation(backend, owner, page_id)
    record = new_record(backend, owner, conversation_id, system="be kind")
    conversation, _ = await Conversation.load_with_past(
        conversation_id, None, has_question=True, owner=owner, backend=backend, new=record
    )
    return conversation


async def said(conversation: Conversation) -> list[tuple[str, str]]:
    """Return roles and texts."""
    return [(message.role, message.content) for message in await conversation.messages()]


async def test_the_first_start_makes_the_conversation(backend: Backend) -> None:
    """With its system prompt; the next one finds it."""
    stream = await (await first(backend)).stream_response("Hello")
    await (await stream.append("Hi.")).complete()
    again = await first(backend)
    assert again.record.system == "be kind"
    await (await again.stream_response("And?")).complete()
    assert await said(again) == [("user", "Hello"), ("assistant", "Hi."), ("user", "And?"), ("assistant", "")]
    with pytest.raises(NotFound):
        await Conversation.load(again.id, owner="somebody else", backend=backend)


async def test_nothing_is_made_of_a_start_that_is_refused(backend: Backend) -> None:
    """Neither the conversation nor a message."""
    conversation = await first(backend)
    with pytest.raises(Unprocessable, match="too long"):
        await conversation.stream_response("Hello", metadata={"a": "x" * 200_000})
    with pytest.raises(NotFound):
        await backend.store.conversations.get(conversation.id)


async def test_two_first_starts_at_once_share_the_conversation(backend: Backend) -> None:
    """Each has its reply there."""
    both = [await first(backend), await first(backend)]
    streams = await asyncio.gather(*(each.stream_response(text) for each, text in zip(both, "ab", strict=True)))
    for stream in streams:
        await stream.complete()
    found = await said(both[0])
    assert {text for role, text in found if role == "user"} == {"a", "b"}
    assert len(found) == 4


async def test_the_same_first_start_twice_is_one(backend: Backend) -> None:
    """Whoever comes second learns which reply the other one started."""
    both = [await first(backend), await first(backend)]
    start = Start("me", "key", b"same")
    results = await asyncio.gather(
        *(each.stream_response("Hello", start=start) for each in both), return_exceptions=True
    )
    (stream,) = [each for each in results if not isinstance(each, BaseException)]
    (other,) = [each for each in results if isinstance(each, AlreadyStarted)]
    assert other.message_id == stream.id
    await stream.complete()
    assert len(await said(both[0])) == 2


async def test_a_deleted_conversation_is_not_made_again(backend: Backend) -> None:
    """Its page is told that there is none."""
    conversation = await first(backend)
    await (await conversation.stream_response("Hello")).complete()
    await conversation.delete()
    with pytest.raises(NotFound):
        await (await first(backend)).stream_response("Hello again")


async def test_ids_of_pages_do_not_meet(backend: Backend) -> None:
    """The same id of two owners is two conversations, and one of ours that is somebody else's is a page's own."""
    assert page_conversation_id("a", "b") != page_conversation_id("b", "a") != page_conversation_id("", "ba")
    assert await find_conversation(backend, "a", "x") != await find_conversation(backend, "b", "x")
    ours = await Conversation.create(owner="a", backend=backend)
    assert await find_conversation(backend, "a", ours.id) == ours.id
    other = await find_conversation(backend, "b", ours.id)
    assert other == page_conversation_id("b", ours.id) != ours.id
    conversation_tag(other)  # it has the form of one


@pytest.mark.parametrize("page_id", ["", "x" * (LONGEST_PAGE_ID + 1)])
async def test_an_id_has_a_length(backend: Backend, page_id: str) -> None:
    """And the error says which."""
    with pytest.raises(Unprocessable, match="must have 1 to 255 characters"):
        await find_conversation(backend, "a", page_id)


async def test_a_start_takes_the_place_of_messages(backend: Backend) -> None:
    """They are gone from sight with it, and come back when they are restored one by one."""
    conversation = await first(backend)
    stream = await conversation.stream_response("Hello")
    answer = await (await stream.append("Wrong.")).complete()
    again, past = await Conversation.load_with_past(
        conversation.id, None, has_question=False, owner="me", backend=backend, before=answer.id
    )
    assert [message.content for message in past.messages] == ["Hello"]
    stream = await again.stream_response(replaced=[answer.id])
    await (await stream.append("Right.")).complete()
    assert await said(again) == [("user", "Hello"), ("assistant", "Right.")]
    await again.restore_message(answer.id)
    assert ("assistant", "Wrong.") in await said(again)


async def test_what_is_being_written_is_not_replaced(backend: Backend) -> None:
    """Nothing is stored then; nor where it is another conversation's."""
    conversation = await first(backend)
    stream = await conversation.stream_response("Hello")
    with pytest.raises(Conflict, match="is being written, or is gone"):
        await conversation.stream_response(replaced=[stream.id])
    other = await Conversation.create(owner="me", backend=backend)
    with pytest.raises(NotFound):
        await other.stream_response("x", replaced=[stream.id])
    await stream.complete()
    assert len(await said(conversation)) == 2
    assert await said(other) == []


async def test_additions_come_before_the_reply_in_their_order(backend: Backend) -> None:
    """The results of tools are checked as when they are added alone; too many at once are refused."""
    conversation = await first(backend, os.urandom(4).hex())
    results = NewMessage("tool_result", '[{"id": "c", "result": 1}]')
    stream = await conversation.stream_response("Hello", additions=[results, NewMessage("user", "So?")])
    await (await stream.append("So.")).complete()
    assert [role for role, _ in await said(conversation)] == ["user", "tool_result", "user", "assistant"]
    with pytest.raises(Unprocessable, match="must be"):
        await conversation.stream_response(additions=[NewMessage("tool_result", "x")])
    with pytest.raises(Unprocessable, match="may add or replace 95 messages at most"):
        await conversation.stream_response(additions=[NewMessage("user", "x")] * 96)


async def test_long_messages_fit_into_one_start(backend: Backend) -> None:
    """As many as there may be: what has no room in the transaction is put before it."""
    conversation = await first(backend)
    long = [NewMessage("user", f"{n} " + "水" * 20_000) for n in range(95)]
    await (await conversation.stream_response(additions=long)).complete()
    assert [text for _, text in await said(conversation)] == [*(each.content for each in long), ""]


def history(count: int) -> list[NewMessage]:
    """Return what was said before, an answer after each question."""
    return [NewMessage("assistant" if n % 2 else "user", str(n)) for n in range(count)]


async def test_a_long_history_comes_before_a_first_start(backend: Backend) -> None:
    """More than goes into one transaction; each message has its number."""
    stream = await (await first(backend)).stream_response("Well?", earlier=history(250))
    await stream.complete()
    again = await first(backend)
    assert [text for _, text in await said(again)] == [*map(str, range(250)), "Well?", ""]
    _, past = await Conversation.load_with_past(again.id, None, has_question=True, backend=backend)
    assert past.count == 252


async def test_a_long_history_is_not_seen_before_its_start(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that breaks off in the middle leaves nothing to be seen. The same start goes on where it was, by a clock
    that is behind too."""
    start = Start("me", "key", b"same")
    put = backend.store.messages.put
    puts = 0

    async def breaks_off(*given: Any, **more: Any) -> Any:
        nonlocal puts
        puts += 1
        if puts == 3:
            raise StoreError("gone")
        return await put(*given, **more)

    conversation = await first(backend)
    with monkeypatch.context() as patch:
        patch.setattr(backend.store.messages, "put", breaks_off)
        patch.setattr(backend, "clock", ManualClock(backend.clock.now() + 60_000_000))
        with pytest.raises(StoreError):
            await conversation.stream_response("Well?", earlier=history(250), start=start)
    with pytest.raises(NotFound):
        await Conversation.load(conversation.id, backend=backend)
    stream = await (await first(backend)).stream_response("Well?", earlier=history(250), start=start)
    await stream.complete()
    again = await first(backend)
    assert [text for _, text in await said(again)] == [*map(str, range(250)), "Well?", ""]
    with pytest.raises(Conflict):
        await again.stream_response("Else?", earlier=history(1), start=Start("me", "key", b"other"))


async def test_a_long_history_under_one_key_is_stored_once(backend: Backend) -> None:
    """However many start it at once."""
    start = Start("me", "key", b"same")
    all_of_them = [await first(backend) for _ in range(3)]
    results = await asyncio.gather(
        *(each.stream_response("Well?", earlier=history(250), start=start) for each in all_of_them),
        return_exceptions=True,
    )
    (stream,) = [each for each in results if not isinstance(each, BaseException)]
    assert [each.message_id for each in results if isinstance(each, AlreadyStarted)] == [stream.id] * 2
    await stream.complete()
    assert [text for _, text in await said(all_of_them[0])] == [*map(str, range(250)), "Well?", ""]


async def test_what_cannot_come_before_a_start(backend: Backend) -> None:
    """What the system says is the conversation's, and a result must look like one."""
    for wrong in (NewMessage("system", "Be kind."), NewMessage("tool_result", "nonsense")):
        with pytest.raises(Unprocessable):
            await (await first(backend)).stream_response("Well?", earlier=[*history(2), wrong])
