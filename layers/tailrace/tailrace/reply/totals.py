"""What a reply's events come to. Its writer and whoever ends it from its log count by the same rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from tailrace.events import (
    TEXTS,
    Approval,
    ApprovalRequest,
    Attempt,
    Citation,
    Event,
    ProviderState,
    Reasoning,
    Reset,
    ResponseInfo,
    Step,
    StepEnd,
    Text,
    ToolCall,
    ToolResult,
    ToolRun,
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
        state: what the provider wants back with its last step.
        steps: all its steps, if it had more than one or tools ran here; else none.
        usages: the token counts of each step, where there are several.
        asked: how many steps the model was asked for.
        has_calls: whether its last step asked for tools.
        unfinished: the names of the tools that were begun here and have no result, by the ids of their calls.
        waiting: the calls that wait for a yes.
        denied: those that were not allowed.
        ends: of each step that is over, how many characters, calls and results there are with it.
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
    steps: Sequence[Step] = ()
    usages: Sequence[Usage] = ()
    asked: int = 1
    has_calls: bool = False
    unfinished: Mapping[str, str] = msgspec.field(default_factory=dict)
    waiting: Sequence[str] = ()
    denied: Sequence[str] = ()
    ends: Sequence[tuple[int, int, int]] = ()
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
        self._attempts: list[Attempt] = []
        self._pieces: list[str]
        self._unseen: int  # bytes that are no content
        self._calls: list[ToolCall]
        self._results: list[ToolResult]
        self._citations: list[Citation]
        self._reasoning: list[str]
        self._reasoned: int
        self._steps: list[Step]  # that are over
        self._usages: list[Usage]  # of these
        self._unfinished: dict[str, str]  # names of the tools that were begun here, by their calls' ids
        self._waiting: list[str]
        self._denied: list[str]
        self._ends: list[tuple[int, int, int]]
        # Of the step that is not over.
        self._usage: Usage | None
        self._state: ProviderState | None
        self._own: set[str]  # calls that are answered here
        self._void()

    @property
    def content(self) -> str:
        """The text so far."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    @property
    def usage(self) -> Usage | None:
        """The token counts so far, of all steps."""
        return _sum([*self._usages, *([self._usage] if self._usage is not None else [])])

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The tool calls so far."""
        return self._calls

    @property
    def tool_results(self) -> Sequence[ToolResult]:
        """What tools returned that ran beside the model."""
        return self._results

    @property
    def citations(self) -> Sequence[Citation]:
        """The sources named so far."""
        return self._citations

    @property
    def has_calls(self) -> bool:
        """Whether the last step asked for tools."""
        begun = self._calls[self._step_calls :] or not self._steps or self._is_begun()
        return bool(self._calls[self._step_calls :]) if begun else bool(self._steps[-1].calls)

    def add(self, events: Iterable[Event]) -> None:
        """Take in the next entries of the log; they count as chunks only to whoever counts them."""
        pieces = self._pieces
        for event in events:
            if isinstance(event, Text):
                pieces.append(event.text)
            else:
                self._add(event)
                pieces = self._pieces  # others after a reset

    def add_text(self, text: str) -> None:
        """Take in the text of entries that are nothing else."""
        self._pieces.append(text)

    def _add(self, event: Event) -> None:
        if isinstance(event, Reasoning):
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
            self._unfinished.pop(event.id, None)
        elif isinstance(event, Citation):
            self._citations.append(event)
        elif isinstance(event, Attempt):
            self._attempts.append(event)
        elif isinstance(event, ProviderState):
            self._state = event
        elif isinstance(event, Reset):
            self._void()
        elif isinstance(event, ToolRun):
            self._own.add(event.id)
            self._unfinished[event.id] = event.name
        elif isinstance(event, Approval):
            self._own.add(event.id)
            if not event.is_approved:
                self._denied.append(event.id)
        elif isinstance(event, ApprovalRequest):
            self._waiting.append(event.id)
        elif isinstance(event, StepEnd):
            self._end_step()

    def count(self, usage: Usage) -> None:
        """Take in what a provider's answer says of its tokens apart from its events."""
        self._usage = usage.over(self._usage)

    def _void(self) -> None:
        self.info = ResponseInfo()
        self._pieces, self._reasoning = [], []
        self._unseen = self._reasoned = 0
        self._calls, self._results, self._citations = [], [], []
        self._steps, self._usages, self._waiting = [], [], []
        self._denied, self._ends = [], []
        self._unfinished = {}
        self._begin_step()

    # ---- steps ----

    def _begin_step(self) -> None:
        self._usage = self._state = None
        self._own = set()
        self._begin = len(self.content)
        self._step_calls = len(self._calls)
        self._step_results = len(self._results)

    def _end_step(self) -> None:
        self._steps.append(self._step(is_over=True))
        self._ends.append((len(self.content), len(self._calls), len(self._results)))
        if self._usage is not None:
            self._usages.append(self._usage)
        self._begin_step()

    def _step(self, *, is_over: bool) -> Step:
        """Return the step as the next prompt needs it: without the tools that the provider ran itself, which lie in its
        state. An agent that says where its steps end runs its tools beside the model, as we do."""
        calls, results = self._calls[self._step_calls :], self._results[self._step_results :]
        if self._own or not is_over:
            known = {each.id for each in self._calls}  # others are of an earlier reply, which this one goes on with
            results = [each for each in results if each.id in self._own or each.id not in known]
            answered = {each.id for each in self._results[self._step_results :]}
            calls = [each for each in calls if each.id in self._own or each.id not in answered]
        length = len(self.content) - self._begin
        return Step(length if is_over else None, None, tuple(calls), tuple(results), self._state)

    def _is_begun(self) -> bool:
        """Whether anything of a step came after the last one that is over."""
        return bool(
            len(self.content) > self._begin
            or self._calls[self._step_calls :]
            or self._results[self._step_results :]
            or self._own
            or self._usage is not None
        )

    def totals(self, *, seq: int, started: int, duration: float, first_chunk: float | None) -> Totals:
        """Return the whole; the arguments are ``Totals``'s."""
        content = self.content
        has_steps = bool(self._steps or self._own)
        is_begun = self._is_begun()
        steps = [*self._steps, *([self._step(is_over=False)] if is_begun or not self._steps else [])]
        asked = sum(bool(step.calls or step.length) for step in self._steps) + is_begun
        return Totals(
            content=content,
            seq=seq,
            chunks=self.chunks,
            written=len(content.encode()) + self._unseen,
            usage=self.usage,
            info=self.info,
            tool_calls=self._calls,
            tool_results=self._results,
            citations=self._citations,
            attempts=self._attempts,
            reasoning="".join(self._reasoning)[:LONGEST_REASONING],
            state=self._state,
            steps=steps if has_steps else (),
            usages=[*self._usages, *([self._usage] if self._usage is not None else [])] if self._usages else (),
            asked=asked,
            has_calls=self.has_calls,
            unfinished=dict(self._unfinished),
            waiting=self._waiting,
            denied=self._denied,
            ends=self._ends,
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
    tally.add(events)
    tally.chunks = sum(isinstance(event, TEXTS) for event in events)
    return tally.totals(
        seq=len(events),
        started=started,
        duration=(now - started) / 1_000_000,
        first_chunk=None if first_at is None else (first_at - started) / 1_000_000,
    )


def _sum(usages: Sequence[Usage]) -> Usage | None:
    """Return the token counts of several steps together; None where none has any."""
    if len(usages) < 2:
        return usages[0] if usages else None

    def total(counts: Iterable[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    return Usage(
        prompt_tokens=total(each.prompt_tokens for each in usages),
        completion_tokens=total(each.completion_tokens for each in usages),
        cache_read=total(each.cache_read for each in usages),
        cache_write=total(each.cache_write for each in usages),
        reasoning=total(each.reasoning for each in usages),
    )


def tokens_in(size: int) -> int:
    """Return an estimate of the tokens that so many bytes of text are."""
    return max(1, round(size / BYTES_A_TOKEN)) if size else 0
