"""What steps cost a reply that has one: CPU for a chunk from the provider to the log, by that of a reply without tools.

    python -m benchmarks.steps [--quick]

The scripted provider, the relay and the store's code, on a table in memory, in turns: a start as it is without tools;
one that offers a tool which the model does not call; and one whose model calls it again and again, for which the figure
is a step's, tool and stored call included. What a start without tools runs is what it was before there were steps.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from tailrace.backend import Backend
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.http.begin import Ask, begin, store_start
from tailrace.reply.relay import Relay
from tailrace.settings import Settings
from tailrace.store import Store

from benchmarks import measure
from tests.memory_calls import MemoryCalls

BUDGET = 1.15
STEPS = 8


async def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It is sunny in {city}."


def subject(options: dict[str, Any], per: int) -> Callable[[], list[float]]:
    """Return what measures one reply: microseconds of CPU for each of so many."""

    async def reply() -> float:
        settings = Settings(table="t", provider="scripted", model="fast", broadcast=False)
        backend = Backend(settings, store=Store(MemoryCalls(), "t"), tools=[weather])
        conversation = await Conversation.create(owner="u", backend=backend)
        begun = await begin(backend, "u", conversation.id, arrived=0.0)
        ask = Ask(options=options, additions=[NewMessage("user", "How is it?")])
        started = await store_start(backend, {"headers": []}, begun, ask)
        began = time.process_time()
        relay = Relay(started.stream, started.source, lambda first, events: None, clock=backend.clock)
        message = await relay.run()
        spent = time.process_time() - began
        assert message.status == "completed", message.error
        await backend.close()
        return spent / per * 1e6

    return lambda: [asyncio.run(reply())]


def main() -> int:
    given = measure.arguments(__doc__).parse_args()
    count = 5_000 if given.quick else 20_000
    text = {"chunks": count, "batch": 5}
    call = {"id": "c", "name": "weather", "arguments": '{"city":"Ulm"}'}
    calling = {"steps": [*({"chunks": 1, "tool_calls": [call]} for _ in range(STEPS - 1)), {"chunks": 1}]}
    rows = measure.medians(
        {
            "without tools, a chunk": subject({"script": text}, count),
            "a tool offered, a chunk": subject({"script": text, "tools": ["weather"]}, count),
            "a tool called, a step": subject({"script": calling, "tools": ["weather"]}, STEPS),
        },
        9 if given.quick else 21,
    )
    measure.heading("CPU of the relay")
    floor = rows["without tools, a chunk"][0]
    for name, (figure,) in rows.items():
        print(f"  {name:26}{figure:10.2f} µs")
    return 0 if measure.verdict("a tool offered", rows["a tool offered, a chunk"][0] / floor, BUDGET) else 1


if __name__ == "__main__":
    sys.exit(main())
