"""The one hot loop: provider → stream → whoever reads along.

It never waits for the reader: what a reader does with events is a plain call that must not block.
However it ends, the stream has its end, or the error that kept it from the table is raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from tailrace.errors import ProviderError, StoreError, StreamEnded, where
from tailrace.events import Event, Message, ProviderEvent
from tailrace.stream import MessageStream

logger = logging.getLogger(__name__)

Deliver = Callable[[int, Sequence[Event]], object]
"""Takes the seq of the first event, and the events that one read of the provider brought."""


async def relay(
    stream: MessageStream, source: AsyncGenerator[Sequence[ProviderEvent], None], deliver: Deliver
) -> Message:
    """Relay a provider's answer into the stream and to ``deliver``; return the message as it ended.

    Raises:
        StoreError: the table is gone, so the end could not be stored.
        asyncio.CancelledError: the relay was cancelled; the stream has been ended as interrupted.
    """
    try:
        return await _pump(stream, source, deliver)
    except StreamEnded:
        return await stream.complete()  # somebody else ended it: this reads how
    except ProviderError as error:
        return await stream.fail(error)
    except StoreError:
        raise
    except asyncio.CancelledError:
        await stream.stop("interrupted", "The reply was interrupted.", "interrupted")
        raise
    except Exception as error:
        # A bug, ours or a provider module's: the reader is still owed a terminal event.
        logger.error("relay failed", extra={"message_id": stream.id, **where(error)})
        return await stream.fail("internal error: " + type(error).__name__)


async def _pump(
    stream: MessageStream, source: AsyncGenerator[Sequence[ProviderEvent], None], deliver: Deliver
) -> Message:
    loop = asyncio.get_running_loop()
    try:
        # The time-out never comes by itself: it is how a lost stream breaks the wait for the provider.
        async with asyncio.timeout(None) as wait, aclosing(source):
            stream.when_lost(lambda: wait.reschedule(loop.time()))
            try:
                async for events in source:
                    first_seq, logged = stream.push(events)
                    if logged:
                        deliver(first_seq, logged)
                    await stream.room()
            finally:
                stream.when_lost(None)
    except TimeoutError:
        if not wait.expired():
            raise
    if stream.lost is not None:
        raise stream.lost
    return await stream.complete()
