"""What EventBridge does in AWS, with a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any

import pytest
from tailrace.testing import START, ManualClock

from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction
from local.schedule import Rule, Schedule, scheduled_event

pytestmark = pytest.mark.anyio


class Calls:
    """A function's handler whose calls can be waited for."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.do: Callable[[], object] = lambda: None
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: Event, context: LambdaContext) -> dict[str, Any]:
        self._loop.call_soon_threadsafe(self.events.put_nowait, event)
        self.do()
        return {}


@asynccontextmanager
async def scheduled(calls: Calls, *rules: Rule) -> AsyncIterator[ManualClock]:
    """Run a schedule, and close it however the test ends."""
    clock = ManualClock()
    schedule = Schedule(LambdaFunction("sweep", calls, nullcontext), rules, clock=clock)
    async with asyncio.timeout(20):
        schedule.start()
        try:
            yield clock
        finally:
            await schedule.close()


async def called(calls: Calls, clock: ManualClock, seconds: float) -> Event:
    """Turn the clock until the next call is made: the thread of the one before may not be done yet."""
    while calls.events.empty():
        await clock.advance(seconds)
    return calls.events.get_nowait()


async def test_a_call_at_once_and_then_again_and_again() -> None:
    """Each rule has its own pace and its own input."""
    calls = Calls()
    async with scheduled(calls, Rule(15.0, {"task": "prune"})) as clock:
        assert await calls.events.get() == {"task": "prune"}
        assert await called(calls, clock, 15.0) == {"task": "prune"}
        assert await called(calls, clock, 15.0) == {"task": "prune"}


async def test_without_an_input_the_event_is_eventbridge_s() -> None:
    """It has the documented fields, and the time of the call."""
    calls = Calls()
    async with scheduled(calls, Rule(60.0, {})) as clock:
        event = await calls.events.get()
        assert event.keys() == scheduled_event(clock.now()).keys()
        assert event["detail-type"] == "Scheduled Event"
        assert datetime.fromisoformat(event["time"]).timestamp() * 1_000_000 == START


async def test_a_call_that_fails_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The schedule goes on; its owner hears of it when it begins, not at each call."""
    calls = Calls()

    def fail() -> None:
        raise ValueError("with a secret in it")

    calls.do = fail
    async with scheduled(calls, Rule(1.0, {})) as clock:
        for _ in range(3):
            await called(calls, clock, 1.0)
    assert capsys.readouterr().err == "sweep: ValueError\n"
