"""Subscribers: channels, frames, posts, and the feed of a reply that is being written.

``Broadcast`` wires them. It is called with an event of a user's own, and makes the feeds of replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Final

from tailrace.aws.invoke import Invoke
from tailrace.broadcast.channels import check_channel
from tailrace.broadcast.connections import Connections
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.feed import Feed
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.presence import Presence
from tailrace.clock import Clock
from tailrace.errors import ConfigurationError
from tailrace.events import Message
from tailrace.settings import Settings
from tailrace.store import Store

CLOSE_SECONDS: Final = 3.0
"""How long closing waits for feeds of replies that have ended."""

HAND_OVER_SECONDS: Final = 30.0
"""How long a relay waits for a batch to be posted: to ten thousand subscribers a second, and several times that while
the account makes too many posts. What is stored meanwhile goes into the next batch."""


class Broadcast:
    """What sends to subscribers.

    Args:
        read_secret: reads a secret of Secrets Manager by its name.
    """

    def __init__(
        self, settings: Settings, store: Store, *, clock: Clock, read_secret: Callable[[str], Awaitable[str]]
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._read_secret = read_secret
        self._work: set[asyncio.Task[None]] = set()
        self.frames = Frames(settings.event_namespace)
        self.subscriptions = store.subscriptions

    @property
    def on(self) -> bool:
        """Whether anything is broadcast."""
        return self._settings.broadcasting

    @cached_property
    def connections(self) -> Connections:
        """The management API.

        Raises:
            ConfigurationError: there is no WebSocket API.
        """
        if self._settings.websocket_url is None:
            raise ConfigurationError("TAILRACE_WEBSOCKET_URL is not set.")
        return Connections(self._settings.websocket_url, region=self._settings.region, clock=self._clock)

    @cached_property
    def fan_out(self) -> FanOut:
        """What posts to the subscribers of channels.

        Raises:
            ConfigurationError: there is no WebSocket API.
        """
        fan_out = FanOut(self.connections, self.subscriptions, clock=self._clock)
        fan_out.when_gone = Presence(fan_out, self.subscriptions).left
        return fan_out

    @cached_property
    def _invoke(self) -> Invoke | None:
        settings = self._settings
        if settings.broadcast_function is None:
            return None
        return Invoke(
            settings.broadcast_function,
            region=settings.region,
            endpoint_url=settings.lambda_endpoint,
            timeout=HAND_OVER_SECONDS,
        )

    async def __call__(self, event: str, data: Any, channel: str, *, except_socket: str | None = None) -> None:
        """Send an event of your own to a channel's subscribers. Does nothing when broadcasting is off.

        Args:
            event: its name without the namespace, as Echo's ``listen`` takes it.
            data: JSON.
            except_socket: the socket id that is left out: Echo's ``toOthers``.

        Raises:
            RequestError: the channel's name cannot be one.
            TooLarge: the frame is over 128 KB.
            StoreError: the subscriptions cannot be read. No subscriber's fault is ever raised.
        """
        if not self.on:
            return
        frame = self.frames.event(event, check_channel(channel), data)
        await self.fan_out.send(channel, [frame], except_socket=except_socket)

    async def secret(self) -> str:
        """Return what private and presence channels are signed with.

        Raises:
            ConfigurationError: none is set.
        """
        if self._settings.channel_secret is not None:
            return self._settings.channel_secret
        if self._settings.channel_secret_id is None:
            raise ConfigurationError("TAILRACE_CHANNEL_SECRET is not set.")
        return await self._read_secret(self._settings.channel_secret_id)

    def feed(self, message: Message, channel: str, except_socket: str | None) -> Feed:
        """Return the feed of a reply that has just been stored."""
        return Feed(
            message,
            channel,
            except_socket,
            frames=self.frames,
            fan_out=self.fan_out,
            store=self._store,
            fed=self._store.messages.fed,
            clock=self._clock,
            limit=self._settings.fan_out_limit,
            call_function=None if self._invoke is None else self._invoke.call,
            tasks=self._work,
        )

    async def close(self) -> None:
        """Give the feeds of this event loop a moment, then close its connections."""
        loop = asyncio.get_running_loop()
        work = [task for task in self._work if task.get_loop() is loop]
        if work:
            await asyncio.wait(work, timeout=CLOSE_SECONDS)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        if "connections" in self.__dict__:
            await self.connections.close()
        if self._invoke is not None:
            await self._invoke.close()
