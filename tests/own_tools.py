"""Tools of a user's own module. The tests name them as a setting does, and count what they do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from tailrace.conversation.tools import ToolContext, ToolError, tool

effects: Counter[str] = Counter()
"""How often each tool was called."""

contexts: list[ToolContext] = []

begun = asyncio.Event()
"""Set when ``wait_for_it`` is called."""


class Unit(Enum):
    """A scale."""

    CELSIUS = "celsius"
    KELVIN = "kelvin"


class Place(BaseModel):
    """Where it is."""

    name: str
    country: str | None = None


async def weather(city: str, unit: Unit = Unit.CELSIUS) -> dict[str, object]:
    """Tell the weather of a city.

    Args:
        city: its name.
        unit: the scale
            of the temperature.
    """
    effects["weather"] += 1
    return {"city": city, "degrees": 21, "unit": unit.value}


def distance(
    start: Place,
    end: Place,
    by: Literal["car", "foot"] = "car",
    rounded: Annotated[bool, Field(description="No digits?")] = True,
) -> float:
    """Measure the way between two places."""
    effects["distance"] += 1
    return 12.5 if start.name != end.name else 0


@tool(approval=True)
async def send_mail(to: str, context: ToolContext) -> str:
    """Send a mail."""
    effects["send_mail"] += 1
    contexts.append(context)
    return f"sent to {to}"


@tool(approval=lambda amount: amount > 100)
async def pay(amount: int) -> str:
    """Pay."""
    effects["pay"] += 1
    return "paid"


@tool(repeatable=True)
async def look_up(word: str) -> str:
    """Look a word up."""
    effects["look_up"] += 1
    return f"{word}: a noun"


async def refuse() -> None:
    """Say why there is nothing."""
    effects["refuse"] += 1
    raise ToolError("The library is closed.")


async def fail() -> None:
    """Break, in words that nobody may read."""
    effects["fail"] += 1
    raise ValueError("secret")


async def give_up() -> None:
    """Break with a timeout of its own, not of the call's."""
    effects["give_up"] += 1
    raise TimeoutError("secret")


@tool(timeout=0.05)
async def hang() -> None:
    """Never come back."""
    effects["hang"] += 1
    await asyncio.Event().wait()


async def wait_for_it() -> None:
    """Never come back, for as long as a tool may take."""
    effects["wait_for_it"] += 1
    begun.set()
    await asyncio.Event().wait()


@tool(timeout=0.05, name="sleepy")
def sleep_in_a_thread() -> str:
    """Take too long in a thread."""
    effects["sleepy"] += 1
    time.sleep(0.2)
    return "too late"


def odd() -> object:
    """Return what is no JSON."""
    return object()


def long() -> str:
    """Return too much."""
    return "x" * 300_000


everything = [
    *(weather, distance, send_mail, pay, look_up),
    *(refuse, fail, give_up, hang, wait_for_it, sleep_in_a_thread, odd, long),
]
