"""How long Lambda leaves an invocation."""

from __future__ import annotations

from types import SimpleNamespace

from tailrace.backend import Backend
from tailrace.http.requests import DEADLINE_MARGIN, time_left
from tailrace.settings import Settings
from tailrace.testing import ManualClock


def test_mangum_hands_over_the_context() -> None:
    """The buffered function too ends a reply in time."""
    backend = Backend(Settings(), clock=ManualClock())
    for left, expected in ((30_000, 30 - DEADLINE_MARGIN), (1_000, 0.0)):
        context = SimpleNamespace(get_remaining_time_in_millis=lambda left=left: left)
        assert time_left({"headers": [], "aws.context": context}, backend) == expected
    assert time_left({"headers": []}, backend) is None
