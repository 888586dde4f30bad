"""What a reply's events come to. Its writer and whoever ends it from its log count by the same rules. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tailrace.events import (
    Attempt,
    Citation,
    Event,
    ProviderState,
    Reasoning,
    Reset,
    ResponseInfo,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)

BYTES_A_TOKEN: Final = 4
"""For estimates: what English comes to with the common tokenizers. In UTF-8, which makes a Chinese character, of three
bytes, most of a token."""


LONGEST_REASONING: Final = 20_000
"""Characters of its reasoning that are kept with a reply; all of it is in the log."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a reply.

    Attributes:
        seq: of its last event before the end.
        chunks: how many chunks of text or reasoning the provider sent.
        written: bytes of text, reasoning and arguments that the model wrote.
        attempts: the providers that were asked before the one that answered.
        reasoning: its beginning, ``LONGEST_REASONING`` characters at most.
        state: what the provider wants back with it.
        started: when it was opened, microseconds since 1970.
        duration: seconds from then until its end.
        first_chunk: seconds from then until the first chunk, or None when there was none.
    """

    content: str = ""
    seq: int = 0
    chunks: int = 0
    written: int = 0
    usage: Usage | None = None
    info: ResponseInfo = ResponseInfo()
    tool_calls: Sequence[ToolCall] = ()
    tool_results: Sequence[ToolResult] = ()
    citations: Sequence[Citation] = ()
    attempts: Sequence[Attempt] = ()
    reasoning: str = ""
    state: ProviderState | None = None
    started: int
    duration: float
    first_chunk: float | None = None


class Tally:
    """Adds up events as they come.

    Attributes:
        chunks: pieces of text and reasoning.
        info: what the provider said of its answer; not from the log.
    """

    def __init__(self) -> None:
        self.chunks = 0
        self.info = ResponseInfo()
        self._pieces: list[str] = []
        self._unseen = 0  # bytes that are no content
        self._usage: Usage | None = None
        self._calls: list[ToolCall] = []
        self._results: list[ToolResult] = []
        self._citations: list[Citation] = []
        self._attempts: list[Attempt] = []
        self._reasoning: list[str] = []
        self._reasoned = 0
        self._state: ProviderState | None = None

    @property
    def content(self) -> str:
        """The text so far."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    @property
    def usage(self) -> Usage | None:
        """The token counts so far."""
        return self._usage

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The tool calls so far."""
        return self._calls

    @property
    def tool_results(self) -> Sequence[ToolResult]:
        """What tools that the provider ran returned."""
        return self._results

    @property
    def citations(self) -> Sequence[Citation]:
        """The sources named so far."""
        return self._citations

    def add(self, event: Event) -> None:
        """Take in the next entry of the log; it counts as a chunk only to whoever counts them."""
        if isinstance(event, Text):
            self._pieces.append(event.text)
        elif isinstance(event, Reasoning):
            self._unseen += len(event.text.encode())
            if self._reasoned < LONGEST_REASONING:
                self._reasoning.append(event.text)
                self._reasoned += len(event.text)
        elif isinstance(event, Usage):
            self._usage = event.over(self._usage)
        elif isinstance(event, ToolCall):
            self._calls.append(event)
            self._unseen += len(event.arguments.encode())
        elif isinstance(event, ToolResult):
            self._results.append(event)
        elif isinstance(event, Citation):
            self._citations.append(event)
        elif isinstance(event, Attempt):
            self._attempts.append(event)
        elif isinstance(event, ProviderState):
            self._state = event
        elif isinstance(event, Reset):
            self._void()

    def count(self, usage: Usage) -> None:
        """Take in what a provider's answer says of its tokens apart from its events."""
        self._usage = usage.over(self._usage)

    def _void(self) -> None:
        self._pieces.clear()
        self._unseen = 0
        self._usage = self._state = None
        self._reasoned = 0
        self.info = ResponseInfo()
        for gathered in (self._calls, self._results, self._citations, self._reasoning):
            gathered.clear()

    def totals(self, *, seq: int, started: int, duration: float, first_chunk: float | None) -> Totals:
        """Return the whole; the arguments are ``Totals``'s."""
        content = self.content
        return Totals(
            content=content,
            seq=seq,
            chunks=self.chunks,
            written=len(content.encode()) + self._unseen,
            usage=self._usage,
            info=self.info,
            tool_calls=self._calls,
            tool_results=self._results,
            citations=self._citations,
            attempts=self._attempts,
            reasoning="".join(self._reasoning)[:LONGEST_REASONING],
            state=self._state,
            started=started,
            duration=duration,
            first_chunk=first_chunk,
        )


def totals_of(events: Sequence[Event], *, started: int, first_at: int | None, now: int) -> Totals:
    """Return what the log alone says of a reply.

    Args:
        events: all of its log.
        started: when the message was created, microseconds since 1970.
        first_at: when the first segment with an event was written.
        now: microseconds since 1970.
    """
    tally = Tally()
    for event in events:
        tally.add(event)
        tally.chunks += isinstance(event, Text | Reasoning)
    return tally.totals(
        seq=len(events),
        started=started,
        duration=(now - started) / 1_000_000,
        first_chunk=None if first_at is None else (first_at - started) / 1_000_000,
    )


def tokens_in(size: int) -> int:
    """Return an estimate of the tokens that so many bytes of text are."""
    return max(1, round(size / BYTES_A_TOKEN)) if size else 0
