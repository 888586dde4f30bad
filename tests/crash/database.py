"""The database of a crash run: moto's, in another process, which must not drown while servers die."""

from __future__ import annotations

from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store
from tailrace.store.items import Item, message_key
from tailrace.store.table import Table


def patient_backend(settings: Settings) -> Backend:
    """Return a backend that waits longer for a slow emulator than ours waits for DynamoDB. What a table that cannot be
    reached does to a reply is another test's (tests/http/test_faults.py)."""
    dynamodb = _patient(settings)
    backend = Backend(settings, store=Store(dynamodb, settings.table))
    backend.on_close(dynamodb.close)
    return backend


async def without_stream(settings: Settings) -> str:
    """Make another table like this one but for its stream; return its name. The emulator copies all records that a
    stream ever had in each transaction."""
    dynamodb = _patient(settings)
    described = (await dynamodb.call("DescribeTable", {"TableName": settings.table}))["Table"]
    wanted = ("IndexName", "KeySchema", "Projection")
    name = f"{settings.table}-crash"
    request = {
        **{key: described[key] for key in ("AttributeDefinitions", "KeySchema")},
        "TableName": name,
        "GlobalSecondaryIndexes": [
            {key: index[key] for key in wanted} for index in described["GlobalSecondaryIndexes"]
        ],
        "BillingMode": "PAY_PER_REQUEST",
    }
    await dynamodb.call("CreateTable", request)
    await dynamodb.close()
    return name


async def forget(settings: Settings, message_id: str) -> None:
    """Delete a reply that was judged, and its conversation: the emulator's transactions copy all it holds."""
    dynamodb = _patient(settings)
    table = Table(dynamodb, settings.table)
    for partition in (f"S#{message_id}", message_key(message_id)["pk"]):
        items = [item async for item in table.query(Item.pk == partition)]
        await table.delete_all([{"pk": item["pk"]["S"], "sk": item["sk"]["S"]} for item in items])
    await dynamodb.close()


def _patient(settings: Settings) -> DynamoDB:
    endpoint, clock = settings.dynamodb_endpoint, SystemClock()
    return DynamoDB(region=settings.region, endpoint_url=endpoint, clock=clock, attempt_timeout=20.0, deadline=60.0)
