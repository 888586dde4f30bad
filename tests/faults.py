"""Faults by name, put between the store and DynamoDB, and a way to wait for its calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Literal

from tailrace.errors import StoreError
from tailrace.store import Calls
from tailrace.store.dynamodb import Payload

Fault = Literal["refused", "applied, answer lost"]

Choose = Callable[[str, Payload], Fault | None]
"""Takes the operation and its request; returns the fault, or None for none."""

UNAVAILABLE = "The store is not available. Please try again."


class FaultyCalls:
    """Passes calls on to ``inner``, but for those that ``choose`` picks.

    ``refused``: DynamoDB never saw it. ``applied, answer lost``: it did, and nobody here knows.
    Either way the caller gets what it gets when the deadline has passed.
    """

    def __init__(self, inner: Calls, choose: Choose = lambda operation, payload: None) -> None:
        self.inner = inner
        self.choose = choose
        self.made: list[tuple[str, Payload]] = []
        self._changed = asyncio.Condition()
        self._finished = 0

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call, or fail."""
        async with self._changed:
            self.made.append((operation, payload))
            self._changed.notify_all()
        try:
            fault = self.choose(operation, payload)
            if fault == "refused":
                raise StoreError(UNAVAILABLE)
            answer = await self.inner.call(operation, payload)
            if fault is not None:
                raise StoreError(UNAVAILABLE)
            return answer
        finally:
            async with self._changed:
                self._finished += 1
                self._changed.notify_all()

    async def finished(self, count: int) -> None:
        """Wait until so many calls, and all that were made, have ended."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self._finished == len(self.made) >= count)

    async def started(self, count: int) -> None:
        """Wait until so many calls were made."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: len(self.made) >= count)

    @property
    def appends(self) -> list[Payload]:
        """The requests that put a segment on its own."""
        return [payload for operation, payload in self.made if is_append(operation, payload)]


def once(fault: Fault, where: Callable[[str, Payload], bool], nth: int = 0) -> Choose:
    """Return the fault for the nth call that ``where`` picks, and none for all others."""
    count = itertools.count()

    def choose(operation: str, payload: Payload) -> Fault | None:
        return fault if where(operation, payload) and next(count) == nth else None

    return choose


def is_append(operation: str, payload: Payload) -> bool:
    """Whether a call puts a segment that does not end the stream."""
    return operation == "PutItem" and str(payload["Item"]["sk"]["S"]).startswith("L#")


def is_end(operation: str, payload: Payload) -> bool:
    """Whether a call ends a stream."""
    return operation == "TransactWriteItems" and "Update" in payload["TransactItems"][-1]


def is_start(operation: str, payload: Payload) -> bool:
    """Whether a call starts a reply with its user message."""
    return operation == "TransactWriteItems" and "Put" in payload["TransactItems"][-1]
