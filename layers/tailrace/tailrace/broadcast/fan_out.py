"""Posting to subscribers: a little patience for each, and nobody waits for somebody else.

A socket that is gone loses its subscription. One that does not read, or whose posts fail, is given a second or two,
then it is left behind and catches up by its cursor. Where the service refuses posts of anybody, nobody is left behind
so soon: what it refused comes later.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from tailrace.broadcast.connections import Refused, SocketBusy, SocketGone
from tailrace.broadcast.refusals import Refusals
from tailrace.clock import Clock
from tailrace.errors import StoreError, where
from tailrace.ids import JITTER
from tailrace.store import Subscription, Subscriptions

logger = logging.getLogger(__name__)

PATIENCE: Final = 1.5
"""Seconds after which a post is not tried again. More than one try may take (``Connections``): when this process itself
stood still for a second, all the posts that were under way have timed out, and nobody else is to blame."""

FORBEARANCE: Final = 5
"""How many times as long a post is tried while it is the service that refuses."""

SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two posts of a frame, at first and for who has more patience."""

AT_ONCE: Final = 64
"""Subscribers that are posted to at a time, so that no post times out while it waits for the CPU."""

AT_A_TURN: Final = 4
"""Posts that are begun in one turn of the event loop. Each is some 0.2 ms, and the reply's own stream waits for all of
them (benchmarks/stuck_subscriber.py)."""

SLOW_SECONDS: Final = 0.5
"""After which a post no longer counts: many that do not read must not keep the others waiting."""


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
        refused: whether it is the service that refuses, so that those who were dropped may well be reading.
    """

    subscribers: int = 0
    dropped: Sequence[str] = ()
    posted: int = 0
    refused: bool = False


class Attempt(NamedTuple):
    """What became of a post.

    Attributes:
        pause: seconds that another try would have been waited for; 0 if the first was enough.
    """

    outcome: Literal["sent", "gone", "dropped"]
    pause: float = 0.0


class PostSemaphore:
    """For posts beside a reply's own stream: lets ``AT_ONCE`` run at a time, and ``AT_A_TURN`` begin; the others wait
    for their turn. A post is all that is given to one subscriber together, nearly always one frame; its patience begins
    with it, not with the waiting.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free = AT_ONCE
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turn: asyncio.Handle | None = None

    async def run(self, post: Callable[[], Awaitable[None]]) -> None:
        """Make a post when it is its turn."""
        self._waiting.append(asyncio.get_running_loop().create_future())
        self._go_on()
        await self._waiting[-1]
        counts = True

        def stop_counting() -> None:
            nonlocal counts
            self._free += counts
            counts = False
            self._go_on()

        timer = self._clock.call_later(SLOW_SECONDS, stop_counting)
        try:
            await post()
        finally:
            timer.cancel()
            stop_counting()

    def _go_on(self) -> None:
        if self._turn is None and self._waiting and self._free:
            self._turn = asyncio.get_running_loop().call_soon(self._begin_some)

    def _begin_some(self) -> None:
        self._turn = None
        for _ in range(min(AT_A_TURN, self._free, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(None)
                self._free -= 1
        self._go_on()


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
        self._refusals = Refusals(clock)
        self.when_gone: Callable[[Subscription], Awaitable[object]] | None = None

    async def post(self, socket: str, channel: str | None, frame: bytes) -> bool:
        """Send one frame to one client. Fails for no reason that lies with the client or the service.

        A post whose answer was lost is made again, so a client may get a frame twice and tells so by its ``seq``.

        Args:
            channel: whose subscription goes if the socket is gone; none when None.

        Returns:
            Whether it was sent.
        """
        return (await self.attempt(socket, channel, frame)).outcome == "sent"

    async def attempt(
        self,
        socket: str,
        channel: str | None,
        frame: bytes,
        *,
        patience: float | None = None,
        pause: float = SHORTEST_PAUSE,
    ) -> Attempt:
        """The same; return what became of it.

        Args:
            patience: seconds after which it is not tried again; when None, what this object was given, and longer
                while it is the service that refuses.
            pause: seconds until the second try.
        """
        begun = self._clock.monotonic()
        tries = 0
        while True:
            try:
                await self._connections.post(socket, frame)
            except SocketGone:
                if channel is not None:
                    await self._remove(channel, socket)
                return Attempt("gone")
            except Refused as error:
                logger.error("post refused", extra={"reason": str(error)})
                return Attempt("dropped")
            except SocketBusy as error:
                if not tries:
                    self._refusals.refused()
                tries += 1
                wait = pause * (0.5 + self._jitter())
                waited = self._clock.monotonic() + wait - begun
                if waited >= (self._forbearance(waited) if patience is None else patience):
                    logger.info("subscriber dropped", extra={"reason": str(error)})
                    return Attempt("dropped", pause)
            else:
                if tries:
                    self._refusals.recovered()
                return Attempt("sent", pause if tries else 0.0)
            await self._clock.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE, self._patience if patience is None else patience)

    def _forbearance(self, waited: float) -> float:
        """Return the patience with a post for which was waited so long."""
        longer = waited >= self._patience and self._refusals.are_the_service_s
        return self._patience * (FORBEARANCE if longer else 1)

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

    async def post_each(
        self, targets: Sequence[tuple[Subscription, Sequence[bytes]]], *, seconds: float = math.inf
    ) -> Sent:
        """Post to each subscriber its own frames, in order; to one without frames nothing.

        Args:
            seconds: after which each has one try.
        """
        one_try = self._clock.monotonic() + seconds
        semaphore = asyncio.Semaphore(AT_ONCE)  # a turn at a time would be dearer, and here is no stream to wait for it

        async def serve(subscription: Subscription, frames: Sequence[bytes]) -> str:
            async with semaphore:
                try:
                    for frame in frames:
                        patience = 0.0 if self._clock.monotonic() >= one_try else None
                        outcome, _ = await self.attempt(
                            subscription.socket, subscription.channel, frame, patience=patience
                        )
                        if outcome != "sent":
                            return outcome
                except Exception as error:  # a bug must not take the other subscribers with it
                    logger.error("post failed", extra=where(error))
                    return "failed"
                return "sent"

        served = [target for target in targets if target[1]]
        outcomes = await asyncio.gather(*(serve(*target) for target in served))
        dropped = [each.socket for (each, _), outcome in zip(served, outcomes, strict=True) if outcome == "dropped"]
        return Sent(len(targets), dropped, outcomes.count("sent"), self._refusals.are_the_service_s)
