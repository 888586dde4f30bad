"""What clients send over the WebSocket, and what they are answered, as npm ``laravel-echo-api-gateway`` 0.5.5 has it.
Chats of npm ``ai`` 7 have frames of their own (``chats.py``).

Every answer goes through the management API, also to the one who asked: what an integration returns reaches a client
only through a route response, which is set up per route and cannot be sent to anybody else.

``$connect`` lets everybody in. The driver answers a refusal with two new attempts, and those with four
(``onerror`` and ``onclose`` in its ``Websocket.ts`` both connect again).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from tailrace.broadcast.allowance import Allowance
from tailrace.broadcast.catch_up import MOST_MESSAGES, CatchUp
from tailrace.broadcast.channels import check_channel, conversation_of, is_signed, kind_of
from tailrace.broadcast.chats import ChatFrame, Chats, HandedOver, any_frame, chat_error
from tailrace.broadcast.chunk_frames import EVERY_CHUNK, delivery_text
from tailrace.broadcast.client_frames import (
    ClientFrame,
    SubscribeFrame,
    UnknownFrame,
    channel_named,
    event_body,
    subscribe_frame,
)
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import SUCCEEDED, Frames, frame
from tailrace.broadcast.presence import Presence, member
from tailrace.clock import Clock
from tailrace.errors import ConfigurationError, Forbidden, NotFound, RequestError, TailraceError, TooLarge, where
from tailrace.events import Json
from tailrace.identity.grants import Grants
from tailrace.store import NEVER, Caller, Grant, Store

logger = logging.getLogger(__name__)

WHISPER: Final = "client-"

_ERROR: Final = frame("error")
_ACCEPTED: Final = {"statusCode": 200}


class Sockets:
    """Answers the events of a WebSocket API.

    Args:
        allowance: what each may use.
        grants: what owners let others do.
        secret: gives what private and presence channels are signed with.
        open_to_all: whether nobody is asked who they are.
        chats: takes the frames of chats; None where there are none.
    """

    def __init__(
        self,
        store: Store,
        fan_out: FanOut,
        frames: Frames,
        clock: Clock,
        *,
        allowance: Allowance,
        grants: Grants,
        secret: Callable[[], Awaitable[str]],
        open_to_all: bool,
        chats: Chats | None = None,
    ) -> None:
        self._store = store
        self._subscriptions = store.subscriptions
        self._fan_out = fan_out
        self._presence = Presence(fan_out, store.subscriptions)
        self._catch_up = CatchUp(store, fan_out, frames, clock)
        self._allowance = allowance
        self._grants = grants
        self._secret = secret
        self._open_to_all = open_to_all
        self._chats = chats

    async def handle(self, event: Mapping[str, Any], caller: Caller | None) -> dict[str, int]:
        """Handle an event of API Gateway, whatever becomes of it, and return the response for it.

        Args:
            event: as Lambda gets it
                (https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-develop-integrations.html).
            caller: at ``$connect``, for whom the connection acts, or None if nobody can be seen.
        """
        context = event["requestContext"]
        socket: str = context["connectionId"]
        kind: str = context["eventType"]
        if kind == "MESSAGE":
            await self._receive(socket, event)
            return _ACCEPTED
        try:
            if kind == "DISCONNECT":
                await self._disconnect(socket)
            elif caller is not None:
                await self._allowance.connect(socket, caller)
        except TailraceError as error:
            logger.error("socket event failed", extra={"kind": kind, "reason": error.message})
        except Exception as error:
            logger.error("socket event failed", extra={"kind": kind, **where(error)})
        return _ACCEPTED

    async def chat_failed(self, given: Mapping[str, Any]) -> None:
        """Tell a client that its request was not answered, or not to its end.

        Args:
            given: what the chat function was called with, a ``HandedOver`` as JSON.
        """
        asked = msgspec.convert(given, HandedOver)
        request = msgspec.json.decode(asked.frame, type=ChatFrame)
        await self._post(asked.socket, chat_error(request.request_id, "The answer broke off, or did not begin."))

    async def _receive(self, socket: str, event: Mapping[str, Any]) -> None:
        body = event_body(event)
        asked: ClientFrame | ChatFrame | None = None
        try:
            asked = any_frame(body)
            if isinstance(asked, ClientFrame):
                await self._answer(socket, asked)
            elif self._chats is not None:
                await self._chats.take(socket, asked, body)
            else:
                raise UnknownFrame
            return
        except UnknownFrame:
            asked, said = None, ""
        except RequestError as error:
            said = error.message
        except TailraceError as error:
            logger.error("frame failed", extra={"reason": error.message})
            # What is missing in the deployment is for the operator, who finds it in the log, not for a client.
            is_setup = isinstance(error, ConfigurationError)
            said = "This is not set up on the server." if is_setup else error.message
        except Exception as error:  # a bug: the log says where, the client no more than this
            logger.error("frame failed", extra=where(error))
            said = "Something went wrong on our side."
        await self._post(socket, _refusal(asked, said))

    async def _answer(self, socket: str, asked: ClientFrame) -> None:
        match asked.event:
            case "whoami":
                await self._post(socket, frame("whoami", data={"socket_id": socket}))
            case "ping":
                await self._post(socket, frame("pong", None))
            case "subscribe":
                await self._subscribe(socket, subscribe_frame(asked.data))
            case "unsubscribe":
                await self._unsubscribe(socket, channel_named(asked.data))
            case event if event.startswith(WHISPER) and event != WHISPER and asked.channel is not None:
                await self._whisper(socket, asked.channel, event, asked.data)
            case _:
                raise UnknownFrame

    # ---- subscribing ----

    async def _subscribe(self, socket: str, asked: SubscribeFrame) -> None:
        channel = check_channel(asked.channel)
        if len(asked.after) > MOST_MESSAGES:
            raise RequestError(f"after may name {MOST_MESSAGES} messages.")
        who, grant = await self._admit(socket, asked)
        await self._allowance.subscribe(socket, channel)
        delivery = asked.delivery or EVERY_CHUNK
        missed = await self._catch_up.missed(channel, socket, asked.after, delivery)
        starts = {each.id: NEVER for each in missed}
        before = await self._subscriptions.put(
            channel, socket, member=who, starts=starts, delivery=delivery_text(delivery), grant=grant
        )
        if grant is not None and await self._grants.get(grant.conversation, grant.id) is None:
            # It was revoked meanwhile, by somebody who did not see this subscription yet.
            await self._subscriptions.remove(channel, socket)
            raise NotFound("No such conversation.")
        if who is None:
            await self._fan_out.post(socket, channel, frame(SUCCEEDED, channel, []))
        else:
            await self._presence.join(channel, socket, who, before)
        await self._catch_up.run(missed)

    async def _admit(self, socket: str, asked: SubscribeFrame) -> tuple[Json | None, Grant | None]:
        """Return who a socket is on a presence channel, and by which grant it may be on another's conversation's.

        Raises:
            RequestError: it may not be on the channel.
        """
        channel = asked.channel
        kind = kind_of(channel)
        if kind == "public":
            conversation_id = conversation_of(channel)
            return None, None if conversation_id is None else await self._reading(socket, conversation_id)
        # Only a presence channel signs more than its name; elsewhere channel_data would let one name pass for another.
        channel_data = asked.channel_data if kind == "presence" else None
        if not is_signed(asked.auth or "", await self._secret(), socket, channel, channel_data):
            raise RequestError("The auth of this channel is not valid for this socket.")
        return member(channel_data) if kind == "presence" else None, None

    async def _reading(self, socket: str, conversation_id: str) -> Grant | None:
        """Return the grant by which a socket may read a conversation; None if it needs none.

        Raises:
            RequestError: it may not read it.
        """
        if self._open_to_all:
            return None
        caller = await self._store.sockets.caller(socket)
        record = await self._store.conversations.get(conversation_id)
        if caller is None:
            raise NotFound("No such conversation.")
        if caller.grant is None and caller.owner == record.owner:
            return None
        if caller.grant is None:
            grant = await self._grants.for_reader(record, caller.owner)
        elif caller.conversation == record.id:
            grant = await self._grants.get(record.id, caller.grant)
        else:
            grant = None
        if grant is None:
            raise NotFound("No such conversation.")
        if grant.message is not None:
            raise Forbidden("The grant is for one message alone.")
        return grant

    async def _unsubscribe(self, socket: str, channel: str) -> None:
        check_channel(channel)
        gone = await self._subscriptions.remove(channel, socket)
        await self._allowance.unsubscribe(socket, channel)
        await self._post(socket, frame("unsubscription_succeeded", channel, []))
        if gone is not None:
            await self._presence.left(gone)

    async def _disconnect(self, socket: str) -> None:
        for gone in await self._subscriptions.remove_socket(socket):
            try:
                await self._presence.left(gone)
            except TailraceError as error:  # the other channels still are to hear of it
                logger.error("leaving not told", extra={"reason": error.message})
        await self._allowance.disconnect(socket)

    # ---- whispering ----

    async def _whisper(self, socket: str, channel: str, event: str, data: msgspec.Raw) -> None:
        if kind_of(check_channel(channel)) == "public":
            raise RequestError("Whispers are for private and presence channels.")
        members = [each async for each in self._subscriptions.of_channel(channel)]
        others = [each for each in members if each.socket != socket]
        if len(others) == len(members):
            raise RequestError("Subscribe to this channel before you whisper on it.")
        await self._allowance.whisper(socket)
        whispered = frame(event, channel, data)
        await self._fan_out.post_each([(each, [whispered]) for each in others])

    # ---- answering ----

    async def _post(self, socket: str, data: bytes) -> None:
        # A socket that is gone by now has its own $disconnect.
        await self._fan_out.post(socket, None, data)


def _refusal(asked: ClientFrame | ChatFrame | None, message: str) -> bytes:
    if isinstance(asked, ChatFrame):
        return chat_error(asked.request_id, message)
    channel = None if asked is None else asked.about()
    try:
        return _ERROR if channel is None else frame("error", channel, {"message": message})
    except TooLarge:  # a channel's name may be all that a client sent
        return _ERROR
