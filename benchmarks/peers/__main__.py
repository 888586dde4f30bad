"""Tailrace beside other relays, all in turns against the same provider and the same client.

    python -m benchmarks.peers [--quick] [--subjects floor,tailrace] [--streams 1,20,50] [--turns 3] [--page]

The subject runs on one core, everything else on the others. CPU time is the subject's and its children's, from
/proc/<pid>/task/*/schedstat. Subjects take turns, each turn begins with another one, and medians are compared.
`make bench-peers` sets the others up; the floor relay and Tailrace need nothing.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
import urllib.request
from pathlib import Path

import msgspec

from benchmarks import measure
from benchmarks.peers.kinds import ALL_STREAMS, WARM, Kind, kinds
from benchmarks.peers.load import Found, Load, cpu_time
from benchmarks.peers.page import write_page
from benchmarks.peers.results import FIGURES, Results, new_results
from benchmarks.peers.serving import Client, served
from benchmarks.peers.subjects import SUBJECTS, Places, asking, chosen

OVER_DIRECT = ("first", "delay")
"""What is told over asking the provider itself."""


def direct(client: Client, port: int, places: Places, kind: Kind) -> Found:
    """Ask the provider itself."""
    requests = asking("/v1/chat/completions")(port, places, kind.replies, kind.asked)
    return client.run(
        Load(port=port, pid=0, requests=requests, chunks=kind.asked.chunks, at_once=1, stamped=kind.asked.stamped)
    )


def forget(places: Places) -> dict[str, int]:
    """Empty the table; return how many calls and posts there were since the last time."""
    with urllib.request.urlopen(places.services, timeout=10) as answer:
        return msgspec.json.decode(answer.read(), type=dict[str, int])


def measured(names: list[str], streams: set[int], turns: int, *, quick: bool) -> Results:
    """Let the subjects take turns."""
    results = new_results(names, turns, streams, quick=quick)
    with served(names) as (client, running, places, provider, others):
        for subject in running.values():
            for kind in WARM:
                found = subject.run(client, kind)
                if found.failed or found.complete < kind.replies:
                    raise SystemExit(f"{subject.subject.title}: {found.failed or 'it refused'}")
        forget(places)
        for turn in range(turns):
            shift = turn % len(names)
            for label in kinds(quick=quick, slow=False):
                for name in names[shift:] + names[:shift]:
                    kind = kinds(quick=quick, slow=SUBJECTS[name].is_slow)[label]
                    if kind.streams not in streams or label in results.failures.get(name, {}):
                        continue  # what it could not do once is not tried again
                    over = direct(client, provider, places, kind) if label in OVER_DIRECT else None
                    before = cpu_time(others)
                    found = running[name].run(client, kind)
                    harness = cpu_time(others).since(before) / found.whole_seconds / (len(os.sched_getaffinity(0)))
                    results.take(name, label, kind, found, over, harness)
                    counts = forget(places)
                    if label == "paced-20" and counts["calls"]:
                        seconds = found.whole_seconds
                        results.services[name] = (counts["calls"] / seconds, counts["posts"] / seconds)
                    print(
                        f"  turn {turn + 1}, {label}, {name}: {said(label, found)}, harness {harness:.0%}", flush=True
                    )
        for name, subject in running.items():
            results.add(name, "mb", subject.mb())
    results.load.append(os.getloadavg()[0])
    return results


def said(label: str, found: Found) -> str:
    """Return a run in a line."""
    failed = f", {found.refused} refused" if found.refused else ""
    failed += f"  FAILED: {found.failed}" if found.failed else ""
    if label == "first" and found.firsts:
        reply = found.cpu / max(found.complete, 1) * 1000
        return f"{statistics.median(found.firsts):.2f} ms to the first chunk, {reply:.2f} ms of CPU a reply{failed}"
    if label == "delay" and found.delays:
        return (
            f"{measure.percentile(found.delays, 0.5):.2f} ms, p99 {measure.percentile(found.delays, 0.99):.2f}{failed}"
        )
    whole = found.whole_cpu / max(found.delivered, 1) * 1e6
    return (
        f"{found.cpu / max(found.chunks, 1) * 1e6:.1f} µs a chunk ({whole:.1f} with starts and ends), "
        f"{found.chunks / found.seconds:,.0f} chunks/s, {found.cpu / found.seconds:.0%} of its core, "
        f"client {found.own_cpu / found.seconds:.0%}{failed}"
    )


def show(results: Results) -> None:
    """Print the medians."""
    measure.heading(f"Medians of {results.turns}")
    for name, figure in FIGURES.items():
        print(f"  {figure.title}")
        for subject in results.figures:
            median = results.median(subject, name)
            why = results.failures.get(subject, {}).get(figure.label or "", "")
            if median is not None or why:
                print(f"    {SUBJECTS[subject].title:<46}" + (f"{median:>12,.2f}" if median is not None else why))


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--subjects", help=f"some of {', '.join(SUBJECTS)}; tailrace is all that begin with it")
    parser.add_argument("--streams", help="only the loads of so many streams, such as 1,20")
    parser.add_argument("--turns", type=int, help="turns of each load")
    parser.add_argument("--page", action="store_true", help="write docs/comparison.md and its plot")
    parser.add_argument("--keep", type=Path, help="write the figures of all turns into this file")
    parser.add_argument("--again", type=Path, help="measure nothing: take the figures from such a file")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    if given.again:
        results = msgspec.json.decode(given.again.read_bytes(), type=Results)
    else:
        names = chosen(given.subjects)
        streams = {int(each) for each in given.streams.split(",")} if given.streams else set(ALL_STREAMS)
        if given.quick and not given.streams:
            streams -= {500}
        measure.heading("Tailrace beside other relays")
        begun = time.monotonic()
        results = measured(names, streams, given.turns or (1 if given.quick else 3), quick=given.quick)
        print(f"  {time.monotonic() - begun:.0f} s")
    if given.keep:
        given.keep.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    show(results)
    if given.page:
        write_page(results, measure.ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
