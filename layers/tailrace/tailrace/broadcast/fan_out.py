"""Posting to subscribers: a little patience for each, and nobody waits for somebody else.

A socket that is gone loses its subscription. One that does not read, or whose posts fail, is given about a second,
then it is left behind and catches up by its cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Sequence
from functools import partial
from random import SystemRandom
from typing import Final, Protocol

import msgspec

from tailrace.broadcast.connections import Refused, SocketBusy, SocketGone
from tailrace.clock import Clock, Timer
from tailrace.errors import StoreError, where
from tailrace.store import Subscription, Subscriptions

logger = logging.getLogger(__name__)

# The system's: a seed would be the same in all processes that Lambda restores from one snapshot (SnapStart).
_JITTER = SystemRandom().random

PATIENCE: Final = 1.0
"""Seconds after which a post is not tried again."""

AT_ONCE: Final = 64
"""Subscribers that one fan-out posts to at a time."""

AT_A_TURN: Final = 4
"""Posts that are begun in one turn of the event loop. Each is some 0.2 ms, and the reply's own stream waits for all of
them (benchmarks/stuck_subscriber.py)."""

SLOW_SECONDS: Final = PATIENCE / 2
"""After which a post takes no room: many that do not read must not keep the others waiting."""


class Posts(Protocol):
    """What is needed of the management API."""

    async def post(self, socket: str, data: bytes) -> None:
        """Send a frame to a client (see ``Connections``)."""
        ...


class Sent(msgspec.Struct, frozen=True):
    """What became of a fan-out.

    Attributes:
        subscribers: how many there were to post to.
        posted: those of them who got every frame.
        dropped: the sockets of those who did not and may still be there.
    """

    subscribers: int
    posted: int
    dropped: Sequence[str]


class FanOut:
    """Posts frames to the subscribers of channels.

    Args:
        patience: seconds after which a post is not tried again.
        at_once: subscribers that one ``send`` posts to at a time.
        jitter: a number in [0, 1), drawn for each wait.

    Attributes:
        when_gone: called with a subscription with a member that was removed because its socket is gone.
    """

    def __init__(
        self,
        connections: Posts,
        subscriptions: Subscriptions,
        *,
        clock: Clock,
        patience: float = PATIENCE,
        at_once: int = AT_ONCE,
        jitter: Callable[[], float] = _JITTER,
    ) -> None:
        self._connections = connections
        self._subscriptions = subscriptions
        self._clock = clock
        self._patience = patience
        self._at_once = at_once
        self._jitter = jitter
        self.when_gone: Callable[[Subscription], Awaitable[object]] | None = None

    async def post(self, socket: str, channel: str | None, frame: bytes) -> bool:
        """Send one frame to one client. Fails for no reason that lies with the client or the service.

        A post whose answer was lost is made again, so a client may get a frame twice and tells so by its ``seq``.

        Args:
            channel: whose subscription goes if the socket is gone; none when None.

        Returns:
            Whether it was sent.
        """
        return await self._attempt(socket, channel, frame) is None

    async def _attempt(self, socket: str, channel: str | None, frame: bytes) -> bool | None:
        """Return None when it was sent, otherwise whether the socket may still be there."""
        give_up = self._clock.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                await self._connections.post(socket, frame)
            except SocketGone:
                if channel is not None:
                    await self._remove(channel, socket)
                return False
            except Refused as error:
                logger.error("post refused", extra={"reason": str(error)})
                return True
            except SocketBusy as error:
                wait = pause * (0.5 + self._jitter())
                if self._clock.monotonic() + wait >= give_up:
                    logger.info("subscriber dropped", extra={"reason": str(error)})
                    return True
            else:
                return None
            await self._clock.sleep(wait)
            pause *= 2

    async def _remove(self, channel: str, socket: str) -> None:
        try:
            removed = await self._subscriptions.remove(channel, socket)
            if removed is not None and removed.member is not None and self.when_gone is not None:
                await self.when_gone(removed)
        except StoreError as error:  # it expires by itself, or the next post finds out again
            logger.warning("subscription not removed", extra={"reason": error.message})

    async def send(
        self,
        channel: str,
        frames: Sequence[bytes],
        *,
        except_socket: str | None = None,
        skip: Container[str] = (),
        wants: Callable[[Subscription], bool] | None = None,
    ) -> Sent:
        """Post frames to all of a channel's subscribers, to each in order.

        Args:
            except_socket: who is left out; not a subscriber here.
            skip: sockets that get nothing, although they are subscribers.
            wants: says which of the others get it; all when None.

        Raises:
            StoreError: the subscriptions cannot be read; some may have got the frames.
        """

        async def each() -> AsyncIterator[tuple[Subscription, Sequence[bytes]]]:
            async for subscription in self._subscriptions.of_channel(channel):
                if subscription.socket == except_socket:
                    continue
                wanted = subscription.socket not in skip and (wants is None or wants(subscription))
                yield subscription, frames if wanted else ()

        return await self._post_all(each())

    async def post_each(self, targets: Iterable[tuple[Subscription, Sequence[bytes]]]) -> Sent:
        """Post to each subscriber its own frames, in order; to one without frames nothing."""

        async def each() -> AsyncIterator[tuple[Subscription, Sequence[bytes]]]:
            for target in targets:
                yield target

        return await self._post_all(each())

    async def _post_all(self, targets: AsyncIterator[tuple[Subscription, Sequence[bytes]]]) -> Sent:
        subscribers = posted = 0
        dropped: list[str] = []
        room = asyncio.Semaphore(self._at_once)

        async def serve(subscription: Subscription, frames: Sequence[bytes]) -> None:
            nonlocal posted
            try:
                for frame in frames:
                    failed = await self._attempt(subscription.socket, subscription.channel, frame)
                    if failed is not None:
                        if failed:
                            dropped.append(subscription.socket)
                        return
                posted += 1
            except Exception as error:  # a bug must not take the other subscribers with it
                logger.error("post failed", extra=where(error))
            finally:
                room.release()

        unread: StoreError | None = None
        async with asyncio.TaskGroup() as tasks:
            try:
                async for subscription, frames in targets:
                    subscribers += 1
                    if not frames:
                        continue
                    await room.acquire()
                    tasks.create_task(serve(subscription, frames))
            except StoreError as error:  # raised in here, it would come out as a group, and cut off the others' posts
                unread = error
        if unread is not None:
            raise unread
        return Sent(subscribers, posted, dropped)


class Room:
    """Room for so many posts at once. Who finds none waits, and is let in by turn; what waits takes no patience, which
    begins with the post. Otherwise five hundred posts at once are a queue of our own in which healthy sockets time out.

    It is callbacks, as its user is, ``feed.py``.

    Args:
        at_once: how many may be under way; those that take longer than ``SLOW_SECONDS`` do not count. A post is
            all that is given to one subscriber together, nearly always one frame.
        at_a_turn: how many begin before the event loop does something else.
    """

    def __init__(self, clock: Clock, *, at_once: int = AT_ONCE, at_a_turn: int = AT_A_TURN) -> None:
        self._clock = clock
        self._free = at_once
        self._at_a_turn = at_a_turn
        self._waiting: deque[Callable[[], asyncio.Task[None] | None]] = deque()
        self._under_way: dict[asyncio.Task[None], Timer | None] = {}  # the timer of those that take room
        self._turn: asyncio.Handle | None = None

    def enter(self, begin: Callable[[], asyncio.Task[None] | None]) -> None:
        """Call ``begin`` when there is room; it returns the post's task, or None when there is nothing to post."""
        self._waiting.append(begin)
        self._go_on()

    def _go_on(self) -> None:
        if self._turn is None and self._waiting and self._free:
            self._turn = asyncio.get_running_loop().call_soon(self._let_in)

    def _let_in(self) -> None:
        self._turn = None
        begun = 0
        while self._waiting and self._free and begun < self._at_a_turn:
            task = self._waiting.popleft()()
            if task is None:
                continue
            begun += 1
            self._free -= 1
            self._under_way[task] = self._clock.call_later(SLOW_SECONDS, partial(self._make_room, task))
            task.add_done_callback(self._leave)
        self._go_on()

    def _make_room(self, task: asyncio.Task[None]) -> None:
        timer = self._under_way[task]
        if timer is not None:
            timer.cancel()
            self._under_way[task] = None
            self._free += 1
            self._go_on()

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._make_room(task)
        del self._under_way[task]

    async def empty(self) -> None:
        """Wait until nobody waits and no post is under way."""
        while self._waiting or self._under_way:
            if self._under_way:
                await asyncio.wait(self._under_way)
            else:
                await asyncio.sleep(0)  # the next are let in at this very turn

    def close(self) -> None:
        """Let nobody in any more. What is under way is its owner's."""
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
