"""The chat frames of npm ``ai`` 7's ``WebSocketChatTransport``, as far as the WebSocket function reads them.

API Gateway waits 29 seconds for a function, and a reply may take fifteen minutes. So a frame that asks for a reply is
handed over to the chat function, which nobody waits for (``http/chat_socket.py``). One that takes a request back is
dealt with at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal

import msgspec

from tailrace.aws.invoke import InvokeError
from tailrace.broadcast.allowance import Allowance
from tailrace.broadcast.client_frames import ClientFrame, UnknownFrame, client_frame
from tailrace.errors import ConfigurationError, Forbidden, TailraceError, Unauthenticated
from tailrace.events import Json
from tailrace.identity.auth import ANYBODY
from tailrace.store import Caller, Store

logger = logging.getLogger(__name__)

LONGEST_REQUEST_ID: Final = 128
"""Characters of the id that a client gives to a request; those of ``ai`` have 16."""

TRIES: Final = 3
"""How often the chat function is called until it is known that it will be. A connection that was kept from an earlier
frame may be closed by now, which is found out by using it. Called twice, it answers once."""

_encode: Final = msgspec.json.Encoder().encode


class ChatFrame(msgspec.Struct, frozen=True, rename="camel"):
    """What all frames of a chat have. The rest is read by whoever answers it."""

    type: Literal["send", "resume", "abort"]
    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_REQUEST_ID)]


class HandedOver(msgspec.Struct, frozen=True):
    """What the chat function is called with, as ``{"chat": ...}``. Only who may call the function can say this: what a
    client sends comes to the WebSocket function alone.

    Attributes:
        owner: whom the connection acts for, as was seen when it was made.
        frame: what the client sent, its JSON.
    """

    socket: str
    owner: str
    frame: str


def any_frame(body: bytes) -> ClientFrame | ChatFrame:
    """Return a frame, of a subscriber or of a chat.

    Raises:
        UnknownFrame: it is neither.
    """
    try:
        return client_frame(body)
    except UnknownFrame as unknown:
        if not isinstance(unknown.__cause__, msgspec.MsgspecError):
            raise  # no parser is to see it
        try:
            return msgspec.json.decode(body, type=ChatFrame)
        except msgspec.MsgspecError:
            raise unknown from None


def chat_error(request_id: str, text: str) -> bytes:
    """Return the frame that ends a request with an error."""
    return _encode({"type": "error", "requestId": request_id, "errorText": text})


class Chats:
    """Takes the frames of chats.

    Args:
        hand_over: calls the chat function and waits for no answer; None where there is none.
        cancel: ends a reply, by its id.
        allowance: what each connection may use.
        open_to_all: whether nobody is asked who they are.
    """

    def __init__(
        self,
        store: Store,
        hand_over: Callable[[Json], Awaitable[None]] | None,
        cancel: Callable[[str], Awaitable[object]],
        *,
        allowance: Allowance,
        open_to_all: bool,
    ) -> None:
        self._allowance = allowance
        self._store = store
        self._hand_over = hand_over
        self._cancel = cancel
        self._open_to_all = open_to_all

    async def take(self, socket: str, frame: ChatFrame, body: bytes) -> None:
        """Have a request served, or take it back.

        Args:
            body: the whole frame.

        Raises:
            TailraceError: it is refused.
        """
        if frame.type == "abort":
            reply = await self._store.chat_requests.abort(socket, frame.request_id)
            if reply is not None:
                await self._cancel(reply)
            return
        if self._hand_over is None:
            raise ConfigurationError("TAILRACE_CHAT_FUNCTION is not set.")
        caller = Caller(owner=ANYBODY) if self._open_to_all else await self._store.sockets.caller(socket)
        if caller is None:
            raise Unauthenticated("Nobody can be seen behind this connection: connect with a valid token.")
        self._allowance.check(caller)
        if not caller.may_chat:
            raise Forbidden("The token of this connection is not for chats.")
        payload = {"chat": msgspec.structs.asdict(HandedOver(socket, caller.owner, body.decode()))}
        for left in reversed(range(TRIES)):
            try:
                await self._hand_over(payload)
                return
            except InvokeError as error:
                logger.warning("chat not handed over", extra={"reason": str(error), "tries_left": left})
        raise TailraceError("The answer could not be started. Please try again.")
