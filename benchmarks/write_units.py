"""DynamoDB's write units for one reply of 50 chunks a second (budgets: section 5 of benchmarks/README.md).

    python -m benchmarks.write_units [--quick]

Nothing is timed and nobody is asked: the relay, the stream and the store run on a clock turned by hand, and
tests/write_units.py counts their requests by AWS's published rules. So the figures are exact, and the same everywhere.
"""

from __future__ import annotations

import asyncio
import math
import sys

from tailrace.reply.log_writer import ALONE, READ_ALONG

from benchmarks import measure
from tests.memory_calls import MemoryCalls
from tests.write_units import PER_SECOND, STORED_OVERHEAD, chunk, item_bytes, reply

START_AND_END = 10
ITEM = 150
"""Bytes of keys and attributes beside the text, in the designs that are only computed."""


class Cost:
    """What one reply cost."""

    def __init__(self, chunks: int, flush_interval: float | None) -> None:
        memory = MemoryCalls()
        message, calls, _ = asyncio.run(reply(memory, chunks, flush_interval=flush_interval))
        self.units = calls.units.total()
        self.indexes = calls.units["indexes"]
        self.text = len(message.content.encode())
        self.flushes = math.ceil(chunks / PER_SECOND / (flush_interval or ALONE))
        sizes = {key: item_bytes(item) for key, item in memory.items.items()}
        self.log = sum(size for (_, sort), size in sizes.items() if sort.startswith("L#"))
        self.segments = sum(sort.startswith("L#") for _, sort in sizes)
        # The content's parts have keys of one kind, beside the message or the log.
        self.content = sum(size for (_, sort), size in sizes.items() if sort.startswith("T#"))
        self.content += max(size for (_, sort), size in sizes.items() if sort.startswith("M#"))
        # What has no date to expire at stays, whatever the design says.
        segments = [item for (_, sort), item in memory.items.items() if sort.startswith("L#")]
        self.expires = all("expires" in item for item in segments)
        self.kept = self.content if self.expires else self.content + self.log

    @property
    def beside(self) -> int:
        """Units that are neither a flush nor the text's own KB."""
        return self.units - self.flushes - math.ceil(self.text / 1024)


def text_bytes(chunks: int) -> int:
    """Return the bytes of that many chunks."""
    return sum(len(chunk(number).text.encode()) for number in range(chunks))


def rewritten(chunks: int) -> int:
    """Return the units of putting the whole content again for each chunk."""
    units = size = 0
    for number in range(chunks):
        size += len(chunk(number).text.encode())
        units += math.ceil((size + ITEM) / 1024)
    return units


def main() -> int:
    given = measure.arguments(__doc__).parse_args()
    counts = (100, 1_000) if given.quick else (100, 1_000, 10_000)
    alone = [Cost(chunks, None) for chunks in counts]
    hundred = [Cost(chunks, READ_ALONG) for chunks in counts]
    quarter = [Cost(chunks, 0.25) for chunks in counts]
    second = [Cost(chunks, 1.0) for chunks in counts]
    rows = {
        "the content again for each chunk": [rewritten(chunks) for chunks in counts],
        "an item a chunk, with a counter": [2 * chunks for chunks in counts],
        "Tailrace, nobody reads along": [cost.units for cost in alone],
        "Tailrace, a flush every 100 ms": [cost.units for cost in hundred],
        "Tailrace, every 250 ms": [cost.units for cost in quarter],
        "Tailrace, every second": [cost.units for cost in second],
        "the text alone, 1 KB a unit": [math.ceil(cost.text / 1024) for cost in hundred],
    }
    print("\nWrite units of one reply, from its start to its end")
    print(f"  {'':34}" + "".join(f"{f'{chunks:,} chunks':>16}" for chunks in counts))
    for name, row in rows.items():
        print(f"  {name:34}" + "".join(f"{units:16,}" for units in row))

    print("\nOf those at 100 ms")
    for name, values in (
        ("flushes", [cost.flushes for cost in hundred]),
        ("the text's own KB", [math.ceil(cost.text / 1024) for cost in hundred]),
        ("start and end", [cost.beside for cost in hundred]),
        ("  of that, indexes (in transactions, so doubled)", [cost.indexes for cost in hundred]),
    ):
        print(f"  {name:50}" + "".join(f"{value:16,}" for value in values))

    print("\nBytes stored for a byte of text (with the 100 that DynamoDB adds to each item)")
    for label, costs in (("100 ms", hundred), ("1 s", second)):
        log = [(cost.log, cost.log + cost.segments * STORED_OVERHEAD) for cost in costs]
        ratios = [f"{a / cost.text:.1f} ({b / cost.text:.1f})" for (a, b), cost in zip(log, costs, strict=True)]
        print(f"  {f'the log, {label}':34}" + "".join(f"{ratio:>16}" for ratio in ratios))
    print(f"  {'the message, for good':34}" + "".join(f"{cost.content / cost.text:16.2f}" for cost in hundred))

    if not hundred[-1].expires:
        print("  (segments carry no `expires`, so the log is never removed: it counts as stored for good)")
    worst = max(Cost(chunks, 0.1).beside for chunks in range(10, 1000, 60 if given.quick else 20))
    print()
    within = [
        measure.verdict("start and end, the dearest of many lengths to 4 KB", worst, START_AND_END),
        measure.verdict(
            "stored for good per byte of text, the longest reply", hundred[-1].kept / hundred[-1].text, 1.5
        ),
    ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
