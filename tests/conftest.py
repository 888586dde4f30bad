"""What the tests share: DynamoDB emulated by moto's server on a free port, and a backend on it.

With `--dynamodb-local` it is Amazon's DynamoDB Local instead, and only the tests run that it could decide otherwise:
those that use a DynamoDB, but for the files of ``BY_THE_WAY``.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest
import tailrace
from tailrace.backend import Backend
from tailrace.settings import Settings
from tailrace.store import create_table

from local.emulator import Emulator
from tests.real.dynamodb_local import DynamoDBLocal

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TESTS: Final = Path(__file__).parent

REGION = "us-east-1"

BY_THE_WAY: Final = frozenset(
    {
        "broadcast/test_fan_out.py",
        "http/test_api.py",
        "http/test_broadcasting.py",
        "http/test_canaries.py",
        "http/test_connection.py",
        "http/test_delivery.py",
        "http/test_fallbacks.py",
        "http/test_faults.py",
        "http/test_hostile.py",
        "http/test_odd_requests.py",
        "http/test_owner.py",
        "http/test_protocols.py",
        "http/test_shutdown.py",
        "local/test_stack.py",
        "local/test_table_stream.py::test_a_transaction_costs_what_it_changes",  # moto's own trouble
        "test_docs.py",
        "test_events.py",
        "test_permissions.py",
        "test_settings.py",
    }
)
"""The files, and single tests, of which the table is not the point: an application needs one, and what it is asked
about is who may, what a provider or a client does, or how something is shown. What looks at the table itself stays:
conditions, transactions, orders, pages and sizes, who wins, what is left, and what the stream says. A file that is not
here runs on both; whoever adds one does not have to think of it.
"""


if "CI" in os.environ:
    # Hypothesis draws from the constants of the modules that are loaded. With all of them, a test has the same examples
    # whichever tests its process has run before. The adapters need the frameworks, which are not there.
    for module in pkgutil.walk_packages(tailrace.__path__, "tailrace."):
        if not module.name.startswith("tailrace.providers.adapters."):
            importlib.import_module(module.name)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of a DynamoDB."""
    parser.addoption("--dynamodb-local", action="store_true", help="run what uses a DynamoDB, on DynamoDB Local")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With DynamoDB Local, leave out what would be the same run again."""
    if config.getoption("--dynamodb-local"):
        if gone := [name for name in BY_THE_WAY if not (TESTS / name.partition("::")[0]).exists()]:
            raise pytest.UsageError(f"BY_THE_WAY names what is not there: {gone}")
        kept = [item for item in items if _could_disagree(item)]
        config.hook.pytest_deselected(items=[item for item in items if not _could_disagree(item)])
        items[:] = kept


def _could_disagree(item: pytest.Item) -> bool:
    file = item.path.relative_to(TESTS).as_posix()
    uses_one = "dynamodb_url" in getattr(item, "fixturenames", ())
    return file.startswith("real/") or (uses_one and not BY_THE_WAY & {file, f"{file}::{item.name}"})


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[None]:
    """Credentials that the emulator does not look at, and nothing of the machine's own settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", REGION)
        patch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
        for name in [name for name in os.environ if name.startswith(("TAILRACE_", "ANTHROPIC_", "OPENAI_"))]:
            patch.delenv(name)
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"):
            patch.delenv(name, raising=False)
        yield


SECRET: Final = re.compile(r"eyJ[\w-]{8,}\.eyJ|trg_[\w-]{40}|\bsk-[\w-]{8,}|Bearer \w")
"""A token of an issuer, of a grant, a provider's key, the header that they come in."""


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test is about: no line that the library has logged in it has a token or a key."""
    yield
    for record in caplog.get_records("call"):
        if record.name.startswith("tailrace"):
            line = f"{record.getMessage()} {record.__dict__}"
            assert SECRET.search(line) is None, line


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def emulator_url() -> Iterator[str]:
    """The address of moto's server, which has other services too."""
    emulator = Emulator()
    yield emulator.url()
    emulator.end()


@pytest.fixture(scope="session")
def dynamodb_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a DynamoDB: the emulator's, or DynamoDB Local's."""
    if not request.config.getoption("--dynamodb-local"):
        yield request.getfixturevalue("emulator_url")
        return
    local = DynamoDBLocal()
    yield local.url()
    local.end()


@pytest.fixture(scope="session")
def dynamodb_client(dynamodb_url: str) -> DynamoDBClient:
    """A client of it, for what is not the library's to do. Making one takes longer than making a table."""
    return boto3.client("dynamodb", region_name=REGION, endpoint_url=dynamodb_url)


@pytest.fixture(scope="session")
def table_as_made(dynamodb_url: str, dynamodb_client: DynamoDBClient) -> Any:
    """What makes a table like the one that the library makes."""
    create_table("as-made", REGION, dynamodb_url)
    made = dynamodb_client.describe_table(TableName="as-made")["Table"]
    return {
        "AttributeDefinitions": made["AttributeDefinitions"],
        "KeySchema": made["KeySchema"],
        "GlobalSecondaryIndexes": [
            {"IndexName": index["IndexName"], "KeySchema": index["KeySchema"], "Projection": index["Projection"]}
            for index in made["GlobalSecondaryIndexes"]
        ],
        "StreamSpecification": made["StreamSpecification"],
        "BillingMode": made["BillingModeSummary"]["BillingMode"],
    }


@pytest.fixture
def settings(dynamodb_url: str, dynamodb_client: DynamoDBClient, table_as_made: Any) -> Iterator[Settings]:
    """Settings as on one machine, with a table of the test's own, which goes with it: DynamoDB Local becomes slower
    with every table that it has."""
    table = f"tailrace-{os.urandom(6).hex()}"
    dynamodb_client.create_table(TableName=table, **table_as_made)
    dynamodb_client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})
    dynamodb_client.update_time_to_live(
        TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
    )
    yield Settings(table=table, region=REGION, dynamodb_endpoint=dynamodb_url, flush_interval=0.1)
    dynamodb_client.delete_table(TableName=table)


@pytest.fixture
async def backend(settings: Settings) -> AsyncIterator[Backend]:
    """A backend on the emulator, closed at the end."""
    backend = Backend(settings)
    yield backend
    await backend.close()


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
