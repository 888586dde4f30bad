"""The client of all subjects, in a process of its own: plain sockets, and what comes is only counted.

    python -m benchmarks.peers.client

It reads a ``Load`` a line of its standard input and writes what it found as a line of its standard output. It looks at
the CPU time of the measured processes itself, so that what is measured begins and ends with what is counted.
"""

from __future__ import annotations

import re
import select
import socket
import sys
import time
from typing import Final

import msgspec

from benchmarks.peers.asked import MARK
from benchmarks.peers.load import CpuTime, Found, Load, cpu_time, tree

_MARK: Final = MARK.encode()
_STAMP: Final = re.compile(rb"(\d{12,})" + _MARK)
READ_BYTES: Final = 1 << 18


class Connection:
    """One reply's.

    Attributes:
        begun: when it was opened.
        first: when its first chunk came, or 0.
        counted: the marks that came.
        kept: everything that came, if that is wanted.
        tail: the end of what came.
    """

    def __init__(self, port: int, request: bytes, *, keeps: bool) -> None:
        self.begun = time.monotonic()
        self.first = 0.0
        self.counted = 0
        self.head = b""
        self.tail = b""
        self.kept: list[bytes] | None = [] if keeps else None
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(request)
        self.socket.setblocking(False)

    def read(self) -> bytes:
        """Return what came; nothing at its end."""
        data = self.socket.recv(READ_BYTES)
        count = data.count(_MARK)
        if count and not self.counted:
            self.first = time.monotonic()
        self.counted += count
        if len(self.head) < 200:
            self.head += data[:200]
        if data:
            self.tail = data[-32:] if len(data) >= 32 else (self.tail + data)[-32:]
        if self.kept is not None:
            self.kept.append(data)
        return data


class Sample(msgspec.Struct, frozen=True):
    """How far a run is.

    Attributes:
        cpu, own: what the measured processes have run for, and the client.
        at: when.
        counted: the chunks until then.
    """

    cpu: CpuTime
    own: float
    at: float
    counted: int


class Run:
    """One load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._connections: list[Connection] = []
        self._delays: list[float] = []
        self._pids = tree(load.pid) if load.pid else []
        self._failed = ""
        self._complete = 0
        self._refused = 0
        self._counted = 0
        self._waiting_for_first = 0

    def run(self) -> Found:
        """Return what was found."""
        load = self._load
        begin = self._sample()
        begun = begin.at
        opened = 0
        window: Sample | None = None
        end: Sample | None = None
        settled = 0.0
        while opened < len(load.requests) or self._open:
            now = time.monotonic()
            if now - begun > load.deadline:
                self._failed = self._failed or f"not at its end after {load.deadline:.0f} s"
                break
            while (
                opened < len(load.requests)
                and len(self._open) < load.at_once
                and (not load.ramp or now - begun >= opened * load.ramp)
            ):
                self._begin(opened)
                opened += 1
                if not load.ramp:
                    now = time.monotonic()
            timeout = 0.001 if load.ramp and opened < len(load.requests) else 0.05
            for descriptor, _ in self._poll.poll(timeout, 1024):
                self._read(self._open[descriptor])
            if not load.window:
                continue
            now = time.monotonic()
            if window is None:
                if opened == len(load.requests) and not self._waiting_for_first:
                    settled = settled or now + load.settle
                    if now >= settled:
                        window = self._sample()
            elif end is None and now - window.at >= load.window:
                end = self._sample()
                if len(self._open) < len(load.requests):  # with fewer streams a chunk costs something else
                    self._failed = self._failed or "some replies ended before what was to be measured did"
        whole = self._sample()
        if load.window and end is None:
            self._failed = self._failed or "it ended before what was to be measured did"
        first, last = (window, end) if window and end else (begin, whole)
        self._close()
        return Found(
            cpu=last.cpu.since(first.cpu),
            own_cpu=last.own - first.own,
            seconds=last.at - first.at,
            chunks=last.counted - first.counted if window else self._complete * load.chunks,
            whole_cpu=whole.cpu.since(begin.cpu),
            whole_seconds=whole.at - begun,
            firsts=[(each.first - each.begun) * 1000 for each in self._connections if each.first],
            delays=self._delays,
            body=b"".join(self._connections[0].kept or ()).partition(b"\r\n\r\n")[2],
            delivered=sum(min(each.counted, load.chunks) for each in self._connections),
            complete=self._complete,
            refused=self._refused,
            failed=self._failed,
        )

    def _sample(self) -> Sample:
        return Sample(cpu_time(self._pids), time.process_time(), time.monotonic(), self._counted)

    def _begin(self, number: int) -> None:
        connection = Connection(self._load.port, self._load.requests[number].encode(), keeps=number == 0)
        self._connections.append(connection)
        self._open[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        self._waiting_for_first += 1

    def _read(self, connection: Connection) -> None:
        before = connection.counted
        try:
            data = connection.read()
        except OSError as error:
            self._end(connection, str(error))
            return
        if self._load.stamped:
            now = time.monotonic_ns()
            left = max(self._load.chunks - before, 0)  # an end may have the text again
            self._delays += [(now - int(stamp)) / 1e6 for stamp in _STAMP.findall(data)[:left]]
        self._counted += connection.counted - before
        if not before and connection.counted:
            self._waiting_for_first -= 1
        if not data:
            self._end(connection, "")

    def _end(self, connection: Connection, error: str) -> None:
        if not connection.counted:
            self._waiting_for_first -= 1
        status = connection.head[:12].decode(errors="replace")
        is_refused = status == "HTTP/1.1 429"
        self._refused += is_refused
        if not error and not is_refused and status != "HTTP/1.1 200":
            error = f"{status} {connection.head.decode(errors='replace')}"
        if not error and not is_refused and connection.counted < self._load.chunks:
            error = f"{connection.counted} of {self._load.chunks} chunks came"
        if not error and not is_refused and not connection.tail.endswith(b"0\r\n\r\n"):
            error = "the answer was cut"
        self._failed = self._failed or error
        self._complete += not error and not is_refused
        descriptor = connection.socket.fileno()
        self._poll.unregister(descriptor)
        del self._open[descriptor]
        connection.socket.close()

    def _close(self) -> None:
        for connection in self._open.values():
            connection.socket.close()
        self._poll.close()


def main() -> None:
    """Do what comes, a line each, until there is no more."""
    for line in sys.stdin.buffer:
        found = Run(msgspec.json.decode(line, type=Load)).run()
        sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
