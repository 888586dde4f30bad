"""A chat over a WebSocket, as npm ``ai`` 7's ``WebSocketChatTransport`` speaks it.

What is asked and what is answered is that of ``/api/chat``; only the way is another one. A frame is read into the body
of ``POST /api/chat``, and the response of that route is posted to the socket, chunk by chunk. A socket that is slow, or
gone, holds up nothing: as for every reader, the answer is stored all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from tailrace.backend import Backend
from tailrace.broadcast.chats import HandedOver, chat_error
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import LARGEST_FRAME
from tailrace.errors import RequestError, TailraceError, TooLarge, where
from tailrace.http.ai_sdk import ChatBody, PageId, find_open, start_chat
from tailrace.http.cursor import Cursor
from tailrace.http.replay import Replay
from tailrace.http.requests import Message, Scope, parse
from tailrace.http.responses import error_content
from tailrace.protocols.ai_sdk import NAME
from tailrace.protocols.ai_sdk_frames import ChunkFrames
from tailrace.telemetry import logger

PATIENCE: Final = 30.0
"""Seconds that a client may read nothing. Then it gets no more: to leave a frame out would be an error for it."""

LOOK_SECONDS: Final = 5.0
"""Seconds between two looks. A reader says in a frame that it hangs up, which comes to another function."""

HEADERS: Final = ("idempotency-key", "x-correlation-id", "x-socket-id")
"""What of the headers in a frame counts. Who is asking was seen when the connection was made."""

CUT_OFF: Final = "This is not the whole answer: resume it, or load the chat again."

Raw = msgspec.Raw


class AskingFrame(msgspec.Struct, frozen=True, rename="camel"):
    """A ``send`` or a ``resume``. Fields that are not here are the page's own."""

    type: Literal["send", "resume"]
    request_id: str
    id: PageId
    trigger: str | None = None
    message_id: str | None = None
    messages: Raw = Raw(b"[]")
    headers: dict[str, Any] = {}
    body: dict[str, Raw] = {}
    last_sequence: int | None = None


class ChatSocket:
    """Serves the requests of chats that are handed over (see ``Chats``).

    Args:
        patience: seconds that a client may read nothing before it gets no more.
        look_every: seconds between two looks whether a reader has hung up.
    """

    def __init__(self, backend: Backend, *, patience: float = PATIENCE, look_every: float = LOOK_SECONDS) -> None:
        self._backend = backend
        self._look_every = look_every
        broadcast = backend.broadcast
        self._fan_out = FanOut(broadcast.connections, broadcast.subscriptions, clock=backend.clock, patience=patience)

    async def serve(self, given: Mapping[str, Any], context: object) -> None:
        """Answer one request until its end.

        Args:
            given: a ``HandedOver``, as JSON.
            context: Lambda's, which says how much time there is.
        """
        asked = msgspec.convert(given, HandedOver)
        body = asked.frame.encode()
        request_id = msgspec.json.decode(body, type=_Named).request_id
        nonce = self._backend.random_bytes(16).hex()
        response = _Response(self._backend, self._fan_out, asked.socket, request_id, self._look_every)
        try:
            if not await self._backend.store.chat_requests.begin(asked.socket, request_id, nonce):
                return  # it has begun before, since Lambda may call twice; or the client has taken it back
            await self._answer(asked, body, context, response)
            await response.refuse(CUT_OFF)
        except TailraceError as error:
            _, content, _ = error_content(error)
            await response.refuse(content["error"]["message"])
        except Exception as error:  # a bug: the log says where, the client no more than this
            logger.error("chat failed", extra=where(error))
            _, content, _ = error_content(error)
            await response.refuse(content["error"]["message"])
        if response.is_behind:  # it may read again by now, and waits for what will not come
            await self._backend.broadcast.fan_out.post(asked.socket, None, chat_error(request_id, CUT_OFF))

    async def _answer(self, asked: HandedOver, body: bytes, context: object, response: _Response) -> None:
        backend = self._backend
        arrived = backend.clock.monotonic()
        if len(body) > backend.settings.body_limit:
            raise TooLarge(f"The body has more than {backend.settings.body_limit} bytes.")
        frame = parse(body, AskingFrame)
        scope = _scope(frame, asked.socket, context)
        if frame.type == "send":
            await start_chat(backend, asked.owner, _chat_body(frame), scope, response.receive, response.send, arrived)
            return
        if frame.last_sequence is not None:
            raise RequestError("An answer is resumed from its beginning: leave lastSequence out.")
        response.looks = True
        found = await find_open(backend, asked.owner, frame.id)
        if found is None:
            await response.nothing()
            return
        reply, wants = found
        await Replay(backend, Cursor(reply, 0), NAME, wants=wants).stream(scope, response.receive, response.send)


class _Named(msgspec.Struct, rename="camel"):
    request_id: str


def _chat_body(frame: AskingFrame) -> ChatBody:
    """Return what ``POST /api/chat`` would get from the same page."""
    named = {"trigger": frame.trigger, "messageId": frame.message_id}
    given = {name: value for name, value in named.items() if value is not None}
    body = {name: value for name, value in frame.body.items() if name not in named}
    fields = {**body, "id": frame.id, "messages": frame.messages, **given}
    return parse(msgspec.json.encode(fields), ChatBody)


def _scope(frame: AskingFrame, socket: str, context: object) -> Scope:
    """Return the scope of the request that the frame stands for."""
    given = {name.lower(): value for name, value in frame.headers.items() if isinstance(value, str)}
    # It hears of its own answer in these frames, and need not in those of a channel.
    headers = {"x-socket-id": socket, **{name: given[name] for name in HEADERS if name in given}}
    return {
        "type": "http",
        "method": "POST",
        "path": "/api/chat",
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()],
        "aws.context": context,
    }


class _Response:
    """An ASGI response that is posted to a socket.

    Attributes:
        is_behind: whether the client did not get all, and may still be there.
        looks: whether to look now and then whether the client has hung up. Who waits for an answer that it has asked
            for itself need not: that ends then.
    """

    def __init__(self, backend: Backend, fan_out: FanOut, socket: str, request_id: str, look_every: float) -> None:
        self._backend = backend
        self._fan_out = fan_out
        self._socket = socket
        self._request_id = request_id
        self._frames = ChunkFrames(request_id, LARGEST_FRAME)
        self._look_every = look_every
        self._gone = asyncio.Event()
        self._looked = backend.clock.monotonic()
        self.is_behind = False
        self.looks = False

    @property
    def is_over(self) -> bool:
        """Whether the client has its end, or can get no more."""
        return self._frames.is_over or self._gone.is_set()

    async def receive(self) -> Message:
        """Return when the client has gone, as an ASGI server says it."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Post a part of the response. When the client has gone it is dropped, as an ASGI server does."""
        if message["type"] == "http.response.start":
            await self._begin(dict(message["headers"]), message["status"])
        elif not self.is_over:
            await self._look()
            try:
                for frame in self._frames.feed(message.get("body", b"")):
                    await self._post(frame)
            except TooLarge as error:
                await self.refuse(error.message)

    async def nothing(self) -> None:
        """Tell the client that nothing is active."""
        self._frames.is_over = True
        await self._post(self._frames.plain("no-active"))

    async def refuse(self, text: str) -> None:
        """Tell the client that it failed; once, and not after its end."""
        if not self.is_over:
            self._frames.is_over = True
            await self._post(chat_error(self._request_id, text))

    async def _begin(self, headers: Mapping[bytes, bytes], status: int) -> None:
        if status == 204:
            await self.nothing()
            return
        if not self.looks:
            reply = headers[b"x-message-id"].decode()
            requests = self._backend.store.chat_requests
            if await requests.answered_by(self._socket, self._request_id, reply):
                await self._backend.open_replies.cancel(reply)
        await self._post(self._frames.plain("start"))

    async def _look(self) -> None:
        now = self._backend.clock.monotonic()
        if not self.looks or now - self._looked < self._look_every:
            return
        self._looked = now
        if await self._backend.store.chat_requests.is_aborted(self._socket, self._request_id):
            self._gone.set()

    async def _post(self, frame: bytes) -> None:
        if not self._gone.is_set() and not await self._fan_out.post(self._socket, None, frame):
            self.is_behind = True
            self._gone.set()
