"""The local gateway, judged by a WebSocket client and by boto3's own client of the management API."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tailrace.clock import Clock, SystemClock
from tailrace.http.requests import Receive, Scope, Send
from tailrace.http.server import GRACE_SECONDS, server
from tailrace.testing import ManualClock
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from local.connections_api import PREFIX, ConnectionsApi
from local.gateway import CALLS_AT_ONCE, Gateway, Limits
from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction
from local.websocket import LARGEST_FRAME, LARGEST_MESSAGE, speak_websocket
from tests.conftest import REGION

if TYPE_CHECKING:
    from mypy_boto3_apigatewaymanagementapi import ApiGatewayManagementApiClient

pytestmark = pytest.mark.anyio

DEADLINE = 30.0
OK = {"statusCode": 200}

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Function:
    """A function that notes its events and answers as it is told, route by route."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.routes: dict[str, Callable[[Event], Any]] = {}
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: Event, context: LambdaContext) -> Any:
        self._loop.call_soon_threadsafe(self.events.put_nowait, event)
        route = self.routes.get(event["requestContext"]["routeKey"])
        return OK if route is None else route(event)

    async def next(self, route: str) -> Event:
        """Return the next event, which has to be of this route."""
        async with asyncio.timeout(DEADLINE):
            event = await self.events.get()
        assert event["requestContext"]["routeKey"] == route
        return event


class Stage:
    """A gateway that is being served, and its addresses."""

    def __init__(self, function: Function, port: int) -> None:
        self.function = function
        self.url = f"ws://127.0.0.1:{port}/ws"
        self.endpoint = f"http://127.0.0.1:{port}/ws"

    @asynccontextmanager
    async def client_events(self, query: str = "", **options: Any) -> AsyncIterator[tuple[ClientConnection, Event]]:
        """A client that is connected, and the event of that."""
        async with connect(self.url + query, open_timeout=DEADLINE, **options) as client:
            yield client, await self.function.next("$connect")

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[tuple[ClientConnection, str]]:
        """A client that is connected, and its connection id."""
        async with self.client_events(**options) as (client, event):
            yield client, event["requestContext"]["connectionId"]

    def management(self) -> ApiGatewayManagementApiClient:
        """boto3's client. It tries once: what it is answered is what the tests are about."""
        import boto3
        from botocore.config import Config

        config = Config(retries={"total_max_attempts": 1})
        return boto3.client("apigatewaymanagementapi", region_name=REGION, endpoint_url=self.endpoint, config=config)


@asynccontextmanager
async def served(*, clock: Clock | None = None, limits: Limits | None = None) -> AsyncIterator[Stage]:
    """A gateway behind the very server of `make run`."""
    function = Function()
    behind = LambdaFunction("websocket", function, nullcontext)
    gateway = Gateway(behind, clock=clock or SystemClock(), limits=limits)
    connections = ConnectionsApi(gateway)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await gateway(scope, receive, send)
        elif scope["type"] == "http":
            assert scope["path"].startswith(PREFIX)
            await connections(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        uvicorn = server(app, host="127.0.0.1", port=0)
        speak_websocket(uvicorn.config)
        running = asyncio.create_task(uvicorn.serve(sockets=[listening]))
        try:
            yield Stage(function, listening.getsockname()[1])
        finally:
            uvicorn.should_exit = True
            await running
            await gateway.close()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with served() as stage:
        yield stage


async def refused(call: Callable[..., Any], *args: Any, **arguments: Any) -> tuple[int, str]:
    """Return status and name of the error of a call of boto3's."""
    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(call, *args, **arguments)
    response = caught.value.response
    assert type(caught.value).__name__ == response["Error"]["Code"]  # it is one of the client's own exceptions
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


async def end_of(client: ClientConnection) -> tuple[int, str]:
    """Return code and reason with which the server closes."""
    async with asyncio.timeout(DEADLINE):
        with suppress(ConnectionClosed):
            while True:
                await client.recv()
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


async def test_the_events(stage: Stage) -> None:
    """A connection, a message and the end are told in API Gateway's shapes, which differ from each other."""
    headers = {"X-Mine": "1", "Origin": "http://localhost:3000"}
    async with stage.client_events("?token=a%20b&token=c&empty=", additional_headers=headers) as (client, connected):
        await client.send('{"event":"水"}')
        told = await stage.function.next("$default")
    left = await stage.function.next("$disconnect")

    assert connected["queryStringParameters"] == {"token": "c", "empty": ""}
    assert connected["multiValueQueryStringParameters"] == {"token": ["a b", "c"], "empty": [""]}
    assert connected["headers"]["X-Mine"] == "1"
    assert connected["headers"]["Sec-WebSocket-Version"] == "13"
    assert connected["multiValueHeaders"]["Origin"] == ["http://localhost:3000"]
    assert connected["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert "body" not in connected

    assert told["body"] == '{"event":"水"}'
    assert told.keys() == {"requestContext", "body", "isBase64Encoded"}

    assert left["headers"].keys() == {"Host", "x-api-key", "X-Forwarded-For", "x-restapi"}
    assert "body" not in left

    contexts = [event["requestContext"] for event in (connected, told, left)]
    assert [context["eventType"] for context in contexts] == ["CONNECT", "MESSAGE", "DISCONNECT"]
    assert len({context["connectionId"] for context in contexts}) == 1
    assert len({context["requestId"] for context in contexts}) == 3
    assert len({context["connectedAt"] for context in contexts}) == 1
    for context in contexts:
        assert f"http://{context['domainName']}/{context['stage']}" == stage.endpoint
        assert context["identity"]["sourceIp"] == "127.0.0.1"
        assert context["identity"]["userAgent"].startswith("Python/")
    assert contexts[1]["messageId"]
    assert contexts[2]["disconnectStatusCode"] == 1000


async def test_without_query_and_agent(stage: Stage) -> None:
    """What a request does not have is absent, not empty."""
    async with stage.client_events(user_agent_header=None) as (_, event):
        assert not event.keys() & {"queryStringParameters", "multiValueQueryStringParameters"}
        assert event["requestContext"]["identity"] == {"sourceIp": "127.0.0.1"}


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_connection_that_is_refused(stage: Stage, status: int) -> None:
    """The status the function answers to $connect is the client's; there is no connection and no $disconnect."""
    stage.function.routes["$connect"] = lambda event: {"statusCode": status}
    with pytest.raises(InvalidStatus) as caught:
        await connect(stage.url)
    assert caught.value.response.status_code == status
    event = await stage.function.next("$connect")
    stage.function.routes.clear()
    async with stage.client():  # had there been a $disconnect, it would be next
        management = stage.management()
        gone = await refused(management.get_connection, ConnectionId=event["requestContext"]["connectionId"])
        assert gone == (410, "GoneException")


@pytest.mark.parametrize("result", [None, {}, {"statusCode": "many"}, ValueError("with a secret in it")])
async def test_a_connect_that_fails(stage: Stage, result: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A function that fails, or returns no response, is a 502 that says nothing of why."""

    def fail(event: Event) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    stage.function.routes["$connect"] = fail
    with pytest.raises(InvalidStatus) as caught:
        await connect(stage.url)
    assert caught.value.response.status_code == 502
    assert caught.value.response.body == b'{"message": "Internal server error"}'
    err = capsys.readouterr().err
    assert err.startswith("$connect: ")
    assert "secret" not in err


async def test_a_message_that_fails(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """A function that fails for a message: the client gets API Gateway's own frame, and the connection goes on."""
    stage.function.routes["$default"] = lambda event: [][0]
    async with stage.client() as (client, connection_id):
        for _ in range(2):
            await client.send("{}")
            event = await stage.function.next("$default")
            assert json.loads(await client.recv()) == {
                "message": "Internal server error",
                "connectionId": connection_id,
                "requestId": event["requestContext"]["requestId"],
            }
    assert capsys.readouterr().err == "$default: IndexError\n" * 2


async def test_a_call_that_takes_too_long() -> None:
    """After the integration time-out the client is told; the function itself goes on."""
    async with served(limits=Limits(call=0.05)) as stage:
        go_on, done = threading.Event(), threading.Event()

        def wait(event: Event) -> dict[str, int]:
            go_on.wait(DEADLINE)
            done.set()
            return OK

        async with stage.client() as (client, connection_id):
            stage.function.routes["$default"] = wait
            await client.send("{}")
            frame = json.loads(await client.recv())
            assert (frame["message"], frame["connectionId"]) == ("Endpoint request timed out", connection_id)
            assert not done.is_set()
            go_on.set()
            assert await asyncio.to_thread(done.wait, DEADLINE)


async def test_what_the_function_returns_is_not_sent(stage: Stage) -> None:
    """The route has no route response: the body goes nowhere, whatever the status."""
    async with stage.client() as (client, connection_id):
        stage.function.routes["$default"] = lambda event: {"statusCode": 500, "body": "not for the client"}
        await client.send("{}")
        await stage.function.next("$default")
        await asyncio.to_thread(stage.management().post_to_connection, ConnectionId=connection_id, Data=b"next")
        assert await client.recv() == "next"


async def test_a_client_that_leaves_inside_connect(stage: Stage) -> None:
    """The function hears that it has gone, after it has answered to its $connect."""
    go_on = threading.Event()

    def wait(event: Event) -> dict[str, int]:
        go_on.wait(DEADLINE)
        return OK

    stage.function.routes["$connect"] = wait
    host, port = stage.url.removeprefix("ws://").removesuffix("/ws").split(":")
    with socket.socket() as leaving:
        await asyncio.to_thread(leaving.connect, (host, int(port)))
        leaving.sendall(HANDSHAKE)
        connected = await stage.function.next("$connect")
    go_on.set()
    left = await stage.function.next("$disconnect")
    assert left["requestContext"]["connectionId"] == connected["requestContext"]["connectionId"]
    assert left["requestContext"]["disconnectStatusCode"] == 1006


async def test_a_subprotocol(stage: Stage) -> None:
    """The one that the function answers is the connection's."""
    chosen = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "b"}}
    stage.function.routes["$connect"] = lambda event: chosen
    async with stage.client(subprotocols=[Subprotocol("a"), Subprotocol("b")]) as (client, _):
        assert client.subprotocol == "b"


async def test_the_management_api(stage: Stage) -> None:
    """boto3 sends, looks and disconnects; what it sends arrives in order and whole."""
    management = stage.management()
    async with stage.client() as (client, connection_id):
        before = await asyncio.to_thread(management.get_connection, ConnectionId=connection_id)
        assert before["ConnectedAt"] == before["LastActiveAt"]
        assert before["Identity"]["SourceIp"] == "127.0.0.1"
        for data in (b"one", "zwei 水".encode(), b""):
            await asyncio.to_thread(management.post_to_connection, ConnectionId=connection_id, Data=data)
            assert await client.recv() == data.decode()
        after = await asyncio.to_thread(management.get_connection, ConnectionId=connection_id)
        assert after["LastActiveAt"] > before["LastActiveAt"]
        await asyncio.to_thread(management.delete_connection, ConnectionId=connection_id)
        assert await end_of(client) == (1000, "Connection closed normally")
    event = await stage.function.next("$disconnect")
    assert event["requestContext"]["disconnectReason"] == "Connection closed normally"


async def test_gone(stage: Stage) -> None:
    """A connection that has ended, or never was, is 410 for each operation."""
    management = stage.management()
    async with stage.client() as (_, connection_id):
        pass
    await stage.function.next("$disconnect")
    for each in (connection_id, "L0SM9cOFvHcCIhw=", "no/id"):
        assert await refused(management.post_to_connection, ConnectionId=each, Data=b"x") == (410, "GoneException")
        assert await refused(management.get_connection, ConnectionId=each) == (410, "GoneException")
        assert await refused(management.delete_connection, ConnectionId=each) == (410, "GoneException")


async def test_a_post_inside_connect_is_gone(stage: Stage) -> None:
    """Until the function has answered to $connect there is no connection to send to."""
    seen: list[str] = []
    management = stage.management()

    def post(event: Event) -> dict[str, int]:
        try:
            management.post_to_connection(ConnectionId=event["requestContext"]["connectionId"], Data=b"too early")
        except management.exceptions.GoneException as error:
            seen.append(error.response["Error"]["Code"])
        return OK

    stage.function.routes["$connect"] = post
    async with stage.client() as (client, connection_id):
        await asyncio.to_thread(management.post_to_connection, ConnectionId=connection_id, Data=b"in time")
        assert await client.recv() == "in time"
    assert seen == ["GoneException"]


async def test_the_size_of_a_post(stage: Stage) -> None:
    """128 KB arrive; a byte more is 413, and nothing of it arrives."""
    management = stage.management()
    async with stage.client() as (client, connection_id):
        await asyncio.to_thread(management.post_to_connection, ConnectionId=connection_id, Data=b"x" * LARGEST_MESSAGE)
        assert len(await client.recv()) == LARGEST_MESSAGE
        data = b"x" * (LARGEST_MESSAGE + 1)
        answer = await refused(management.post_to_connection, ConnectionId=connection_id, Data=data)
        assert answer == (413, "PayloadTooLargeException")
        await asyncio.to_thread(management.post_to_connection, ConnectionId=connection_id, Data=b"next")
        assert await client.recv() == "next"


async def test_what_is_not_text(stage: Stage) -> None:
    """A post that is not UTF-8 is refused."""
    async with stage.client() as (_, connection_id):
        post = stage.management().post_to_connection
        with pytest.raises(ClientError, match="The message is not UTF-8"):
            await asyncio.to_thread(post, ConnectionId=connection_id, Data=b"\xff")


async def test_unsigned(stage: Stage) -> None:
    """A call that is not signed is 403, also for a connection that is there."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    async with stage.client() as (_, connection_id):
        unsigned = boto3.client(
            "apigatewaymanagementapi",
            region_name=REGION,
            endpoint_url=stage.endpoint,
            config=Config(signature_version=UNSIGNED),
        )
        with pytest.raises(ClientError, match="Missing Authentication Token"):
            await asyncio.to_thread(unsigned.post_to_connection, ConnectionId=connection_id, Data=b"x")


async def test_the_size_of_a_message(stage: Stage) -> None:
    """128 KB in frames of 32 KB are taken; a larger frame, and a larger message, close with 1009."""
    async with stage.client() as (client, _):
        frame = "x" * LARGEST_FRAME
        await client.send([frame] * 4)
        assert (await stage.function.next("$default"))["body"] == frame * 4
        await client.send([*[frame] * 4, "x"])
        assert (await end_of(client))[0] == 1009
    event = await stage.function.next("$disconnect")
    assert event["requestContext"]["disconnectStatusCode"] == 1009
    async with stage.client() as (client, _):
        await client.send("x" * (LARGEST_FRAME + 1))
        assert (await end_of(client))[0] == 1009
    await stage.function.next("$disconnect")


async def test_a_binary_frame(stage: Stage) -> None:
    """API Gateway takes none: 1003."""
    async with stage.client() as (client, _):
        await client.send(b"bytes")
        assert (await end_of(client))[0] == 1003
    event = await stage.function.next("$disconnect")
    assert event["requestContext"]["disconnectStatusCode"] == 1003


@pytest.mark.parametrize(("code", "told"), [(1000, 1000), (4321, 4321), (None, 1006)])
async def test_how_the_client_left(stage: Stage, code: int | None, told: int) -> None:
    """$disconnect has the client's code; 1006 when it left without a word."""
    async with stage.client() as (client, _):
        if code is None:
            client.transport.abort()
        else:
            await client.close(code, "enough")
    context = (await stage.function.next("$disconnect"))["requestContext"]
    assert context["disconnectStatusCode"] == told
    assert context["disconnectReason"] == ("Connection closed abnormally" if code is None else "enough")


async def test_idle() -> None:
    """Ten minutes without a message either way end it; a message, sent or received, starts them again."""
    clock = ManualClock()
    async with served(clock=clock) as stage, stage.client() as (client, connection_id):
        await clock.advance(599)
        await client.send("{}")
        await stage.function.next("$default")
        await clock.advance(599)
        await asyncio.to_thread(stage.management().post_to_connection, ConnectionId=connection_id, Data=b"x")
        await clock.advance(599)
        assert await client.recv() == "x"
        await (await client.ping())  # still there, and a ping is no message
        await clock.advance(1)
        assert await end_of(client) == (1001, "Going away")
        event = await stage.function.next("$disconnect")
        assert event["requestContext"]["disconnectStatusCode"] == 1001


async def test_two_hours() -> None:
    """However busy it is, a connection ends after two hours."""
    clock = ManualClock()
    async with served(clock=clock) as stage, stage.client() as (client, _):
        for _ in range(12):
            await clock.advance(599)
            await client.send("{}")
            await stage.function.next("$default")
        await clock.advance(7200 - 12 * 599)
        assert await end_of(client) == (1001, "Going away")


async def posted(management: ApiGatewayManagementApiClient, connection_id: str) -> str | None:
    """Post much; return the error's name."""
    data = b"x" * LARGEST_MESSAGE
    try:
        await asyncio.to_thread(management.post_to_connection, ConnectionId=connection_id, Data=data)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


async def open_and_never_read(stage: Stage, client: socket.socket) -> str:
    """Connect a client that reads nothing any more; return its connection id."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = stage.url.removeprefix("ws://").removesuffix("/ws").split(":")
    await asyncio.to_thread(client.connect, (host, int(port)))
    client.sendall(HANDSHAKE)
    event = await stage.function.next("$connect")
    assert b" 101 " in await asyncio.to_thread(client.recv, 4096)
    connection_id: str = event["requestContext"]["connectionId"]
    return connection_id


async def test_a_client_that_does_not_read(stage: Stage) -> None:
    """Posts to it are 429 once everything on the way is full, others get theirs, and it can be closed."""
    management = stage.management()
    with socket.socket() as stuck:
        async with stage.client() as (client, healthy):
            stuck_id = await open_and_never_read(stage, stuck)
            async with asyncio.timeout(DEADLINE):
                answers = [await posted(management, stuck_id)]
                while answers[-1] is None:
                    answers.append(await posted(management, stuck_id))
            assert answers[-1] == "LimitExceededException"
            await asyncio.to_thread(management.post_to_connection, ConnectionId=healthy, Data=b"here")
            assert await client.recv() == "here"
            await asyncio.to_thread(management.delete_connection, ConnectionId=stuck_id)
            left = await stage.function.next("$disconnect")
            assert left["requestContext"]["connectionId"] == stuck_id


async def test_a_client_that_does_not_read_at_the_end() -> None:
    """The end of the server does not wait for it."""
    with socket.socket() as stuck:
        async with served() as stage:
            stuck_id = await open_and_never_read(stage, stuck)
            while await posted(stage.management(), stuck_id) is None:
                pass
            begun = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begun < GRACE_SECONDS / 2


async def test_a_client_that_floods(stage: Stage) -> None:
    """Of a client's messages only so many are being worked on; the rest waits in the sockets, and none is lost."""
    go_on = threading.Event()
    told: list[str] = []

    def wait(_: Event) -> dict[str, int]:
        go_on.wait(DEADLINE)
        return OK

    async with stage.client() as (client, _):
        stage.function.routes["$default"] = wait
        for number in range(200):
            await client.send(str(number))
        before = len(asyncio.all_tasks())
        most = 0
        for number in range(200):
            told.append((await stage.function.next("$default"))["body"])
            most = max(most, len(asyncio.all_tasks()))
            if number == 7:  # as many as there are environments
                go_on.set()
        assert most - before < 2 * CALLS_AT_ONCE
    assert sorted(told, key=int) == [str(number) for number in range(200)]


async def test_the_end_of_the_server() -> None:
    """Clients are told to connect again (1012), and the function hears of each."""
    async with served() as stage:
        client = await connect(stage.url)
        await stage.function.next("$connect")
    assert await end_of(client) == (1012, "")
    assert (await stage.function.next("$disconnect"))["requestContext"]["disconnectStatusCode"] == 1012
