"""How far a reply is, for whoever watches it grow."""

from __future__ import annotations


class Progress:
    """Counts what a reader has got.

    Args:
        started: the moment it began to wait, in seconds, by the same clock as every ``now``.
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
        return self.at(self._chunks, self._characters, now)

    def at(self, chunks: int, characters: int, now: float) -> dict[str, float]:
        """Return the same for what somebody else has counted."""
        elapsed = now - self._started
        return {
            "chunks": chunks,
            "characters": characters,
            "elapsed": round(elapsed, 2),
            "speed": round(characters / elapsed) if elapsed > 0 else 0,
        }

    def reset(self) -> None:
        """Forget the text that a reset voided; the time goes on."""
        self._chunks = self._characters = 0
