"""The built functions for subscribers as Lambda runs them, on DynamoDB Local and its stream; see built_functions.py.

What they send is posted to a real socket, signed as it is to API Gateway.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from tailrace.backend import Backend
from tailrace.broadcast.channels import signature
from tailrace.conversation.conversation import Conversation
from tailrace.settings import Settings

from local.event_source import Record, read_event_source
from local.stream_reader import StreamReader
from tests.aws_endpoint import AwsEndpoint
from tests.broadcast.fake_management import FakeManagement
from tests.broadcast.test_function import READER
from tests.broadcast.test_function import sample as broadcast_sample
from tests.broadcast.test_websocket_function import ADA, SAMPLES, SOCKET
from tests.broadcast.test_websocket_function import sample as websocket_sample
from tests.issuer import SECRET
from tests.real.lambda_emulator import ITS_NAME, EmulatedFunction
from tests.test_events import sample

pytestmark = pytest.mark.anyio

ALICE: Final = sample("stream-start")["requestContext"]["authorizer"]["iam"]["userArn"]

ACCEPTED: Final = b'{"statusCode": 200}'

DONE: Final[dict[str, Any]] = {"batchItemFailures": []}


@pytest.fixture
async def management() -> AsyncIterator[FakeManagement]:
    """The management API of the WebSocket API."""
    async with FakeManagement().serve() as management:
        yield management


@pytest.fixture
def stack_variables(variables: dict[str, str], management: FakeManagement) -> dict[str, str]:
    """What the stack and the account give these functions."""
    management.always["invocations"] = 202
    lambda_api = {"AWS_ENDPOINT_URL_LAMBDA": management.url.removesuffix("/live"), "TAILRACE_CHAT_FUNCTION": "chat"}
    return {**variables, "TAILRACE_WEBSOCKET_URL": management.url, **lambda_api}


@pytest.fixture
async def there(table: Settings) -> AsyncIterator[Backend]:
    """A backend of the test's own on the functions' table."""
    backend = Backend(table)
    yield backend
    await backend.close()


@pytest.fixture
async def stream_records(table: Settings) -> AsyncIterator[StreamReader]:
    """The table's stream from here on."""
    reader = StreamReader(table.table, region=table.region, endpoint=table.dynamodb_endpoint or "")
    await asyncio.to_thread(reader.begin)
    yield reader
    reader.close()


@asynccontextmanager
async def running(name: str, folder: Path, environment: dict[str, str], **more: str) -> AsyncIterator[EmulatedFunction]:
    """A function with further variables."""
    (folder / name).mkdir()
    async with EmulatedFunction.run(name, folder / name, {**environment, **more}) as function:
        yield function


async def called_for(reader: StreamReader) -> list[Record]:
    """Return the new records that the broadcast function is called for, by the filters of template.yaml."""
    source = read_event_source("BroadcastOnChanges")
    return [record for record in await asyncio.to_thread(reader.read) if source.takes(record)]


async def call(function: EmulatedFunction, event: object) -> Any:
    """Return the JSON that a call gives."""
    return json.loads(await function.call(event))


async def test_a_session(
    stack_variables: dict[str, str], management: FakeManagement, there: Backend, tmp_path: Path
) -> None:
    """Every event of a socket, in the order in which they come: what it is told, and the subscriptions in the table."""
    conversation = await Conversation.create(owner=ADA, backend=there)
    stream = await conversation.stream_response()
    for chunk in ("a", "b", "c"):
        await stream.append(chunk)
    await stream.complete()
    public, private, presence = (f"{kind}conversation.{conversation.id}" for kind in ("", "private-", "presence-"))
    auths = {
        "subscribe-private": signature(SECRET, SOCKET, private),
        "subscribe-presence": signature(SECRET, SOCKET, presence, '{"user_id":"ada","user_info":{}}'),
    }
    values = {"CONVERSATION_ID": conversation.id, "MESSAGE_ID": stream.id, "USER_ID": "ada"}
    connect = websocket_sample("connect")
    connect["requestContext"]["identity"]["userArn"] = ADA
    caught_up = ["subscription_succeeded", "App\\Events\\MessageChunkReceived", "App\\Events\\MessageCompleted"]
    session: dict[str, tuple[list[str], set[str]]] = {
        "connect": ([], set()),
        "whoami": (["whoami"], set()),
        "ping": (["pong"], set()),
        "unknown": (["error"], set()),
        "chat-send": ([], set()),
        "chat-resume": ([], set()),
        "chat-abort": ([], set()),
        "chat-failed": (["error"], set()),
        "subscribe": (["subscription_succeeded"], {public}),
        "unsubscribe": (["unsubscription_succeeded"], set()),
        "subscribe-after": (caught_up, {public}),
        "subscribe-delivery": (["subscription_succeeded"], {public}),
        "subscribe-private": (["subscription_succeeded"], {public, private}),
        "subscribe-presence": (["subscription_succeeded"], {public, private, presence}),
        "whisper": ([], {public, private, presence}),
        "disconnect": ([], set()),
    }
    assert sorted(session) == SAMPLES
    async with running("websocket", tmp_path, stack_variables) as function:
        for name, (frames, channels) in session.items():
            event = connect if name == "connect" else websocket_sample(name, **values, CHANNEL_AUTH=auths.get(name, ""))
            assert await function.call(event) == ACCEPTED
            assert [frame.get("event") or frame["type"] for frame in management.events(SOCKET)] == frames, name
            assert set(await there.store.subscriptions.of_socket(SOCKET)) == channels, name
            if name == "subscribe-after":
                assert management.text(SOCKET) == "c"
            management.frames.clear()


async def test_what_the_stream_says(
    stack_variables: dict[str, str],
    management: FakeManagement,
    there: Backend,
    stream_records: StreamReader,
    dynamodb_url: str,
    emulator_url: str,
    tmp_path: Path,
) -> None:
    """A batch of DynamoDB's records, one of which cannot be announced: what came before is, and the answer says from
    which on it has to come again. It then does, and nothing comes twice."""
    conversation = await Conversation.create(owner=ALICE, backend=there)
    await there.store.subscriptions.put(f"conversation.{conversation.id}", READER)
    stream = await conversation.stream_response("hello")
    await stream.append("x" * 3000)  # it does not lie in the record
    message = await stream.complete()
    await conversation.add_user_message("thanks")
    batch = await called_for(stream_records)

    def told() -> list[str]:
        return [frame["event"].removeprefix("App\\Events\\") for frame in management.events(READER)]

    async with (
        AwsEndpoint(dynamodb_url, emulator_url).serve() as database,
        running("broadcast", tmp_path, stack_variables, AWS_ENDPOINT_URL_DYNAMODB=database.url) as function,
    ):
        database.denied = {"dynamodb:BatchGetItem"}
        again = await call(function, {"Records": batch})
        numbers = [record["dynamodb"]["SequenceNumber"] for record in batch]
        place = numbers.index(again["batchItemFailures"][0]["itemIdentifier"])
        ended = batch[place]["dynamodb"]["NewImage"]
        assert (ended["role"]["S"], ended["status"]["S"]) == ("assistant", "completed")
        assert told() == ["MessageCreated"] * 2
        database.denied = set()
        assert await call(function, {"Records": batch[place:]}) == DONE
        assert await call(function, {"Records": batch}) == DONE
    assert told() == ["MessageCreated", "MessageCreated", "MessageCompleted", "MessageCreated"]
    assert management.events(READER)[2]["data"]["message"]["content"] == message.content == "x" * 3000


async def test_a_hand_over(
    stack_variables: dict[str, str],
    management: FakeManagement,
    there: Backend,
    stream_records: StreamReader,
    tmp_path: Path,
) -> None:
    """A reply with more subscribers than its relay serves: the built relay invokes the built broadcast function, which
    posts its chunks; the end comes from the table's stream. A socket that is gone is taken off the channel."""
    conversation = await Conversation.create(owner=ALICE, backend=there)
    channel = f"conversation.{conversation.id}"
    for socket in ("one=", "two=", "gone="):
        await there.store.subscriptions.put(channel, socket)
    management.always["gone="] = 410
    event = sample("stream-start", CONVERSATION_ID=conversation.id)
    script = {"chunks": [f"chunk {number} " for number in range(20)], "every": 0.05}
    event["body"] = json.dumps({"input": "hello", "model": "fast", "options": {"script": script}})
    event["headers"].pop("content-length", None)
    async with running("broadcast", tmp_path, stack_variables) as broadcast:
        here = {
            "AWS_ENDPOINT_URL_LAMBDA": broadcast.endpoint,
            "TAILRACE_BROADCAST_FUNCTION": ITS_NAME,
            "TAILRACE_FAN_OUT_LIMIT": "1",
        }
        async with running("stream", tmp_path, stack_variables, **here) as stream:
            status, headers, _ = await stream.request(event)
            assert status == 200
        batch = await called_for(stream_records)
        assert await call(broadcast, {"Records": batch}) == DONE
        # What one invocation shares out to another one.
        assert await call(broadcast, broadcast_sample("post")) == {"dropped": [], "posted": 1, "refused": False}
    message = await there.store.messages.get(headers["x-message-id"])
    assert (message.status, message.content) == ("completed", "".join(script["chunks"]))  # type: ignore[arg-type]
    for socket in ("one=", "two="):
        assert management.text(socket) == message.content
        names = [frame["event"].removeprefix("App\\Events\\") for frame in management.events(socket)]
        # The relay announces its own reply; the question comes from the stream.
        assert (names[0], names[-1]) == ("MessageCreated", "MessageCompleted")
        assert names.count("MessageCompleted") == 1
    assert {each.socket async for each in there.store.subscriptions.of_channel(channel)} == {"one=", "two="}
    assert [frame["event"] for frame in management.events(READER)] == ["App\\Events\\MessageChunkReceived"]
