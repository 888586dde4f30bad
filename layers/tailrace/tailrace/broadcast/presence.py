"""Presence channels: who is here, who joins, who leaves.

A user is here as long as one of their sockets is. So the first of them joins and the last one leaves, and nothing is
kept for that beside the subscriptions. When two sockets of one user come or go at the same moment, the others may be
told of it twice, never not at all.

The events are called as in laravel-echo's Socket.IO driver (``presence:joining``, ``presence:leaving``, in
``socketio-presence-channel.ts``), and a member is what Pusher calls channel data. The API Gateway driver 0.5.5 has no
names for them: its ``here``, ``joining`` and ``leaving`` do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import frame
from tailrace.errors import RequestError
from tailrace.events import Json
from tailrace.store import Subscription, Subscriptions

JOINING: Final = "presence:joining"
LEAVING: Final = "presence:leaving"


class _Member(msgspec.Struct):
    user_id: str | int
    user_info: object = msgspec.field(default_factory=dict)


def member(channel_data: str | None) -> Json:
    """Return who a socket is on a presence channel: ``{"user_id", "user_info"}``.

    Args:
        channel_data: the JSON text that was signed.

    Raises:
        RequestError: it is missing or does not say who.
    """
    try:
        found = msgspec.json.decode(channel_data or "", type=_Member)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RequestError("A presence channel needs channel_data with a user_id.") from error
    return msgspec.structs.asdict(found)


class Arrival(msgspec.Struct, frozen=True):
    """What a new member finds.

    Attributes:
        members: all of them, each user once, in the order in which they came.
        others: to whom it is news.
    """

    members: list[Json]
    others: list[Subscription]


class Presence:
    """Tells the members of presence channels of each other."""

    def __init__(self, fan_out: FanOut, subscriptions: Subscriptions) -> None:
        self._fan_out = fan_out
        self._subscriptions = subscriptions

    async def arrival(self, channel: str, socket: str, who: Json, before: Subscription | None) -> Arrival:
        """Return what a member finds whose subscription was just put.

        Args:
            before: the subscription that this one replaced.

        Raises:
            StoreError: the table cannot be read.
        """
        here = await self._here(channel)
        user = str(who["user_id"])
        first = _by_user(here).get(user)
        was_here = before is not None and before.member is not None and _user(before) == user
        is_news = not was_here and (first is None or first.socket == socket)
        return Arrival(_members(here), [each for each in here if _user(each) != user] if is_news else [])

    async def joined(self, channel: str, who: Json, others: Iterable[Subscription]) -> None:
        """Tell the others of a new member."""
        await self._tell(JOINING, channel, who, others)

    async def settle(self, channel: str, socket: str, told: Iterable[Json]) -> None:
        """Tell a new member who came and went while its list was on the way: their own news may have been quicker.

        Args:
            told: the list. Who had no room in it comes as if just joining.

        Raises:
            StoreError: the table cannot be read.
        """
        before = {str(each["user_id"]): each for each in told}
        now = {str(each["user_id"]): each for each in _members(await self._here(channel))}
        news = [(JOINING, each) for user, each in now.items() if user not in before]
        news += [(LEAVING, each) for user, each in before.items() if user not in now]
        for event, each in news:
            await self._fan_out.post(socket, channel, frame(event, channel, each))

    async def left(self, gone: Subscription) -> None:
        """Tell the others of a subscription that was just removed.

        Raises:
            StoreError: the table cannot be read.
        """
        if gone.member is None:
            return
        here = await self._here(gone.channel)
        if _user(gone) not in _by_user(here):
            await self._tell(LEAVING, gone.channel, gone.member, here)

    async def _here(self, channel: str) -> list[Subscription]:
        everyone = [each async for each in self._subscriptions.of_channel(channel) if each.member is not None]
        return sorted(everyone, key=lambda each: (each.since, each.socket))

    async def _tell(self, event: str, channel: str, who: Json, whom: Iterable[Subscription]) -> None:
        news = frame(event, channel, who)
        await self._fan_out.post_each([(each, [news]) for each in whom])


def _user(subscription: Subscription) -> str:
    assert subscription.member is not None
    return str(subscription.member["user_id"])


def _by_user(here: Iterable[Subscription]) -> dict[str, Subscription]:
    """Return the first subscription of each user, in their order."""
    first: dict[str, Subscription] = {}
    for each in here:
        first.setdefault(_user(each), each)
    return first


def _members(here: Iterable[Subscription]) -> list[Json]:
    return [each.member for each in _by_user(here).values() if each.member is not None]
