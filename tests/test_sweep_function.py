"""functions/sweep, called as its schedule calls it: what it returns is what it counts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.settings import Settings
from tailrace.testing import ManualClock

from local.lambda_function import LambdaContext, load_function

pytestmark = pytest.mark.anyio


def metrics(output: str) -> list[dict[str, Any]]:
    """Return the metrics documents among what was printed."""
    return [json.loads(line) for line in output.splitlines() if '"_aws"' in line]


async def test_a_sweep_is_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An orphan is ended and counted as such; a sweep that finds nothing says so, and a prune says nothing."""
    before = Backend(settings, clock=ManualClock(SystemClock().now() - 60_000_000))
    conversation = await Conversation.create(backend=before)
    reply = await conversation.stream_response("hello")
    await before.close()

    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", settings.dynamodb_endpoint or "")
    monkeypatch.setenv("TAILRACE_TABLE", settings.table)
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    function = await asyncio.to_thread(load_function, "sweep")

    async def call(event: dict[str, object]) -> list[dict[str, Any]]:
        await asyncio.to_thread(function.handler, event, LambdaContext("tailrace-sweep"))
        return metrics(capsys.readouterr().out)

    (document,) = await call({})
    assert [document[name] for name in ("OldReplies", "InterruptedReplies", "StuckReplies")] == [[1.0], [1.0], [0.0]]
    (document,) = await call({})
    assert [document[name] for name in ("OldReplies", "InterruptedReplies", "StuckReplies")] == [[0.0], [0.0], [0.0]]
    assert await call({"task": "prune"}) == []
    after = Backend(settings)
    assert (await after.store.messages.get(reply.id)).status == "interrupted"
    await after.close()
