"""Posting to subscribers: a little patience for each, and nobody waits for somebody else.

A socket that is gone loses its subscription. One that does not read, or whose posts fail, is given a second or two,
then it is left behind and catches up by its cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, Protocol

import msgspec

from tailrace.broadcast.connections import Refused, SocketBusy, SocketGone
from tailrace.broadcast.post_semaphore import AT_ONCE
from tailrace.clock import Clock
from tailrace.errors import StoreError, where
from tailrace.ids import JITTER
from tailrace.store import Subscription, Subscriptions

logger = logging.getLogger(__name__)

PATIENCE: Final = 1.5
"""Seconds after which a post is not tried again. More than one try may take (``Connections``): when this process itself
stood still for a second, all the posts that were under way have timed out, and nobody else is to blame."""

LONGEST_PAUSE: Final = 1.0
"""Seconds between two posts of a frame, for who has more patience."""


class Posts(Protocol):
    """What is needed of the management API."""

    async def post(self, socket: str, data: bytes) -> None:
        """Send a frame to a client (see ``Connections``)."""
        ...


class Sent(msgspec.Struct, frozen=True):
    """What became of a fan-out.

    Attributes:
        subscribers: how many there were to post to.
        dropped: the sockets of those who did not get every frame and may still be there.
        posted: how many got every frame.
    """

    subscribers: int
    dropped: Sequence[str]
    posted: int = 0


class FanOut:
    """Posts frames to the subscribers of channels.

    Args:
        patience: seconds after which a post is not tried again.
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
        jitter: Callable[[], float] = JITTER,
    ) -> None:
        self._connections = connections
        self._subscriptions = subscriptions
        self._clock = clock
        self._patience = patience
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
        return await self._attempt(socket, channel, frame) == "sent"

    async def _attempt(self, socket: str, channel: str | None, frame: bytes) -> Literal["sent", "gone", "dropped"]:
        give_up = self._clock.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                await self._connections.post(socket, frame)
            except SocketGone:
                if channel is not None:
                    await self._remove(channel, socket)
                return "gone"
            except Refused as error:
                logger.error("post refused", extra={"reason": str(error)})
                return "dropped"
            except SocketBusy as error:
                wait = pause * (0.5 + self._jitter())
                if self._clock.monotonic() + wait >= give_up:
                    logger.info("subscriber dropped", extra={"reason": str(error)})
                    return "dropped"
            else:
                return "sent"
            await self._clock.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

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
        wants: Callable[[Subscription], bool] | None = None,
    ) -> Sent:
        """Post frames to all of a channel's subscribers, to each in order.

        Args:
            except_socket: who is left out; not a subscriber here.
            wants: says which of the others get it; all when None.

        Raises:
            StoreError: the subscriptions cannot be read; nobody got anything.
        """
        return await self.post_each(
            [
                (each, frames if wants is None or wants(each) else ())
                async for each in self._subscriptions.of_channel(channel)
                if each.socket != except_socket
            ]
        )

    async def post_each(self, targets: Sequence[tuple[Subscription, Sequence[bytes]]]) -> Sent:
        """Post to each subscriber its own frames, in order; to one without frames nothing."""
        posted = 0
        dropped: list[str] = []
        semaphore = asyncio.Semaphore(AT_ONCE)

        async def serve(subscription: Subscription, frames: Sequence[bytes]) -> None:
            nonlocal posted
            try:
                for frame in frames:
                    outcome = await self._attempt(subscription.socket, subscription.channel, frame)
                    if outcome != "sent":
                        if outcome == "dropped":
                            dropped.append(subscription.socket)
                        return
                posted += 1
            except Exception as error:  # a bug must not take the other subscribers with it
                logger.error("post failed", extra=where(error))
            finally:
                semaphore.release()

        async with asyncio.TaskGroup() as tasks:
            for subscription, frames in targets:
                if frames:
                    await semaphore.acquire()
                    tasks.create_task(serve(subscription, frames))
        return Sent(len(targets), dropped, posted)
