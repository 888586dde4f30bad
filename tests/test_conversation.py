"""Conversations: order, roles, what goes into the next prompt, and the page's recipes from the library."""

from __future__ import annotations

import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import NotFound, ProviderError, UnknownProvider, Unprocessable
from tailrace.events import Text
from tailrace.testing import ManualClock

pytestmark = pytest.mark.anyio


def script(*chunks: str, **more: object) -> dict[str, object]:
    """Return options that make the scripted provider say these chunks."""
    return {"script": {"chunks": list(chunks), **more}}


async def test_the_page_s_first_recipe(backend: Backend) -> None:
    """Open a stream, add what the user says, relay the answer, complete: question before reply."""
    conversation = await Conversation.create(owner="user-1", backend=backend)
    stream = await conversation.stream_response(metadata={"session_id": "s"}, channel="conversation.1")
    await conversation.add_user_message("Write a short story about a robot")
    request = conversation.to_request().using("scripted").options(**script("Once ", "upon ", "a time."))
    reply = request.stream()
    printed = ""
    async for chunk in reply:
        await stream.append(chunk)
        printed += str(chunk) if isinstance(chunk, Text) else ""
    message = await stream.complete(reply)
    assert message.content == printed == reply.content == "Once upon a time."
    assert message.metadata["stream_chunks"] == 3
    assert message.metadata["finish_reason"] == "stop"
    assert message.metadata["session_id"] == "s"
    assert message.metadata["channel"] == "conversation.1"
    assert message.metadata["completion_tokens"] == message.usage.completion_tokens  # type: ignore[union-attr]
    again = await Conversation.load(conversation.id, owner="user-1", backend=backend)
    assert [(m.role, m.content) for m in await again.messages()] == [
        ("user", "Write a short story about a robot"),
        ("assistant", "Once upon a time."),
    ]


async def test_the_failure_recipe(backend: Backend) -> None:
    """A provider's error reaches the caller, who fails the stream with it."""
    conversation = await Conversation.create(backend=backend)
    stream = await conversation.stream_response("hello")
    with pytest.raises(ProviderError) as caught:  # noqa: PT012
        async for chunk in conversation.to_request().options(**script("a", "b", status=529, error_at=1)).stream():
            await stream.append(chunk)
    message = await stream.fail(caught.value)
    assert (message.status, message.content) == ("failed", "a")
    assert message.metadata["status_code"] == 529


async def test_a_reply_that_is_not_streamed(backend: Backend) -> None:
    """The whole text at once, added as a whole message."""
    conversation = await Conversation.create(backend=backend)
    await conversation.add_user_message("hello")
    reply = await conversation.to_request().options(**script("all ", "of it")).text()
    message = await conversation.add_assistant_message(reply.content)
    assert (message.status, message.content) == ("completed", "all of it")


async def test_an_unknown_provider_is_named_with_those_that_are_known(backend: Backend) -> None:
    """The message helps."""
    conversation = await Conversation.create(backend=backend)
    await conversation.add_user_message("hello")
    with pytest.raises(UnknownProvider, match=r"^Unknown provider 'nobody'\. Known providers: .*scripted"):
        await conversation.to_request().using("nobody").text()


async def test_nothing_to_answer(backend: Backend) -> None:
    """A conversation without a user message is not sent to anybody."""
    conversation = await Conversation.create(system="be kind", backend=backend)
    with pytest.raises(Unprocessable, match=r"^There is nothing to answer"):
        await conversation.to_request().text()


@pytest.mark.parametrize(
    ("how", "unfinished"),
    [("complete", True), ("fail", False), ("stop", False), ("open", False), ("blank", False)],
)
async def test_what_goes_into_the_next_prompt(backend: Backend, how: str, unfinished: bool) -> None:
    """Completed messages with text; what failed, was stopped, is blank or still open only when asked for."""
    conversation = await Conversation.create(backend=backend)
    stream = await conversation.stream_response("question")
    await stream.append("  \n" if how == "blank" else "partial")
    if how in ("complete", "blank"):
        await stream.complete()
    elif how == "fail":
        await stream.fail("no")
    elif how == "stop":
        await stream.cancel()
    prompt = [message.content for message in await conversation.to_messages()]
    assert prompt == ["question", "partial"] if unfinished else ["question"]
    asked = [message.content for message in await conversation.to_messages(include_unfinished=True)]
    assert asked == (["question"] if how in ("open", "blank") else ["question", "partial"])
    await stream.complete()


async def test_every_role_is_kept_in_order(backend: Backend) -> None:
    """Also within one microsecond, and with a clock that stands still or goes back."""
    clock = ManualClock()
    backend.clock = clock
    conversation = await Conversation.create(backend=backend)
    await conversation.add_system_message("s")
    await conversation.add_user_message("u")
    await conversation.add_assistant_message("a")
    await conversation.add_tool_call_message('[{"id": "1", "name": "now", "arguments": {}}]')
    await conversation.add_tool_result_message('[{"id": "1", "result": "noon"}]')
    assert [message.role for message in await conversation.messages()] == [
        "system",
        "user",
        "assistant",
        "tool_call",
        "tool_result",
    ]


async def test_private_metadata_is_never_read_back(backend: Backend) -> None:
    """It is stored, and in no message that anybody gets."""
    conversation = await Conversation.create(backend=backend)
    message = await conversation.add_user_message("u", {"a": 1, "private": {"ip": "10.0.0.1"}})
    assert message.metadata == {"a": 1}
    assert "10.0.0.1" not in repr(await conversation.messages())
    with pytest.raises(Unprocessable, match=r"^metadata\.private must be an object\.$"):
        await conversation.add_user_message("u", {"private": "x"})


async def test_an_empty_reply_added_whole_is_complete(backend: Backend) -> None:
    """A message that was not streamed never looks as if it still were."""
    conversation = await Conversation.create(backend=backend)
    message = await conversation.add_assistant_message("")
    assert (message.status, message.completed_at) == ("completed", message.created_at)


@pytest.mark.parametrize("text", ["", "nonsense", "é", "0zB3M7plLMljp-s7GlCmFQ"])
async def test_no_such_conversation(backend: Backend, text: str) -> None:
    """Any text that is no conversation of ours is simply not found."""
    with pytest.raises(NotFound, match=r"^No such conversation\.$"):
        await Conversation.load(text, backend=backend)
