"""The agent in examples/ as a provider: what `make run EXAMPLE=agent` runs, and its layer has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agents.conftest import Replies

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "agent"


async def test_the_example(replies: Replies, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks the order up, in steps, and says what it found."""
    monkeypatch.syspath_prepend(EXAMPLE)
    (message,) = await replies("agent:support", "How does my order stand?")
    assert message["status"] == "completed"
    (result,) = message["metadata"]["tool_results"]
    assert result["name"] == "order_status"
    assert "Order " in result["result"]
    assert "order_status" in message["content"]
    assert message["metadata"]["steps"] == 2
