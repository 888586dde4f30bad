"""Kill -9 in mid-reply, a hundred times in one run on a database that lives on: nothing lost, doubled or stuck."""

from __future__ import annotations

import pytest
from tailrace.settings import Settings

from tests.crash.run import REPLIES_A_KILL, Run

pytestmark = pytest.mark.anyio

KILLS = 100

KILLS_ON_DYNAMODB_LOCAL = 20
"""What is looked for there is another behaviour of the table, not rare moments."""

SEED = 20261122
"""The dice of the run. When a kill strikes is chance all the same, so each run is another one."""


async def test_nothing_is_lost_doubled_or_stuck(settings: Settings, pytestconfig: pytest.Config) -> None:
    """P1 to P5 and P8: what all readers of all replies saw agrees with what is stored, and every reply has its end."""
    kills = KILLS_ON_DYNAMODB_LOCAL if pytestconfig.getoption("--dynamodb-local") else KILLS
    report = await Run(settings, kills, SEED).run()
    assert (report.violations, report.stuck, report.said) == ([], [], []), str(report)
    assert report.kills == kills
    assert report.replies == report.statuses.total() == kills * REPLIES_A_KILL
    assert report.statuses.keys() <= {"completed", "interrupted"}
    # The kills did what they are for: some came in mid-reply, some just between a chunk and its flush.
    assert report.statuses["interrupted"]
    assert report.ahead_of_log
    assert report.resumes
