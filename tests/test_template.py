"""The template describes the table that the library's models use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tailrace.clock import SystemClock
from tailrace.settings import Settings
from tailrace.store import DynamoDB

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
