"""``python -m tests.model``: explore every scenario, then print what each planted fault does."""

from __future__ import annotations

import sys
from typing import get_args

from tests.model.append_model import SCENARIOS, explore, find
from tests.model.table import Fault

for scenario in SCENARIOS:
    sys.stdout.write(f"{scenario.name}: {explore(scenario)}\n")
for fault in get_args(Fault):
    sys.stdout.write(f"\nplanted: {fault}\n{find(fault)}\n")
