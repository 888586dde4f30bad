"""Amazon's DynamoDB Local, in a process of its own (run as `python -m tests.real.dynamodb_local`).

`make test-real` fetches it (requirements/dynamodb-local.xml). It needs Java 17 or newer, and x86_64 for its native
library. It keeps everything in memory, and it listens on all addresses: it has no option for one.

Where it and moto were seen to differ in what we rely on (it is believed, since the other is not Amazon's). Our code is
right on both; tests that stand on one of these say so.
- A transaction sent again under its token succeeds, and with other bytes it is an IdempotentParameterMismatchException,
  whatever table it is for; moto keeps no tokens and makes it again, so our own nonce is what recognises it.
- A start key that cannot be of the query is refused; moto reads from it, or crashes. So cursors are checked before.
- A key that is too long, BETWEEN with its ends swapped, and a table's name of two letters are refused; moto takes them.
- A page of a query includes the item that passes 1 MB; moto's ends before it.
- A number comes back as it is usually written, 0.10 as 0.1; moto keeps how it was sent.
- It is no other service; moto's server is Secrets Manager and Parameter Store too, for tests with `emulator_url`.

Of the streams:
- The keys of a record come in any order, and moto's hash key first. So `local/table_stream.py` asks for it by its name.
- A write that changes nothing leaves no record; moto's leaves a MODIFY. Subscribers are told nothing by either.
- An update that makes an item is one INSERT; moto has two. Nothing here makes an item by an update.
- The time of a record is that of its minute, the region `ddblocal`, and an event's id has hyphens.
- Each table makes it slower, so a test's own goes with the test (`tests/conftest.py`).
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import BinaryIO, Final

from local.child import ROOT, START_SECONDS, Child, when_parent_ends

READY: Final = "dynamodb local: "

LIBRARY: Final = ROOT / ".tools" / "dynamodb-local" / "lib"

MAIN: Final = "software.amazon.dynamodb.services.local.main.ServerRunner"

ATTEMPTS: Final = 3
"""It takes no port 0, and a port that was free a moment ago may be taken."""


class DynamoDBLocal:
    """DynamoDB Local, started at once; used like ``local.emulator.Emulator``."""

    def __init__(self) -> None:
        self._child = Child(["tests.real.dynamodb_local"], READY)

    def url(self) -> str:
        """Return its address once it can be called.

        Raises:
            ChildFailed: it could not be started.
        """
        return self._child.wait_until_ready()

    def end(self) -> None:
        """End it; what it holds is gone."""
        self._child.end()


def java(port: int) -> list[str]:
    """Return the command that runs it. It starts twice as fast with the first compiler alone, which is enough here."""
    machine = ["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Djava.library.path={LIBRARY}"]
    options = ["-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
    return ["java", *machine, "-cp", f"{LIBRARY}/*", MAIN, *options]


def start(log: BinaryIO) -> tuple[subprocess.Popen[bytes], int]:
    """Return the running process and the port on which it answers.

    Args:
        log: gets what it says.

    Raises:
        RuntimeError: it ended, each time it was tried; the message has what it said.
    """
    deadline = time.monotonic() + START_SECONDS
    for _ in range(ATTEMPTS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        # It tells of its settings and of a logger it misses; why it ended is told below.
        log.seek(0)
        log.truncate()
        process = subprocess.Popen(java(port), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(0.02)  # it says nothing once it listens
            else:
                return process, port
    log.seek(0)
    raise RuntimeError(f"DynamoDB Local ended with {process.returncode}: {log.read().decode(errors='replace')}")


def main() -> None:
    """Serve until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not any(LIBRARY.glob("DynamoDBLocal-*.jar")):
        raise SystemExit(f"DynamoDB Local is not in {LIBRARY.relative_to(ROOT)}: make test-real fetches it.")
    with tempfile.TemporaryFile() as log:
        process, port = start(log)
        when_parent_ends(process.kill)  # there is nothing to save
        sys.stdout.write(f"{READY}http://127.0.0.1:{port}\n")
        sys.stdout.flush()
        process.wait()


if __name__ == "__main__":
    main()
