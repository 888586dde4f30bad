"""The sweep function, called by a schedule: ends replies whose writer is gone, and prunes what was deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tailrace.backend import Backend
from tailrace.telemetry import logger
from tailrace.telemetry import swept as send_metrics

backend = Backend()


def handler(event: Mapping[str, object], context: object) -> dict[str, int]:
    """Sweep; or prune, when the schedule's input is ``{"task": "prune"}``. Return what was done."""
    return asyncio.run(_run("prune" if event.get("task") == "prune" else "sweep"))


async def _run(task: str) -> dict[str, int]:
    try:
        done = await (_prune() if task == "prune" else _sweep())
    finally:
        await backend.close()  # its connections belong to this call's event loop
    logger.info(task, extra=done)
    return done


async def _sweep() -> dict[str, int]:
    swept = await backend.open_replies.sweep()
    send_metrics(looked_at=swept.looked_at, ended=swept.ended, failed=swept.failed)
    return {"looked_at": swept.looked_at, "ended": swept.ended, "failed": swept.failed}


async def _prune() -> dict[str, int]:
    deleted_before = backend.clock.now() - backend.settings.prune_after * 1_000_000
    return {"pruned": await backend.store.prune(deleted_before)}
