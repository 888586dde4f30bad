"""What is asked of the provider, in the only thing that every subject hands on to it: the user's message."""

from __future__ import annotations

import re
from typing import Final

import msgspec

MARK: Final = "~"
"""Ends the text of each chunk, and is in nothing else that is sent: by it the client counts."""

DISTINCT: Final = 1000
"""Chunks with another text each, so that one that is lost, doubled or moved is seen."""

_ASKED: Final = re.compile(rb"ask:(\d+):(\d+):(\d):(\d):ask")


class Asked(msgspec.Struct, frozen=True):
    """A reply of the provider.

    Attributes:
        chunks: how many have text.
        rate: chunks a second; all at once when 0.
        in_step: whether its chunks come at the same times as those of all others that are asked for so.
        stamped: whether the text of each is when it was sent, in nanoseconds of the monotonic clock.
    """

    chunks: int
    rate: int = 0
    in_step: bool = False
    stamped: bool = False

    def __str__(self) -> str:
        return f"ask:{self.chunks}:{self.rate}:{self.in_step:d}:{self.stamped:d}:ask"

    def text(self) -> str:
        """Return the text of the whole reply, if it is not stamped."""
        return "".join(f"w{number % DISTINCT:03}{MARK}" for number in range(self.chunks))


def read_asked(body: bytes) -> Asked | None:
    """Return what a request's last message asks for; None where it is no question of ours."""
    found = _ASKED.findall(body)
    if not found:
        return None
    chunks, rate, in_step, stamped = map(int, found[-1])
    return Asked(chunks, rate, bool(in_step), bool(stamped))
