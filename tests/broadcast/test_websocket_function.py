"""functions/websocket, called as Lambda calls it with each of its samples, and posting to a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tailrace.backend import Backend
from tailrace.broadcast.channels import signature
from tailrace.broadcast.chats import TRIES
from tailrace.conversation.conversation import Conversation
from tailrace.settings import Auth, Settings
from tailrace.store import Caller

from local.lambda_function import LambdaContext, LambdaFunction, load_function
from tests.broadcast.fake_management import FakeManagement
from tests.issuer import SECRET as TOKEN_SECRET
from tests.issuer import shared_token

pytestmark = pytest.mark.anyio

EVENTS = Path(__file__).parents[2] / "events"
SAMPLES = sorted(path.stem.removeprefix("websocket-") for path in EVENTS.glob("websocket-*.json"))
SOCKET = "L0SM9cOFvHcCIhw="
SECRET = "the channels' secret"
ADA = "arn:aws:iam::123456789012:user/ada"


def sample(name: str, **values: str) -> dict[str, Any]:
    """Return a sample with real values in the places of its placeholders."""
    event: dict[str, Any] = json.loads((EVENTS / f"websocket-{name}.json").read_text())
    for placeholder, value in values.items():
        if "body" in event:
            event["body"] = event["body"].replace(placeholder, value)
    return event


class Function:
    """The function in threads, as Lambda's environments call it."""

    def __init__(self, module: Any) -> None:
        self.backend: Backend = module.backend
        self._function = LambdaFunction("tailrace-websocket", module.handler, self._closing)

    async def call(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the handler returns."""
        return await self._function.call(event, LambdaContext("tailrace-websocket"))

    async def close(self) -> None:
        """Close what it opened."""
        await self._function.close()

    @asynccontextmanager
    async def _closing(self) -> AsyncIterator[None]:
        yield
        await self.backend.close()


@asynccontextmanager
async def function(settings: Settings, **environment: str) -> AsyncIterator[Function]:
    """The function, imported with an environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", settings.dynamodb_endpoint or "")
        patch.setenv("TAILRACE_TABLE", settings.table)
        patch.setenv("TAILRACE_CHANNEL_SECRET", SECRET)
        for name, value in environment.items():
            patch.setenv(name, value)
        found = Function(await asyncio.to_thread(load_function, "websocket"))
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
async def deployed(settings: Settings, management: FakeManagement) -> AsyncIterator[Function]:
    """The function as template.yaml sets it up."""
    management.always["invocations"] = 202
    urls = {"TAILRACE_WEBSOCKET_URL": management.url, "AWS_ENDPOINT_URL_LAMBDA": management.url.removesuffix("/live")}
    async with function(settings, TAILRACE_AUTH="iam", TAILRACE_CHAT_FUNCTION="chat", **urls) as found:
        yield found


@pytest.fixture
async def conversation(settings: Settings) -> AsyncIterator[Conversation]:
    """Ada's."""
    backend = Backend(settings)
    yield await Conversation.create(owner=ADA, backend=backend)
    await backend.close()


async def listeners(settings: Settings, channel: str) -> set[str]:
    """Return who has subscribed."""
    backend = Backend(settings)
    try:
        return {each.socket async for each in backend.store.subscriptions.of_channel(channel)}
    finally:
        await backend.close()


async def test_a_session(
    deployed: Function, management: FakeManagement, conversation: Conversation, settings: Settings
) -> None:
    """All samples, in the order in which a client's frames come."""
    stream = await conversation.stream_response()
    for chunk in ("a", "b", "c"):
        await stream.append(chunk)
    await stream.complete()
    values = {"CONVERSATION_ID": conversation.id, "MESSAGE_ID": stream.id, "USER_ID": "ada"}
    private, presence = f"private-conversation.{conversation.id}", f"presence-conversation.{conversation.id}"
    member = '{"user_id":"ada","user_info":{}}'
    auths = {
        "subscribe-private": signature(SECRET, SOCKET, private),
        "subscribe-presence": signature(SECRET, SOCKET, presence, member),
    }
    connect = sample("connect")
    connect["requestContext"]["authorizer"] = {"principalId": ADA}
    session = {
        "connect": [],
        "whoami": ["whoami"],
        "ping": ["pong"],
        "subscribe": ["subscription_succeeded"],
        "subscribe-delivery": ["subscription_succeeded"],
        "subscribe-private": ["subscription_succeeded"],
        "subscribe-presence": ["subscription_succeeded"],
        "whisper": [],
        "subscribe-after": [
            "subscription_succeeded",
            "App\\Events\\MessageChunkReceived",
            "App\\Events\\MessageCompleted",
        ],
        "unsubscribe": ["unsubscription_succeeded"],
        "unknown": ["error"],
        "chat-send": [],
        "chat-resume": [],
        "chat-abort": [],
        "chat-failed": ["error"],
        "disconnect": [],
    }
    assert sorted(session) == SAMPLES
    for name, answers in session.items():
        event = connect if name == "connect" else sample(name, **values, CHANNEL_AUTH=auths.get(name, ""))
        assert await deployed.call(event) == {"statusCode": 200}
        assert [frame.get("event", frame.get("type")) for frame in management.events(SOCKET)] == answers, name
        if name == "whisper":
            assert await listeners(settings, private) == await listeners(settings, presence) == {SOCKET}
        management.frames.clear()
    assert await listeners(settings, private) == await listeners(settings, presence) == set()


async def test_a_chat_is_handed_over(deployed: Function, management: FakeManagement) -> None:
    """With the owner of the connection, to a function that nobody waits for; an error says so when it does not take
    it."""
    connect = sample("connect")
    connect["requestContext"]["identity"]["userArn"] = ADA
    await deployed.call(connect)
    await deployed.call(sample("chat-send"))
    (request,) = management.requests
    assert request.path == "/2015-03-31/functions/chat/invocations"
    assert request.headers["X-Amz-Invocation-Type"] == "Event"
    assert json.loads(request.body) == {"chat": {"socket": SOCKET, "owner": ADA, "frame": sample("chat-send")["body"]}}
    management.answers["invocations"].extend([429] * TRIES)
    await deployed.call(sample("chat-send"))
    assert management.events(SOCKET) == [
        {
            "type": "error",
            "requestId": json.loads(sample("chat-send")["body"])["requestId"],
            "errorText": "The answer could not be started. Please try again.",
        }
    ]


async def test_what_the_sample_of_catching_up_gets(
    deployed: Function, management: FakeManagement, conversation: Conversation
) -> None:
    """What lies beyond the cursor."""
    stream = await conversation.stream_response()
    for chunk in ("a", "b", "c"):
        await stream.append(chunk)
    connect = sample("connect")
    connect["requestContext"]["identity"]["userArn"] = ADA
    await deployed.call(connect)
    await stream.complete()
    await deployed.call(sample("subscribe-after", CONVERSATION_ID=conversation.id, MESSAGE_ID=stream.id))
    assert management.text(SOCKET) == "c"


async def test_a_connection_of_nobody(
    deployed: Function, management: FakeManagement, conversation: Conversation
) -> None:
    """Is accepted, and may not listen to what is somebody's: it is told so as of what is not there."""
    assert await deployed.call(sample("connect")) == {"statusCode": 200}
    await deployed.call(sample("subscribe", CONVERSATION_ID=conversation.id))
    (refusal,) = management.events(SOCKET)
    assert refusal["data"] == {"message": "No such conversation."}


async def test_calls_at_once(deployed: Function, management: FakeManagement) -> None:
    """Each environment has an event loop and connections of its own, and keeps them."""
    for _ in range(2):
        await asyncio.gather(*(deployed.call(sample("ping")) for _ in range(12)))
    assert [frame["event"] for frame in management.events(SOCKET)] == ["pong"] * 24


@pytest.mark.parametrize("environment", [{}, {"TAILRACE_BROADCAST": "off", "TAILRACE_WEBSOCKET_URL": "ws://x/live"}])
async def test_nothing_is_broadcast(settings: Settings, environment: dict[str, str]) -> None:
    """A client is not refused: it would come back at once, and twice. The log says what is missing."""
    async with function(settings, **environment) as found:
        for name in ("connect", "whoami", "disconnect"):
            assert await found.call(sample(name)) == {"statusCode": 200}


async def test_whose_connection_it_is(settings: Settings) -> None:
    """Whom the authorization of $connect has found, and nobody where nobody is asked."""
    event = sample("connect")

    async def owner(auth: Auth, event: dict[str, Any] = event) -> str | None:
        backend = Backend(msgspec.structs.replace(settings, auth=auth))
        try:
            caller = await backend.auth.connecting(event)
            return None if caller is None else caller.owner
        finally:
            await backend.close()

    assert await owner("iam") is None
    event["requestContext"]["identity"]["userArn"] = ADA
    assert await owner("iam") == ADA
    assert await owner("none") is None
    event["requestContext"]["authorizer"] = {"principalId": "ada", "other": 1}
    assert await owner("iam") == "ada"
    event["requestContext"]["authorizer"] = {"principalId": 7}
    assert await owner("iam") == ADA
    assert await owner("iam", {}) is None


async def test_a_connection_with_a_token(settings: Settings) -> None:
    """In a header, or in the query for browsers, which can send no header; one that is not believed is nobody's, and
    what another authorization would have said does not count."""
    backend = Backend(msgspec.structs.replace(settings, auth="jwt", jwt_secret=TOKEN_SECRET))
    event = sample("connect")
    event["requestContext"]["identity"]["userArn"] = ADA
    event.pop("queryStringParameters", None)
    token = shared_token({"sub": "ada", "exp": int(time.time()) + 600})
    connecting, ada = backend.auth.connecting, Caller(owner="ada")
    try:
        assert await connecting(event) is None
        headers = {**event["headers"], "Authorization": f"Bearer {token}"}
        assert await connecting({**event, "headers": headers}) == ada
        assert await connecting({**event, "queryStringParameters": {"access_token": token}}) == ada
        assert await connecting({**event, "queryStringParameters": {"access_token": token[:-2]}}) is None
    finally:
        await backend.close()
