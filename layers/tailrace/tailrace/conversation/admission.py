"""Whether an identity may start one more reply, or make one more conversation: decided and stored in one step."""

from __future__ import annotations

import msgspec

from tailrace.backend import Backend
from tailrace.errors import NotFound
from tailrace.identity.limits import Held, admitted, must_look, settled, with_conversation
from tailrace.store.dynamodb import Payload

Known = tuple[str, int]
"""What is stored of an identity, and its version."""


class Admission:
    """One use by one identity. Its update goes into the transaction of what is used, and holds only if nobody else has
    used anything meanwhile; then it is asked for again.

    Args:
        known: what was read already.
    """

    def __init__(self, backend: Backend, owner: str, known: Known | None = None) -> None:
        self._backend = backend
        self._owner = owner
        self._known = known

    def forget(self) -> None:
        """What was read is not so any more."""
        self._known = None

    async def reply(self, reply: str, *, makes_conversation: bool) -> Payload:
        """Return the update by which one more reply is used.

        Raises:
            RateLimited: that would be too much.
            StoreError: what was used cannot be read.
        """
        held, version = await self._read()
        now = self._backend.clock.now()
        limits = self._backend.limits
        if must_look(held, limits):
            held = await self._settled(held)
            if limits.open is not None and len(held.replies) >= limits.open:
                held = await self._without_dead(held)
        held = admitted(held, limits, reply, now, makes_conversation=makes_conversation)
        return self._update(held, version)

    async def conversation(self) -> Payload:
        """Return the update by which one more conversation is used.

        Raises:
            RateLimited, StoreError: as for ``reply``.
        """
        held, version = await self._read()
        return self._update(with_conversation(held, self._backend.limits, self._backend.clock.now()), version)

    async def _read(self) -> tuple[Held, int]:
        if self._known is None:
            self._known = await self._backend.store.identities.get(self._owner)
        text, version = self._known
        return (msgspec.json.decode(text, type=Held) if text else Held()), version

    async def _settled(self, held: Held) -> Held:
        spent = await self._backend.store.identities.spent([*held.replies])
        return settled(held, spent, self._backend.clock.now())

    async def _without_dead(self, held: Held) -> Held:
        """End those replies whose writer is gone, as the sweep would within a minute."""
        before = self._backend.clock.now() - round(self._backend.settings.lease * 1_000_000)
        for reply, since in held.replies.items():
            if since < before:
                try:
                    await self._backend.open_replies.interrupt(reply)
                except NotFound:
                    continue
        return await self._settled(held)

    def _update(self, held: Held, version: int) -> Payload:
        return self._backend.store.identities.update_request(self._owner, msgspec.json.encode(held).decode(), version)
