"""Grants: what the owner of a conversation lets others do in it.

Two kinds: for whoever has its token, which is shown once and of which a hash is stored, and for another owner, who
comes with a token of their own. A request with a grant's token acts for the owner who made it, on the routes below and
in that conversation alone; every other route refuses it.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qs

import msgspec

from tailrace.clock import Clock
from tailrace.errors import Conflict, Forbidden, NotFound, Unauthenticated, Unprocessable
from tailrace.events import ConversationRecord
from tailrace.ids import RandomBytes, conversation_tag, message_address
from tailrace.store import Grant, StoredGrants

Right = Literal["read", "write"]

SHORTEST: Final = 60
LONGEST: Final = 30 * 24 * 3600
USUAL: Final = 3600
"""Seconds that a token is good for: at least, at most, and if nothing is said."""

MOST: Final = 100
"""Grants that a conversation may have at once, give or take those that are made at the same moment."""

PREFIX: Final = "trg_"
"""What a grant's token begins with, so that it is known in a log, or by who looks for secrets in a repository."""

_TAG: Final = 16
_SECRET_BYTES: Final = 24
_TOKEN: Final = rf"{PREFIX}[A-Za-z0-9_-]{{{_TAG + _SECRET_BYTES // 3 * 4}}}"
_PLACE: Final = r"/(conversations|messages)/([A-Za-z0-9_-]+)(/[a-z]+)?"

OPENED: Final[Mapping[tuple[str, str, str], Right]] = {
    ("GET", "conversations", ""): "read",
    ("GET", "conversations", "/messages"): "read",
    ("GET", "conversations", "/stream"): "read",
    ("POST", "conversations", "/messages"): "write",
    ("POST", "conversations", "/stream"): "write",
    ("GET", "messages", ""): "read",
    ("GET", "messages", "/stream"): "read",
    ("GET", "messages", "/events"): "read",
    ("POST", "messages", "/cancel"): "write",
}
"""The routes that a grant opens, by method, what the path names, and what follows it; and the right that each needs."""


class Grants:
    """The grants of one deployment."""

    def __init__(self, stored: StoredGrants, *, clock: Clock, random_bytes: RandomBytes) -> None:
        self._stored = stored
        self._clock = clock
        self._random_bytes = random_bytes

    async def make(
        self,
        conversation: ConversationRecord,
        right: Right,
        *,
        message_id: str | None = None,
        reader: str | None = None,
        seconds: int | None = None,
    ) -> tuple[Grant, str | None]:
        """Store and return a grant, with its token; a grant for another owner has none.

        Args:
            message_id: the only message that it is for.
            reader: the other owner. A second grant for the same takes the place of the first.
            seconds: how long it is good for. An hour when None; for another owner, until it is revoked.

        Raises:
            NotFound: there is no such message in the conversation.
            Unprocessable: another owner may only read.
            Conflict: the conversation has as many grants as it may.
            StoreError: the table cannot be read or written.
        """
        tag = conversation_tag(conversation.id)
        if message_id is not None and message_address(message_id).tag != tag:
            raise NotFound("No such message.")
        if reader is not None and right != "read":
            raise Unprocessable("Another owner may be let read, not write.")
        if len(await self._stored.of_conversation(tag, MOST)) >= MOST:
            raise Conflict(f"A conversation may have {MOST} grants: revoke one first.")
        token = None
        if reader is None:
            secret = urlsafe_b64encode(self._random_bytes(_SECRET_BYTES)).decode()
            token = f"{PREFIX}{tag}{secret}"
            seconds = USUAL if seconds is None else seconds
        now = self._clock.now()
        grant = Grant(
            id=_id_of_token(token) if token is not None else _id_of_reader(reader or "", message_id),
            conversation=conversation.id,
            owner=conversation.owner,
            right=right,
            message=message_id,
            reader=reader,
            created=now,
            expires=None if seconds is None else now // 1_000_000 + seconds,
        )
        await self._stored.put(tag, grant)
        return grant, token

    async def of_conversation(self, conversation_id: str) -> list[Grant]:
        """Return the grants of a conversation that have not expired, the oldest first."""
        return await self._stored.of_conversation(conversation_tag(conversation_id), MOST)

    async def revoke(self, conversation_id: str, grant_id: str) -> None:
        """Remove a grant.

        Raises:
            NotFound: there is none of that id.
            StoreError: the table cannot be written.
        """
        if not await self._stored.remove(conversation_tag(conversation_id), grant_id):
            raise NotFound("No such grant.")

    async def of_token(self, token: str) -> Grant:
        """Return the grant that a token is of.

        Raises:
            Unauthenticated: there is none, it has expired, or it was revoked.
            StoreError: the table cannot be read.
        """
        if re.fullmatch(_TOKEN, token) is None:
            raise Unauthenticated("The token is not one of a grant.", "invalid_token")
        found = await self._stored.get(token[len(PREFIX) : len(PREFIX) + _TAG], [_id_of_token(token)])
        if not found:
            raise Unauthenticated("The grant has expired, or was revoked.", "invalid_token")
        return found[0]

    async def get(self, conversation_id: str, grant_id: str) -> Grant | None:
        """Return a grant, or None if it has expired or was revoked.

        Raises:
            StoreError: the table cannot be read.
        """
        found = await self._stored.get(conversation_tag(conversation_id), [grant_id])
        return found[0] if found else None

    async def for_reader(
        self, conversation: ConversationRecord, reader: str, message_id: str | None = None
    ) -> Grant | None:
        """Return the grant by which another owner may read a conversation, or only a message of it; or None.

        Raises:
            StoreError: the table cannot be read.
        """
        ids = [_id_of_reader(reader, None)]
        if message_id is not None:
            ids.append(_id_of_reader(reader, message_id))
        found = await self._stored.get(conversation_tag(conversation.id), ids)
        # Who made it must be who has the conversation now.
        return next((grant for grant in found if grant.owner == conversation.owner), None)


def is_grant(token: str) -> bool:
    """Return whether a token says that it is of a grant."""
    return token.startswith(PREFIX)


def check_request(grant: Grant, scope: Mapping[str, Any]) -> None:
    """Let a request through that a grant allows.

    Raises:
        Forbidden: the grant is not for such requests.
        NotFound: it is for another conversation or message.
    """
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    place = re.fullmatch(_PLACE, path)
    needed = None if place is None else OPENED.get((scope["method"], place[1], place[3] or ""))
    if place is None or needed is None:
        raise Forbidden("A grant is for the routes of its conversation and messages alone.")
    kind, named = place[1], place[2]
    if kind == "conversations":
        if grant.message is not None:
            raise Forbidden("The grant is for one message alone.")
        if conversation_tag(named) != conversation_tag(grant.conversation):
            raise NotFound("No such conversation.")
    elif message_address(named).tag != conversation_tag(grant.conversation) or grant.message not in (None, named):
        raise NotFound("No such message.")
    starts = place[3] == "/stream" and "message" in parse_qs(scope.get("query_string", b"").decode("latin-1"), True)
    if (needed == "write" or (starts and kind == "conversations")) and grant.right != "write":
        raise Forbidden("The grant is for reading alone.")


def _id_of_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:32]


def _id_of_reader(reader: str, message_id: str | None) -> str:
    return hashlib.sha256(b"tailrace reader" + msgspec.json.encode([reader, message_id])).hexdigest()[:32]
