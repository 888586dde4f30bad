"""Chats over a WebSocket, as the chat function answers them: the same as over HTTP, whatever becomes of the socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tailrace.backend import Backend
from tailrace.http.ai_sdk import find_open
from tailrace.http.chat_socket import CUT_OFF, ChatSocket
from tailrace.settings import Settings
from tailrace.store import Store

from tests.broadcast.fake_management import STUCK, FakeManagement
from tests.http.conftest import Client
from tests.http.test_ai_sdk import CALLS, body, post, returned, said, texts
from tests.http.test_all_protocols import objects

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
OWNER = "anonymous"


class Context:
    """Lambda's."""

    def __init__(self, seconds: float = 900.0) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds that are left."""
        return int(self._seconds * 1000)


class Chat:
    """A client's side: what it sends is served at once, as if it had been handed over."""

    def __init__(self, backend: Backend, management: FakeManagement) -> None:
        self.backend = backend
        self.management = management
        self.sockets = ChatSocket(backend, patience=0.0, look_every=0.0)

    async def serve(self, frame: Json, socket: str = "s1", seconds: float = 900.0) -> list[Json]:
        """Serve a frame; return all that its request was told."""
        given = {"socket": socket, "owner": OWNER, "frame": json.dumps(frame, ensure_ascii=False)}
        async with asyncio.timeout(30):
            await self.sockets.serve(given, Context(seconds))
        return [each for each in self.management.events(socket) if each["requestId"] == frame["requestId"]]

    def begun(self, socket: str = "s1") -> bool:
        """Return whether a text has come."""
        return any("text-delta" in json.dumps(each) for each in self.management.events(socket))


@pytest.fixture
async def management() -> AsyncIterator[FakeManagement]:
    """A management API."""
    async with FakeManagement().serve() as management:
        yield management


@pytest.fixture
async def chat(settings: Settings, management: FakeManagement) -> AsyncIterator[Chat]:
    """A client, on the table of the HTTP client."""
    backend = Backend(msgspec.structs.replace(settings, websocket_url=management.url, flush_interval=0.01))
    yield Chat(backend, management)
    management.let_go.set()
    await backend.close()


def send(request: str, content: Json, **more: Any) -> Json:
    """Return the frame of what a transport would post."""
    own = {name: value for name, value in content.items() if name not in ("id", "messages", "trigger", "messageId")}
    named = {name: value for name, value in content.items() if name not in own}
    return {"type": "send", "requestId": request, "headers": {}, "body": own, "metadata": {"a": 1}, **named, **more}


def resume(request: str, chat: str = "chat", **more: Any) -> Json:
    return {"type": "resume", "requestId": request, "id": chat, "headers": {}, "body": {}, **more}


def chunks(frames: list[Json]) -> list[Json]:
    """Return the chunks of a request that was told from its start to its end."""
    assert (frames[0]["type"], frames[-1]["type"]) == ("start", "end")
    assert [each["sequence"] for each in frames[1:-1]] == list(range(len(frames) - 2))
    return [each["chunk"] for each in frames[1:-1]]


def text(found: list[Json]) -> str:
    return "".join(each["delta"] for each in found if each["type"] == "text-delta")


async def test_the_same_as_over_http(chat: Chat, client: Client) -> None:
    """A turn here, a turn there: one conversation, and chunk by chunk the same answer."""
    told = chunks(await chat.serve(send("r1", body(said("u1", "One")))))
    assert [each["type"] for each in told] == [
        *("start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish")
    ]
    _, run, again = await post(client, body(said("u1", "One")))
    assert objects(again) == told
    assert told[0]["messageId"] == run
    await post(client, body(said("u1", "One"), said("u2", "Two")))
    assert text(chunks(await chat.serve(send("r2", body(said("u1", "One"), said("u2", "Two")))))) == "Two"
    assert await texts(client) == ["One", "One", "Two", "Two"]


async def test_outputs_of_tools_and_another_answer(chat: Chat, client: Client) -> None:
    """What is new at the end of the page's messages is read as the route reads it."""
    await chat.serve(send("r1", body(said("u", "hi"), script={"chunks": ["So. "], **CALLS})))
    outputs = [{"toolCallId": f"c{n}", "state": "output-available", "output": n} for n in (1, 2)]
    answer = body(said("u", "hi"), returned(*outputs), script={"chunks": ["Done."]})
    assert text(chunks(await chat.serve(send("r2", answer)))) == "Done."
    again = body(said("u", "hi"), script={"chunks": ["Other."]}, trigger="regenerate-message")
    assert text(chunks(await chat.serve(send("r3", again)))) == "Other."
    assert await texts(client) == ["hi", "Other."]


async def test_a_call_that_lambda_makes_twice(chat: Chat, client: Client) -> None:
    """Is answered once, and told once."""
    frame = send("r1", body(said("u", "hi"), trigger="regenerate-message"))
    first = await chat.serve(frame)
    assert await chat.serve(frame) == first
    assert await texts(client) == ["hi", "hi"]


async def test_what_is_refused(chat: Chat, client: Client) -> None:
    """Has the text of the route's refusal, and stores nothing."""
    for request, frame in {
        "empty": send("empty", body()),
        "options": send("options", body(said("u", "hi"), script={"nonsense": 1})),
        "trigger": send("trigger", body(said("u", "hi"), trigger="shout")),
        "number": {**send("number", body(said("u", "hi"))), "headers": 7},
        "last": resume("last", lastSequence=3),
    }.items():
        (told,) = await chat.serve(frame)
        assert (told["type"], told["requestId"]) == ("error", request)
        assert told["errorText"]
    (told,) = await chat.serve(send("x" * 8, body(said("u", "hi"), model="x" * chat.backend.settings.body_limit)))
    assert "more than" in told["errorText"]
    assert await texts(client) == []


async def test_a_bug_is_masked(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client learns no more than that."""

    async def broken(*given: object) -> None:
        raise ValueError("a prompt")

    monkeypatch.setattr("tailrace.http.chat_socket.start_chat", broken)
    (told,) = await chat.serve(send("r1", body(said("u", "hi"))))
    assert told == {"type": "error", "requestId": "r1", "errorText": "Something went wrong on our side."}


async def test_resuming(chat: Chat, client: Client) -> None:
    """All from the start, then live; nothing where nothing is active."""
    (nothing,) = await chat.serve(resume("before"))
    assert nothing == {"type": "no-active", "requestId": "before"}
    content = body(said("u", "hi"), script={"chunks": 40, "every": 0.02})
    sending = asyncio.create_task(chat.serve(send("r1", content)))
    await chat.management.until(chat.begun)
    resumed = chunks(await chat.serve(resume("r2"), socket="s2"))
    sent = chunks(await sending)
    assert text(resumed) == text(sent)
    assert resumed[0] == sent[0]
    assert resumed[-1] == sent[-1]
    assert [each["type"] for each in await chat.serve(resume("after"))] == ["no-active"]


async def test_taking_back(chat: Chat, client: Client) -> None:
    """The reply is ended, and what was written is kept; before it has begun, nothing begins."""
    requests = chat.backend.store.chat_requests
    content = body(said("u", "hi"), script={"chunks": 5000, "every": 0.02})
    sending = asyncio.create_task(chat.serve(send("r1", content)))
    await chat.management.until(chat.begun)
    reply = await requests.abort("s1", "r1")
    assert reply is not None
    await chat.backend.open_replies.cancel(reply)
    told = chunks(await sending)
    assert told[-1] == {"type": "abort"}
    assert (await client.ended(reply)).status == "cancelled"
    await requests.abort("s1", "r2")
    assert await chat.serve(send("r2", body(said("u2", "never")))) == []
    assert len(await texts(client)) == 2


async def test_taking_back_between_the_two(chat: Chat, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that has begun and has no reply yet: it ends when it has one."""
    requests = chat.backend.store.chat_requests
    begin = requests.begin

    async def begin_late(socket: str, request: str, nonce: str) -> bool:
        begun = await begin(socket, request, nonce)
        assert await requests.abort(socket, request) is None
        return begun

    monkeypatch.setattr(requests, "begin", begin_late)
    told = chunks(await chat.serve(send("r1", body(said("u", "hi"), script={"chunks": 5000, "every": 0.02}))))
    assert told[-1] == {"type": "abort"}


async def test_a_reader_that_hangs_up(chat: Chat, client: Client) -> None:
    """Gets no more, and the answer goes on."""
    content = body(said("u", "hi"), script={"chunks": 60, "every": 0.02})
    sending = asyncio.create_task(chat.serve(send("r1", content)))
    await chat.management.until(chat.begun)
    reading = asyncio.create_task(chat.serve(resume("r2"), socket="s2"))
    await chat.management.until(lambda: chat.begun("s2"))
    assert await chat.backend.store.chat_requests.abort("s2", "r2") is None
    assert (await reading)[-1]["type"] == "chunk"
    assert chunks(await sending)[-1]["type"] == "finish"


@pytest.mark.parametrize("status", [410, 429, 403])
async def test_a_socket_that_takes_nothing(chat: Chat, client: Client, status: int) -> None:
    """Whoever is gone, or does not read, gets no more; the answer is written to its end, and is there."""
    chat.management.always["s1"] = status
    assert await chat.serve(send("r1", body(said("u", "hi"), script={"chunks": ["a"] * 30}))) == []
    assert await texts(client) == ["hi", "a" * 30]
    # One to begin with, and one for who may read again by then.
    assert len({request.body for request in chat.management.requests}) == 2


async def test_a_socket_that_reads_again(chat: Chat) -> None:
    """Learns that it did not get all: it would wait for an end that does not come."""
    chat.management.answers["s1"].extend([200, 200, 429])
    told = await chat.serve(send("r1", body(said("u", "hi"), script={"chunks": ["a"] * 30})))
    assert [each["type"] for each in told] == ["start", "chunk", "error"]
    assert told[-1]["errorText"] == CUT_OFF


async def test_a_slow_socket(chat: Chat, client: Client) -> None:
    """Has one post at a time; what comes meanwhile is joined. It does not hold up the answer."""
    chat.sockets = ChatSocket(chat.backend)
    chat.management.answers["s1"].extend([200, 200, 200, STUCK])
    serving = asyncio.create_task(chat.serve(send("r1", body(said("u", "hi"), script={"chunks": ["word "] * 500}))))
    async with asyncio.timeout(20):
        while await find_open(chat.backend, OWNER, "chat") or not await texts(client):
            pass
    chat.management.let_go.set()
    assert text(chunks(await serving)) == "word " * 500
    assert chat.management.flights["s1"] == 1
    assert len(chat.management.frames["s1"]) < 50


async def test_a_post_whose_answer_was_lost(chat: Chat) -> None:
    """Is made again: the client drops what it has already by its number."""
    chat.sockets = ChatSocket(chat.backend)
    chat.management.answers["s1"].extend([200, 503, 429, 200])
    assert text(chunks(await chat.serve(send("r1", body(said("u", "hi")))))) == "hi"


async def test_what_fits_into_no_frame(chat: Chat, client: Client) -> None:
    """A long text comes in pieces. What cannot be divided is an error, and the answer is stored all the same."""
    long = "水" * 70_000
    assert text(chunks(await chat.serve(send("r1", body(said("u", "hi"), script={"chunks": [long]}))))) == long
    call = {"id": "c", "name": "f", "arguments": json.dumps({"text": "x" * 140_000})}
    content = body(said("u2", "call"), script={"chunks": ["Now. "], "tool_calls": [call]})
    told = await chat.serve(send("r2", content))
    assert told[-1]["type"] == "error"
    assert "over HTTP" in told[-1]["errorText"]
    assert (await texts(client))[-1] == "Now. "


async def test_the_end_of_the_function_s_time(chat: Chat, client: Client) -> None:
    """An answer that takes longer is ended as everywhere, and told so. A reader is told that there is more."""
    content = body(said("u", "hi"), script={"chunks": 5000, "every": 0.02})
    assert chunks(await chat.serve(send("r1", content), seconds=5.2))[-1]["type"] == "error"
    sending = asyncio.create_task(chat.serve(send("r2", body(said("u2", "hi"), script={"chunks": 40, "every": 0.02}))))
    await chat.management.until(lambda: len(chat.management.events("s1")) > 20)
    told = await chat.serve(resume("r3"), socket="s2", seconds=5.1)
    assert told[-1] == {
        "type": "error",
        "requestId": "r3",
        "errorText": CUT_OFF,
    }
    await sending


async def test_a_process_that_is_shut_down(chat: Chat, client: Client) -> None:
    """Ends the answer in good order, and tells its reader."""
    content = body(said("u", "hi"), script={"chunks": 5000, "every": 0.02})
    sending = asyncio.create_task(chat.serve(send("r1", content)))
    await chat.management.until(chat.begun)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    start, *_, last = chat.management.events("s1")
    assert (start["type"], last["type"]) == ("start", "end")
    assert len(await texts(client)) == 2
    assert await find_open(chat.backend, OWNER, "chat") is None


async def test_the_table_cannot_be_reached(chat: Chat, settings: Settings) -> None:
    """The client is told, and nothing has begun."""

    class Down:
        async def call(self, operation: str, payload: object) -> Any:
            from tailrace.errors import StoreError

            raise StoreError("The store is not available. Please try again.")

    chat.backend.store = Store(Down(), settings.table)
    (told,) = await chat.serve(send("r1", body(said("u", "hi"))))
    assert told["errorText"] == "The store is not available. Please try again."


async def test_headers_in_a_frame(chat: Chat, client: Client) -> None:
    """An idempotency key counts, whoever is asking does not come from there."""
    headers = {"Idempotency-Key": "k", "Authorization": "Bearer eve", "X-Other": "水"}
    frames = [send(f"r{n}", body(said("u", "hi")), headers=headers) for n in (1, 2)]
    first, second = [chunks(await chat.serve(frame)) for frame in frames]
    assert first[0] == second[0]
    assert len(await texts(client)) == 2
