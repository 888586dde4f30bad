"""Lambda's Invoke API, judged by boto3's client; and what stands around it, on one port."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tailrace.clock import SystemClock
from tailrace.http.server import server
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from local.broadcasting import Broadcasting
from local.event_source import EventSource, Record
from local.gateway import Gateway
from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction
from local.table_stream import TableStream
from local.websocket import speak_websocket
from tests.conftest import REGION

pytestmark = pytest.mark.anyio


called: list[Event] = []


def announcing(event: Event, context: LambdaContext) -> dict[str, Any]:
    called.append(event)
    if "fail" in event:
        raise ValueError("because of you")
    return {"got": event, "request": context.aws_request_id}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Where it is served."""
    answering = LambdaFunction("tailrace-websocket", lambda event, context: {"statusCode": 200}, nullcontext)
    function = LambdaFunction("tailrace-broadcast", announcing, nullcontext)
    chatting = LambdaFunction("tailrace-chat", announcing, nullcontext)
    app = Broadcasting(Gateway(answering, clock=SystemClock()), function, chatting, None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uvicorn = server(app, host="127.0.0.1", port=0)
        uvicorn.config.lifespan = "off"
        speak_websocket(uvicorn.config)
        running = asyncio.create_task(uvicorn.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        uvicorn.should_exit = True
        await running
        await app.close()


def client(url: str) -> Any:
    config = Config(retries={"total_max_attempts": 1})
    return boto3.client("lambda", region_name=REGION, endpoint_url=url, config=config)


async def test_the_function_is_called(url: str) -> None:
    """boto3 gets what the function returns, and the id of the call."""
    payload = json.dumps({"fan_out": "水"})
    answer = await asyncio.to_thread(client(url).invoke, FunctionName="tailrace-broadcast", Payload=payload)
    assert answer["StatusCode"] == 200
    assert "FunctionError" not in answer
    assert json.load(answer["Payload"]) == {
        "got": {"fan_out": "水"},
        "request": answer["ResponseMetadata"]["RequestId"],
    }


async def test_a_function_that_nobody_waits_for(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is called all the same, and what it raises is for the log."""
    for payload in ('{"chat":1}', '{"chat":2,"fail":1}'):
        answer = await asyncio.to_thread(
            client(url).invoke, FunctionName="tailrace-chat", InvocationType="Event", Payload=payload
        )
        assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    async with asyncio.timeout(20):
        said = ""
        while not said:
            await asyncio.to_thread(client(url).invoke, FunctionName="tailrace-broadcast", Payload="{}")
            said += capsys.readouterr().err
    assert said == "tailrace-chat: ValueError\n"
    assert {each["chat"] for each in called if "chat" in each} == {1, 2}


async def test_a_function_that_fails(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a 200 that says so, with the error as Lambda tells it."""
    answer = await asyncio.to_thread(client(url).invoke, FunctionName="tailrace-broadcast", Payload='{"fail":1}')
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    error = json.load(answer["Payload"])
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "because of you")
    assert capsys.readouterr().err == "tailrace-broadcast: ValueError\n"


@pytest.mark.parametrize(
    ("arguments", "status", "name"),
    [
        ({"FunctionName": "nobody"}, 404, "ResourceNotFoundException"),
        ({"FunctionName": "tailrace-broadcast", "Payload": "no JSON"}, 400, "InvalidRequestContentException"),
        ({"FunctionName": "tailrace-broadcast", "Payload": b"\xff"}, 400, "InvalidRequestContentException"),
        ({"FunctionName": "tailrace-broadcast", "InvocationType": "DryRun"}, 400, "InvalidParameterValueException"),
        (
            {"FunctionName": "tailrace-chat", "InvocationType": "Event", "Payload": b'"' + b"x" * 1024 * 1024 + b'"'},
            413,
            "RequestTooLargeException",
        ),
        (
            {"FunctionName": "tailrace-broadcast", "Payload": b'"' + b"x" * 6 * 1024 * 1024 + b'"'},
            413,
            "RequestTooLargeException",
        ),
    ],
)
async def test_what_is_refused(url: str, arguments: dict[str, Any], status: int, name: str) -> None:
    """With the status and the name of Lambda's own errors."""
    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(client(url).invoke, **arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert caught.value.response["Error"]["Code"] == name


async def test_unsigned(url: str) -> None:
    """Nobody who cannot sign calls a function: a page in the developer's browser, say."""
    path = "/2015-03-31/functions/tailrace-broadcast/invocations"

    def post() -> int:
        try:
            urllib.request.urlopen(urllib.request.Request(url + path, b"{}"), timeout=30)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return 200

    assert await asyncio.to_thread(post) == 403


async def test_a_websocket_elsewhere(url: str) -> None:
    """There is one stage; any other path is 403."""
    websocket = url.replace("http", "ws")
    for path in ("/ws", "/ws/"):
        async with connect(websocket + path):
            pass
    for path in ("/", "/prod", "/ws/more"):
        with pytest.raises(InvalidStatus) as caught:
            await connect(websocket + path)
        assert caught.value.response.status_code == 403


async def test_a_database_that_knows_no_streams(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence says what does not work; the rest does."""

    class NoStream:
        def begin(self) -> None:
            raise LookupError("no stream")

        def read(self) -> list[Record]:
            raise AssertionError("it has not begun")

        def close(self) -> None:
            pass

    function = LambdaFunction("tailrace-broadcast", announcing, nullcontext)
    answering = LambdaFunction("tailrace-websocket", lambda event, context: {"statusCode": 200}, nullcontext)
    stream = TableStream(function, NoStream(), EventSource(), clock=SystemClock())
    chatting = LambdaFunction("tailrace-chat", announcing, nullcontext)
    broadcasting = Broadcasting(Gateway(answering, clock=SystemClock()), function, chatting, stream)
    await broadcasting.start()
    await broadcasting.close()
    assert capsys.readouterr().err == (
        "The table's stream cannot be read (LookupError). "
        "MessageCreated, MessageCompleted, MessageFailed and ConversationCreated are not broadcast.\n"
    )
