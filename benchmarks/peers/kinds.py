"""The kinds of load that each subject is put under."""

from __future__ import annotations

import msgspec

from benchmarks.peers.asked import Asked

ALL_STREAMS = (1, 20, 50, 500)
RATE = 50
"""Chunks a second of a paced reply."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of load.

    Attributes:
        streams: how many at a time.
        asked: what each asks for.
        replies: how many in all.
        window, ramp: see ``Load``.
    """

    streams: int
    asked: Asked
    replies: int
    window: float = 0.0
    ramp: float = 0.0

    @property
    def rate(self) -> float:
        """The chunks a second that are to come, if they are paced and measured by a window."""
        return self.streams * self.asked.rate if self.window else 0.0


WARM = (Kind(streams=1, asked=Asked(100), replies=5), Kind(streams=20, asked=Asked(20), replies=20))
"""What comes before everything: what is imported or opened late is not measured."""


def paced(streams: int, window: float, ramp: float, slack: float, *, in_step: bool = False) -> Kind:
    """Return replies of 50 chunks a second, long enough for all of them to last as long as the window.

    Args:
        slack: seconds that the first chunk of the last one and the settling may take.
    """
    chunks = round(RATE * (streams * ramp + window + slack))
    return Kind(streams=streams, asked=Asked(chunks, RATE, in_step), replies=streams, window=window, ramp=ramp)


def kinds(*, quick: bool, slow: bool) -> dict[str, Kind]:
    """Return the kinds of load.

    Args:
        slow: for a subject that would take too long with replies of the usual length in bursts.
    """

    part = (20 if quick else 10) if slow else 1

    def burst(streams: int, chunks: int) -> Kind:
        return Kind(streams=streams, asked=Asked(chunks // part), replies=streams)

    return {
        "paced-20": paced(20, 2.0 if quick else 5.0, 0.004, 1.5),
        "step-20": paced(20, 2.0 if quick else 5.0, 0.004, 1.5, in_step=True),
        "burst-1": burst(1, 20_000),
        "burst-50": burst(50, 2_000),
        "burst-500": burst(500, 400),
        "first": Kind(streams=1, asked=Asked(1), replies=20 if quick else 60),
        "delay": Kind(streams=1, asked=Asked(200 if quick else 500, 100, stamped=True), replies=1),
        "paced-500": paced(500, 3.0 if quick else 5.0, 0.016, 3.0),
    }
