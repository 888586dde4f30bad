"""Many replies in one process on one core: what each costs, what a quiet one notices of loud ones, and where it ends.

    python -m benchmarks.many_streams [--quick]

The stream function as it is deployed, with its table in another process, from 50 to 500 replies at 50 chunks a second;
one quiet reply beside twenty that come as fast as they can; and starts that all come at the same moment. Provider,
table and client share what other cores there are, and with two cores they reach their own end at some 500 replies too:
what is said then is from above.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from benchmarks import measure
from benchmarks.peers.asked import Asked
from benchmarks.peers.kinds import RATE, WARM, Kind, paced
from benchmarks.peers.load import Found
from benchmarks.peers.serving import Client, Process, Running, cores, served

SUBJECT: Final = "tailrace-quiet"
BUDGET_KB: Final = 100
"""Memory of a stream beyond its text."""

BUDGET_UNFAIR: Final = 0.1
"""Seconds that a quiet reply's chunk may be late at p99 beside twenty that come as fast as they can."""


def peak_mb(subject: Running, work: Callable[[], Found]) -> tuple[Found, float]:
    """Return what was found, and the largest memory of the subject meanwhile."""
    peak, over = subject.mb(), threading.Event()

    def look() -> None:
        nonlocal peak
        while not over.wait(0.1):
            peak = max(peak, subject.mb())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        return work(), peak
    finally:
        over.set()
        looking.join()


def many(client: Client, subject: Running, quick: bool) -> bool:
    """From 50 to 500 replies at once."""
    measure.heading(f"So many replies at once, each at {RATE} chunks a second")
    print("  replies  core  us a chunk  of the rate   delay p50   p99, ms   KB a reply beyond its text")
    largest = 0.0
    for streams in (50, 500) if quick else (50, 100, 200, 350, 500):
        kind = paced(streams, 3.0, 0.016, 3.0)
        kind = msgspec.structs.replace(kind, asked=Asked(kind.asked.chunks, RATE, stamped=True))
        before = subject.mb()
        found, peak = peak_mb(subject, lambda kind=kind: subject.run(client, kind))  # type: ignore[misc]
        text = kind.asked.chunks * 17 / 1024  # as JSON has it, once
        kb = (peak - before) * 1024 / streams - text
        largest = max(largest, kb)
        came = found.chunks / found.seconds / (streams * RATE)
        print(
            f"  {streams:7}{found.cpu / found.seconds:6.0%}{found.cpu / max(found.chunks, 1) * 1e6:12.1f}{came:13.0%}"
            f"{measure.percentile(found.delays, 0.5):12.1f}{measure.percentile(found.delays, 0.99):10.1f}{kb:12.0f}"
            + (f"   {found.failed}" if found.failed else "")
        )
    return measure.verdict("KB a reply beyond its text", largest, BUDGET_KB)


def fair(client: Client, other: Client, subject: Running) -> bool:
    """A quiet reply alone, and beside loud ones."""
    measure.heading("A quiet reply, at 20 chunks a second")
    quiet = Kind(streams=1, asked=Asked(100, 20, stamped=True), replies=1)
    loud = Kind(streams=20, asked=Asked(20_000), replies=60)
    late = 0.0
    for beside in (None, loud):
        with ThreadPoolExecutor(1) as threads:
            noise = None if beside is None else threads.submit(subject.run, other, beside)
            found = subject.run(client, quiet)
            late = measure.percentile(found.delays, 0.99)
            label = "alone" if beside is None else f"beside {loud.streams} of {loud.asked.chunks:,} chunks at once"
            print(f"  {label:44} p50 {measure.percentile(found.delays, 0.5):7.1f} ms, p99 {late:7.1f} ms")
            if noise is not None:
                came = noise.result()
                rate = came.delivered / came.whole_seconds
                print(f"  {'these meanwhile':44} {came.complete} whole, {rate:,.0f} chunks/s")
    return measure.verdict("seconds late, p99", late / 1000, BUDGET_UNFAIR)


def storm(client: Client, subject: Running, quick: bool) -> bool:
    """Starts that come at the same moment, and one after them."""
    measure.heading("Starts at the same moment, of replies of 50 chunks in a second")
    within = []
    for starts in (100, 500) if quick else (100, 500, 2_000):
        kind = Kind(streams=starts, asked=Asked(50, RATE), replies=starts)
        found, _ = peak_mb(subject, lambda kind=kind: subject.run(client, kind))  # type: ignore[misc]
        after = subject.run(client, Kind(streams=1, asked=Asked(1), replies=5))
        print(
            f"  {starts:5} starts: {found.complete} whole, {found.refused} refused with 429; first chunk after "
            f"{measure.percentile(found.firsts, 0.5):.0f} ms, p99 {measure.percentile(found.firsts, 0.99):.0f}; "
            f"then one after {measure.percentile(after.firsts, 0.5):.1f} ms"
            + (f"; {found.failed}" if found.failed else "")
        )
        within.append(found.complete + found.refused == starts and not found.failed and after.complete == 5)
    print(f"{'ok  ' if all(within) else 'OVER'} each start is a whole reply, or was refused")
    return all(within)


def main() -> int:
    given = measure.arguments(__doc__).parse_args()
    with served([SUBJECT]) as (client, running, *_):
        subject = running[SUBJECT]
        second = Process([sys.executable, "-m", "benchmarks.peers.client"], cores()[1])
        try:
            for kind in WARM:
                subject.run(client, kind)
            within = [
                many(client, subject, given.quick),
                fair(client, Client(second), subject),
                storm(client, subject, given.quick),
            ]
        finally:
            second.end()
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
