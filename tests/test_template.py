"""The template describes the table that the library's models use, and allows what is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation import Conversation
from tailrace.events import Text
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store
from tailrace.store.dynamodb import Payload
from tailrace.testing import ManualClock

TEMPLATE = Path(__file__).parent.parent / "template.yaml"


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short functions as what they are given."""


def _any(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


Loader.add_multi_constructor("!", _any)


def described(table: dict[str, Any]) -> dict[str, Any]:
    """Return what matters of a table's description."""
    return {
        "keys": table["KeySchema"],
        "attributes": sorted((a["AttributeName"], a["AttributeType"]) for a in table["AttributeDefinitions"]),
        "indexes": {
            index["IndexName"]: (index["KeySchema"], index["Projection"]["ProjectionType"])
            for index in table["GlobalSecondaryIndexes"]
        },
        "stream": table["StreamSpecification"]["StreamViewType"],
    }


@pytest.mark.anyio
async def test_the_table_is_the_one_the_models_make(settings: Settings) -> None:
    """Keys, indexes, stream and TTL are the same on one machine and in AWS."""
    properties = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]["Table"]["Properties"]
    dynamodb = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=SystemClock())
    made = (await dynamodb.call("DescribeTable", {"TableName": settings.table}))["Table"]
    expires = await dynamodb.call("DescribeTimeToLive", {"TableName": settings.table})
    await dynamodb.close()
    assert described(properties) == described(made)
    assert expires["TimeToLiveDescription"]["AttributeName"] == properties["TimeToLiveSpecification"]["AttributeName"]


class Operations:
    """DynamoDB, and the names of what was asked of it as IAM knows them."""

    def __init__(self, dynamodb: DynamoDB) -> None:
        self._dynamodb = dynamodb
        self.seen: set[str] = set()

    async def call(self, operation: str, payload: Payload) -> Payload:
        if operation == "TransactWriteItems":  # IAM asks for what the transaction consists of
            self.seen |= {f"dynamodb:{kind}Item" for write in payload["TransactItems"] for kind in write}
        else:
            self.seen.add(f"dynamodb:{operation}")
        return await self._dynamodb.call(operation, payload)


@pytest.mark.anyio
async def test_the_sweep_may_do_what_it_does_and_nothing_else(settings: Settings) -> None:
    """A sweep of a reply with long content and a prune need each permission of the sweep function."""
    sweep = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]["SweepFunction"]["Properties"]
    allowed: set[str] = set()
    for statement in sweep["Policies"][0]["Statement"]:
        action = statement["Action"]
        allowed |= {action} if isinstance(action, str) else set(action)

    clock = ManualClock()
    dynamodb = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=SystemClock())
    before = Backend(settings, store=Store(dynamodb, settings.table, clock=clock), clock=clock)
    conversation = await Conversation.create(backend=before)
    stream = await conversation.stream_response("hello")
    await before.store.log.append(stream.id, 0, 1, [Text("x" * 2000)], nonce=bytes(8))
    await before.store.conversations.delete(conversation.id, now=clock.now())

    operations = Operations(dynamodb)
    await clock.advance(settings.lease + 1)
    backend = Backend(settings, store=Store(operations, settings.table, clock=clock), clock=clock)
    assert (await backend.closing.sweep()).ended == 1
    assert await backend.store.prune(clock.now()) == 1
    await dynamodb.close()
    assert operations.seen == allowed
