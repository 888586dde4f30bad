"""What template.yaml says of the functions for subscribers: when they wake, and what they may do."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import yaml
from tailrace.backend import Backend
from tailrace.broadcast.announcer import Announcer
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.hand_over import HandOver
from tailrace.broadcast.lifecycle import announcement
from tailrace.broadcast.socket import Sockets
from tailrace.clock import SystemClock
from tailrace.conversation import Conversation
from tailrace.events import TERMINAL
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store, change

from local.event_source import EventSource, read_event_source
from tests.broadcast.table_stream import Record, records
from tests.broadcast.test_lifecycle import image, record
from tests.broadcast.websocket import Clients, event, subscribing
from tests.test_template import TEMPLATE, Loader, Operations

RESOURCES: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]


def allowed(function: str) -> set[str]:
    """Return the DynamoDB actions in a function's own policy, but for those on the stream."""
    (policy,) = (policy for policy in RESOURCES[function]["Properties"]["Policies"] if isinstance(policy, dict))
    actions: set[str] = set()
    for statement in policy["Statement"]:
        action = statement["Action"]
        actions |= {action} if isinstance(action, str) else set(action)
    on_streams = {f"dynamodb:{name}" for name in ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")}
    return {action for action in actions - on_streams if action.startswith("dynamodb:")}


# ---- when the broadcast function wakes ----


def wakes(source: EventSource, found: Record) -> bool:
    """Return whether the function is called for a record; and it is so exactly for what is announced."""
    announced = announcement(change(found)) is not None
    assert source.takes(found) is announced, found
    return announced


@pytest.mark.anyio
async def test_it_wakes_for_what_it_sends_and_nothing_else(backend: Backend, settings: Settings) -> None:
    """Of all that a conversation writes, those records pass the filters of which subscribers are told."""
    await backend.store.subscriptions.put("conversation.x", "socket")
    conversation = await Conversation.create(backend=backend)
    await conversation.add_system_message("secret")
    stream = await conversation.stream_response("hello")
    await stream.append("x" * 3000)
    await stream.complete()
    await backend.closing.cancel((await conversation.stream_response()).id)
    await backend.store.conversations.update(conversation.id, now=backend.clock.now(), title="Rivers")
    await backend.store.subscriptions.remove("conversation.x", "socket")
    await backend.store.conversations.delete(conversation.id, now=backend.clock.now())
    await backend.store.prune(backend.clock.now())
    source = read_event_source("BroadcastOnChanges")
    found = records(settings)
    assert len(found) > 15
    assert sum(wakes(source, each) for each in found) == 6


@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_it_sleeps_while_a_relay_feeds(end: str) -> None:
    """Neither the beginning of such a reply nor its end wakes it, but the update that says that the relay is done."""
    source = read_event_source("BroadcastOnChanges")
    states = [None, image("pending", feeding=True), image(end, feeding=True), image(end)]
    told = []
    for before, after in itertools.pairwise(states):
        kind = "INSERT" if before is None else "MODIFY"
        keys = {"pk": {"S": "C#tag"}, "sk": {"S": "M#7#random"}}
        found = record(before, after)
        told.append(wakes(source, {**found, "eventName": kind, "dynamodb": {**found["dynamodb"], "Keys": keys}}))
    assert told == [False, False, True]


def test_a_failure_is_repeated_from_where_it_was() -> None:
    """In parts, for as long as it makes sense, and what is given up is kept to be looked at."""
    source = read_event_source("BroadcastOnChanges")
    assert (source.reports, source.bisects) == (True, True)
    assert source.retries == 10
    assert source.oldest == 3600
    mapping = RESOURCES["BroadcastOnChanges"]["Properties"]
    assert mapping["DestinationConfig"] == {"OnFailure": {"Destination": "BroadcastFailures.Arn"}}


# ---- who may do what ----


@pytest.mark.anyio
async def test_the_broadcast_function_may_do_what_it_does(settings: Settings) -> None:
    """Long content, a fan-out and a socket that is gone need each of its permissions, and no other."""
    dynamodb = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=SystemClock())
    before = Store(dynamodb, settings.table)
    backend = Backend(settings, store=before)
    conversation = await Conversation.create(backend=backend)
    channel = f"conversation.{conversation.id}"
    await before.subscriptions.put(channel, "gone")
    stream = await conversation.stream_response("hello")
    await stream.append("x" * 3000)
    await stream.complete()

    operations, clients = Operations(dynamodb), Clients()
    clients.gone.add("gone")
    store = Store(operations, settings.table)
    fan_out = FanOut(clients, store.subscriptions, clock=SystemClock())
    await Announcer(fan_out, Frames(""), store.messages, clock=SystemClock()).announce(records(settings), seconds=20)
    batch = {"message_id": stream.id, "channel": channel, "first": 0, "last": 0}
    await HandOver(fan_out, Frames(""), store.log, store.subscriptions, None).fan_out(batch)
    await dynamodb.close()
    assert operations.seen == allowed("BroadcastFunction")


async def no_secret() -> str:
    """Return what public channels do not need."""
    raise AssertionError


@pytest.mark.anyio
async def test_the_websocket_function_may_do_what_it_does(settings: Settings) -> None:
    """A socket that comes, subscribes, catches up with a reply that is written and one that is over, and goes."""
    dynamodb = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=SystemClock())
    backend = Backend(settings, store=Store(dynamodb, settings.table))
    conversation = await Conversation.create(owner="ada", backend=backend)
    channel = f"conversation.{conversation.id}"
    over = await conversation.stream_response("hello")
    await over.append("x" * 3000)
    await over.complete()
    live = await conversation.stream_response("hello")
    await live.append("x" * 3000)

    operations, clients = Operations(dynamodb), Clients()
    store = Store(operations, settings.table)
    fan_out = FanOut(clients, store.subscriptions, clock=SystemClock())
    sockets = Sockets(store, fan_out, Frames(""), SystemClock(), secret=no_secret, open_to_all=False)
    await sockets.handle(event("websocket-connect", "socket"), "ada")
    asked = subscribing("socket", channel, after={over.id: 0, live.id: 0})
    await sockets.handle({**event("websocket-ping", "socket"), "body": json.dumps(asked)}, None)
    told = [frame["event"] for frame in clients.got["socket"]]
    assert (told[0], told[-1]) == ("subscription_succeeded", "MessageChunkReceived")
    assert "MessageCompleted" in told
    await sockets.handle(event("websocket-disconnect", "socket"), None)
    await live.cancel()
    await dynamodb.close()
    assert operations.seen == allowed("WebSocketFunction")


def test_the_namespace_is_the_library_s() -> None:
    """A backslash means something else in many places, and nothing here."""
    parameters = yaml.load(TEMPLATE.read_text(), Loader)["Parameters"]
    assert parameters["EventNamespace"]["Default"] == Settings().event_namespace == "App\\Events\\"


def test_nobody_connects_unseen() -> None:
    """Unless tokens are asked for, which the function looks at; what a connection sends later is under what was
    checked then."""
    routes = {
        found["Properties"]["RouteKey"]: found["Properties"].get("AuthorizationType")
        for found in RESOURCES.values()
        if found["Type"] == "AWS::ApiGatewayV2::Route"
    }
    assert routes == {"$connect": ["WithJwt", "NONE", "AWS_IAM"], "$disconnect": None, "$default": None}


def test_the_function_does_not_call_itself_by_name() -> None:
    """Its own name would be a circle in the template; Lambda tells it (AWS_LAMBDA_FUNCTION_NAME)."""
    for function in ("StreamFunction", "ApiFunction"):
        variables = RESOURCES[function]["Properties"]["Environment"]["Variables"]
        assert variables["TAILRACE_BROADCAST_FUNCTION"] == "BroadcastFunction"
    assert "Environment" not in RESOURCES["BroadcastFunction"]["Properties"]
