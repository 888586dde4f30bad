"""The broadcast function: announces what the table's stream says, and fans out what a relay hands over."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Protocol

from tailrace.aws.event_loop import run
from tailrace.aws.invoke import Invoke
from tailrace.backend import Backend
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.lifecycle import Announcer
from tailrace.broadcast.paged_fan_out import PATIENCE, CallFunction, PagedFanOut
from tailrace.telemetry import logger

MARGIN: Final = 20.0
"""Seconds that are kept for what has been begun, when nothing else is: to a thousand clients of whom none reads."""

backend = Backend()


class Context(Protocol):
    """What is asked of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda stops the call."""
        ...


def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Announce the records of a batch, and return from which on they are to come again; or fan out
    (``{"fan_out": ...}`` from a relay; ``{"post": ...}`` and ``{"announce": ...}`` from another call of this one)."""
    if not backend.broadcast.on:
        return {"batchItemFailures": []}
    return run(_handle(event, context.get_remaining_time_in_millis() / 1000))


async def _handle(event: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    if "fan_out" in event:
        return dict(await _paged_fan_out().fan_out(event["fan_out"]))
    if "post" in event:
        return dict(await _paged_fan_out().post(event["post"]))
    if "announce" in event:
        return dict(await _announcements().post(event["announce"]))
    records = event["Records"]
    announced = await _announcer().announce(records, seconds=seconds - MARGIN)
    logger.info("announced", extra={"records": len(records), "events": announced.events, "posts": announced.posts})
    again = announced.again_from
    return {"batchItemFailures": [] if again is None else [{"itemIdentifier": again}]}


@cache
def _announcer() -> Announcer:
    return Announcer(_announcements(), backend.broadcast.frames, backend.store.messages, clock=backend.clock)


@cache
def _announcements() -> PagedFanOut:
    broadcast = backend.broadcast
    return PagedFanOut(broadcast.fan_out, broadcast.frames, backend.store, _call_itself(), task="announce")


@cache
def _paged_fan_out() -> PagedFanOut:
    broadcast = backend.broadcast
    fan_out = FanOut(broadcast.connections, broadcast.subscriptions, clock=backend.clock, patience=PATIENCE)
    fan_out.when_gone = broadcast.fan_out.when_gone
    return PagedFanOut(fan_out, broadcast.frames, backend.store, _call_itself())


@cache
def _call_itself() -> CallFunction | None:
    settings = backend.settings
    if not settings.in_lambda:  # elsewhere one process does it all
        return None
    itself = settings.environment["AWS_LAMBDA_FUNCTION_NAME"]
    invoke = Invoke(itself, region=settings.region, endpoint_url=settings.lambda_endpoint)
    backend.on_close(invoke.close)
    return invoke.call
