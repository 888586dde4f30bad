"""EventBridge on one machine: calls a function with an event at the start and then again and again."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from tailrace.clock import Clock, rfc3339

from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction


@dataclass(frozen=True)
class Rule:
    """When, and with what: EventBridge's own event if there is no input."""

    seconds: float
    input: Event


class Schedule:
    """Calls one function by its rules.

    Args:
        function: closed together with this.
    """

    def __init__(self, function: LambdaFunction, rules: Sequence[Rule], *, clock: Clock) -> None:
        self._function = function
        self._rules = rules
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._failing = False

    def start(self) -> None:
        """Make the first calls now, and go on until ``close``."""
        self._tasks = [asyncio.create_task(self._repeat(rule)) for rule in self._rules]

    async def close(self) -> None:
        """Make no more calls, and wait for one that is running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._function.close()

    async def _repeat(self, rule: Rule) -> None:
        while True:
            await self._call(rule)
            await self._clock.sleep(rule.seconds)

    async def _call(self, rule: Rule) -> None:
        event = rule.input or scheduled_event(self._clock.now())
        try:
            await self._function.call(event, LambdaContext(self._function.name))
        except Exception as error:  # as Lambda goes on after a call that failed
            if not self._failing:  # once, not every few seconds while the database is away
                print(f"{self._function.name}: {type(error).__name__}", file=sys.stderr)
            self._failing = True
        else:
            self._failing = False


def scheduled_event(now: int) -> Event:
    """Return what EventBridge sends for a rule without an input.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html

    Args:
        now: microseconds since 1970.
    """
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": f"{rfc3339(now)[:19]}Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/tailrace-sweep"],
        "detail": {},
    }
