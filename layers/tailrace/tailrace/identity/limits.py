"""What one identity may use: replies open at once, starts a minute, tokens and conversations a day. Pure.

All of it is one small record for each identity. A start adds itself in its own transaction, and nothing is written when
a reply ends: the record names the replies that were started, and whoever starts the next one looks which of them have
ended, if it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from tailrace.errors import RateLimited
from tailrace.store.identities import Spent

MINUTE: Final = 60_000_000
DAY: Final = 24 * 60 * MINUTE
"""Microseconds."""

MOST_REMEMBERED: Final = 50
"""Replies that a record names before it is looked which have ended; the limit of those open at once if that is more."""

OPEN_AGAIN: Final = 5
"""Seconds after which somebody may try again whose replies are all being written."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed; None is no limit.

    Attributes:
        open: replies at once.
        starts: of replies, a minute. As many may come at once; then they come back evenly.
        tokens: of prompts and answers, a day, by what was counted when a reply ended. One that is begun may go beyond.
        conversations: that are made, a day.
    """

    open: int | None = None
    starts: int | None = None
    tokens: int | None = None
    conversations: int | None = None

    @property
    def are_any(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in msgspec.structs.astuple(self))


class SocketLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed over WebSocket; None is no limit.

    Attributes:
        channels: that one connection may be subscribed to.
        whispers: of one connection, a second. As many may come at once; then they come back evenly.
        sockets: connections of one identity at once.
    """

    channels: int | None = None
    whispers: int | None = None
    sockets: int | None = None


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an identity has used.

    Attributes:
        replies: when those were started of which it is not known here that they have ended, by their ids.
        due: when the starts so far will have been paid off, at the rate that is allowed.
        day: days since 1970, of the two below.
        tokens, conversations: used in it.
    """

    replies: Mapping[str, int] = msgspec.field(default_factory=dict)
    due: int = 0
    day: int = 0
    tokens: int = 0
    conversations: int = 0


def must_look(held: Held, limits: Limits) -> bool:
    """Whether it matters which of the replies have ended."""
    if not held.replies:
        return False
    most = MOST_REMEMBERED if limits.open is None else limits.open
    return limits.tokens is not None or len(held.replies) >= most


def settled(held: Held, ended: Mapping[str, Spent], now: int) -> Held:
    """Return what is used without the replies that have ended, whose tokens count for the day they ended in."""
    held = _today(held, now)
    tokens = sum(each.tokens for each in ended.values() if each.completed // DAY == held.day)
    replies = {each: since for each, since in held.replies.items() if each not in ended}
    return msgspec.structs.replace(held, replies=replies, tokens=held.tokens + tokens)


def admitted(held: Held, limits: Limits, reply: str, now: int, *, makes_conversation: bool = False) -> Held:
    """Return what is used with one more reply.

    Args:
        now: microseconds since 1970.
        makes_conversation: whether it makes its conversation.

    Raises:
        RateLimited: that would be too much; the error says of what, and when to come again.
    """
    held = _today(held, now)
    if limits.open is not None and len(held.replies) >= limits.open:
        raise RateLimited(f"At most {limits.open} replies may be written at once.", retry_after=OPEN_AGAIN)
    if limits.tokens is not None and held.tokens >= limits.tokens:
        raise RateLimited(f"At most {limits.tokens} tokens may be used a day.", retry_after=_tomorrow(now))
    due = held.due
    if limits.starts is not None:
        due, wait = _paid(held.due, limits.starts, now)
        if wait:
            raise RateLimited(f"At most {limits.starts} replies may be started a minute.", retry_after=wait)
    replies = {**held.replies, reply: now}
    if limits.open is None and len(replies) > 2 * MOST_REMEMBERED:
        del replies[min(replies, key=replies.__getitem__)]  # all are open: its tokens are not counted then
    if makes_conversation:
        held = with_conversation(held, limits, now)
    return msgspec.structs.replace(held, replies=replies, due=due)


def with_conversation(held: Held, limits: Limits, now: int) -> Held:
    """Return what is used with one more conversation.

    Raises:
        RateLimited: that would be too many.
    """
    held = _today(held, now)
    if limits.conversations is not None and held.conversations >= limits.conversations:
        raise RateLimited(
            f"At most {limits.conversations} conversations may be made a day.", retry_after=_tomorrow(now)
        )
    return msgspec.structs.replace(held, conversations=held.conversations + 1)


def _paid(due: int, limit: int, now: int) -> tuple[int, int]:
    """Return when one start more will be paid off, and the seconds to wait before it, 0 if none: a bucket of ``limit``
    starts that fills within a minute, kept as one moment (the generic cell rate algorithm of ITU-T I.371)."""
    each = MINUTE // limit
    due = max(due, now) + each
    over = due - now - each * limit
    return due, 0 if over <= 0 else -(-over // 1_000_000)


def _today(held: Held, now: int) -> Held:
    day = now // DAY
    return held if held.day == day else msgspec.structs.replace(held, day=day, tokens=0, conversations=0)


def _tomorrow(now: int) -> int:
    return -(-(DAY - now % DAY) // 1_000_000)
