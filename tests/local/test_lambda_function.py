"""A function in threads: what becomes of calls that are running when it is closed."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext
from typing import Any

import pytest
from tailrace.aws.event_loop import run

from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction

pytestmark = pytest.mark.anyio


async def test_calls_that_last_are_cancelled() -> None:
    """They end as a server's do: with the time to say so, and before the function is closed."""
    begun = threading.Event()
    said: list[str] = []

    async def lasting() -> dict[str, Any]:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            said.append("goodbye")
            raise
        return {}

    function = LambdaFunction("f", lambda event, context: run(lasting()), nullcontext, environments=1, cancels=True)
    calls = [asyncio.create_task(function.call({}, LambdaContext("f"))) for _ in range(2)]
    assert await asyncio.to_thread(begun.wait, 20)
    async with asyncio.timeout(20):
        await function.close()
        done = await asyncio.gather(*calls, return_exceptions=True)
    assert said == ["goodbye"]
    assert all(isinstance(each, asyncio.CancelledError) for each in done), "the second one had not begun"


async def test_other_calls_are_waited_for() -> None:
    """As they are in AWS."""
    begun, may_end = threading.Event(), threading.Event()

    def handler(event: Event, context: LambdaContext) -> dict[str, Any]:
        begun.set()
        return {"ended": may_end.wait(20)}

    function = LambdaFunction("f", handler, nullcontext)
    call = asyncio.create_task(function.call({}, LambdaContext("f")))
    assert await asyncio.to_thread(begun.wait, 20)
    closing = asyncio.create_task(function.close())
    may_end.set()
    await closing
    assert await call == {"ended": True}
