"""The table and the management API, in a process of their own: both answer at once.

    python -m benchmarks.peers.services

``GET`` empties the table and returns how many calls it had and how many posts came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from benchmarks.memory_table import MemoryTable
from benchmarks.server import Write, listen


class Services(MemoryTable):
    """Answers as DynamoDB or as the management API."""

    def __init__(self) -> None:
        super().__init__()
        self._counts = {"calls": 0, "posts": 0}

    def answer(self, head: bytes, body: bytes, write: Write) -> None:
        """Answer one request."""
        if head.startswith(b"GET"):
            write(200, msgspec.json.encode(self._counts))
            self._counts = dict.fromkeys(self._counts, 0)
            self.forget()
        elif b"@connections/" in head[:200]:
            self._counts["posts"] += 1
            write(200, b"")
        else:
            super().answer(head, body, write)

    def made(self, operation: str, request: Mapping[str, Any]) -> None:
        """See ``MemoryTable.made``."""
        self._counts["calls"] += 1


async def serve() -> None:
    """Serve on a free port, which is printed."""
    async with await listen(Services().answer) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
