"""The far side of a hand-over: a batch of a reply's segments, for more subscribers than a relay posts to; and what is
announced to as many.

A post is about a tenth of a millisecond of CPU, so ten thousand subscribers are a second of one environment for every
batch. Therefore an invocation posts to one page of the subscribers, and shares the other pages out to invocations of
the same function, all at once. They are given the frames, and read nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from tailrace.aws.invoke import InvokeError, NotCalled, StillRuns
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

PAGE_SECONDS: Final = {"post": 5.0, "announce": 10.0}
"""After which each of a page's subscribers has one try, while the service refuses. Whoever waits for a page waits for
ten seconds (``Invoke``), and the function begins no announcement in its last twenty."""

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
        begins: whether that is for all, and not only for those who are behind.
        except_socket: the socket that is left out, or None.
        skip: sockets that were dropped before and have to catch up.
        behind: sockets that did not get the batch before, to the first number that they need; ``CREATED`` is what comes
            before the first segment.
    """

    message_id: str
    channel: str
    first: int
    last: int
    created: Message | None = None
    begins: bool = True
    except_socket: str | None = None
    skip: frozenset[str] = frozenset()
    behind: Mapping[str, int] = msgspec.field(default_factory=dict)


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
        task: what a further invocation is asked to do: to ``post`` chunks or to ``announce``, which is more patient.
    """

    def __init__(
        self,
        fan_out: FanOut,
        frames: Frames,
        store: Store,
        call_function: CallFunction | None,
        *,
        page: int = PAGE,
        task: Literal["post", "announce"] = "post",
    ) -> None:
        self._fan_out = fan_out
        self._frames = frames
        self._store = store
        self._call_function = call_function
        self._page = page
        self._task = task

    async def fan_out(self, request: object) -> Json:
        """Send a batch to all subscribers of its channel.

        Args:
            request: a ``Batch`` as JSON.

        Returns:
            ``subscribers``, how many there are; ``dropped``, the sockets that did not get all of it; and ``refused``,
            whether that is rather the service's fault.

        Raises:
            Unprocessable: it is no such request.
            StoreError: the table cannot be read.
        """
        batch = _read(request, Batch)
        first = max(min([batch.first, *batch.behind.values()]), 0)
        log = self._store.log.read(batch.message_id, first - 1, upto=batch.last)
        segments = [segment async for segment in log]
        frames: dict[int, Sequence[str]] = {}
        pages = _Pages(self._page)
        subscribers = 0
        async for subscription in self._store.subscriptions.of_channel(batch.channel):
            if subscription.socket == batch.except_socket:
                continue
            subscribers += 1
            first = batch.behind.get(subscription.socket, CREATED if batch.begins else batch.first)
            first = max(first, subscription.starts.get(batch.message_id, CREATED))
            if first not in frames:
                frames[first] = self._prepare(batch, segments, first)
            if frames[first] and subscription.socket not in batch.skip:
                pages.add(subscription, first)
        posted = await self._post_all(pages.of(frames))
        return {"subscribers": subscribers, "dropped": posted.dropped, "refused": posted.refused}

    async def send(
        self,
        channel: str,
        frames: Sequence[bytes],
        *,
        except_socket: str | None = None,
        wants: Callable[[Subscription], bool] | None = None,
    ) -> Sent:
        """Post frames to all of a channel's subscribers, as ``FanOut.send`` does.

        Raises:
            StoreError: the subscriptions cannot be read; nobody got anything.
        """
        pages = _Pages(self._page)
        subscribers = 0
        async for subscription in self._store.subscriptions.of_channel(channel):
            if subscription.socket != except_socket:
                subscribers += 1
                if wants is None or wants(subscription):
                    pages.add(subscription)
        posted = await self._post_all(pages.of({0: [frame.decode() for frame in frames]}))
        return msgspec.structs.replace(posted, subscribers=subscribers)

    async def post(self, request: object) -> Json:
        """Post a page that another invocation shared out.

        Args:
            request: a ``Page`` as JSON.

        Returns:
            ``dropped`` and ``refused``, as above, and ``posted``, how many got every frame.

        Raises:
            Unprocessable: it is no such request.
        """
        posted = await self._post(_read(request, Page))
        return {"dropped": posted.dropped, "posted": posted.posted, "refused": posted.refused}

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

    async def _post_all(self, pages: Sequence[Page]) -> Sent:
        gate = asyncio.Semaphore(PAGES_AT_ONCE)
        posted = await asyncio.gather(*map(self._post, pages[:1]), *(self._share(page, gate) for page in pages[1:]))
        dropped = [socket for each in posted for socket in each.dropped]
        refused = any(each.refused for each in posted)
        return Sent(dropped=dropped, posted=sum(each.posted for each in posted), refused=refused)

    async def _post(self, page: Page) -> Sent:
        targets: list[tuple[Subscription, Sequence[bytes]]] = []
        for run in page.runs:
            frames = [frame.encode() for frame in run.frames]
            targets += [(subscription, frames) for subscription in run.subscriptions]
        return await self._fan_out.post_each(targets, seconds=PAGE_SECONDS[self._task])

    async def _share(self, page: Page, gate: asyncio.Semaphore) -> Sent:
        size = sum(len(frame.encode()) for run in page.runs for frame in run.frames)
        if self._call_function is None or size > LARGEST_SHARE:
            return await self._post(page)
        try:
            async with gate:
                answer = await self._call_function({self._task: msgspec.to_builtins(page)})
            return _read(answer, Sent)
        except InvokeError as error:
            if isinstance(error, NotCalled) or (self._task == "announce" and not isinstance(error, StillRuns)):
                # Nobody got it; or some did, and whoever did not would wait for an end that nobody tells of again.
                return await self._post(page)
            # Some of them may have got it, so it is not posted from here too: they see a gap and catch up.
            left_out = sum(len(run.subscriptions) for run in page.runs)
            logger.error("page not posted", extra={"reason": str(error), "subscribers": left_out})
            return Sent()


class _Pages:
    """Shares subscribers out.

    Args:
        size: of a page.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pages: list[dict[int, list[Subscription]]] = []
        self._count = 0

    def add(self, subscription: Subscription, first: int = 0) -> None:
        """Add one that gets the frames of a run, by its name."""
        if self._count % self._size == 0:
            self._pages.append({})
        self._pages[-1].setdefault(first, []).append(subscription)
        self._count += 1

    def of(self, frames: Mapping[int, Sequence[str]]) -> list[Page]:
        """Return the pages, given the frames of each run."""
        return [Page([Run(frames[first], who) for first, who in page.items()]) for page in self._pages]


_Kind = TypeVar("_Kind", Batch, Page, Sent)


def _read(request: object, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(request, kind)
    except msgspec.ValidationError as error:
        # msgspec says which field and what it should be, and nothing of what it was.
        raise Unprocessable(f"The request to fan out cannot be read: {error}.") from error
