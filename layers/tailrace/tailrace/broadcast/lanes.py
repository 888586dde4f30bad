"""The lanes of a reply's feed: each subscriber at its own pace, with at most one post to it at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from tailrace.broadcast.backlog import CREATED, Backlog
from tailrace.broadcast.branch import Branch, BranchReader
from tailrace.broadcast.branches import Branches
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.lane import EveryChunk, Lane
from tailrace.broadcast.room import Room
from tailrace.clock import Clock
from tailrace.errors import StoreError, where
from tailrace.events import Message
from tailrace.store import NEVER, Log, Subscription

logger = logging.getLogger(__name__)


class Lanes:
    """Posts what was stored of one reply to those who listen.

    Args:
        message: the reply as it was created.
        log: where a subscriber's delivery finds the beginning of a reply that it came late to.
        tasks: where running tasks are kept, for whoever shuts down.

    Attributes:
        looked: the newest segment that was stored before the last look for listeners.
        given: the newest segment that was given to anybody.
    """

    def __init__(
        self,
        message: Message,
        channel: str,
        backlog: Backlog,
        *,
        frames: Frames,
        fan_out: FanOut,
        log: Log,
        clock: Clock,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self.looked = CREATED - 1
        self.given = CREATED - 1
        self._id = message.id
        self._channel = channel
        self._backlog = backlog
        self._frames = frames
        self._log = log
        self._fan_out = fan_out
        self._tasks = tasks
        self._branches = Branches(frames, channel, message, backlog, log, clock, self._enter_branch)
        self._room = Room(clock)
        self._lanes: dict[str, Lane] = {}
        self._closed = False

    async def serve(self, listeners: Sequence[Subscription], upto: int) -> None:
        """Give those who listen now, and nobody else, the segments up to a number.

        Raises:
            StoreError: what a delivery needs of the log cannot be read; nothing was given.
        """
        new = self._newcomers(listeners, upto)
        if self._branches or any(subscription.delivery is not None for _, subscription in new):
            await self._branches.prepare((subscription.delivery for _, subscription in new), upto)
        self.looked = upto
        lanes = {each.socket: self._lanes[each.socket] for each in listeners if not self._is_new(each)}
        for after, subscription in new:
            before = self._lanes.get(subscription.socket)
            lanes[subscription.socket] = Lane(
                subscription, self._reader(subscription, after), None if before is None else before.task
            )
        for socket, lane in self._lanes.items():
            lane.open = lane.open and lanes.get(socket) is lane  # otherwise unsubscribed, or subscribed anew
        self._lanes = lanes
        if lanes:
            self.given = upto
        self._branches.keep(lane.reader for lane in lanes.values() if lane.open)
        self._branches.feed(upto)
        for lane in lanes.values():
            self._enter(lane)
        self._tidy()

    def _newcomers(self, listeners: Sequence[Subscription], upto: int) -> list[tuple[int, Subscription]]:
        """Return who needs a lane, and the segment up to which each has everything, in its order."""
        new: list[tuple[int, Subscription]] = []
        for subscription in listeners:
            first = subscription.starts.get(self._id)
            if first == NEVER or not self._is_new(subscription):
                continue  # it is being caught up by somebody else, or has its lane
            after = self.given if first is None else max(first - 1, self.given)
            if subscription.delivery is None or after <= upto:  # a branch is not there yet: at the next look
                new.append((after, subscription))
        return sorted(new, key=lambda each: each[0])

    def _is_new(self, subscription: Subscription) -> bool:
        lane = self._lanes.get(subscription.socket)
        return lane is None or lane.since != subscription.since

    def _reader(self, subscription: Subscription, after: int) -> EveryChunk | BranchReader:
        if subscription.delivery is not None:
            reader = self._branches.reader(subscription.delivery, after)
            if reader is not None:
                return reader
        return EveryChunk(self._backlog, after)

    def _enter_branch(self, branch: Branch) -> None:
        for lane in self._lanes.values():
            if isinstance(lane.reader, BranchReader) and lane.reader.branch is branch:
                self._enter(lane)

    def _enter(self, lane: Lane) -> None:
        """Post what there is for a lane once there is room, if nothing is being posted to it."""
        if lane.task is None and not lane.waits and lane.open:
            lane.waits = True
            self._room.enter(lambda: self._begin_post(lane))

    def _begin_post(self, lane: Lane) -> asyncio.Task[None] | None:
        lane.waits = False
        if not lane.open:
            return None
        if isinstance(lane.reader, EveryChunk) and lane.reader.is_behind:
            lane.task = asyncio.ensure_future(self._post_forgotten(lane, lane.reader))
        else:
            # Only now: what was stored while it waited goes into the same frame.
            frames = lane.reader.take(self.looked)
            if not frames:
                return None
            lane.task = asyncio.ensure_future(self._post(lane, frames))
        self._tasks.add(lane.task)
        lane.task.add_done_callback(lambda task: self._posted(lane, task))
        return lane.task

    async def _post(self, lane: Lane, frames: Sequence[bytes]) -> None:
        if lane.before is not None:
            await asyncio.wait((lane.before,))
            lane.before = None
        for frame in frames:
            if not lane.open:
                return
            if not await self._fan_out.post(lane.socket, self._channel, frame):
                lane.open = False

    async def _post_forgotten(self, lane: Lane, reader: EveryChunk) -> None:
        """Post what is only in the log any more, page by page, as fast as the subscriber takes it."""
        try:
            while lane.open and reader.is_behind:
                await self._post(lane, await reader.read(self._log, self._frames, self._channel, self._id))
        except StoreError as error:  # it goes on with what is here; the subscriber sees the gap, and may catch up
            logger.warning("segments not read", extra={"message_id": self._id, "reason": error.message})
            reader.skip()

    def _posted(self, lane: Lane, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        lane.task = None
        if task.cancelled():
            lane.open = False
        elif (error := task.exception()) is not None:
            lane.open = False
            logger.error("post failed", extra={"message_id": self._id, **where(error)})
        elif not self._closed:
            self._enter(lane)
            self._tidy()

    def _tidy(self) -> None:
        """Forget what everybody has."""
        readers = [lane.reader for lane in self._lanes.values() if lane.open]
        behind = [reader.after for reader in readers if isinstance(reader, EveryChunk)]
        self._backlog.forget(min(behind, default=self.given))
        if self._branches:
            self._branches.forget(readers)

    # ---- the end of it ----

    async def drain(self) -> None:
        """Give what deliveries hold back too, and wait until all is posted."""
        self._branches.flush()
        await self._room.empty()

    async def leave(self) -> None:
        """Do the same, and leave all that is stored from now on to somebody else."""
        await self.drain()
        self._lanes.clear()
        self._branches.keep(())

    def gave(self, upto: int) -> None:
        """Forget the segments up to a number: somebody else has given them."""
        self.given = self.looked = upto
        self._backlog.forget(upto)

    def close(self) -> None:
        """Post nothing more."""
        self._closed = True
        self._room.close()
        for lane in self._lanes.values():
            lane.open = False
        self._lanes.clear()
        self._branches.keep(())
