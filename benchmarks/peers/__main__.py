"""Tailrace beside other relays, all in turns against the same provider and the same client.

    python -m benchmarks.peers [--quick] [--subjects floor,tailrace] [--streams 1,20,50] [--turns 3]

The subject runs on one core, everything else on the others. CPU time is the subject's and its children's, from
/proc/<pid>/task/*/schedstat. Subjects take turns, each turn begins with another one, and medians are compared.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import IO, Any, Final

import msgspec

from benchmarks import measure
from benchmarks.peers.asked import Asked
from benchmarks.peers.load import Found, Load, cpu_seconds, resident_mb, tree
from benchmarks.peers.subjects import SUBJECTS, Places, Subject, asking, chosen

DIRECT: Final = "provider"
"""Asking the provider itself: what the delays are over."""


FOREIGN: Final = ("AWS_", "LITELLM_", "OPENAI_", "PORTKEY_", "POWERTOOLS_", "PYTHON", "TAILRACE_")
"""What the variables begin with that no subject gets from whoever measures."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of load.

    Attributes:
        streams: how many at a time.
        asked: what each asks for.
        replies: how many in all.
        window, ramp: see ``Load``.
    """

    streams: int
    asked: Asked
    replies: int
    window: float = 0.0
    ramp: float = 0.0


def kinds(*, quick: bool, slow: bool) -> dict[str, Kind]:
    """Return the kinds of load.

    Args:
        slow: for a subject that would take too long with replies of the usual length in bursts.
    """

    def paced(streams: int, window: float) -> Kind:
        ramp = 0.004
        chunks = round(50 * (streams * ramp + window + 2))
        return Kind(streams=streams, asked=Asked(chunks, 50), replies=streams, window=window, ramp=ramp)

    def burst(streams: int, chunks: int) -> Kind:
        return Kind(streams=streams, asked=Asked(chunks // 10 if slow else chunks), replies=streams)

    return {
        "paced-20": paced(20, 2.0 if quick else 5.0),
        "burst-1": burst(1, 20_000),
        "burst-50": burst(50, 2_000),
        "burst-500": burst(500, 400),
        "paced-500": paced(500, 3.0 if quick else 5.0),
        "first": Kind(streams=1, asked=Asked(1), replies=20 if quick else 60),
        "delay": Kind(streams=1, asked=Asked(200 if quick else 500, 100, True), replies=1),
    }


# ---- the processes -----------------------------------------------------------------------------------


class Process:
    """A process on a core of its own, or on those of the others."""

    def __init__(self, command: list[str], cores: set[int], **given: Any) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            start_new_session=True,
            **{"cwd": measure.ROOT, **given},
        )

    def line(self) -> bytes:
        """Return the next line that it prints."""
        line = _pipe(self.process.stdout).readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} ended with {self.process.wait()}")
        return line

    def end(self) -> None:
        """End it and its children."""
        for each in reversed(tree(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, 15)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            for each in reversed(tree(self.process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, 9)
            self.process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "asked for with PIPE"
    return pipe


def cores() -> tuple[set[int], set[int]]:
    """Return the subject's core, and those of all others."""
    usable = sorted(os.sched_getaffinity(0))
    return {usable[-1]}, set(usable[:-1]) or {usable[-1]}


class Client:
    """The client's process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def run(self, load: Load) -> Found:
        """Have it make the requests of a load."""
        stdin = _pipe(self._process.process.stdin)
        stdin.write(msgspec.json.encode(load) + b"\n")
        stdin.flush()
        return msgspec.json.decode(self._process.line(), type=Found)


class Running:
    """A subject that is being served, started at once."""

    def __init__(self, subject: Subject, places: Places) -> None:
        self.subject = subject
        self.port = 0
        self._start = subject.start(places)
        self._places = places
        self._said = tempfile.TemporaryFile()
        others = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self._process = Process(
            list(self._start.command),
            cores()[0],
            env={**others, **self._start.environment},
            cwd=self._start.cwd,
            stderr=self._said,
        )
        self.pid = self._process.process.pid

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            SystemExit: it does not; what it said is printed.
        """
        try:
            self.port = int(self._process.line()) if self._start.port is None else self._start.port
            _drain(self._process)
            measure.wait_for_health(self.port, self._process.process, 120, self._start.health)
        except SystemExit:
            self._said.seek(0)
            sys.stderr.write(self._said.read().decode(errors="replace")[-2000:])
            raise

    def run(self, client: Client, kind: Kind) -> Found:
        """Put a load on it, and wait until it has nothing left to do."""
        requests = self.subject.ask(self.port, self._places, kind.replies, kind.asked)
        self._rest()
        found = client.run(
            Load(
                port=self.port,
                pid=self.pid,
                requests=requests,
                chunks=kind.asked.chunks,
                at_once=kind.streams,
                ramp=kind.ramp,
                window=kind.window,
                stamped=kind.asked.stamped,
            )
        )
        self._rest()
        check(self.subject, kind, found)
        return found

    def _rest(self, seconds: float = 20.0) -> None:
        """Wait until it is idle."""
        give_up = time.monotonic() + seconds
        pids = tree(self.pid)
        while time.monotonic() < give_up:
            before = cpu_seconds(pids)
            time.sleep(0.1)
            if cpu_seconds(pids) - before < 0.01:
                return

    def mb(self) -> float:
        """Return its memory."""
        return resident_mb(tree(self.pid))

    def end(self) -> None:
        """End it."""
        self._process.end()
        self._said.close()


def _drain(process: Process) -> None:
    """Read away what it logs: a full pipe would stop it."""
    threading.Thread(target=_pipe(process.process.stdout).read, daemon=True).start()


def check(subject: Subject, kind: Kind, found: Found) -> None:
    """Hold what the first connection got against what the provider said.

    Raises:
        SystemExit: another text came.
    """
    if found.failed or kind.asked.stamped:
        return
    text = read_text(subject, found.body)
    if text != kind.asked.text():
        raise SystemExit(f"{subject.title} delivered another text: {len(text)} characters, {text[:60]!r}...")


def read_text(subject: Subject, body: bytes) -> str:
    """Return the text of an answer of server-sent events, with HTTP's chunks around them."""
    pieces, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].split(b";")[0], 16)
        if not size:
            break
        pieces.append(body[end + 2 : end + 2 + size])
        at = end + 4 + size
    found = re.findall(rb"^data: ?(\{.*)$", b"".join(pieces).replace(b"\r\n", b"\n"), re.MULTILINE)
    return "".join(subject.text(msgspec.json.decode(data)) for data in found)


# ---- the measurements ------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(names: list[str]) -> Iterator[tuple[Client, dict[str, Running], Places, int]]:
    """Start everything; yield the client, the subjects, the places and the provider's port."""
    subject_cores, other_cores = cores()
    os.sched_setaffinity(0, other_cores)
    running: dict[str, Running] = {}
    started: list[Process] = []

    def module(name: str) -> Process:
        started.append(Process([sys.executable, "-m", f"benchmarks.peers.{name}"], other_cores))
        return started[-1]

    try:
        provider, services = int(module("provider").line()), int(module("services").line())
        places = Places(f"http://127.0.0.1:{provider}", f"http://127.0.0.1:{services}")
        client = Client(module("client"))
        os.sched_setaffinity(0, subject_cores | other_cores)
        for name in names:
            begun = time.monotonic()
            running[name] = Running(SUBJECTS[name], places)
            running[name].wait_until_ready()
            print(f"  {SUBJECTS[name].title}: ready after {time.monotonic() - begun:.1f} s", flush=True)
        os.sched_setaffinity(0, other_cores)
        yield client, running, places, provider
    finally:
        os.sched_setaffinity(0, subject_cores | other_cores)
        for each in running.values():
            each.end()
        for process in started:
            process.end()


def direct(client: Client, port: int, places: Places, kind: Kind) -> Found:
    """Ask the provider itself."""
    requests = asking("/v1/chat/completions")(port, places, kind.replies, kind.asked)
    return client.run(
        Load(port=port, pid=0, requests=requests, chunks=kind.asked.chunks, at_once=1, stamped=kind.asked.stamped)
    )


def forget(places: Places) -> None:
    """Empty the table."""
    urllib.request.urlopen(places.services, timeout=10).read()


def percentile(figures: list[float], part: float) -> float:
    """Return the figure that so large a part of them does not exceed."""
    return sorted(figures)[min(len(figures) - 1, int(part * len(figures)))]


def micros(found: Found) -> float:
    """Return CPU microseconds a chunk."""
    return found.cpu / max(found.chunks, 1) * 1e6


Taken = dict[str, dict[str, list[Found]]]


def measured(names: list[str], streams: set[int], turns: int, *, quick: bool) -> tuple[Taken, dict[str, float]]:
    """Let the subjects take turns; return what was found, by subject and kind of load, and the memory of each."""
    taken: Taken = {name: {} for name in [DIRECT, *names]}
    with served(names) as (client, running, places, provider):
        for subject in running.values():  # what is imported or opened late
            for kind in (
                Kind(streams=1, asked=Asked(100), replies=5),
                Kind(streams=20, asked=Asked(20), replies=20),
            ):
                found = subject.run(client, kind)
                if found.failed:
                    raise SystemExit(f"{subject.subject.title}: {found.failed}")
        forget(places)
        for turn in range(turns):
            shift = turn % len(names)
            for label in kinds(quick=quick, slow=False):
                for name in names[shift:] + names[:shift]:
                    kind = kinds(quick=quick, slow=SUBJECTS[name].is_slow)[label]
                    if kind.streams not in streams:
                        continue
                    if label in ("first", "delay"):
                        taken[DIRECT].setdefault(label, []).append(direct(client, provider, places, kind))
                    found = running[name].run(client, kind)
                    taken[name].setdefault(label, []).append(found)
                    forget(places)
                    print(f"  turn {turn + 1}, {label}, {name}: {said(label, found)}", flush=True)
        return taken, {name: subject.mb() for name, subject in running.items()}


def said(label: str, found: Found) -> str:
    """Return a run in a line."""
    failed = f"  FAILED: {found.failed}" if found.failed else ""
    if not found.complete and label in ("first", "delay"):
        return failed.strip()
    if label == "first":
        reply = found.cpu / max(found.complete, 1) * 1000
        return f"{statistics.median(found.firsts):.2f} ms to the first chunk, {reply:.2f} ms of CPU a reply{failed}"
    if label == "delay":
        return f"{percentile(found.delays, 0.5):.2f} ms, p99 {percentile(found.delays, 0.99):.2f}{failed}"
    busy = found.cpu / found.seconds
    return (
        f"{micros(found):.1f} µs a chunk, {found.chunks / found.seconds:,.0f} chunks/s, {busy:.0%} of its core, "
        f"client {found.own_cpu / found.seconds:.0%}; the whole of it {found.whole_cpu:.2f} s{failed}"
    )


def show(taken: Taken, memory: dict[str, float]) -> None:
    """Print the medians."""
    labels = list(dict.fromkeys(label for kinds_of in taken.values() for label in kinds_of))
    print(f"\n{'CPU µs a chunk':<38}" + "".join(f"{label:>12}" for label in labels if "-" in label) + f"{'MB':>8}")
    for name, found in taken.items():
        if name == DIRECT:
            continue
        figures = "".join(
            f"{statistics.median(map(micros, found[label])):>12.1f}" if label in found else f"{'':>12}"
            for label in labels
            if "-" in label
        )
        print(f"{SUBJECTS[name].title:<38}{figures}{memory[name]:>8.0f}")


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--subjects", help=f"some of {', '.join(SUBJECTS)}")
    parser.add_argument("--streams", help="only the loads of so many streams, such as 1,20")
    parser.add_argument("--turns", type=int, help="turns of each load")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    names = chosen(given.subjects)
    streams = {int(each) for each in given.streams.split(",")} if given.streams else {1, 20, 50, 500}
    if given.quick and not given.streams:
        streams -= {500}
    measure.heading(f"Tailrace and its peers, {platform.machine()}")
    taken, memory = measured(names, streams, given.turns or (2 if given.quick else 3), quick=given.quick)
    show(taken, memory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
