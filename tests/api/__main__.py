"""`python -m tests.api`: start the stack as `make run` does, asking for tokens, and let schemathesis try its OpenAPI
document: every operation with made-up and broken requests, with and without a token, and sequences along the links.

TAILRACE_EXAMPLES=<n>   requests an operation; 10 without it
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from local.__main__ import READY
from local.child import ROOT, Child
from tests.issuer import shared_token

HERE: Final = Path(__file__).parent

SCHEMATHESIS: Final = ROOT / ".tools" / "api" / "bin" / "schemathesis"
"""Where the Makefile puts what the lock names."""

LONGEST_SECONDS: Final = 600


def main() -> int:
    """Run it; return its exit code."""
    secret = secrets.token_hex(32)
    own = {"TAILRACE_AUTH": "jwt", "TAILRACE_JWT_SECRET": secret, "PORT": "0"}
    token = shared_token({"sub": "user-1", "exp": time.time() + LONGEST_SECONDS + 60}, secret)
    stack = Child(["local", "--lifeline"], READY, {**os.environ, **own})
    try:
        url = stack.wait_until_ready().split()[0]
        command = [
            *(str(SCHEMATHESIS), f"--config-file={HERE / 'schemathesis.toml'}", "run", f"{url}/openapi.json"),
            *("--header", f"Authorization: Bearer {token}"),
            f"--max-examples={os.environ.get('TAILRACE_EXAMPLES', '10')}",
            "--no-color",
        ]
        if os.environ.get("CI"):
            command.append("--seed=1")  # CI judges a change, not the dice
        # What it found before is not tried again, and nothing is written into the checkout.
        environment = {**os.environ, "NO_PROXY": "*", "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".tools/api/examples")}
        return subprocess.run(
            command, cwd=ROOT / ".tools" / "api", env=environment, check=False, timeout=LONGEST_SECONDS
        ).returncode
    finally:
        stack.end()


if __name__ == "__main__":
    sys.exit(main())
