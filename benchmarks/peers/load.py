"""What the driver tells the client to do, and what the client found; and what a process tree has used."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

PROC: Final = Path("/proc")
TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Replies to be asked for.

    Attributes:
        port: where.
        pid: whose CPU time is measured, with that of its children; 0 for nobody's.
        requests: HTTP requests, each for a connection of its own.
        chunks: how many each reply has.
        at_once: how many connections there are at a time.
        ramp: seconds between two connections' beginnings.
        window: seconds that are measured, from ``settle`` seconds after every reply's first chunk; everything when 0.
        stamped: whether the text of each chunk is when it was sent.
        deadline: seconds after which what has not come is not waited for.
    """

    port: int
    pid: int
    requests: list[str]
    chunks: int
    at_once: int
    ramp: float = 0.0
    window: float = 0.0
    settle: float = 0.5
    stamped: bool = False
    deadline: float = 60.0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What came.

    Attributes:
        cpu: CPU seconds of the process tree in what was measured.
        seconds, chunks: how long that was, and how many chunks came in it.
        whole_cpu, whole_seconds: the same from the first connection to the end of the last one.
        own_cpu: CPU seconds of the client in what was measured.
        firsts: milliseconds from each connection's beginning to its first chunk.
        delays: milliseconds from when each stamped chunk was sent.
        body: what the first connection got, after the head of its answer.
        delivered: the chunks of all replies in the whole of it.
        complete: replies that were whole and ended.
        refused: starts that were answered with 429.
        failed: what was wrong with the first one that was not, or nothing.
    """

    cpu: float
    seconds: float
    chunks: int
    whole_cpu: float
    whole_seconds: float
    own_cpu: float
    firsts: list[float]
    delays: list[float]
    body: bytes
    delivered: int
    complete: int
    refused: int
    failed: str


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it is gone
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


class CpuTime(msgspec.Struct, frozen=True):
    """What processes have run for, up to a moment.

    Attributes:
        threads: nanoseconds of each thread that is there (https://docs.kernel.org/scheduler/sched-stats.html).
        coarse: seconds of all, with threads and children that are gone, in ticks of the clock.
    """

    threads: dict[int, int]
    coarse: float

    def since(self, before: CpuTime) -> float:
        """Return the seconds from another moment to this one."""
        coarse = self.coarse - before.coarse
        fine = sum(ran - before.threads.get(thread, 0) for thread, ran in self.threads.items()) / 1e9
        is_gone = any(thread not in self.threads for thread in before.threads)
        return coarse if is_gone or coarse - fine > 3 * TICK else fine


def cpu_time(pids: list[int]) -> CpuTime:
    """Return what processes have run for until now."""
    threads, ticks = {}, 0
    for pid in pids:
        for thread in (PROC / str(pid) / "task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # it is gone
                threads[int(thread.parent.name)] = int(thread.read_text().split()[0])
        with contextlib.suppress(OSError):
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # user and system, its own and its children's that are gone
    return CpuTime(threads, ticks * TICK)


def resident_mb(pids: list[int]) -> float:
    """Return the resident sets of processes in MB, what they share counted for each."""
    kilobytes = 0
    for pid in pids:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return kilobytes / 1024
