"""Compare-and-append is safe: all of a small model is looked at, and the search finds what is planted in it.

About 275,000 states in some 15 seconds of CPU; docs/log.md has the argument, the numbers and the faults.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.model.append_model import BAD_NETWORK, CANCEL_AND_SWEEP, SCENARIOS, Scenario, World, explore, find, visit
from tests.model.table import Fault
from tests.model.writer import Writer

PAGE = (Path(__file__).parent.parent / "docs" / "log.md").read_text()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_wrong_in_any_state(scenario: Scenario) -> None:
    """In every order of steps, losses, delays and deaths the promises hold, in as many states as the page says."""
    found = explore(scenario)
    assert found.wrong is None, str(found)
    assert f"| {scenario.name} | {found.states:,} |" in PAGE


@pytest.mark.parametrize("fault", get_args(Fault))
def test_a_planted_fault_is_found(fault: Fault) -> None:
    """Each careless implementation breaks a promise, and the page says how."""
    found = find(fault)
    assert found.wrong is not None
    assert found.trace[0][0] == "start"
    assert len(found.trace) > 2
    assert f"| {fault} |" in PAGE


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "interrupted"])
def test_every_end_is_reached(status: str) -> None:
    """The model is not safe because nothing happens in it."""
    assert visit(CANCEL_AND_SWEEP, lambda world: world.table.message.status == status).wrong == "visited"


def test_what_is_hardest_is_reached() -> None:
    """An end that its relay had given up comes late and wins over its next attempt, and the relay says so."""

    def hardest(world: World) -> bool:
        relay = world.processes[0]
        assert isinstance(relay, Writer)
        told = relay.told
        return relay.taken == 2 and told is not None and told.status == "failed" and told.content == "a"

    found = visit(BAD_NETWORK, hardest)
    assert found.wrong == "visited"
    assert any("arrives late" in step for step, _ in found.trace), str(found)
