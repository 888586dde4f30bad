"""Presence channels: who is here, who joins, who leaves.

A user is here as long as one of their sockets is. So the first of them joins and the last one leaves, and nothing is
kept for that beside the subscriptions. When two sockets of one user come or go at the same moment, the others may be
told of it twice, never not at all.

The events are called as in laravel-echo's Socket.IO driver (``presence:joining``, ``presence:leaving``, in
``socketio-presence-channel.ts``), and a member is what Pusher calls channel data. The API Gateway driver 0.5.5 has no
names for them: its ``here``, ``joining`` and ``leaving`` do nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import SUCCEEDED, frame
from tailrace.errors import RequestError, TooLarge
from tailrace.events import Json
from tailrace.store import Subscription, Subscriptions

JOINING: Final = "presence:joining"
LEAVING: Final = "presence:leaving"

Here = dict[str, list[Subscription]]
"""The subscriptions of each user, in the order in which they came."""


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


class Presence:
    """Tells the members of presence channels of each other."""

    def __init__(self, fan_out: FanOut, subscriptions: Subscriptions) -> None:
        self._fan_out = fan_out
        self._subscriptions = subscriptions

    async def join(self, channel: str, socket: str, who: Json, before: Subscription | None) -> None:
        """Tell a member whose subscription was just put who is here, and the others of it.

        Args:
            before: the subscription that this one replaced.

        Raises:
            StoreError: the table cannot be read.
        """
        here = await self._here(channel)
        user = str(who["user_id"])
        was_here = before is not None and before.member is not None and _user(before) == user
        answer, told = _answer_with(channel, _members(here))
        arrived = await self._fan_out.post(socket, channel, answer)
        # One that is gone was taken off the channel again, and the others must not think that it came after that.
        if not arrived and await self._subscriptions.get(channel, socket) is None:
            return
        if not was_here and (user not in here or here[user][0].socket == socket):
            await self._tell(JOINING, channel, who, {name: theirs for name, theirs in here.items() if name != user})
        # Others came and went while the answer was on the way, and their own news may have been quicker. Who had no
        # room in it comes as if just joining.
        now = await self._here(channel)
        told_of = {str(each["user_id"]) for each in told}
        news = [(JOINING, each) for each in _members(now) if str(each["user_id"]) not in told_of]
        news += [(LEAVING, each) for each in told if str(each["user_id"]) not in now]
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
        if _user(gone) not in here:
            await self._tell(LEAVING, gone.channel, gone.member, here)

    async def _here(self, channel: str) -> Here:
        everyone = [each async for each in self._subscriptions.of_channel(channel) if each.member is not None]
        here: Here = {}
        for each in sorted(everyone, key=lambda each: (each.since, each.socket)):
            here.setdefault(_user(each), []).append(each)
        return here

    async def _tell(self, event: str, channel: str, who: Json, whom: Here) -> None:
        news = frame(event, channel, who)
        await self._fan_out.post_each([(each, [news]) for theirs in whom.values() for each in theirs])


def _user(subscription: Subscription) -> str:
    assert subscription.member is not None
    return str(subscription.member["user_id"])


def _members(here: Here) -> list[Json]:
    return [theirs[0].member for theirs in here.values() if theirs[0].member is not None]


def _answer_with(channel: str, members: list[Json]) -> tuple[bytes, list[Json]]:
    """Return the answer to a member, and those members who had room in it."""
    try:
        return frame(SUCCEEDED, channel, members), members
    except TooLarge:
        return _answer_with(channel, members[: len(members) // 2])
