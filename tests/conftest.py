"""What the tests share: DynamoDB emulated by moto's server on a free port, and a backend on it.

With `--dynamodb-local` it is Amazon's DynamoDB Local instead, and only the tests that use a DynamoDB run.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from tailrace.backend import Backend
from tailrace.settings import Settings
from tailrace.store import create_table

from local.emulator import Emulator
from tests.real.dynamodb_local import DynamoDBLocal

REGION = "us-east-1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of a DynamoDB."""
    parser.addoption("--dynamodb-local", action="store_true", help="run what uses a DynamoDB, on DynamoDB Local")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With DynamoDB Local, leave out what would be the same run again."""
    if config.getoption("--dynamodb-local"):
        kept = [item for item in items if "dynamodb_url" in getattr(item, "fixturenames", ()) or _is_real(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _is_real(item: pytest.Item) -> bool:
    return item.path.parent.name == "real"


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


@pytest.fixture
def settings(dynamodb_url: str) -> Settings:
    """Settings as on one machine, with a table of the test's own."""
    table = f"tailrace-{os.urandom(6).hex()}"
    create_table(table, REGION, dynamodb_url)
    return Settings(table=table, region=REGION, dynamodb_endpoint=dynamodb_url)


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
