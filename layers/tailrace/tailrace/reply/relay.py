"""The one hot loop: provider → stream → whoever reads along.

It never waits for the reader: what a reader does with events is a plain call that must not block.
However it ends, the stream has its end, or the error that kept it from the table is raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from tailrace.clock import Clock
from tailrace.errors import OutOfTime, ProviderError, StoreError, StreamEnded, where
from tailrace.events import Event, Message, SourceEvent
from tailrace.reply.ending import CANCELLED, COMPLETED, INTERRUPTED, TIMED_OUT, Ending, failed, stopped
from tailrace.reply.stream import MessageStream

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
"""Seconds of silence after which the log is looked at for an end from elsewhere: whoever stops a reply wants its
provider to stop within a second, also one that thinks. A look costs half a read unit."""

Deliver = Callable[[int, Sequence[Event]], object]
"""Takes the seq of the first event, and the events that one read of the provider brought."""

Source = AsyncGenerator[Sequence[SourceEvent], None]


class Relay:
    """Relays a provider's answer into a stream, and to ``deliver``.

    Args:
        deadline: seconds from now after which the reply is ended as timed out; never when None.
    """

    def __init__(
        self, stream: MessageStream, source: Source, deliver: Deliver, *, clock: Clock, deadline: float | None = None
    ) -> None:
        self._stream = stream
        self._source = source
        self._deliver = deliver
        self._clock = clock
        self._deadline = deadline
        self._ending: Ending | None = None
        self._break: Callable[[], object] = lambda: None

    def stop(self, ending: Ending) -> None:
        """Break off as soon as the event loop comes round, and end the stream this way."""
        if self._ending is None:
            self._ending = ending
            self._break()

    async def run(self) -> Message:
        """Relay until the end; return the message as it ended.

        Raises:
            StoreError: the table is gone, so the end could not be stored.
            asyncio.CancelledError: the task was cancelled; the stream has been ended as interrupted.
        """
        stream = self._stream
        try:
            await self._pump()
            return await stream.end(self._ending or COMPLETED)
        except StreamEnded:
            return await stream.end(COMPLETED)  # somebody else ended it: this reads how
        except ProviderError as error:
            return await stream.end(failed(error))
        except OutOfTime as error:
            return await stream.end(stopped("timed_out", error.message, error.error_type))
        except StoreError:
            raise
        except asyncio.CancelledError:
            await stream.end(INTERRUPTED)
            raise
        except Exception as error:
            # A bug, ours or a provider module's: the reader is still owed a terminal event.
            logger.error("relay failed", extra={"message_id": stream.id, **where(error)})
            return await stream.end(failed("internal error: " + type(error).__name__))

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        stream = self._stream
        timer = None
        if self._deadline is not None:
            timer = self._clock.call_later(self._deadline, lambda: self.stop(TIMED_OUT))
        looking = asyncio.create_task(self._look_out())
        try:
            # This time-out never comes by itself: it is how the wait for a silent provider is broken.
            async with asyncio.timeout(None) as wait, aclosing(self._source):
                self._break = lambda: wait.reschedule(loop.time())
                stream.when_lost(self._break)
                if self._ending is not None:
                    return
                try:
                    async for events in self._source:
                        first_seq, logged = stream.push(events)
                        if logged:
                            self._deliver(first_seq, logged)
                        await stream.room()
                finally:
                    self._break = lambda: None
                    stream.when_lost(None)
        except TimeoutError:
            if not wait.expired():
                raise
        finally:
            if timer is not None:
                timer.cancel()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        if stream.lost is not None:
            raise stream.lost

    async def _look_out(self) -> None:
        """Notice an end that somebody else gave while nothing is written; a write would notice it itself."""
        stream = self._stream
        while True:
            written = stream.segments
            await self._clock.sleep(LOOK_SECONDS)
            try:
                if stream.segments == written and not stream.is_waiting and await stream.was_ended():
                    self.stop(CANCELLED)  # whatever it was: what is stored wins
            except StoreError:
                pass  # the next look, or the next write, will tell
