"""What one identity and one connection may use over WebSocket.

A connection too many is let in all the same, since a client that is refused at ``$connect`` comes back at once, and not
alone; what it asks for then is refused, with a sentence that says why.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tailrace.clock import Clock
from tailrace.errors import RateLimited
from tailrace.identity.limits import SocketLimits
from tailrace.ids import RandomBytes
from tailrace.store import Caller, Store
from tailrace.store.identities import IdentityChanged

MOST_TRIES: Final = 10
"""How often what an identity has open is read again, because another connection of it came or went meanwhile."""

AGAIN: Final = 1
"""Seconds after which something may be tried again."""

_SOCKETS: Final = "W"
_Open = dict[str, int]


class Allowance:
    """Counts, and refuses what is too much. What is not limited costs nothing here.

    Args:
        limits: by the settings.
    """

    def __init__(self, store: Store, limits: SocketLimits, clock: Clock, random_bytes: RandomBytes) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._random_bytes = random_bytes

    async def connect(self, socket: str, caller: Caller) -> None:
        """Remember for whom a connection acts, and whether it is one too many.

        Raises:
            StoreError: the table cannot be read or written.
        """
        most, sockets = self._limits.sockets, self._store.sockets
        if most is None:
            await sockets.put(socket, caller)
            return
        for _ in range(MOST_TRIES):
            open_now, version = await self._open(caller.owner)
            if len(open_now) >= most and socket not in open_now:
                break
            held = _text({**open_now, socket: sockets.expires()})
            identity = self._store.identities.update_request(caller.owner, held, version, _SOCKETS)
            try:
                await sockets.put(socket, caller, identity=identity, nonce=self._random_bytes(16))
            except IdentityChanged:
                continue
            return
        await sockets.put(socket, msgspec.structs.replace(caller, is_over=True))

    async def disconnect(self, socket: str) -> None:
        """Forget a connection. One that went without a word is forgotten once it cannot be there any more.

        Raises:
            StoreError: the table cannot be read or written.
        """
        caller = await self._store.sockets.remove(socket)
        if caller is None or caller.is_over or self._limits.sockets is None:
            return
        for _ in range(MOST_TRIES):
            open_now, version = await self._open(caller.owner)
            if open_now.pop(socket, None) is None:
                return
            try:
                await self._store.identities.update(caller.owner, _text(open_now), version, _SOCKETS)
            except IdentityChanged:
                continue
            return

    def check(self, caller: Caller | None) -> None:
        """Let a connection through that is not one too many.

        Raises:
            RateLimited: it is.
        """
        if caller is not None and caller.is_over:
            most = self._limits.sockets
            raise RateLimited(
                f"At most {most} connections may be open at once: close another one, and connect again.",
                retry_after=AGAIN,
            )

    async def subscribe(self, socket: str, channel: str) -> None:
        """Count a channel of a connection.

        Raises:
            RateLimited: it has as many as it may, or is one connection too many.
            StoreError: the table cannot be written.
        """
        if self._limits.sockets is not None:
            self.check(await self._store.sockets.caller(socket))
        most = self._limits.channels
        if most is not None and not await self._store.sockets.add_channel(socket, channel, most):
            raise RateLimited(f"At most {most} channels may be subscribed to at once.", retry_after=AGAIN)

    async def unsubscribe(self, socket: str, channel: str) -> None:
        """Count a channel no more.

        Raises:
            StoreError: the table cannot be written.
        """
        if self._limits.channels is not None:
            await self._store.sockets.drop_channel(socket, channel)

    async def whisper(self, socket: str) -> None:
        """Count a whisper.

        Raises:
            RateLimited: it is one too many for this second.
            StoreError: the table cannot be written.
        """
        most = self._limits.whispers
        if most is not None and not await self._store.sockets.whispered(socket, most):
            raise RateLimited(f"At most {most} whispers may be sent a second.", retry_after=AGAIN)

    async def _open(self, owner: str) -> tuple[_Open, int]:
        """Return the connections of an owner that may still be there, with their ends, and the version of that."""
        text, version = await self._store.identities.get(owner, _SOCKETS)
        known = msgspec.json.decode(text, type=_Open) if text else {}
        now = self._clock.now() // 1_000_000
        return {socket: expires for socket, expires in known.items() if expires > now}, version


def _text(open_now: _Open) -> str:
    return msgspec.json.encode(open_now).decode()
