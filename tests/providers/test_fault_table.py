"""Every fault of a provider has its ending, and the page says which."""

from __future__ import annotations

import asyncio

from tests.providers.fault_table import FAULTS, NOT_FOR, made, shown
from tests.providers.helpers import ALL_WIRES


def test_the_table_is_what_happens() -> None:
    """Each row of docs/providers.md is so for each wire: run again, it comes out the same.

    When it should change, ``python -m tests.providers.fault_table`` writes it anew.
    """
    assert asyncio.run(made()) == shown()


def test_every_fault_is_shown() -> None:
    """And every wire meets nearly all of them."""
    page = shown()
    for name in FAULTS:
        assert f"| {name}" in page
    assert sum(len(wires - {"bedrock"}) for wires in NOT_FOR.values()) < len(ALL_WIRES)
    assert sum("bedrock" in wires for wires in NOT_FOR.values()) < len(FAULTS) / 3
