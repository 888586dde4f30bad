"""What a start costs as its conversation grows (promise: beyond the prompt's window, nothing).

    python -m benchmarks.long_history [--quick] [--plot]

The table is emulated in a process of its own, so that the CPU is ours alone; calls and read units are counted at the
socket, by AWS's rules. The emulator looks through all it has, which is the wall time's growth.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import sys
import time
from typing import Any

from tailrace import Backend, Conversation
from tailrace.clock import SystemClock
from tailrace.conversation.history import Window
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store, create_table
from tailrace.store.dynamodb import Payload

from benchmarks import measure
from benchmarks.plot import plot
from local.emulator import Emulator
from tests.write_units import item_bytes

REGION = "us-east-1"
WORDS = "A question of some words, or an answer to one. "
CASES = {"190 bytes": (WORDS * 4, 2_000), "3 KB": (WORDS * 64, 2_000), "3 KB, a longer window": (WORDS * 64, 20_000)}
"""What is said, and the window in tokens. The longer is as long as ordinary answers, and does not lie in its message's
item."""
ALLOWED = 1.5
"""Of what a start costs with a hundred messages."""


class Counted:
    """Passes calls on, and counts them, the units that they read, and the round trips: calls that begin while no other
    is under way."""

    def __init__(self, calls: DynamoDB) -> None:
        self._calls = calls
        self.made = 0
        self.units = 0.0
        self.round_trips = 0
        self._under_way = 0

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        self.made += 1
        self.round_trips += not self._under_way
        self._under_way += 1
        try:
            answer = await self._calls.call(operation, payload)
        finally:
            self._under_way -= 1
        if operation == "Query":
            units = math.ceil(sum(map(item_bytes, answer["Items"])) / 4096) or 1
            self.units += units if payload["ConsistentRead"] else units / 2
        elif operation == "GetItem":
            self.units += math.ceil(item_bytes(answer.get("Item", {})) / 4096) or 1
        elif operation == "BatchGetItem":
            found = [item for items in answer["Responses"].values() for item in items]
            self.units += sum(math.ceil(item_bytes(item) / 4096) for item in found)
        return answer


async def start(backend: Backend, conversation_id: str, window: Window) -> None:
    """Do what a start does up to its provider's call."""
    conversation, past = await Conversation.load_with_past(conversation_id, window, has_question=True, backend=backend)
    assert past.messages
    stream = await conversation.stream_response("And now?")
    await stream.cancel()


def measured(sizes: list[int], runs: int, content: str, window: Window) -> dict[int, dict[str, float]]:
    """Return the costs by the number of messages, each with this content."""
    emulator = Emulator()
    try:
        url = emulator.url()
        create_table("tailrace", REGION, url)
        return asyncio.run(_measured(url, sizes, runs, content, window))
    finally:
        emulator.end()


async def _measured(url: str, sizes: list[int], runs: int, content: str, window: Window) -> dict[int, dict[str, float]]:
    # The emulator copies all it has for a transaction, which takes seconds at last.
    dynamodb = DynamoDB(region=REGION, clock=SystemClock(), endpoint_url=url, attempt_timeout=60.0, deadline=300.0)
    counted = Counted(dynamodb)
    backend = Backend(Settings(broadcast=False), store=Store(counted, "tailrace"))
    found: dict[int, dict[str, float]] = {}
    for size in sizes:
        conversation = await Conversation.create(backend=backend)
        for begin in range(0, size, 100):
            count = min(100, size - begin)
            batch: list[Any] = [{"role": ("user", "assistant")[n % 2], "content": content} for n in range(count)]
            await conversation.add_messages(*batch)
        await start(backend, conversation.id, window)
        rows = []
        for _ in range(runs):
            counted.made = counted.units = counted.round_trips = 0
            cpu, wall = time.process_time(), time.perf_counter()
            await start(backend, conversation.id, window)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            rows.append((*spent, counted.made, counted.units, counted.round_trips))
        cpu, wall, calls, units, round_trips = (statistics.median(column) for column in zip(*rows, strict=True))
        found[size] = {
            "CPU ms": cpu * 1000,
            "wall ms": wall * 1000,
            "calls": calls,
            "read units": units,
            "round trips": round_trips,
        }
    await dynamodb.close()
    return found


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--plot", action="store_true", help="write docs/long-history.svg")
    given = parser.parse_args()
    sizes = [10, 100, 1_000] if given.quick else [10, 30, 100, 300, 1_000, 3_000, 10_000]
    fewer = [size for size in sizes if size <= 1_000]  # of long ones, for the emulator's sake
    os.environ.update({"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": REGION})
    runs = 5 if given.quick else 9
    by_case = {
        name: measured(sizes if len(content) < 1_000 else fewer, runs, content, Window(tokens=tokens))
        for name, (content, tokens) in CASES.items()
    }
    within = []
    for name, found in by_case.items():
        measure.heading(f"A start and its end, with a window of {CASES[name][1]:,} tokens: {name}")
        print(f"  {'messages':>9}" + "".join(f"{column:>12}" for column in found[10]))
        for size, row in found.items():
            print(f"  {size:>9,}" + "".join(f"{value:>12.1f}" for value in row.values()))
        print()
        last = found[max(found)]
        within += [
            measure.verdict(f"{cost} by those of 100 messages", last[cost] / found[100][cost], ALLOWED)
            for cost in ("CPU ms", "calls", "read units", "round trips")
        ]
    if given.plot:
        found = by_case["190 bytes"]
        lines = {name: [(size, row[name]) for size, row in found.items()] for name in found[10]}
        plot(
            measure.ROOT / "docs" / "long-history.svg",
            "What a start costs",
            "messages before it",
            "ms, or how many",
            lines,
        )
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
