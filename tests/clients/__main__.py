"""`python -m tests.clients`: start the stack as `make run` does, and run the tests beside this file in Node on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from local.__main__ import READY
from local.child import ROOT, Child

HERE: Final = Path(__file__).parent

PACKAGES: Final = ROOT / ".tools" / "clients"
"""Where the Makefile puts what the lock names."""

PYTHON: Final = ROOT / ".tools" / "python-clients" / "bin" / "python"
"""The interpreter of the environment in which the Python packages are."""

OLDEST: Final = 22
"""The first Node with a WebSocket of its own."""


def main() -> int:
    """Run them; return Node's exit code."""
    return run(HERE, {"TAILRACE_PYTHON_CLIENTS": str(PYTHON)})


def run(tests: Path, variables: Mapping[str, str]) -> int:
    """Run the tests of a folder in Node on a stack of their own; return Node's exit code.

    Args:
        variables: more of the environment for them.
    """
    node = find_node()
    if node is None:
        sys.stderr.write(
            f"Node {OLDEST} or newer is needed: npm has none for this machine among the locked packages.\n"
        )
        return 1
    own = {"TAILRACE_TOOLS": "tests.own_tools:everything", "TAILRACE_PROVIDERS": "text=tests.own_answers:text"}
    stack = Child(["local", "--lifeline"], READY, {**os.environ, **own, "PORT": "0"})
    try:
        url = stack.wait_until_ready().split()[0]
        files = sorted(str(path) for path in tests.glob("*.test.js"))
        environment = {**os.environ, "TAILRACE_URL": url, "TAILRACE_CLIENTS": str(PACKAGES), **variables}
        # One file after the other, and no proxy between a machine and itself.
        command = [node, "--test", "--test-concurrency=1", "--test-timeout=120000", "--test-reporter=spec", *files]
        return subprocess.run(command, env=environment | {"NO_PROXY": "*"}, check=False).returncode
    finally:
        stack.end()


def find_node() -> str | None:
    """Return Node 24 as npm has it, or else the machine's own if it is new enough."""
    processor = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "")
    locked = PACKAGES / "node_modules" / f"node-{sys.platform}-{processor}" / "bin" / "node"
    if locked.exists():
        return str(locked)
    found = shutil.which("node")
    if found is None:
        return None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return found if version.startswith("v") and int(version[1:].split(".")[0]) >= OLDEST else None


if __name__ == "__main__":
    sys.exit(main())
