"""`python -m tests.crash [kills] [seed]`: a crash run with its figures."""

from __future__ import annotations

import asyncio
import os
import random
import sys

from tailrace.settings import Settings
from tailrace.store import create_table

from local.emulator import Emulator
from tests.crash.run import Run

REGION = "us-east-1"


def main() -> int:
    """Run, print, and return whether anything was wrong."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32)
    os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": REGION}
    os.environ["POWERTOOLS_METRICS_DISABLED"] = "true"
    emulator = Emulator()
    try:
        url = emulator.url()
        create_table("crash", REGION, url)
        settings = Settings(table="crash", region=REGION, dynamodb_endpoint=url)
        report = asyncio.run(Run(settings, kills, seed).run())
    finally:
        emulator.end()
    wrong = [*report.violations, *report.stuck, *report.said]
    sys.stdout.write("\n  ".join([str(report), *wrong, ""]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
