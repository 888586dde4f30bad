"""A plugin for the tests that need the stack: `pytest_plugins = ["tests.stack"]`. It is started once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from local.__main__ import READY
from local.child import Child
from local.client import Client


@pytest.fixture(scope="session")
def stack_url() -> Iterator[str]:
    """The address of the stack, started as `make run` does but on a free port; it ends cleanly after the tests."""
    stack = Child(["local", "--lifeline"], READY, {**os.environ, "PORT": "0"})
    try:
        yield stack.wait_until_ready().split()[0]
    finally:
        assert stack.end() == 0


@pytest.fixture
def client(stack_url: str) -> Client:
    """A client of the running stack."""
    return Client(stack_url)
