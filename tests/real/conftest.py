"""The table that the built functions share, and those of them that most tests need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tailrace.settings import Settings
from tailrace.store import create_table

from tests.conftest import REGION
from tests.deployed import put_keys
from tests.real.lambda_emulator import EmulatedFunction


@pytest.fixture(scope="session")
def table(dynamodb_url: str) -> Settings:
    """The table of the functions."""
    create_table("functions", REGION, dynamodb_url)
    return Settings(table="functions", region=REGION, dynamodb_endpoint=dynamodb_url)


@pytest.fixture(scope="session")
def variables(table: Settings, emulator_url: str) -> dict[str, str]:
    """What the stack's parameters and the account would give every function. Secrets Manager is moto's."""
    put_keys(emulator_url)
    return {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": emulator_url,
        "AWS_ENDPOINT_URL_DYNAMODB": table.dynamodb_endpoint or "",
        "TAILRACE_TABLE": table.table,
        "TAILRACE_WEBSOCKET_URL": "http://127.0.0.1:1/live",  # nobody subscribes, unless a test says where
        "TAILRACE_AUTH": "iam",
        "TAILRACE_LEASE_S": "30",
        "TAILRACE_PRUNE_DAYS": "7",
        "TAILRACE_LIMIT_SOCKETS": "20",
        "TAILRACE_LIMIT_CHANNELS": "100",
        "TAILRACE_LIMIT_WHISPERS": "10",
        "POWERTOOLS_METRICS_DISABLED": "true",
    }


@pytest.fixture
async def api(variables: dict[str, str], tmp_path: Path) -> AsyncIterator[EmulatedFunction]:
    """The API function, run by Lambda's Python client."""
    (folder := tmp_path / "api").mkdir()
    async with EmulatedFunction.run("api", folder, variables) as function:
        yield function


@pytest.fixture
async def stream(variables: dict[str, str], tmp_path: Path) -> AsyncIterator[EmulatedFunction]:
    """The stream function, run by the Web Adapter."""
    (folder := tmp_path / "stream").mkdir()
    async with EmulatedFunction.run("stream", folder, variables) as function:
        yield function
