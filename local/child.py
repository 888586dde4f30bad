"""A child process that never outlives its parent, however that dies.

The parent holds the only writing end of the pipe that is the child's standard input. A parent that is
gone, even by SIGKILL, has closed it, and the child reads the end of file. It works on every Unix, which
Linux's PR_SET_PDEATHSIG does not, and it has no moment in which a parent can die unnoticed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parent.parent

START_SECONDS: Final = 60.0
"""How long a child may take to be ready."""

END_SECONDS: Final = 20.0
"""How long a child may take to end; more than the server's grace."""


class ChildFailed(Exception):
    """The child ended before it was ready. The text is what it said, but for what it wrote to standard error,
    which is ours too."""


class Child:
    """A module of ours as a process of its own, started at once.

    Args:
        arguments: the module's name and its arguments.
        ready: what the line begins with that says it is ready.
        environment: the child's variables; this process's own when None.
    """

    def __init__(self, arguments: Sequence[str], ready: str, environment: Mapping[str, str] | None = None) -> None:
        self._ready = ready
        # A session of its own: Ctrl-C goes to the parent alone, which still has writes to finish in the child.
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=None if environment is None else dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._output = _pipe(self._process.stdout)
        self._drain: threading.Thread | None = None

    def wait_until_ready(self) -> str:
        """Return the rest of the line that says it is ready.

        Raises:
            ChildFailed: it ended without saying so, or needed too long.
        """
        said: list[str] = []
        deadline = threading.Timer(START_SECONDS, self._process.kill)
        deadline.start()
        try:
            for line in self._output:
                if line.startswith(self._ready):
                    # Whatever else it says is not for the user, but a full pipe would stop it.
                    self._drain = threading.Thread(target=self._output.read, daemon=True)
                    self._drain.start()
                    return line.removeprefix(self._ready).strip()
                said.append(line)
        finally:
            deadline.cancel()
        code = self.end()
        raise ChildFailed("".join(said).strip() or f"It ended with {code}.")

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def end(self) -> int:
        """End it, wait until it is gone, and return its exit code."""
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._drain is not None:
            self._drain.join()
        self._output.close()
        return code


def when_parent_ends(call: Callable[[], object]) -> None:
    """In the child: make ``call`` from a thread once the parent is gone or wants us to end."""

    def watch() -> None:
        # The descriptor, not sys.stdin: its lock, held while reading, would trouble the interpreter's end.
        while os.read(0, 4096):
            pass
        call()

    threading.Thread(target=watch, daemon=True).start()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "asked for with PIPE"
    return pipe
