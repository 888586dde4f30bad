"""A reply and its subscribers, from the library's and the HTTP side, on real sockets and the emulated table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import NotFound, RequestError
from tailrace.http.api_app import create_api_app
from tailrace.http.begin import _check_channel
from tailrace.http.server import server
from tailrace.ids import message_address
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store
from tailrace.testing import ManualClock

from tests.broadcast.fake_management import STUCK, FakeManagement
from tests.faults import FaultyCalls, once
from tests.http.conftest import events, script

pytestmark = pytest.mark.anyio


async def open_stream(backend: Backend, **options: Any) -> MessageStream:
    """Return a stream in a new conversation, on whose channel ``one`` and ``me`` listen."""
    conversation = await Conversation.create(backend=backend)
    for socket in ("one", "me"):
        await backend.store.subscriptions.put(options.get("channel") or f"conversation.{conversation.id}", socket)
    return await conversation.stream_response("question", **options)


async def item(backend: Backend, message_id: str) -> dict[str, Any]:
    """Return a message's item as it lies in the table."""
    address = message_address(message_id)
    key = {"pk": {"S": f"C#{address.tag}"}, "sk": {"S": f"M#{address.position:014x}#{address.random}"}}
    dynamodb = DynamoDB(
        region=backend.settings.region, endpoint_url=backend.settings.dynamodb_endpoint, clock=backend.clock
    )
    try:
        answer = await dynamodb.call("GetItem", {"TableName": backend.settings.table, "Key": key})
    finally:
        await dynamodb.close()
    return dict(answer["Item"])


# ---- the library ------------------------------------------------------------------------------------


async def test_subscribers_have_all_when_complete_returns(broadcaster: Backend, management: FakeManagement) -> None:
    """Created first, then every chunk; by then nothing is left of the mark that kept the end back."""
    stream = await open_stream(broadcaster, except_socket="me")
    before = await item(broadcaster, stream.id)
    assert before["feeding"] == {"N": "1"}
    assert "sweep" in before
    chunks = [f"{number} ünï😀 " for number in range(300)]
    for chunk in chunks:
        await stream.append(chunk)
    message = await stream.complete()
    first, *_ = management.events("one")
    assert first["event"] == "App\\Events\\MessageCreated"
    assert first["data"]["message"]["id"] == message.id
    assert first["channel"] == f"conversation.{message.conversation_id}"
    assert management.text("one") == "".join(chunks) == message.content
    cursor = 0
    for event in management.events("one")[1:]:
        assert event["data"]["first_seq"] == cursor + 1
        cursor = event["data"]["seq"]
    assert cursor == 300 == message.seq - 1
    assert "me" not in management.frames
    after = await item(broadcaster, stream.id)
    assert not after.keys() & {"feeding", "sweep"}
    assert (after["channel"], after["except_socket"]) == ({"S": first["channel"]}, {"S": "me"})


async def test_a_start_s_own_channel(broadcaster: Backend, management: FakeManagement) -> None:
    """The question and the reply are for it, other messages for the conversation's."""
    stream = await open_stream(broadcaster, channel="private-room.7")
    conversation = await Conversation.load(stream.message.conversation_id, backend=broadcaster)
    await stream.append("hello")
    await stream.complete()
    assert {event["channel"] for event in management.events("one")} == {"private-room.7"}
    question, reply = await conversation.messages()
    added = await conversation.add_message("user", "more", except_socket="me")
    for message, channel in (
        (question, "private-room.7"),
        (reply, "private-room.7"),
        (added, f"conversation.{conversation.id}"),
    ):
        assert (await broadcaster.store.messages.peek(message.id)).channel == channel
    assert (await broadcaster.store.messages.peek(added.id)).except_socket == "me"


async def test_nothing_is_marked_when_nothing_is_broadcast(backend: Backend) -> None:
    """No attribute, and no word of a socket."""
    stream = await open_stream(backend, channel="private-room.7", except_socket="me")
    await stream.complete()
    assert not (await item(backend, stream.id)).keys() & {"channel", "except_socket", "feeding", "sweep"}


async def test_a_user_s_event_on_a_conversation(broadcaster: Backend, management: FakeManagement) -> None:
    """The short way to say something to those who listen to it."""
    stream = await open_stream(broadcaster)
    conversation = await Conversation.load(stream.message.conversation_id, backend=broadcaster)
    await conversation.broadcast("Typing", {"who": "me"}, except_socket="me")
    # The reply's own beginning is told beside it, before or after.
    assert [event["event"] for event in management.events("one")].count("App\\Events\\Typing") == 1
    assert all(event["event"] != "App\\Events\\Typing" for event in management.events("me"))
    await stream.complete()


async def test_a_stuck_subscriber_does_not_hold_up_the_writer(broadcaster: Backend, management: FakeManagement) -> None:
    """Appends never wait for it, the end about a second; the other one has everything."""
    management.always["me"] = STUCK
    stream = await open_stream(broadcaster)
    before = time.monotonic()
    for _ in range(200):
        await stream.append("x" * 100)
    assert time.monotonic() - before < 0.5
    message = await stream.complete()
    assert time.monotonic() - before < 6
    assert management.text("one") == message.content == "x" * 20_000
    assert "feeding" not in await item(broadcaster, stream.id)


async def test_an_end_from_elsewhere_takes_the_mark_along(broadcaster: Backend, management: FakeManagement) -> None:
    """A cancel ends the feed too: whoever cancelled tells, and what was not sent yet is dropped."""
    stream = await open_stream(broadcaster)
    await stream.append("a")
    await management.until(lambda: management.text("one") == "a")
    await broadcaster.open_replies.cancel(stream.id)
    assert not (await item(broadcaster, stream.id)).keys() & {"feeding", "sweep"}
    await stream.append("b")
    assert (await stream.complete()).status == "cancelled"
    assert management.text("one") == "a"


# ---- a writer that dies between the end and the last post -------------------------------------------


async def test_the_sweep_frees_the_end_of_a_reply_whose_writer_died(
    settings: Settings, management: FakeManagement
) -> None:
    """After the lease, and not before; the reply itself stays as it ended."""
    clock = ManualClock()
    dynamodb = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=clock)
    calls = FaultyCalls(dynamodb, once("refused", lambda operation, payload: operation == "UpdateItem"))
    backend = Backend(
        msgspec.structs.replace(settings, websocket_url=management.url),
        store=Store(calls, settings.table, clock=clock),
        clock=clock,
    )
    stream = await (await Conversation.create(backend=backend)).stream_response("question")
    await stream.append("all")
    ended = await stream.complete()
    assert ended.status == "completed"
    assert (await backend.store.messages.peek(stream.id)).feeding
    await clock.advance(backend.settings.lease - 1)
    await backend.open_replies.sweep()
    assert (await backend.store.messages.peek(stream.id)).feeding
    await clock.advance(2)
    swept = await backend.open_replies.sweep()
    assert (swept.looked_at, swept.ended, swept.failed) == (1, 0, 0)
    assert not (await item(backend, stream.id)).keys() & {"feeding", "sweep"}
    assert await backend.store.messages.get(stream.id) == ended
    assert (await backend.open_replies.sweep()).looked_at == 0
    await backend.store.messages.fed(stream.id)  # once more does nothing
    await backend.close()
    await dynamodb.close()


async def test_a_cancel_that_comes_late_leaves_the_mark_to_the_writer(
    broadcaster: Backend, management: FakeManagement
) -> None:
    """The reply has ended, and its writer is still sending: it will say when."""
    management.always["one"] = STUCK
    stream = await open_stream(broadcaster)
    await stream.append("all")
    ending = asyncio.create_task(stream.complete())
    while (await broadcaster.store.messages.peek(stream.id)).status != "completed":
        pass
    assert (await broadcaster.open_replies.cancel(stream.id)).status == "completed"
    assert (await broadcaster.store.messages.peek(stream.id)).feeding
    await ending
    assert not (await broadcaster.store.messages.peek(stream.id)).feeding


# ---- over HTTP --------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(backend: Backend) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the application; yield a client."""
    uvicorn = server(create_api_app(backend), host="127.0.0.1", port=0)
    import socket

    listening = socket.create_server(("127.0.0.1", 0))
    running = asyncio.create_task(uvicorn.serve(sockets=[listening]))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{listening.getsockname()[1]}") as session:
        yield session
    uvicorn.should_exit = True
    await running


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_to_others(broadcaster: Backend, management: FakeManagement, accept: str) -> None:
    """With X-Socket-ID the starting page gets its reply by HTTP alone, everybody else by the channel."""
    conversation = await Conversation.create(backend=broadcaster)
    for socket in ("one", "me="):
        await broadcaster.store.subscriptions.put(f"conversation.{conversation.id}", socket)
    async with serving(broadcaster) as session, asyncio.timeout(20):
        headers = {"X-Socket-ID": "me=", "Accept": accept}
        path = f"/conversations/{conversation.id}"
        async with session.post(f"{path}/stream", json=script("Once", " upon"), headers=headers) as response:
            body = await response.read()
            assert response.status == 200
        assert management.text("one") == "Once upon"  # before the response ended
        if accept == "text/event-stream":
            assert events(body)[-1]["message"]["content"] == "Once upon"
        async with session.post(f"{path}/messages", json={"role": "user", "content": "x"}, headers=headers) as response:
            added = await response.json()
    assert "me=" not in management.frames
    question, reply, _ = await conversation.messages()
    for message_id in (question.id, reply.id, added["id"]):
        assert (await broadcaster.store.messages.peek(message_id)).except_socket == "me="


async def test_the_reader_has_its_end_before_the_subscribers_are_done(
    broadcaster: Backend, management: FakeManagement
) -> None:
    """The terminal event is not kept back; the response is, so that Lambda does not freeze what is still to send."""
    conversation = await Conversation.create(backend=broadcaster)
    await broadcaster.store.subscriptions.put(f"conversation.{conversation.id}", "one")
    management.always["one"] = STUCK
    async with serving(broadcaster) as session, asyncio.timeout(20):
        body = b""
        async with session.post(f"/conversations/{conversation.id}/stream", json=script("Once")) as response:
            message_id = response.headers["X-Message-Id"]
            while b'"done":true' not in body:
                body += await response.content.readany()
            assert (await broadcaster.store.messages.peek(message_id)).feeding
            body += await response.read()
        assert not (await broadcaster.store.messages.peek(message_id)).feeding
    assert events(body)[-1]["message"]["status"] == "completed"


async def test_nobody_speaks_on_somebody_else_s_channel(broadcaster: Backend) -> None:
    """A start's channel may be any name that is not another owner's conversation or another owner."""
    mine = await Conversation.create(owner="me", backend=broadcaster)
    other = await Conversation.create(owner="somebody", backend=broadcaster)
    deployed = Backend(
        msgspec.structs.replace(broadcaster.settings, auth="iam", in_lambda=True), store=broadcaster.store
    )
    for name in (f"conversation.{mine.id}", f"presence-conversation.{mine.id}", "private-user.me", "news"):
        await _check_channel(deployed, "me", name)
    for name in (f"conversation.{other.id}", f"private-conversation.{other.id}", "conversation.1", "private-user.x"):
        with pytest.raises(NotFound, match=r"^No such (conversation|channel)\.$"):
            await _check_channel(deployed, "me", name)
        await _check_channel(broadcaster, "anonymous", name)  # on one machine everybody is one owner
    with pytest.raises(RequestError, match="channel's name"):
        await _check_channel(broadcaster, "anonymous", "a b")
    await _check_channel(Backend(Settings()), "anonymous", "a b")  # nothing is broadcast


async def test_a_bad_channel_is_refused_before_anything_is_stored(broadcaster: Backend) -> None:
    """The client is told by a status."""
    conversation = await Conversation.create(backend=broadcaster)
    async with serving(broadcaster) as session:
        path = f"/conversations/{conversation.id}/stream"
        async with session.post(path, json={**script("x"), "channel": "a b"}) as response:
            assert response.status == 400
            assert "channel's name" in (await response.json())["error"]["message"]
    assert await conversation.messages() == []
