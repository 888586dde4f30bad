"""What template.yaml says of the functions for subscribers: when they wake, and how they are set up."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from tailrace.backend import Backend
from tailrace.broadcast.lifecycle import announcement
from tailrace.conversation.conversation import Conversation
from tailrace.events import TERMINAL
from tailrace.settings import Settings
from tailrace.store import change

from local.event_source import EventSource, read_event_source
from tests.broadcast.table_stream import Record, records
from tests.broadcast.test_lifecycle import image, record
from tests.test_template import TEMPLATE, Loader

RESOURCES: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]


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
    await backend.open_replies.cancel((await conversation.stream_response()).id)
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


# ---- the rest ----


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
