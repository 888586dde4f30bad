"""Each function may do what it does, and nothing else: its role in template.yaml is held against what it calls.

Every event of events/ that a function gets is given to it, and then whatever makes it call what it rarely calls. All
that reaches an endpoint of AWS is noted (``aws_endpoint.py``). What the role has and nobody asked for, or the reverse,
fails here; so does docs/permissions.md where it says something else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from tailrace.backend import Backend
from tailrace.broadcast.channels import signature
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.testing import ManualClock

from tests.aws_endpoint import AwsEndpoint, Permission
from tests.broadcast.table_stream import records
from tests.broadcast.test_function import sample as broadcast_sample
from tests.broadcast.test_function import subscribe_many
from tests.broadcast.test_websocket_function import SAMPLES
from tests.broadcast.test_websocket_function import sample as websocket_sample
from tests.deployed import Deployed, deployed, put_keys
from tests.issuer import SECRET, shared_token
from tests.permissions import FUNCTIONS, allowed, documented, named
from tests.test_events import REQUESTS, sample

pytestmark = pytest.mark.anyio

ALICE: Final = sample("api-health")["requestContext"]["authorizer"]["iam"]["userArn"]

LONG: Final = "x" * 3000
"""Content that does not lie in its message's item."""

BY_AWS: Final = {
    "broadcast": {
        # The event source mapping reads the stream, and writes down what it gave up, in the function's name:
        # https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-eventsourcemapping.html
        Permission("dynamodb:DescribeStream", "the table's stream"),
        Permission("dynamodb:GetRecords", "the table's stream"),
        Permission("dynamodb:GetShardIterator", "the table's stream"),
        Permission("dynamodb:ListStreams", "everything"),
        Permission("sqs:SendMessage", "the queue of failures"),
    },
    # Secrets Manager and Parameter Store decrypt in the caller's name; the template allows it through those two alone.
    "stream": {Permission("kms:Decrypt", "the keys' KMS key")},
    "api": {Permission("kms:Decrypt", "the keys' KMS key")},
    "chat": {
        Permission("kms:Decrypt", "the keys' KMS key"),
        # Lambda tells of a call that failed, in the function's name:
        # https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
        Permission("lambda:InvokeFunction", "the WebSocket function"),
    },
}
"""What AWS itself does with a function's role, which nothing here can call."""

TABLE_S_KEY: Final = {
    Permission(f"kms:{action}", "the table's KMS key")
    for action in ("Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo")
}
"""What DynamoDB does in its caller's name, whoever that is."""


@pytest.fixture
async def aws(settings: Settings, emulator_url: str) -> AsyncIterator[AwsEndpoint]:
    """All that a function calls of AWS."""
    await asyncio.to_thread(put_keys, emulator_url)
    async with AwsEndpoint(settings.dynamodb_endpoint or "", emulator_url).serve() as endpoint:
        yield endpoint


def seen(aws: AwsEndpoint, settings: Settings) -> set[Permission]:
    """Return what was asked for, in the words of ``permissions.py``."""
    return {Permission(action, named(resource.replace(settings.table, "Table"))) for action, resource in aws.seen}


async def ids(backend: Backend) -> dict[str, str]:
    """Return what stands in for the placeholders of a sample: Alice's conversation, with a reply that is over."""
    conversation = await Conversation.create(owner=ALICE, backend=backend)
    question = await conversation.add_user_message("hello")
    stream = await conversation.stream_response()
    for chunk in ("Once ", "upon ", "a time"):
        await stream.append(chunk)
    await stream.complete()
    return {"CONVERSATION_ID": conversation.id, "MESSAGE_ID": question.id, "REPLY_ID": stream.id}


async def open_reply(backend: Backend, text: str) -> MessageStream:
    """Return a reply that is being written, with its text in the log."""
    conversation = await Conversation.create(owner=ALICE, backend=backend)
    stream = await conversation.stream_response("hello")
    await stream.append(text)
    async with asyncio.timeout(20):
        while (await backend.store.messages.get(stream.id)).seq < stream.seq:
            pass  # each look is a call, which gives the writer its turn
    return stream


def start(conversation_id: str, **body: Any) -> dict[str, Any]:
    """Return the event of a start, without an idempotency key."""
    event = sample("stream-start", CONVERSATION_ID=conversation_id)
    event["body"] = json.dumps({"input": "hello", "model": "fast", **body})
    for header in ("idempotency-key", "content-length"):
        event["headers"].pop(header, None)
    return event


async def serve_requests(function: Deployed, backend: Backend, aws: AwsEndpoint) -> None:
    """Have replies started, read and ended in every way."""
    for name in REQUESTS:
        await function.call(sample(name, **await ids(backend)))
    for provider in ("anthropic", "openai", "groq", "bedrock"):
        here = await ids(backend)
        asked = start(here["CONVERSATION_ID"], provider=provider, model="BedrockModels", options={"retries": 0})
        assert (await function.call(asked))["statusCode"] == 200
    # A long one, and a reader of it.
    here = await ids(backend)
    started = await function.call(start(here["CONVERSATION_ID"], options={"script": {"chunks": [LONG]}}))
    reply = {"REPLY_ID": started["headers"]["x-message-id"]}
    await function.call(sample("stream-message-stream", **reply))
    # One that is written elsewhere, and is cancelled here; and one whose writer has died.
    elsewhere = await open_reply(backend, LONG)
    await function.call(sample("api-message-cancel", REPLY_ID=elsewhere.id, MESSAGE_ID=elsewhere.id))
    dead = Backend(backend.settings, clock=ManualClock(SystemClock().now() - 3600 * 1_000_000))
    orphan = await open_reply(dead, LONG)
    await function.call(sample("stream-message-stream", REPLY_ID=orphan.id))
    await dead.close()
    # With a subscriber who is gone, and with more than a relay serves.
    for sockets in (("gone",), ("one", "two")):
        here = await ids(backend)
        for socket in sockets:
            await backend.store.subscriptions.put(f"conversation.{here['CONVERSATION_ID']}", socket)
        await function.call(start(here["CONVERSATION_ID"]))


@pytest.mark.parametrize("name", ["stream", "api"])
async def test_who_serves_requests(name: str, aws: AwsEndpoint, settings: Settings, backend: Backend) -> None:
    """The two functions that clients call, with a caller that IAM knows and with a token."""
    aws.gone.add("gone")
    async with deployed(name, aws, settings, TAILRACE_FAN_OUT_LIMIT="1") as function:
        await serve_requests(function, backend, aws)
    event = sample("stream-start", **await ids(backend))
    event["headers"]["authorization"] = f"Bearer {shared_token({'sub': ALICE, 'exp': int(time.time()) + 600})}"
    async with deployed(name, aws, settings, TAILRACE_AUTH="jwt") as function:
        assert (await function.call(event))["statusCode"] == 200
    check(name, aws, settings)


async def test_websocket(aws: AwsEndpoint, settings: Settings, backend: Backend) -> None:
    """A socket that comes, subscribes, catches up with a reply that is written and one that is over, and goes."""
    over, live = await ids(backend), await open_reply(backend, LONG)
    done = await open_reply(backend, LONG)
    await done.complete()
    socket = websocket_sample("ping")["requestContext"]["connectionId"]

    def signed(channel: str, member: str | None = None) -> str:
        return signature(SECRET, socket, channel.replace("CONVERSATION_ID", over["CONVERSATION_ID"]), member)

    auths = {
        "subscribe-private": signed("private-conversation.CONVERSATION_ID"),
        "subscribe-presence": signed("presence-conversation.CONVERSATION_ID", '{"user_id":"ada","user_info":{}}'),
    }
    connect = websocket_sample("connect")
    connect["requestContext"]["identity"]["userArn"] = ALICE
    others = [name for name in SAMPLES if name not in ("connect", "disconnect")]
    async with deployed("websocket", aws, settings) as function:
        await function.call(connect)
        for name in sorted(others, key=lambda name: not name.startswith("subscribe")):
            values = {**over, "USER_ID": "ada", "CHANNEL_AUTH": auths.get(name, ""), "MESSAGE_ID": over["REPLY_ID"]}
            await function.call(websocket_sample(name, **values))
        for stream in (live, done):
            channel = f"conversation.{(await backend.store.messages.get(stream.id)).conversation_id}"
            asked = {"event": "subscribe", "data": {"channel": channel, "after": {stream.id: 0}}}
            await function.call({**websocket_sample("ping"), "body": json.dumps(asked)})
        await live.cancel()
        await function.call(websocket_sample("disconnect"))
        aws.gone.add(socket)
        await function.call(websocket_sample("whoami"))
    connect["headers"]["Authorization"] = f"Bearer {shared_token({'sub': ALICE, 'exp': int(time.time()) + 600})}"
    async with deployed("websocket", aws, settings, TAILRACE_AUTH="jwt") as function:
        await function.call(connect)
    assert {answer["statusCode"] for answer in function.answers} == {200}
    check("websocket", aws, settings)


def send(chat: str, request: str, **body: Any) -> dict[str, Any]:
    """Return the event of a chat's request, of Alice's."""
    event: dict[str, Any] = sample("chat-send")
    frame = {**json.loads(event["chat"]["frame"]), "id": chat, "requestId": request}
    event["chat"]["frame"] = json.dumps({**frame, "body": {**frame["body"], **body}})
    return event


async def test_chat(aws: AwsEndpoint, settings: Settings, backend: Backend) -> None:
    """Chats that are answered by each provider, asked again, resumed, and heard by others."""
    aws.gone.add("gone")
    async with deployed("chat", aws, settings, TAILRACE_FAN_OUT_LIMIT="1") as function:
        for provider in ("anthropic", "openai", "groq", "bedrock"):
            model = {"provider": provider, "model": "BedrockModels", "options": {"retries": 0}}
            await function.call(send(f"of {provider}", provider, **model))
        for sockets in (("gone",), ("one", "two")):
            here = (await ids(backend))["CONVERSATION_ID"]
            for socket in sockets:
                await backend.store.subscriptions.put(f"conversation.{here}", socket)
            for request in ("first", "again"):
                await function.call(send(here, f"{here} {request}", options={"script": {"chunks": [LONG]}}))
        await function.call(sample("chat-resume"))
    check("chat", aws, settings)


async def test_broadcast(aws: AwsEndpoint, settings: Settings, backend: Backend) -> None:
    """Records, one of a long reply, of which a socket that is gone should hear; and a reply that was handed over, for
    so many that they are shared out."""
    aws.gone.add("gone")
    reply = await open_reply(backend, LONG)
    channel = f"conversation.{(await backend.store.messages.get(reply.id)).conversation_id}"
    await backend.store.subscriptions.put(channel, "gone")
    await reply.complete()
    found = await asyncio.to_thread(records, settings)
    handed_over = broadcast_sample("fan-out", MESSAGE_ID=reply.id)
    handed_over["fan_out"]["channel"] = "conversation.many"
    await asyncio.to_thread(subscribe_many, settings, "conversation.many", 501)
    async with deployed("broadcast", aws, settings) as function:
        assert await function.call({"Records": found}) == {"batchItemFailures": []}
        assert await function.call(broadcast_sample("changes")) == {"batchItemFailures": []}
        assert (await function.call(handed_over))["subscribers"] == 501
        await function.call(broadcast_sample("post"))
    check("broadcast", aws, settings)


async def test_sweep(aws: AwsEndpoint, settings: Settings) -> None:
    """A long reply whose writer is dead, and a conversation that was deleted long ago."""
    then = SystemClock().now() - 3600 * 1_000_000
    before = Backend(settings, clock=ManualClock(then))
    reply = await open_reply(before, LONG)
    conversation = (await before.store.messages.get(reply.id)).conversation_id
    async with deployed("sweep", aws, settings, TAILRACE_PRUNE_DAYS="0") as function:
        assert (await function.call(sample("sweep-schedule")))["ended"] == 1
        await before.store.conversations.delete(conversation, now=then)
        assert await function.call(sample("sweep-prune")) == {"pruned": 1}
    await before.close()
    check("sweep", aws, settings)


def check(function: str, aws: AwsEndpoint, settings: Settings) -> None:
    """Hold what a function called against what it may call."""
    by_aws = BY_AWS.get(function, set()) | TABLE_S_KEY
    may, did = allowed(function), seen(aws, settings)
    assert sorted(did - may) == [], "template.yaml does not allow what is called"
    assert sorted(may - did) == sorted(by_aws), "template.yaml allows what nobody calls"


def test_what_is_documented() -> None:
    """docs/permissions.md has what template.yaml has."""
    assert documented() == {function: allowed(function) for function in FUNCTIONS}


async def test_what_is_denied(aws: AwsEndpoint, settings: Settings, backend: Backend) -> None:
    """The check can fail: a call of boto3's and one of our own are both seen, and a role without them is refused."""
    here = await ids(backend)
    async with deployed("api", aws, settings) as function:
        aws.denied = {"dynamodb:GetItem"}
        assert (await function.call(sample("api-conversation-read", **here)))["statusCode"] == 503
        assert seen(aws, settings) == {Permission("dynamodb:GetItem", "the table")}
        aws.denied = {"secretsmanager:GetSecretValue"}
        assert (await function.call(start(here["CONVERSATION_ID"], provider="anthropic")))["statusCode"] == 503
        assert Permission("secretsmanager:GetSecretValue", "the providers' secrets") in seen(aws, settings)
