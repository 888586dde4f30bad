"""`python -m tests.browser`: start the stack as `make run` does, and run the tests beside this file in Node on it.

With `--pictures` it makes the pictures of the README instead.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Final

from local.child import ROOT
from tests.clients.__main__ import run

HERE: Final = Path(__file__).parent

PACKAGES: Final = ROOT / ".tools" / "browser"
"""Where the Makefile puts what the lock names."""


REACT: Final = ROOT / ".tools" / "react"
"""Where the Makefile builds examples/react."""


def main() -> int:
    """Run them; return Node's exit code."""
    variables = find_chromium()
    if variables is None:
        sys.stderr.write("npm has no Chromium for this machine: name one in PUPPETEER_EXECUTABLE_PATH.\n")
        return 1
    tests = HERE
    if "--pictures" in sys.argv[1:]:
        tests = HERE / "pictures"
        fonts = PACKAGES / "fonts-of-pictures.conf"
        place = str(PACKAGES / "unpacked" / "fonts" / "fonts")
        fonts.write_text((tests / "fonts.conf").read_text().replace("FONTS", place))
        variables["FONTCONFIG_FILE"] = str(fonts)
    own = {"TAILRACE_BROWSER": str(PACKAGES), "TAILRACE_REACT": str(REACT), "TAILRACE_PYTHON": sys.executable}
    return run(tests, {**own, **variables})


def find_chromium() -> dict[str, str] | None:
    """Return the variables that say which Chromium and what it needs: the one that was asked for, the one that npm
    has (for Linux on x86_64), or else the machine's own."""
    name = "PUPPETEER_EXECUTABLE_PATH"  # the variable of Puppeteer itself
    if name in os.environ:
        return {}
    unpacked = PACKAGES / "unpacked"
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return {
            name: str(unpacked / "chromium"),
            "LD_LIBRARY_PATH": str(unpacked / "al2023" / "lib"),
            "FONTCONFIG_FILE": str(PACKAGES / "fonts.conf"),
        }
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    return None if found is None else {name: found}


if __name__ == "__main__":
    sys.exit(main())
