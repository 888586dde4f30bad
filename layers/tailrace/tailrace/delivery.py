"""How a reader wants its events: pure, values in and values out, the clock passed in."""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.errors import Unprocessable


class Delivery(msgspec.Struct, frozen=True):
    """What a start may ask for.

    Attributes:
        by: ``chunk`` delivers each chunk as it comes.
        interval_ms: at most one event in so many milliseconds.
        progress: whether events carry the progress so far.
    """

    by: Literal["chunk", "sentence"] = "chunk"
    interval_ms: int | None = None
    progress: bool = False

    def check(self) -> None:
        """Refuse what cannot be delivered yet, rather than deliver something else.

        Raises:
            Unprocessable: sentences or intervals were asked for.
        """
        if self.by != "chunk" or self.interval_ms is not None:
            raise Unprocessable('delivery: only {"by": "chunk"}, with or without progress, is available yet.')


class Progress:
    """Counts what a reader has got.

    Args:
        started: the monotonic moment the reader began to wait, in seconds.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._chunks = 0
        self._characters = 0

    def count(self, text: str, now: float) -> dict[str, float]:
        """Count a chunk; return ``chunks``, ``characters`` (not bytes), ``elapsed`` in seconds, and
        ``speed`` in characters a second, 0 while no time has passed."""
        self._chunks += 1
        self._characters += len(text)
        elapsed = now - self._started
        return {
            "chunks": self._chunks,
            "characters": self._characters,
            "elapsed": round(elapsed, 2),
            "speed": round(self._characters / elapsed) if elapsed > 0 else 0,
        }

    def reset(self) -> None:
        """Forget the text that a reset voided; the time goes on."""
        self._chunks = self._characters = 0
