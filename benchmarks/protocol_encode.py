"""CPU for a chunk in each wire format, by the simple protocol's.

    python -m benchmarks.protocol_encode [--quick]

No server and no client: the encoder of a reader is given text as a relay gives it, one chunk at a time and 20 at a
time. What a format has to say once a reply, such as its beginning, does not count.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from tailrace.events import Text
from tailrace.protocols import DEFAULT, PROTOCOLS, find_protocol
from tailrace.protocols.reader import Opening, Reading

from benchmarks import measure

BUDGET = 1.3
MESSAGE_ID = "BvTTQ3kJcqobLFauBmDfkn0gZdZMaGxOEKBifWnfEpP0exk"
WORDS: Final = [Text(word) for word in ("The ", "tail", "race ", "carries ", "the water ", "away. ")]
SIZES = (1, 20)


def subject(name: str, size: int, count: int) -> Callable[[], list[float]]:
    """Return what measures one format: microseconds a chunk."""

    def encode() -> list[float]:
        protocol = find_protocol(name)(Opening(message_id=MESSAGE_ID, conversation_id="c"), Reading(monotonic=float))
        protocol.begin()
        protocol.events(1, WORDS)
        batches = [[WORDS[(first + at) % len(WORDS)] for at in range(size)] for first in range(0, count, size)]
        began = time.process_time()
        for number, batch in enumerate(batches):
            protocol.events(len(WORDS) + 1 + number * size, batch)
        return [(time.process_time() - began) / count * 1e6]

    return encode


def main() -> int:
    given = measure.arguments(__doc__).parse_args()
    count = 20_000 if given.quick else 100_000
    within = []
    for size in SIZES:
        rows = measure.medians({name: subject(name, size, count) for name in PROTOCOLS}, 7 if given.quick else 15)
        measure.heading(f"{size} chunks at a time: CPU for a chunk")
        (floor,) = rows[DEFAULT]
        for name, (figure,) in rows.items():
            print(f"  {name:26}{figure:8.2f} µs {figure / floor:6.2f}")
        within += [
            measure.verdict(f"{name} by {DEFAULT}, {size} at a time", figure / floor, BUDGET)
            for name, (figure,) in rows.items()
            if name != DEFAULT
        ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
