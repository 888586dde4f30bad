"""Replies of any length: when the first and the last byte come, and what the server holds meanwhile.

    python -m benchmarks.long_reply [--quick] [--plot]

``make run`` serves, with the table emulated in a process of its own; a reply comes from ``scripted`` as fast as it can.
Then it is replayed, as fast as the client reads and by clients of 1, 10 and 100 KB a second, each for some seconds. The
memory is the server's largest resident set, sampled while each reads, over what it had before that reader came.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from benchmarks import measure
from benchmarks.plot import plot

SLOW = (1, 10, 100)
"""KB a second."""
SLOW_SECONDS = 3.0
LARGEST_MB = 50
"""Over the server's size before: the buffers of one reader, and at the end the message's own text, for its ``done``."""


class Memory:
    """Samples a process's resident set."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.before = self.now()
        self.largest = 0.0
        self._task: asyncio.Task[None] | None = None

    def now(self) -> float:
        """Return MB."""
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    async def _sample(self) -> None:
        while True:
            self.largest = max(self.largest, self.now() - self.before)
            await asyncio.sleep(0.02)

    async def __aenter__(self) -> Memory:
        self.before, self.largest = self.now(), 0.0
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def read(response: aiohttp.ClientResponse, rate: int | None = None) -> tuple[float, float, int]:
    """Return the seconds until the first and the last byte, and how many there were.

    Args:
        rate: KB a second, for some seconds; to the end, as fast as it comes, when None.
    """
    begin = time.perf_counter()
    first, size = 0.0, 0
    while data := await response.content.read(1 << 16 if rate is None else min(rate * 100, 1 << 16)):
        first = first or time.perf_counter() - begin
        size += len(data)
        if rate is not None:
            await asyncio.sleep(max(size / (rate * 1000) - (time.perf_counter() - begin), 0))
            if time.perf_counter() - begin > SLOW_SECONDS:
                break
    return first, time.perf_counter() - begin, size


async def measured(port: int, pid: int, sizes: list[int]) -> dict[int, dict[str, tuple[float, float, int, float]]]:
    """Return for each number of chunks and each reader its seconds, its bytes and the server's memory."""
    found: dict[int, dict[str, tuple[float, float, int, float]]] = {}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout, read_bufsize=1 << 16) as session:
        async with session.post("/conversations", json={}) as response:
            conversation = (await response.json())["id"]

        async def reply(chunks: int) -> tuple[str, tuple[float, float, int]]:
            body = {"input": "Go", "options": {"script": {"chunks": chunks, "every": 0}}}
            async with session.post(f"/conversations/{conversation}/stream", json=body) as response:
                return response.headers["X-Message-Id"], await read(response)

        await reply(100)  # what is imported late
        memory = Memory(pid)
        for size in sizes:
            rows: dict[str, tuple[float, float, int, float]] = {}
            async with memory:
                message, taken = await reply(size)
            rows["starter"] = (*taken, memory.largest)
            async with memory, session.get(f"/messages/{message}/stream") as response:
                taken = await read(response)
            rows["replay"] = (*taken, memory.largest)
            for rate in SLOW:
                async with memory, session.get(f"/messages/{message}/stream") as response:
                    taken = await read(response, rate)
                rows[f"{rate} KB/s"] = (*taken, memory.largest)
            found[size] = rows
    return found


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--plot", action="store_true", help="write docs/long-reply.svg")
    given = parser.parse_args()
    sizes = [1_000, 10_000, 100_000] if given.quick else [1_000, 10_000, 100_000, 1_000_000]
    port = measure.free_port()
    environment = {**os.environ, "PORT": str(port)}
    command = [sys.executable, "-m", "local"]
    process = subprocess.Popen(command, cwd=measure.ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        measure.wait_for_health(port, process)
        found = asyncio.run(measured(port, process.pid, sizes))
    finally:
        process.terminate()
        process.wait()
    measure.heading("Replies of any length")
    print(f"  {'chunks':>10} {'reader':>10} {'first s':>9} {'last s':>9} {'MB read':>9} {'server MB':>10}")
    for size, rows in found.items():
        for name, (first, last, read_bytes, held) in rows.items():
            print(f"  {size:>10,} {name:>10} {first:>9.3f} {last:>9.2f} {read_bytes / 1e6:>9.2f} {held:>10.1f}")
    if given.plot:
        lines = {
            "starter, last byte": [(size, rows["starter"][1]) for size, rows in found.items()],
            "replay, last byte": [(size, rows["replay"][1]) for size, rows in found.items()],
            "replay, first byte": [(size, rows["replay"][0]) for size, rows in found.items()],
        }
        plot(measure.ROOT / "docs" / "long-reply.svg", "A reply that comes at once", "chunks", "seconds", lines)
    print()
    whole = all(rows["starter"][2] == rows["replay"][2] for rows in found.values())
    print("ok   starter and replay got the same bytes" if whole else "OVER starter and replay differ")
    held = max(row[3] for rows in found.values() for name, row in rows.items() if name != "starter")
    within = measure.verdict("MB that the server grows by for a reader of the log", held, LARGEST_MB)
    return 0 if whole and within else 1


if __name__ == "__main__":
    sys.exit(main())
