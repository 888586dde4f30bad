"""All measurements, quickly: what ``make bench`` runs. For figures worth keeping, run each on its own."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import measure

ALL = (
    "write_units",
    "cold_start",
    "provider_read",
    "sse_write",
    "protocol_encode",
    "segment_write",
    "post",
    "fan_out",
    "fan_out_scale",
    "stuck_subscriber",
    "long_reply",
    "long_history",
    "steps",
    "many_streams",
    "built",
    "scale",
)


def main() -> int:
    over = []
    for name in ALL:
        print(f"\n==== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
        if subprocess.run(command, cwd=measure.ROOT).returncode:
            over.append(name)
    print(f"\nover a budget, or not to be judged: {', '.join(over)}" if over else "\nall within their budgets")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
