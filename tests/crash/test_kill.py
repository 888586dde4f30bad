"""kill -9 of the server in the middle of replies loses nothing, doubles nothing, and leaves nothing stuck."""

from __future__ import annotations

import random
import sys

import pytest
from tailrace.settings import Settings

from tests.crash.run import REPLIES_A_KILL, Run

pytestmark = pytest.mark.anyio

KILLS = 100


async def test_a_hundred_kills(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Every reader of every reply, on every transport, across the deaths of its servers: gapless, and one end."""
    seed = random.SystemRandom().getrandbits(32)
    report = await Run(settings, KILLS, seed).run()
    with capsys.disabled():
        sys.stdout.write(f"\n{report}\n")  # the figures are what this test is for
    assert report.violations == []
    assert report.stuck == []
    assert report.said == []
    assert report.kills == KILLS
    assert report.replies == report.statuses.total() == KILLS * REPLIES_A_KILL
    assert set(report.statuses) == {"completed", "interrupted"}
    assert report.ahead_of_log, "the kills were not in mid-reply"
