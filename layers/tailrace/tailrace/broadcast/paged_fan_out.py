"""The far side of a hand-over: a batch of a reply's segments, for more subscribers than a relay posts to.

A post is about half a millisecond of CPU, so a thousand subscribers are half a second of one environment for every
batch. Therefore an invocation posts to one page of the subscribers, and shares the other pages out to invocations of
the same function, all at once. They are given the frames, and read nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from tailrace.aws.invoke import InvokeError
from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.broadcast.fan_out import FanOut, Sent
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.segment_queue import CREATED
from tailrace.errors import Unprocessable
from tailrace.events import Json, Message
from tailrace.store import Segment, Store, Subscription

PAGE: Final = 500
"""Subscribers that one invocation posts to: some 0.3 s of a vCPU for each frame."""

PAGES_AT_ONCE: Final = 20
"""Further invocations at a time. An account has 1,000 by default, for all of its functions
(https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html)."""

PATIENCE: Final = 0.3
"""Seconds after which a post is not tried again. The relay waits for the answer before it hands over the next batch, so
whoever does not read would keep all the others waiting; a relay that posts itself can give each a second."""

LARGEST_SHARE: Final = 4_000_000
"""Bytes of frames that are given to a further invocation, which takes 6 MB of JSON."""

logger = logging.getLogger(__name__)

CallFunction = Callable[[Json], Awaitable[Json]]
"""Calls the broadcast function with a request and returns its answer. Raises ``InvokeError``."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay hands over.

    Attributes:
        first, last: the numbers of the segments.
        created: the message as it was at its beginning, if that is to be announced first.
        except_socket: the socket that is left out, or None.
        skip: sockets that were dropped before and have to catch up.
    """

    message_id: str
    channel: str
    first: int
    last: int
    created: Message | None = None
    except_socket: str | None = None
    skip: frozenset[str] = frozenset()


class Run(msgspec.Struct, frozen=True):
    """Frames in their order, and the subscribers who get these."""

    frames: Sequence[str]
    subscriptions: Sequence[Subscription]


class Page(msgspec.Struct, frozen=True):
    """Some of the subscribers, for one invocation."""

    runs: Sequence[Run]


class PagedFanOut:
    """Fans batches out.

    Args:
        call_function: calls a further invocation; None where there is none to share with.
        page: subscribers that one invocation posts to.
    """

    def __init__(
        self, fan_out: FanOut, frames: Frames, store: Store, call_function: CallFunction | None, *, page: int = PAGE
    ) -> None:
        self._fan_out = fan_out
        self._frames = frames
        self._store = store
        self._call_function = call_function
        self._page = page

    async def fan_out(self, request: object) -> Json:
        """Send a batch to all subscribers of its channel.

        Args:
            request: a ``Batch`` as JSON.

        Returns:
            ``subscribers``, how many there are, and ``dropped``, the sockets that have to catch up by their cursor.

        Raises:
            Unprocessable: it is no such request.
            StoreError: the table cannot be read.
        """
        batch = _read(request, Batch)
        log = self._store.log.read(batch.message_id, batch.first - 1, upto=batch.last)
        segments = [segment async for segment in log]
        frames: dict[int, Sequence[str]] = {}
        pages: list[dict[int, list[Subscription]]] = []
        subscribers = told = 0
        async for subscription in self._store.subscriptions.of_channel(batch.channel):
            if subscription.socket == batch.except_socket:
                continue
            subscribers += 1
            first = subscription.starts.get(batch.message_id, CREATED)
            if first not in frames:
                frames[first] = self._prepare(batch, segments, first)
            if frames[first] and subscription.socket not in batch.skip:
                if told % self._page == 0:
                    pages.append({})
                pages[-1].setdefault(first, []).append(subscription)
                told += 1
        gate = asyncio.Semaphore(PAGES_AT_ONCE)
        shares = [Page([Run(frames[first], who) for first, who in page.items()]) for page in pages]
        posted = await asyncio.gather(*map(self._post, shares[:1]), *(self._share(page, gate) for page in shares[1:]))
        return {"subscribers": subscribers, "dropped": [socket for dropped in posted for socket in dropped]}

    async def post(self, request: object) -> Json:
        """Post a page that another invocation shared out.

        Args:
            request: a ``Page`` as JSON.

        Returns:
            ``dropped``, as above.

        Raises:
            Unprocessable: it is no such request.
        """
        return {"dropped": await self._post(_read(request, Page))}

    def _prepare(self, batch: Batch, segments: Sequence[Segment], first: int) -> list[str]:
        """Return the frames for subscribers who get segments from ``first`` on."""
        frames: list[bytes] = []
        if batch.created is not None and first == CREATED:
            frames.append(self._frames.message_created(batch.channel, batch.created))
        wanted = [segment for segment in segments if segment.number >= first]
        if wanted:
            place = ChunkFrames(self._frames, batch.channel, batch.message_id, after=wanted[0].first_seq - 1)
            frames += place.run([event for segment in wanted for event in segment.events])
        return [frame.decode() for frame in frames]

    async def _post(self, page: Page) -> Sequence[str]:
        targets: list[tuple[Subscription, Sequence[bytes]]] = []
        for run in page.runs:
            frames = [frame.encode() for frame in run.frames]
            targets += [(subscription, frames) for subscription in run.subscriptions]
        return (await self._fan_out.post_each(targets)).dropped

    async def _share(self, page: Page, gate: asyncio.Semaphore) -> Sequence[str]:
        size = sum(len(frame.encode()) for run in page.runs for frame in run.frames)
        if self._call_function is None or size > LARGEST_SHARE:
            return await self._post(page)
        try:
            async with gate:
                answer = await self._call_function({"post": msgspec.to_builtins(page)})
            return _read(answer, Sent).dropped
        except InvokeError as error:
            # Some of them may have got it, so it is not posted from here too: they see a gap and catch up.
            left_out = sum(len(run.subscriptions) for run in page.runs)
            logger.error("page not posted", extra={"reason": str(error), "subscribers": left_out})
            return []


_Kind = TypeVar("_Kind", Batch, Page, Sent)


def _read(request: object, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(request, kind)
    except msgspec.ValidationError as error:
        # msgspec says which field and what it should be, and nothing of what it was.
        raise Unprocessable(f"The request to fan out cannot be read: {error}.") from error
