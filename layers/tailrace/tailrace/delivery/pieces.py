"""Events in, pieces out: by chunk or by sentence, at most every so often. Pure: the time is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from tailrace.events import (
    Approval,
    ApprovalRequest,
    Event,
    ProviderEvent,
    Reasoning,
    Reset,
    StepEnd,
    Text,
    ToolCall,
    ToolResult,
    ToolRun,
)

if TYPE_CHECKING:
    from tailrace.delivery.sentences import Sentences

LARGEST_BLANK: Final = 1000
"""Characters of white space that wait for a sentence to go with."""

LARGEST_WAITING: Final = 64_000
"""Characters that may wait for the interval; more are delivered at once, so that no reader fills the memory."""


class Piece(msgspec.Struct, frozen=True, gc=False):
    """What a reader gets at once. ``str()`` gives the text.

    Attributes:
        text: never empty; all pieces joined are the reply's text.
        seq: the entry of the log that it ends in.
        taken: how many characters of that entry it takes, if it ends inside of it; 0 when it ends with it.
        sentences: the number of the sentence that it ends in, from 1; 0 when delivered by chunk.
        chunks: how many chunks it and all before it come from.
        characters: how many characters it and all before it have.
    """

    text: str
    seq: int
    taken: int
    sentences: int
    chunks: int
    characters: int

    def __str__(self) -> str:
        return self.text


class Voided(msgspec.Struct, frozen=True, gc=False):
    """All pieces before this are void, and another answer follows; what waited was void too and is not delivered."""

    seq: int


PartEvent = Reasoning | ToolCall | ToolRun | ToolResult | ApprovalRequest | Approval | StepEnd
"""What a reply has besides its text."""

PART_EVENTS: Final = (Reasoning, ToolCall, ToolRun, ToolResult, ApprovalRequest, Approval, StepEnd)


class Part(msgspec.Struct, frozen=True, gc=False):
    """What lies between the pieces of a reply's text, for a reader that asked for it. All text before it was delivered.

    Attributes:
        event: what it is.
        seq: its entry of the log.
    """

    event: PartEvent
    seq: int

    def __str__(self) -> str:
        return ""


Found = Piece | Voided | Part
"""What a delivery makes of a reply."""


class _Chunk(msgspec.Struct, gc=False):
    seq: int
    number: int
    start: int  # the offset of its first character
    text: str


class Pieces:
    """Cuts one reply for one reader. Feed it all of the reply's log from the beginning: where a sentence ends
    depends on what came before it.

    Args:
        sentences: whether it cuts by sentence.
        interval: seconds between two pieces, or None.
        parts: whether it gives what lies between the text too.
        after: the seq up to which the reader has everything.
        taken: how many characters it has of that entry; 0 is all of them.
    """

    def __init__(
        self,
        *,
        sentences: bool = False,
        interval: float | None = None,
        parts: bool = False,
        after: int = 0,
        taken: int = 0,
    ) -> None:
        self._parts = parts
        self._sentences = _sentences() if sentences else None
        self._interval = interval
        self._after = after
        self._taken = taken
        self._last = float("-inf")  # when the last piece was delivered
        self._clear()

    def _clear(self) -> None:
        self._waiting: deque[_Chunk] = deque()
        self._ends: deque[int] = deque()  # of sentences, as offsets; those that were not delivered yet
        self._chunks = 0
        self._end = 0  # the offset of the next character
        self._begin = 0  # the offset of the first character that was not delivered
        self._ready = 0  # the offset up to which text may be delivered
        self._sentence = 0  # how many sentences were delivered
        self._ready_due: float | None = None
        self._tail_due: float | None = None

    @property
    def due(self) -> float | None:
        """When ``release`` wants to be called if nothing comes before, in seconds; None when nothing waits for it."""
        if self._ready_due is None or self._tail_due is None:
            return self._tail_due if self._ready_due is None else self._ready_due
        return min(self._ready_due, self._tail_due)

    def feed(self, first_seq: int, events: Sequence[Event | ProviderEvent], now: float) -> list[Found]:
        """Take consecutive events; return what may be delivered now.

        Args:
            now: seconds, by a clock that never goes back.
        """
        found: list[Found] = []
        came = False
        for seq, event in enumerate(events, first_seq):
            if isinstance(event, Text):
                came = True
                self._add(seq, event.text)
                self._cut_each(found)
            elif self._parts and isinstance(event, PART_EVENTS):
                if not isinstance(event, Reasoning) or self._end > self._begin:
                    found += self.flush()
                if seq > self._after:
                    found.append(Part(event, seq))
            elif isinstance(event, ToolCall) and self._sentences is not None:
                # What the model says before it calls a tool is said, however it is punctuated.
                self._know(self._sentences.flush())
                self._cut_each(found)
            elif isinstance(event, Reset):
                self._clear()
                if self._sentences is not None:
                    self._sentences.clear()
                if seq > self._after:
                    found.append(Voided(seq))
        if self._interval is not None:
            self._pace(found, now, self._interval, came)
        return found

    def release(self, now: float) -> list[Found]:
        """Return what the interval has held back long enough, and set ``due`` anew."""
        if self._interval is None:
            return []
        found: list[Found] = []
        if self._tail_due is not None and now >= self._tail_due:
            # Nothing followed for a whole interval. What looks like an end is taken for one; should it turn out
            # to be none, the rest of the sentence comes under the same number.
            if now < self._last + self._interval:
                self._tail_due = self._last + self._interval
            else:
                self._tail_due = None
                if self._sentences is not None and self._sentences.looks_ended():
                    self._cut_to(self._end, found, now)
        if self._ready_due is not None and now >= self._ready_due:
            self._cut_to(self._ready, found, now)
        return found

    def flush(self) -> list[Found]:
        """Return all that waits: the reply is over, however it ended."""
        if self._sentences is not None:
            self._know(self._sentences.flush())
        found: list[Found] = []
        self._cut_each(found)
        rest = self._cut(self._end, blank=True)
        if rest is not None:
            found.append(rest)
        self._ready_due = self._tail_due = None
        return found

    def rest(self) -> list[Piece]:
        """Return all that waits, although the reply goes on: somebody else delivers what follows. What follows of a
        sentence has the same number."""
        found: list[Found] = []
        self._cut_each(found)
        rest = self._cut(self._end, blank=True)
        self._ready_due = self._tail_due = None
        return [piece for piece in (*found, rest) if isinstance(piece, Piece)]

    # ---- cutting ----

    def _add(self, seq: int, text: str) -> None:
        self._chunks += 1
        self._waiting.append(_Chunk(seq, self._chunks, self._end, text))
        if seq <= self._after:  # the reader has it
            part = self._taken if seq == self._after else 0
            self._begin = self._end + min(part or len(text), len(text))
        self._end += len(text)
        if self._sentences is None:
            self._ready = self._end
        else:
            self._know(self._sentences.feed(text))

    def _know(self, ends: Sequence[int]) -> None:
        self._ends += ends
        if ends:
            self._ready = ends[-1]

    def _cut_each(self, found: list[Found]) -> None:
        """Deliver chunk by chunk, or sentence by sentence, unless there is an interval."""
        if self._interval is not None:
            return
        for end in [self._ready] if self._sentences is None else list(self._ends):
            piece = self._cut(end)
            if piece is not None:
                found.append(piece)

    def _pace(self, found: list[Found], now: float, interval: float, came: bool) -> None:
        """Deliver all together if the interval has passed; otherwise say when."""
        if self._ready > self._begin:
            if now >= self._last + interval or self._ready - self._begin > LARGEST_WAITING:
                self._cut_to(self._ready, found, now)
            else:
                self._ready_due = self._last + interval
        if came and self._sentences is not None:
            self._tail_due = now + interval if self._end > max(self._ready, self._begin) else None

    def _cut_to(self, end: int, found: list[Found], now: float) -> None:
        self._ready_due = None
        piece = self._cut(end)
        if piece is not None:
            self._last = now
            found.append(piece)

    def _cut(self, end: int, *, blank: bool = False) -> Piece | None:
        """Return the text from where the reader is to ``end``; None when there is none.

        Args:
            blank: whether it may be nothing but white space. Otherwise that goes with what follows, as a sentence
                that the interval has cut leaves the space after it behind.
        """
        self._forget(self._begin)
        if end <= self._begin:
            self._number(end)
            return None
        texts: list[str] = []
        last: _Chunk | None = None
        for chunk in self._waiting:
            if chunk.start >= end:
                break
            texts.append(chunk.text[max(self._begin - chunk.start, 0) : end - chunk.start])
            last = chunk
        text = "".join(texts)
        if last is None or not text:
            return None
        if self._sentences is not None and not blank and len(text) < LARGEST_BLANK and text.isspace():
            return None
        self._begin = end
        taken = end - last.start
        self._forget(end)
        return Piece(
            text=text,
            seq=last.seq,
            taken=taken if taken < len(last.text) else 0,
            sentences=self._number(end),
            chunks=last.number,
            characters=end,
        )

    def _forget(self, end: int) -> None:
        while self._waiting and self._waiting[0].start + len(self._waiting[0].text) <= end:
            self._waiting.popleft()

    def _number(self, end: int) -> int:
        """Return the number of the sentence that ends at ``end``, or in whose midst it lies."""
        if self._sentences is None:
            return 0
        passed = 0
        while self._ends and self._ends[0] <= end:
            passed = self._ends.popleft()
            self._sentence += 1
        return max(self._sentence if passed == end else self._sentence + 1, 1)


def _sentences() -> Sentences:
    # Imported when asked for: its patterns take milliseconds to compile, and a cold start has no use for them.
    from tailrace.delivery.sentences import Sentences

    return Sentences()
