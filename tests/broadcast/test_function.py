"""functions/broadcast, called as Lambda calls it with each of its samples, and posting to a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.events import Text
from tailrace.settings import Settings

from local.lambda_function import LambdaContext, LambdaFunction, load_function
from tests.broadcast.table_stream import records
from tests.providers.fake_server import FakeServer, Reply

pytestmark = pytest.mark.anyio

EVENTS = Path(__file__).parents[2] / "events"
STARTER = "L0SM9cOFvHcCIhw="
READER = "L0SM8dPCvHcCJfA="


def sample(name: str, **values: str) -> dict[str, Any]:
    """Return a sample with real values in the places of its placeholders."""
    text = (EVENTS / f"broadcast-{name}.json").read_text()
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    event: dict[str, Any] = json.loads(text)
    return event


class Function:
    """The function in a thread of its own, with the event loop that it keeps."""

    def __init__(self, module: Any) -> None:
        self.backend: Backend = module.backend
        self._function = LambdaFunction("tailrace-broadcast", module.handler, self._closing)

    async def call(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the handler returns."""
        return await self._function.call(event, LambdaContext("tailrace-broadcast"))

    async def close(self) -> None:
        """Close what it opened."""
        await self._function.close()

    @asynccontextmanager
    async def _closing(self) -> AsyncIterator[None]:
        yield
        await self.backend.close()


async def load() -> Function:
    """Import the function with the environment as it is; in a thread, since it looks for the event loop of its own."""
    return Function(await asyncio.to_thread(load_function, "broadcast"))


@pytest.fixture
def patch(settings: Settings) -> Iterator[pytest.MonkeyPatch]:
    """The environment that template.yaml gives the function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", settings.dynamodb_endpoint or "")
        patch.setenv("TAILRACE_TABLE", settings.table)
        yield patch


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    """The management API, which takes everything."""
    async with FakeServer(Reply(headers={})).serving() as server:
        yield server


@pytest.fixture
async def function(patch: pytest.MonkeyPatch, server: FakeServer) -> AsyncIterator[Function]:
    """The function, imported with that environment."""
    patch.setenv("TAILRACE_WEBSOCKET_URL", f"{server.url}/live")
    function = await load()
    yield function
    await function.close()


def got(server: FakeServer) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what was posted: the path, the event and its data."""
    return [
        (found.path, found.body["event"].removeprefix("App\\Events\\"), found.body["data"]) for found in server.requests
    ]


async def test_changes(function: Function, server: FakeServer, backend: Backend) -> None:
    """A new conversation, a question and the end of a reply, to whoever listens; nothing private, nothing again."""
    event = sample("changes")
    conversation = event["Records"][0]["dynamodb"]["NewImage"]
    channel = f"conversation.{conversation['id']['S']}"
    await backend.store.subscriptions.put("private-user." + conversation["owner"]["S"], READER)
    for socket in (READER, STARTER):
        await backend.store.subscriptions.put(channel, socket)
    assert await function.call(event) == {"batchItemFailures": []}
    assert {path for path, _, _ in got(server)} == {f"/live/@connections/{READER.replace('=', '%3D')}"}
    told = sorted(got(server), key=lambda found: found[1] != "ConversationCreated")  # channels are told side by side
    assert [name for _, name, _ in told] == ["ConversationCreated", "MessageCreated", "MessageCompleted"]
    created, question, end = (data for _, _, data in told)
    assert created["conversation"]["title"] == "Robots"
    assert question["message"]["content"] == "Write a short story about a robot"
    assert (end["message"]["content"], end["message"]["seq"]) == ("Once upon", 3)
    for secret in ("You are brief.", "203.0.113.7", "alice"):
        assert secret in (EVENTS / "broadcast-changes.json").read_text()
        assert all(secret not in str(found.body["data"]) for found in server.requests)

    assert await function.call(event) == {"batchItemFailures": []}  # delivered twice
    assert len(server.requests) == 3


async def test_changes_when_the_table_cannot_be_read(patch: pytest.MonkeyPatch, server: FakeServer) -> None:
    """The batch comes again, from its first record on."""
    patch.setenv("TAILRACE_WEBSOCKET_URL", f"{server.url}/live")
    patch.setenv("TAILRACE_TABLE", "no-such-table")
    function = await load()
    try:
        event = sample("changes")
        number = event["Records"][0]["dynamodb"]["SequenceNumber"]
        assert await function.call(event) == {"batchItemFailures": [{"itemIdentifier": number}]}
    finally:
        await function.close()
    assert server.requests == []


async def test_fan_out(function: Function, server: FakeServer, backend: Backend) -> None:
    """A relay's batch: the beginning and the chunks, to all but the starter."""
    event = sample("fan-out")
    message_id, channel = event["fan_out"]["message_id"], event["fan_out"]["channel"]
    for number, text in enumerate(("Once ", "upon")):
        await backend.store.log.append(message_id, number, number + 1, [Text(text)], nonce=bytes(8))
    for socket in (READER, STARTER):
        await backend.store.subscriptions.put(channel, socket)
    assert await function.call(event) == {"subscribers": 1, "dropped": [], "refused": False}
    (_, created, shown), (path, chunk, data) = got(server)
    assert (created, shown["message"]["status"], chunk) == ("MessageCreated", "pending", "MessageChunkReceived")
    assert path == f"/live/@connections/{READER.replace('=', '%3D')}"
    assert data == {"message_id": message_id, "chunk": "Once upon", "seq": 2, "first_seq": 1, "chunk_count": 2}


@asynccontextmanager
async def in_lambda(
    patch: pytest.MonkeyPatch, server: FakeServer, answer: Reply
) -> AsyncIterator[tuple[Function, FakeServer]]:
    """Yield the function as in Lambda, and Lambda's API, which answers so when the function calls itself."""
    async with FakeServer(answer).serving() as further:
        patch.setenv("TAILRACE_WEBSOCKET_URL", f"{server.url}/live")
        patch.setenv("TAILRACE_AUTH", "iam")
        patch.setenv("AWS_LAMBDA_FUNCTION_NAME", "stack-Broadcast")
        patch.setenv("AWS_ENDPOINT_URL_LAMBDA", further.url)
        function = await load()
        try:
            yield function, further
        finally:
            await function.close()


async def test_fan_out_to_more_than_a_page(
    patch: pytest.MonkeyPatch, server: FakeServer, backend: Backend, settings: Settings
) -> None:
    """In Lambda the function calls itself for the subscribers beyond 500, and names those who were dropped there."""
    event = sample("fan-out")
    message_id, channel = event["fan_out"]["message_id"], event["fan_out"]["channel"]
    await backend.store.log.append(message_id, 0, 1, [Text("Once")], nonce=bytes(8))
    await asyncio.to_thread(subscribe_many, settings, channel, 501)
    answer = Reply(headers={}, pieces=[b'{"dropped":["s500="]}'])
    async with in_lambda(patch, server, answer) as (function, further):
        assert await function.call(event) == {"subscribers": 501, "dropped": ["s500="], "refused": False}
    (asked,) = further.requests
    (run,) = asked.body["post"]["runs"]
    assert asked.path == "/2015-03-31/functions/stack-Broadcast/invocations"
    assert [found["socket"] for found in run["subscriptions"]] == ["s500="]
    assert [json.loads(frame)["data"].get("chunk") for frame in run["frames"]] == [None, "Once"]
    posted = {found.path for found in server.requests}
    assert (len(posted), len(server.requests)) == (500, 1000)


async def test_an_end_to_more_than_a_page(
    patch: pytest.MonkeyPatch, server: FakeServer, backend: Backend, settings: Settings
) -> None:
    """In Lambda the function calls itself for those beyond 500: ten thousand posts one after the other are seconds."""
    event = sample("changes")
    channel = f"conversation.{event['Records'][0]['dynamodb']['NewImage']['id']['S']}"
    event["Records"] = event["Records"][2:]
    await asyncio.to_thread(subscribe_many, settings, channel, 501)
    answer = Reply(headers={}, pieces=[b'{"dropped":[],"posted":1}'])
    async with in_lambda(patch, server, answer) as (function, further):
        assert await function.call(event) == {"batchItemFailures": []}
    (asked,) = further.requests
    (run,) = asked.body["announce"]["runs"]
    assert [found["socket"] for found in run["subscriptions"]] == ["s500="]
    (frame,) = run["frames"]
    assert json.loads(frame)["event"] == "App\\Events\\MessageCompleted"
    assert len(server.requests) == 500


def subscribe_many(settings: Settings, channel: str, count: int) -> None:
    """Put as many subscriptions, quickly."""
    options: Any = {"region_name": settings.region, "endpoint_url": settings.dynamodb_endpoint}
    table = boto3.resource("dynamodb", **options).Table(settings.table)
    with table.batch_writer() as batch:
        for number in range(count):
            socket = f"s{number:03}="
            batch.put_item(
                {"pk": f"N#{channel}", "sk": socket, "socket": socket, "expires": 4_000_000_000, "since": number}
            )


async def test_who_does_not_read_is_dropped_from_a_hand_over(
    function: Function, server: FakeServer, backend: Backend
) -> None:
    """After a moment, since the relay and all the other subscribers wait for the answer; it names who was dropped."""
    event = sample("fan-out")
    message_id, channel = event["fan_out"]["message_id"], event["fan_out"]["channel"]
    await backend.store.log.append(message_id, 0, 1, [Text("Once")], nonce=bytes(8))
    await backend.store.subscriptions.put(channel, READER)
    server.reply = Reply(status=429, headers={})
    assert await function.call(event) == {"subscribers": 1, "dropped": [READER], "refused": False}
    assert {found.body["event"].rpartition("\\")[2] for found in server.requests} == {"MessageCreated"}
    assert len(server.requests) > 1  # it was tried again


@pytest.mark.parametrize("task", ["post", "announce"])
async def test_a_page(function: Function, server: FakeServer, task: str) -> None:
    """That another invocation shares out: the frames are posted as they are."""
    event = sample(task)
    assert await function.call(event) == {"dropped": [], "posted": 1, "refused": False}
    (found,) = server.requests
    assert found.body == json.loads(event[task]["runs"][0]["frames"][0])
    assert found.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")


async def test_connections_are_kept_between_calls(patch: pytest.MonkeyPatch, server: FakeServer) -> None:
    """One environment makes its TLS handshakes once, and not for every call."""
    patch.setenv("TAILRACE_WEBSOCKET_URL", f"{server.url}/live")

    def environment() -> None:
        module = load_function("broadcast")
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        for _ in range(5):
            module.handler(sample("post"), LambdaContext("tailrace-broadcast"))
        loop.run_until_complete(module.backend.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    await asyncio.to_thread(environment)
    assert (len(server.requests), server.connections) == (5, 1)


@pytest.mark.parametrize("off", [{"TAILRACE_BROADCAST": "off"}, {"TAILRACE_WEBSOCKET_URL": ""}])
async def test_switched_off(
    off: dict[str, str], patch: pytest.MonkeyPatch, server: FakeServer, backend: Backend
) -> None:
    """Nothing is sent, and nothing comes again."""
    event = sample("post")
    patch.setenv("TAILRACE_WEBSOCKET_URL", f"{server.url}/live")
    for name, value in off.items():
        patch.setenv(name, value)
    function = await load()
    try:
        assert await function.call(event) == {"batchItemFailures": []}
        assert await function.call(sample("changes")) == {"batchItemFailures": []}
    finally:
        await function.close()
    assert server.requests == []


async def test_the_sample_is_what_a_stream_has(backend: Backend, settings: Settings) -> None:
    """Its records have the fields of the emulator's own, which boto3 read."""
    conversation = await Conversation.create(system="x", title="x", backend=backend)
    await conversation.add_user_message("x", metadata={"private": {"x": 1}})
    real = records(settings)
    sampled = sample("changes")["Records"]
    for found, shown in zip(real[:2], sampled[:2], strict=True):
        assert shown.keys() - {"eventSourceARN"} <= found.keys()
        assert shown["eventName"] == found["eventName"]
        assert shown["dynamodb"].keys() - {"StreamViewType"} <= found["dynamodb"].keys()
        extra = {"channel", "except_socket"}  # of a start
        assert shown["dynamodb"]["NewImage"].keys() - extra == found["dynamodb"]["NewImage"].keys() - extra
    assert msgspec.json.encode(real)  # as Lambda's JSON is
