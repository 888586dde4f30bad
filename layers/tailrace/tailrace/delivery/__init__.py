"""How a reader wants its events: every chunk, whole sentences, at most every so often, with progress.

Pure in the middle: ``Pieces`` takes events and the time, and gives pieces; ``Paced`` adds the timer. Each reader
has its own, so two readers of one reply may ask for different ones::

    Delivery(by="sentence", interval_ms=200).pieces(response)     a user's own function
    Paced(Pieces(delivery), deliver, clock=clock)                 a connection, a channel
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from tailrace.clock import Clock
from tailrace.delivery.paced import Paced
from tailrace.delivery.pieces import Found, Part, Piece, Pieces, Voided
from tailrace.delivery.progress import Progress
from tailrace.errors import Unprocessable
from tailrace.events import ProviderEvent, Reset

if TYPE_CHECKING:
    from tailrace.delivery.reading import Log

SHORTEST_INTERVAL: Final = 10
LONGEST_INTERVAL: Final = 60_000
"""Milliseconds between two events that a reader may ask for."""


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a reader may ask for. They combine.

    Attributes:
        by: ``chunk`` delivers each chunk as it comes; ``sentence`` whole sentences, which joined are the text.
        interval_ms: at most one event in so many milliseconds, 10 to 60000, by the clock: what waits is delivered
            when they have passed, also when nothing more comes.
        progress: whether events carry the progress so far.
        parts: whether what lies between the text is delivered too: reasoning, tools, and where steps end.
    """

    by: Literal["chunk", "sentence"] = "chunk"
    interval_ms: int | None = None
    progress: bool = False
    parts: bool = False

    def check(self) -> None:
        """Refuse an interval that cannot be.

        Raises:
            Unprocessable: it is too short or too long.
        """
        if self.interval_ms is not None and not SHORTEST_INTERVAL <= self.interval_ms <= LONGEST_INTERVAL:
            raise Unprocessable(f"delivery.interval_ms must be {SHORTEST_INTERVAL} to {LONGEST_INTERVAL}.")

    @property
    def is_paced(self) -> bool:
        """Whether events differ from chunks, or come later."""
        return self.by != "chunk" or self.interval_ms is not None

    def open(self, *, after: int = 0, taken: int = 0) -> Pieces:
        """Return what cuts one reply into pieces for one reader.

        Args:
            after: the seq up to which the reader has everything. All of the log is fed all the same.
            taken: how many characters it has of that entry; 0 is all of them.
        """
        interval = None if self.interval_ms is None else self.interval_ms / 1000
        return Pieces(sentences=self.by == "sentence", interval=interval, parts=self.parts, after=after, taken=taken)

    def pieces(
        self,
        source: AsyncIterable[str | ProviderEvent | Reset],
        *,
        into: Log | None = None,
        clock: Clock | None = None,
    ) -> AsyncGenerator[Found, None]:
        """Iterate over a provider's answer in pieces: ``async for piece in Delivery(by="sentence").pieces(response)``.

        What waits is delivered when ``source`` ends, and before an error of it is raised.

        Args:
            source: chunks: text, or a provider's events, of which the text counts.
            into: a stream that each chunk is appended to first; then the pieces have its seqs.
            clock: measures the interval; the machine's when None.

        Raises:
            Unprocessable: the interval cannot be.
            StreamEnded, StoreError: as ``MessageStream.append`` raises them.
        """
        # Imported when asked for: the stream function reads its providers without it.
        from tailrace.delivery.reading import read

        self.check()
        return read(self.open(), source, into, clock)


__all__ = ["Delivery", "Found", "Paced", "Part", "Piece", "Pieces", "Progress", "Voided"]
