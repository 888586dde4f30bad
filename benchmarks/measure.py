"""What the measurements share: turns, medians, servers in processes of their own, and how a figure is printed.

The machine is shared and noisy, so nothing is timed twice in a row: subjects take turns, medians are
compared, and only the ratios within one table mean anything.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark's command line, with what all of them understand."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: about a minute, rougher figures")
    return parser


def medians(subjects: Mapping[str, Callable[[], Sequence[float]]], runs: int) -> dict[str, list[float]]:
    """Let the subjects take turns; return each one's medians, after a first turn that only warms up.

    Each turn begins with another subject, so that none is always first or always after the dearest one.
    Each call returns the same figures in the same order, such as wall time and CPU time.
    """
    taken: dict[str, list[Sequence[float]]] = {name: [] for name in subjects}
    names = list(subjects)
    for turn in range(runs + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            figures = subjects[name]()
            if turn:
                taken[name].append(figures)
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in taken.items()}


def percentile(figures: Sequence[float], part: float) -> float:
    """Return the figure that so large a part of them does not exceed; infinity if there is none."""
    if not figures:
        return math.inf
    return sorted(figures)[min(len(figures) - 1, int(part * len(figures)))]


def heading(title: str) -> None:
    """Print a table's title, and on what it was measured."""
    print(f"\n{title}  [CPython {platform.python_version()}, {os.cpu_count()} cores]")


def verdict(what: str, value: float, budget: float) -> bool:
    """Print a figure beside its budget; return whether it is within."""
    within = value <= budget
    print(f"{'ok  ' if within else 'OVER'} {what}: {value:.2f}, budget {budget:g}")
    return within


@contextmanager
def server(module: str, *argv: str) -> Iterator[int]:
    """Run ``python -m <module> <argv>`` while the block runs; yield the port that it prints first."""
    command = [sys.executable, "-m", module, *argv]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_health(port: int, process: subprocess.Popen[bytes], seconds: float = 60.0, path: str = "/health") -> None:
    """Return once ``GET /health``, or of another path, is answered with 200, asked every 2 ms."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                client.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
                if client.recv(4096).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            time.sleep(0.002)
    raise SystemExit(f"no answer from {process.args!r}")
