"""The emulator decides conditions as DynamoDB does, and the environment is left as the user has it."""

from __future__ import annotations

import asyncio

import pytest
from tailrace.clock import SystemClock
from tailrace.store import DynamoDB, create_table
from tailrace.store.dynamodb import ConditionFailed

from local.environment import given_database, is_in_aws, make_quiet, use_emulator, use_gateway, use_given
from tests.conftest import REGION


@pytest.mark.anyio
async def test_one_of_many_wins(dynamodb_url: str) -> None:
    """Of many writes at once on the condition that nobody was there, exactly one wins."""
    create_table("race", REGION, dynamodb_url)
    calls = DynamoDB(region=REGION, clock=SystemClock(), endpoint_url=dynamodb_url)

    async def put(number: int) -> bool:
        request = {
            "TableName": "race",
            "Item": {"pk": {"S": "S#1"}, "sk": {"S": "L#0"}, "n": {"N": str(number)}},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        try:
            await calls.call("PutItem", request)
        except ConditionFailed:
            return False
        return True

    try:
        async with asyncio.timeout(30):
            assert sum(await asyncio.gather(*map(put, range(20)))) == 1
    finally:
        await calls.close()


def test_placeholders_only_where_nothing_was_set() -> None:
    """Our emulator gets placeholder credentials and a region; what the user set stays."""
    environment: dict[str, str] = {}
    use_emulator(environment, "http://127.0.0.1:1")
    assert environment["AWS_ACCESS_KEY_ID"] == "local"
    assert environment["AWS_REGION"] == "us-east-1"
    assert given_database(environment) == "http://127.0.0.1:1"
    environment = {"AWS_PROFILE": "mine", "AWS_DEFAULT_REGION": "eu-central-1"}
    use_emulator(environment, "http://127.0.0.1:1")
    assert environment.keys() == {"AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_DYNAMODB"}


@pytest.mark.parametrize(
    ("url", "placeholders"),
    [
        ("http://localhost:8000", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("https://dynamodb.eu-central-1.amazonaws.com", False),
        ("http://10.0.0.1:8000", False),
    ],
)
def test_a_database_elsewhere_never_gets_placeholders(url: str, placeholders: bool) -> None:
    """Placeholders sign only for a database on this machine."""
    environment = {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials"}
    use_given(environment, url)
    assert ("AWS_ACCESS_KEY_ID" in environment) is placeholders


def test_quiet_unless_asked() -> None:
    """No metrics, and warnings only; a level that was set stays."""
    environment: dict[str, str] = {}
    make_quiet(environment)
    assert environment == {"POWERTOOLS_METRICS_DISABLED": "true", "POWERTOOLS_LOG_LEVEL": "WARNING"}
    environment = {"POWERTOOLS_METRICS_DISABLED": "false", "LOG_LEVEL": "INFO"}
    make_quiet(environment)
    assert environment == {"POWERTOOLS_METRICS_DISABLED": "false", "LOG_LEVEL": "INFO"}


def test_our_own_websocket_api_only_where_nothing_was_set() -> None:
    """The functions find ours, with a secret of this run's own; what the user set stays."""
    environment: dict[str, str] = {}
    use_gateway(environment, "http://127.0.0.1:8787")
    assert environment["TAILRACE_WEBSOCKET_URL"] == "http://127.0.0.1:8787/ws"
    assert environment["AWS_ENDPOINT_URL_LAMBDA"] == "http://127.0.0.1:8787"
    assert len(environment["TAILRACE_CHANNEL_SECRET"]) == 64
    other: dict[str, str] = {}
    use_gateway(other, "http://127.0.0.1:8787")
    assert other["TAILRACE_CHANNEL_SECRET"] != environment["TAILRACE_CHANNEL_SECRET"]
    given = {
        "TAILRACE_WEBSOCKET_URL": "https://elsewhere/live",
        "TAILRACE_CHANNEL_SECRET_ID": "a-secret",
        "TAILRACE_BROADCAST_FUNCTION": "mine",
    }
    environment = dict(given)
    use_gateway(environment, "http://127.0.0.1:8787")
    assert environment == given


def test_dynamodb_itself() -> None:
    """Its stream is for the function that is deployed beside it."""
    assert is_in_aws("https://dynamodb.eu-central-1.amazonaws.com")
    assert not is_in_aws("http://127.0.0.1:8000")
    assert not is_in_aws("http://amazonaws.com.example:8000")
