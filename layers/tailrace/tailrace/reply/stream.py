"""A stream: one assistant message while it is being written, from the first chunk to its one end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

import msgspec

from tailrace.clock import Clock, rfc3339
from tailrace.errors import AppendConflict, ProviderError, StoreError, TailraceError
from tailrace.events import (
    TERMINAL,
    TEXTS,
    End,
    Event,
    Json,
    Message,
    ProviderState,
    Reasoning,
    ResponseInfo,
    SourceEvent,
    Status,
    Text,
    ToolCall,
    ToolResult,
    are_texts,
)
from tailrace.ids import RandomBytes
from tailrace.reply.ending import COMPLETED, Ending, Response, failed, outcome, stopped
from tailrace.reply.log_writer import LogWriter, bytes_of_texts
from tailrace.reply.totals import Tally
from tailrace.store import Outcome, Store

if TYPE_CHECKING:  # not imported where nothing is broadcast
    from tailrace.broadcast.feed import Feed

# Which state may follow which. Terminal states never change; the condition in Log.end enforces the same
# table in DynamoDB, so that two processes cannot disagree about it. "streaming" is not stored: it is a pending
# message whose log has begun, which saves a write.
TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    "pending": TERMINAL | {"streaming"},
    "streaming": TERMINAL,
    **{status: frozenset() for status in TERMINAL},
}

LARGEST_EVENT: Final = 50_000
"""Characters (at most 200 KB) in one event; a longer chunk is logged as several."""

LARGEST_WHOLE: Final = 300_000
"""Bytes in an event that cannot be split, a tool call or a result. DynamoDB's items have 400 KB."""


class MessageStream:
    """One reply being written. ``Conversation.stream_response`` makes it.

    Args:
        message: the empty message, already stored.
        private: metadata that is stored and never sent.
        flush_interval: seconds between two flushes of the log; when None 0.1 while somebody reads along, otherwise 0.5.
        heartbeat: seconds of silence after which an empty segment tells that this writer lives.
        feed: sends what is stored to subscribers; None when nothing is broadcast.
        keep_reasoning: whether the message keeps the text of its reasoning.
    """

    def __init__(
        self,
        store: Store,
        message: Message,
        *,
        clock: Clock,
        random_bytes: RandomBytes,
        private: Json | None = None,
        flush_interval: float | None = None,
        heartbeat: float = 5.0,
        feed: Feed | None = None,
        keep_reasoning: bool = True,
    ) -> None:
        self.id: Final = message.id
        self._store = store
        self._message = message
        self._clock = clock
        self._private = dict(private or {})
        self._writer = LogWriter(
            store.log,
            message.id,
            clock=clock,
            random_bytes=random_bytes,
            flush_interval=flush_interval,
            heartbeat=heartbeat,
            feed=feed,
        )
        self._feed = feed
        self._keep_reasoning = keep_reasoning
        self._tally = Tally()
        self._opened = clock.monotonic()
        self._opened_at = clock.now()
        self._first_chunk: float | None = None
        self._ending: asyncio.Future[Message] | None = None

    # ---- reading it ----

    @property
    def message(self) -> Message:
        """The message as this writer knows it: all content so far, also what is not flushed yet."""
        if self._message.status in TERMINAL:
            return self._message
        status: Status = "streaming" if self.seq else "pending"
        return msgspec.structs.replace(self._message, content=self.content, seq=self.seq, status=status)

    @property
    def content(self) -> str:
        """The text so far."""
        return self._tally.content

    @property
    def metadata(self) -> Json:
        """The message's metadata; the documented keys are in it once the stream has ended."""
        return self._message.metadata

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return self._writer.seq

    @property
    def chunks(self) -> int:
        """How many chunks of text or reasoning the provider sent."""
        return self._tally.chunks

    @property
    def lost(self) -> TailraceError | None:
        """Why nothing can be appended any more, although this writer has not ended the stream."""
        return self._writer.lost

    @property
    def segments(self) -> int:
        """How many segments are stored."""
        return self._writer.segments

    @property
    def is_waiting(self) -> bool:
        """Whether something is about to be stored; that will tell of an end that somebody else gave."""
        return self._writer.is_waiting

    async def was_ended(self) -> bool:
        """Look whether somebody else has ended the stream; may be a moment late.

        Raises:
            StoreError: the table cannot be read.
        """
        log = self._store.log.read(self.id, self._writer.segments - 1, consistent=False)
        return any([isinstance(event, End) async for segment in log for event in segment.events])

    def when_lost(self, call: Callable[[], object] | None) -> None:
        """Make ``call`` at once when a flush finds that the stream has ended or the table is gone."""
        self._writer.when_lost(call)

    # ---- writing it ----

    async def append(self, chunk: str | SourceEvent) -> Self:
        """Add what a provider sent. An empty string is ignored.

        Raises:
            StreamEnded: the stream has ended, here or elsewhere.
            StoreError: the table cannot be written.
        """
        self.push((Text(chunk) if isinstance(chunk, str) else chunk,))
        await self.room()
        return self

    def push(self, events: Sequence[SourceEvent]) -> tuple[int, Sequence[Event]]:
        """Number events and buffer them for the log; return the first one's seq and what is logged.

        Raises:
            StreamEnded: the stream has ended, here or elsewhere.
            StoreError: the table cannot be written.
            ProviderError: a tool call is too long to be stored; then none of the events is.
        """
        if are_texts(events):
            pieces = [event.text for event in events]
            text = "".join(pieces)
            if len(text) <= LARGEST_EVENT and "" not in pieces:
                first_seq = self._writer.push(events, bytes_of_texts(len(pieces), text))
                self._tally.add_text(text)
                self._count_chunks(len(pieces))
                return first_seq, events
        logged: list[Event] = []
        chunks = 0
        info = None
        for event in events:
            if isinstance(event, TEXTS):
                if text := event.text:
                    chunks += 1
                    if len(text) <= LARGEST_EVENT:
                        logged.append(event)
                    else:
                        logged += _pieces(event)
            elif isinstance(event, ResponseInfo):
                info = event.over(info)
            else:
                logged.append(_fitting(event, self._message.provider or "unknown"))
        first_seq = self._writer.push(logged)
        tally = self._tally
        tally.add(logged)
        if info is not None:
            tally.info = info.over(tally.info)
        self._count_chunks(chunks)
        return first_seq, logged

    def _count_chunks(self, chunks: int) -> None:
        self._tally.chunks += chunks
        if chunks and self._first_chunk is None:
            self._first_chunk = self._clock.monotonic()

    async def room(self) -> None:
        """Wait while too much is waiting for the log."""
        await self._writer.room()

    async def stored(self) -> None:
        """Wait until all that was appended is in the log; so nothing that follows from it can happen before.

        Raises:
            StreamEnded: the stream has ended, here or elsewhere.
            StoreError: the table cannot be written.
        """
        await self._writer.stored()

    # ---- ending it ----

    async def complete(self, response: Response | None = None) -> Message:
        """End the stream as completed; return the message.

        Does nothing to a stream that has ended: the message is returned as it ended.

        Args:
            response: the provider's answer, for its model, usage and finish reason.

        Raises:
            StoreError: the end could not be written. It may be tried again.
        """
        if response is not None and self._ending is None:
            info = ResponseInfo(response.model, response.finish_reason, response.provider_request_id)
            self._tally.info = info.over(self._tally.info)
            if response.usage is not None:
                self._tally.count(response.usage)
        return await self._end_and_drain(COMPLETED)

    async def fail(self, error: str | TailraceError, metadata: Json | None = None) -> Message:
        """End the stream as failed; the partial text is kept. Idempotent like ``complete``.

        Args:
            error: what went wrong. A string is stored privately and readers get a general sentence;
                the message of a ``TailraceError`` is safe and is what readers get.
            metadata: more about it: ``error_type``, ``provider``, ``status_code``, ``retryable``.

        Raises:
            StoreError: the end could not be written. It may be tried again.
        """
        return await self._end_and_drain(failed(error, metadata))

    async def cancel(self, reason: str = "The reply was cancelled.") -> Message:
        """End the stream as cancelled; the partial text is kept. Idempotent like ``complete``.

        Args:
            reason: a sentence that readers get.

        Raises:
            StoreError: the end could not be written. It may be tried again.
        """
        return await self._end_and_drain(stopped("cancelled", reason, "cancelled"))

    async def _end_and_drain(self, ending: Ending) -> Message:
        message = await self.end(ending)
        await self.drain()
        return message

    async def drain(self, seconds: float | None = None) -> None:
        """Wait until subscribers have got the last chunks of an ended stream: about a second at most, ten while API
        Gateway refuses posts or the broadcast function makes them.

        ``complete``, ``fail`` and ``cancel`` do it themselves: a Lambda environment is frozen once it has answered.

        Args:
            seconds: after which they are left without in any case; they see a gap, and catch up.
        """
        if self._feed is not None:
            await self._feed.drain(seconds)

    async def end(self, ending: Ending) -> Message:
        """End the stream; what all the ways to end it come to. Does not wait for subscribers.

        Raises:
            StoreError: the end could not be written. It may be tried again.
        """
        if self._ending is None:
            if ending.status not in TRANSITIONS["streaming"]:
                raise ValueError(f"{ending.status} is not a terminal state")
            # A task of its own: the end is finished even if whoever asked for it is cancelled.
            self._ending = asyncio.ensure_future(self._finish(ending))
        ending_task = self._ending
        try:
            return await asyncio.shield(ending_task)
        except StoreError:
            if self._ending is ending_task:  # several may wait for it, and one may have begun anew
                self._ending = None  # nothing was decided
            raise

    async def _finish(self, ending: Ending) -> Message:
        try:
            await self._writer.close()
            end = self._outcome(ending)
            await self._writer.end(end, End(ending.status, ending.error_type, ending.error))
        except AppendConflict:
            # Somebody else ended it. What is stored is what happened.
            stored = await self._store.messages.get(self.id)
            if stored.status not in TERMINAL:
                raise StoreError("The reply is being written by somebody else.") from None
            self._message = stored
        else:
            self._message = msgspec.structs.replace(
                self._message,
                content=end.content,
                status=end.status,
                seq=end.seq,
                metadata=end.metadata,
                provider=end.provider or self._message.provider,
                model=end.model,
                usage=end.usage,
                finish_reason=end.finish_reason,
                error=end.error,
                completed_at=rfc3339(end.completed),
            )
        return self._message

    def _outcome(self, ending: Ending) -> Outcome:
        totals = self._tally.totals(
            seq=self.seq,
            started=self._opened_at,
            duration=self._clock.monotonic() - self._opened,
            first_chunk=None if self._first_chunk is None else self._first_chunk - self._opened,
        )
        return outcome(
            ending,
            totals,
            given=self._message.metadata,
            private=self._private,
            model=self._message.model,
            completed=self._clock.now(),
            keep_reasoning=self._keep_reasoning,
        )


def _pieces(event: Text | Reasoning) -> Sequence[Event]:
    kind, text = type(event), event.text
    return [kind(text[start : start + LARGEST_EVENT]) for start in range(0, len(text), LARGEST_EVENT)]


def _fitting(event: Event, provider: str) -> Event:
    """Return an event that fits into an item. No model writes a tool call that long; a search may find more."""
    if isinstance(event, ToolCall) and len(event.arguments.encode()) > LARGEST_WHOLE:
        raise ProviderError("The provider wrote a tool call that is too long.", provider=provider)
    if isinstance(event, ProviderState) and len(event.data.encode()) > LARGEST_WHOLE:
        return ProviderState(event.provider, "")  # more than anybody's thoughts of one answer
    if isinstance(event, ToolResult) and len(event.result.encode()) > LARGEST_WHOLE:
        return ToolResult(event.id, event.name, '{"omitted":"too long"}')
    return event
