"""The sweep function, called by a schedule: ends replies whose writer is gone, and prunes what was deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from tailrace.backend import Backend
from tailrace.telemetry import logger
from tailrace.telemetry import swept as send_metrics

MARGIN: Final = 30.0
"""Seconds that are kept for what has been begun: a conversation of thousands of messages."""

backend = Backend()


class Context(Protocol):
    """What is asked of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda stops the call."""
        ...


def handler(event: Mapping[str, object], context: Context) -> dict[str, int]:
    """Sweep; or prune, when the schedule's input is ``{"task": "prune"}``. Return what was done."""
    seconds = context.get_remaining_time_in_millis() / 1000 - MARGIN
    return asyncio.run(_run("prune" if event.get("task") == "prune" else "sweep", seconds))


async def _run(task: str, seconds: float) -> dict[str, int]:
    try:
        done = await (_prune(seconds) if task == "prune" else _sweep())
    finally:
        await backend.close()  # its connections belong to this call's event loop
    logger.info(task, extra=done)
    return done


async def _sweep() -> dict[str, int]:
    swept = await backend.open_replies.sweep()
    send_metrics(looked_at=swept.looked_at, ended=swept.ended, failed=swept.failed)
    return {"looked_at": swept.looked_at, "ended": swept.ended, "failed": swept.failed}


async def _prune(seconds: float) -> dict[str, int]:
    deleted_before = backend.clock.now() - backend.settings.prune_after * 1_000_000
    return {"pruned": await backend.store.prune(deleted_before, seconds=seconds)}
