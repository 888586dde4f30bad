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
WINDOW = Window(tokens=2_000)
WORDS = "A question of some words, or an answer to one. " * 4
ALLOWED = 1.5
"""Of what a start costs with a hundred messages."""


class Counted:
    """Passes calls on, and counts them and the units that they read."""

    def __init__(self, calls: DynamoDB) -> None:
        self._calls = calls
        self.made = 0
        self.units = 0

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        answer = await self._calls.call(operation, payload)
        self.made += 1
        if operation == "Query":
            self.units += math.ceil(sum(map(item_bytes, answer["Items"])) / 4096)
        elif operation == "GetItem":
            self.units += math.ceil(item_bytes(answer.get("Item", {})) / 4096) or 1
        elif operation == "BatchGetItem":
            found = [item for items in answer["Responses"].values() for item in items]
            self.units += sum(math.ceil(item_bytes(item) / 4096) for item in found)
        return answer


async def start(backend: Backend, conversation_id: str) -> None:
    """Do what a start does up to its provider's call."""
    conversation, past = await Conversation.load_with_past(conversation_id, WINDOW, has_question=True, backend=backend)
    assert past.messages
    stream = await conversation.stream_response("And now?")
    await stream.cancel()


async def measured(url: str, sizes: list[int], runs: int) -> dict[int, dict[str, float]]:
    """Return the costs by the number of messages."""
    dynamodb = DynamoDB(region=REGION, clock=SystemClock(), endpoint_url=url)
    counted = Counted(dynamodb)
    backend = Backend(Settings(broadcast=False), store=Store(counted, "tailrace"))
    found: dict[int, dict[str, float]] = {}
    for size in sizes:
        conversation = await Conversation.create(backend=backend)
        for begin in range(0, size, 100):
            count = min(100, size - begin)
            batch: list[Any] = [{"role": ("user", "assistant")[n % 2], "content": WORDS} for n in range(count)]
            await conversation.add_messages(*batch)
        await start(backend, conversation.id)
        rows = []
        for _ in range(runs):
            counted.made = counted.units = 0
            cpu, wall = time.process_time(), time.perf_counter()
            await start(backend, conversation.id)
            rows.append((time.process_time() - cpu, time.perf_counter() - wall, counted.made, counted.units))
        cpu, wall, calls, units = (statistics.median(column) for column in zip(*rows, strict=True))
        found[size] = {"CPU ms": cpu * 1000, "wall ms": wall * 1000, "calls": calls, "read units": units}
    await dynamodb.close()
    return found


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--plot", action="store_true", help="write docs/long-history.svg")
    given = parser.parse_args()
    sizes = [10, 100, 1_000] if given.quick else [10, 30, 100, 300, 1_000, 3_000, 10_000]
    os.environ.update({"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": REGION})
    emulator = Emulator()
    try:
        url = emulator.url()
        create_table("tailrace", REGION, url)
        found = asyncio.run(measured(url, sizes, 5 if given.quick else 9))
    finally:
        emulator.end()
    measure.heading(f"A start and its end, with a window of {WINDOW.tokens} tokens")
    print(f"  {'messages':>9}" + "".join(f"{name:>12}" for name in found[sizes[0]]))
    for size, row in found.items():
        print(f"  {size:>9,}" + "".join(f"{value:>12.1f}" for value in row.values()))
    if given.plot:
        lines = {name: [(size, row[name]) for size, row in found.items()] for name in found[sizes[0]]}
        plot(measure.ROOT / "docs" / "long-history.svg", "What a start costs", "messages before it", "", lines)
    print()
    last = found[sizes[-1]]
    names = ("CPU ms", "calls", "read units")
    within = [
        measure.verdict(f"{name} by those of 100 messages", last[name] / found[100][name], ALLOWED) for name in names
    ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
