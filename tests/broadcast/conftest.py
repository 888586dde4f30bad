"""What the broadcast tests share: a management API on a socket, and a backend that broadcasts through it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from tailrace.backend import Backend
from tailrace.settings import Settings

from tests.broadcast.fake_management import FakeManagement


@pytest.fixture
async def management() -> AsyncIterator[FakeManagement]:
    """A management API."""
    async with FakeManagement().serve() as management:
        yield management


@pytest.fixture
async def broadcaster(settings: Settings, management: FakeManagement) -> AsyncIterator[Backend]:
    """A backend on the emulator that broadcasts; its flushes are far apart, so that tests decide when one is."""
    backend = Backend(msgspec.structs.replace(settings, websocket_url=management.url, flush_interval=0.01))
    yield backend
    management.let_go.set()
    await backend.close()
