"""The processes: each subject on a core, and provider, table and client on the others."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple

import msgspec

from benchmarks import measure
from benchmarks.peers.kinds import Kind
from benchmarks.peers.load import Found, Load, cpu_time, resident_mb, tree
from benchmarks.peers.subjects import SUBJECTS, Places, Subject

FOREIGN: Final = ("AWS_", "LITELLM_", "OPENAI_", "PORTKEY_", "POWERTOOLS_", "PYTHON", "TAILRACE_")
"""What the variables begin with that no subject gets from whoever measures."""


class Process:
    """A process on a core of its own, or on those of the others.

    Attributes:
        said: the end of what it wrote to standard error, if that is not ours.
    """

    def __init__(self, command: list[str], cores: set[int], **given: Any) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            start_new_session=True,
            **{"cwd": measure.ROOT, **given},
        )
        self.said: deque[bytes] = deque(maxlen=40)
        self._readers: list[threading.Thread] = []
        self._is_over = False

    def read_away(self) -> None:
        """Read what it says from here on: a full pipe would stop it."""
        for pipe, into in ((self.process.stdout, deque[bytes](maxlen=0)), (self.process.stderr, self.said)):
            if pipe is not None:
                self._readers.append(threading.Thread(target=into.extend, args=(pipe,), daemon=True))
                self._readers[-1].start()

    def line(self) -> bytes:
        """Return the next line that it prints."""
        line = _pipe(self.process.stdout).readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} ended with {self.process.wait()}")
        return line

    def end(self) -> None:
        """End it and its children."""
        if self._is_over:  # its id may be another's by now
            return
        self._is_over = True
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
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


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
        others = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self._process = Process(
            list(self._start.command),
            cores()[0],
            env={**others, **self._start.environment},
            cwd=self._start.cwd,
            stderr=subprocess.PIPE,
        )
        self.pid = self._process.process.pid

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            SystemExit: it does not; what it said is printed.
        """
        try:
            self.port = int(self._process.line()) if self._start.port is None else self._start.port
            self._process.read_away()
            measure.wait_for_health(self.port, self._process.process, 120, self._start.health)
        except SystemExit:
            self._process.end()  # then all that it said is there
            sys.stderr.write(b"".join(self._process.said).decode(errors="replace"))
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
                deadline=(kind.replies * kind.ramp + kind.window + 15) if kind.window else 60,
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
            before = cpu_time(pids)
            time.sleep(0.1)
            if cpu_time(pids).since(before) < 0.01:
                return

    def mb(self) -> float:
        """Return its memory."""
        return resident_mb(tree(self.pid))

    def end(self) -> None:
        """End it."""
        self._process.end()


def check(subject: Subject, kind: Kind, found: Found) -> None:
    """Hold what the first connection got against what the provider said.

    Raises:
        SystemExit: another text came.
    """
    if found.failed or found.refused or kind.asked.stamped:
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


class Served(NamedTuple):
    """Everything that is started.

    Attributes:
        provider: the provider's port.
        others: the processes that are not measured.
    """

    client: Client
    running: dict[str, Running]
    places: Places
    provider: int
    others: list[int]


@contextlib.contextmanager
def served(names: list[str]) -> Iterator[Served]:
    """Start everything while the block runs."""
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
            running[name] = Running(SUBJECTS[name], places)
        for subject in running.values():
            subject.wait_until_ready()
        os.sched_setaffinity(0, other_cores)
        yield Served(client, running, places, provider, [each.process.pid for each in started])
    finally:
        os.sched_setaffinity(0, subject_cores | other_cores)
        for each in running.values():
            each.end()
        for process in started:
            process.end()
