"""Plants each fault in a copy of the library, runs what should notice, and says who did: ``make mutants``.

The working tree is never touched. Exits with 1 if a fault survives, or if the text of any is not in the library exactly
once.

TAILRACE_PART=1/4   every fourth fault, from the second on; CI takes another part with each commit
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.mutants.faults import FAULTS, Fault

ROOT: Final = Path(__file__).parent.parent.parent
LIBRARY: Final = ROOT / "layers" / "tailrace"
AT_ONCE: Final = 2
SECONDS: Final = 240
"""Of one fault's tests: one that makes them wait for ever is noticed too."""

FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def planted(fault: Fault, directory: Path) -> None:
    """Make a copy of the library that has the fault.

    Raises:
        ValueError: its text is not there exactly once.
    """
    copy = directory / "tailrace"
    shutil.copytree(LIBRARY / "tailrace", copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / fault.file
    file.write_text(source_of(fault).replace(fault.text, fault.becomes))


def source_of(fault: Fault) -> str:
    """Return the file that a fault is planted in.

    Raises:
        ValueError: its text is not there exactly once.
    """
    source = (LIBRARY / "tailrace" / fault.file).read_text()
    if source.count(fault.text) != 1:
        raise ValueError(f"its text is in {fault.file} {source.count(fault.text)} times")
    return source


def caught_by(fault: Fault) -> str | None:
    """Return which test noticed, or None.

    Raises:
        ValueError: the fault cannot be planted, or the tests did not run on it.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        planted(fault, directory)
        environment = {**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        where = "import tailrace; print(tailrace.__file__)"
        loaded = subprocess.check_output([sys.executable, "-c", where], env=environment, text=True, cwd=directory)
        if not loaded.startswith(name):
            raise ValueError("the copy is not what Python loads")
        tests = [str(ROOT / "tests" / each) for each in fault.tests]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return "its tests never end"
        if done.returncode == 0:
            return None
        found = FAILED.search(done.stdout)
        if done.returncode != 1 or found is None:
            raise ValueError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}")
        return found[1]


def judged(fault: Fault) -> bool:
    """Print what became of a fault; return whether it was noticed."""
    try:
        noticed = caught_by(fault)
    except ValueError as error:
        print(f"BROKEN    {fault.name}: {error}", flush=True)
        return False
    print(f"{'caught    ' if noticed else 'SURVIVES  '}{fault.name}\n          {fault.file}: {noticed}", flush=True)
    return noticed is not None


def main() -> int:
    """Plant all of them, or those whose name or file has a word of the command line."""
    words = sys.argv[1:]
    part, parts = map(int, os.environ.get("TAILRACE_PART", "0/1").split("/"))
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name or word in fault.file for word in words)]
    chosen = chosen[part::parts]
    for fault in FAULTS:
        source_of(fault)
    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(judged, chosen))
    print(f"{sum(results)} of {len(results)} faults were noticed, in {time.monotonic() - begun:.0f} s")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
