"""What stands in front of the functions, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from tailrace.http.requests import Message, Receive, Scope, Send
from tailrace.testing import ManualClock

from local.front import Front
from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction
from local.schedule import Rule, Schedule

pytestmark = pytest.mark.anyio

SCOPE: Scope = {
    "type": "http",
    "method": "GET",
    "http_version": "1.1",
    "scheme": "http",
    "path": "/conversations",
    "raw_path": b"/conversations",
    "query_string": b"",
    "headers": [],
}


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


async def request() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def no_stream(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("not a streamed route")


async def answer(front: Front) -> tuple[int, bytes]:
    """Return status and body of one request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await front(dict(SCOPE), request, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("result", [{}, None, {"statusCode": "many"}])
async def test_a_function_that_returns_no_response(result: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As with a function URL, it is a 502, and the server goes on."""
    function = LambdaFunction("api", lambda event, context: result, nothing)
    try:
        status, body = await answer(Front(no_stream, function))
    finally:
        await function.close()
    assert (status, body) == (502, b'{"error":{"type":"general_error","message":"The function failed."}}')
    assert capsys.readouterr().err.startswith("GET /conversations: ")


async def test_each_thread_has_its_own_loop_and_closes_what_is_in_it() -> None:
    """The handler finds an event loop as in Lambda, and the closing context runs in that very loop."""
    used: list[asyncio.AbstractEventLoop] = []
    closed: list[asyncio.AbstractEventLoop] = []

    @asynccontextmanager
    async def closing() -> AsyncIterator[None]:
        yield
        closed.append(asyncio.get_running_loop())

    def handler(event: Event, context: LambdaContext) -> dict[str, Any]:
        used.append(asyncio.get_event_loop())
        return {"statusCode": 204}

    function = LambdaFunction("api", handler, closing)
    assert (await answer(Front(no_stream, function)))[0] == 204
    await function.close()
    assert used == closed
    assert used[0].is_closed()


async def test_the_end_waits_for_cut_replies_to_store_theirs() -> None:
    """When the server has cut an open reply, the functions are closed only after it stored its end."""
    order: list[str] = []
    begun, stored = asyncio.Event(), asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            order.append("closed")
            return
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await stored.wait()
            order.append("stored")
            raise

    async def shut_down() -> Message:
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        raise AssertionError("nobody sends here")

    function = LambdaFunction("api", lambda event, context: {}, nothing)
    front = Front(stream, function)
    streamed = {**SCOPE, "method": "POST", "path": "/conversations/x/stream"}
    async with asyncio.timeout(10):
        reply = asyncio.create_task(front(streamed, request, send))
        await begun.wait()
        reply.cancel()
        ending = asyncio.create_task(front({"type": "lifespan"}, shut_down, send))
        asyncio.get_running_loop().call_soon(stored.set)
        await ending
        with pytest.raises(asyncio.CancelledError):
            await reply
    assert order == ["stored", "closed"]


async def test_the_schedule_runs_as_long_as_requests_are_served() -> None:
    """It begins with the first request that could be served, and has ended when the functions are closed."""
    called = asyncio.Event()
    loop = asyncio.get_running_loop()

    def sweep(event: Event, context: LambdaContext) -> dict[str, Any]:
        loop.call_soon_threadsafe(called.set)
        return {}

    schedule = Schedule(LambdaFunction("sweep", sweep, nullcontext), [Rule(60.0, {})], clock=ManualClock())

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def shut_down() -> Message:
        await called.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        raise AssertionError("nobody sends here")

    front = Front(stream, LambdaFunction("api", lambda event, context: {}, nothing), schedule)
    before = asyncio.all_tasks()
    async with asyncio.timeout(10):
        await front({"type": "lifespan"}, shut_down, send)
    assert asyncio.all_tasks() == before
