"""A WebSocket API in memory: API Gateway's events in, the frames that clients get out."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from tailrace.broadcast.allowance import Allowance
from tailrace.broadcast.channels import signature
from tailrace.broadcast.connections import SocketBusy, SocketGone
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.presence import Presence
from tailrace.broadcast.socket import Sockets
from tailrace.errors import ConfigurationError
from tailrace.identity.grants import Grants
from tailrace.identity.limits import SocketLimits
from tailrace.store import Caller, Calls, Store
from tailrace.store.dynamodb import Payload
from tailrace.testing import ManualClock

from tests.faults import FaultyCalls
from tests.memory_calls import MemoryCalls

EVENTS: Final = Path(__file__).parents[2] / "events"
SECRET: Final = "the channels' secret"

NO_LIMITS: Final = SocketLimits()

Frame = dict[str, Any]


class Clients:
    """What the management API posts to. Implements ``tailrace.broadcast.fan_out.Posts``.

    Attributes:
        gone: sockets that are closed.
        busy: sockets that do not read.
        before_post: awaited before each post.
    """

    def __init__(self) -> None:
        self.got: defaultdict[str, list[Frame]] = defaultdict(list)
        self.gone: set[str] = set()
        self.busy: set[str] = set()
        self.before_post: Callable[[], Awaitable[object]] | None = None

    async def post(self, socket: str, data: bytes) -> None:
        """Take a frame."""
        if self.before_post is not None:
            await self.before_post()
        if socket in self.gone:
            raise SocketGone("status 410")
        if socket in self.busy:
            raise SocketBusy("status 429")
        self.got[socket].append(msgspec.json.decode(data))

    def take(self, socket: str) -> list[Frame]:
        """Return what a socket got since it was last asked."""
        return self.got.pop(socket, [])


class WebSocketApi:
    """The whole of it, on a table in memory.

    Args:
        open_to_all: whether nobody is asked who they are.
        secret: what channels are signed with; None when none is set.
        calls: the table, if it is not to be a new one.
    """

    def __init__(
        self,
        *,
        open_to_all: bool = True,
        secret: str | None = SECRET,
        calls: Calls | None = None,
        clock: ManualClock | None = None,
        namespace: str = "",
        limits: SocketLimits = NO_LIMITS,
    ) -> None:
        self.clock = clock or ManualClock()
        self.calls = FaultyCalls(calls or MemoryCalls())
        self.store = Store(self.calls, "table", clock=self.clock)
        self.clients = Clients()
        self.frames = Frames(namespace)
        # A busy socket is given up at once: time stands still here.
        self.fan_out = FanOut(self.clients, self.store.subscriptions, clock=self.clock, patience=0.0)
        self.fan_out.when_gone = Presence(self.fan_out, self.store.subscriptions).left

        async def read_secret() -> str:
            if secret is None:
                raise ConfigurationError("TAILRACE_CHANNEL_SECRET is not set.")
            return secret

        self.allowance = Allowance(self.store, limits, self.clock, os.urandom)
        self.grants = Grants(self.store.grants, clock=self.clock, random_bytes=os.urandom)
        self.sockets = Sockets(
            self.store,
            self.fan_out,
            self.frames,
            self.clock,
            allowance=self.allowance,
            grants=self.grants,
            secret=read_secret,
            open_to_all=open_to_all,
        )

    async def connect(self, socket: str, owner: str | None = None, **more: Any) -> None:
        """Open a connection."""
        caller = None if owner is None else Caller(owner=owner, **more)
        await self._handle(event("websocket-connect", socket), caller)

    async def disconnect(self, socket: str) -> None:
        """Close a connection."""
        self.clients.gone.add(socket)
        await self._handle(event("websocket-disconnect", socket), None)

    async def receive(self, socket: str, frame: Mapping[str, Any] | str) -> None:
        """Handle a frame that a client sends."""
        body = frame if isinstance(frame, str) else json.dumps(frame)
        await self._handle({**event("websocket-ping", socket), "body": body}, None)

    async def send(self, socket: str, frame: Mapping[str, Any] | str) -> list[Frame]:
        """Let a client send a frame; return what it gets for it."""
        self.clients.take(socket)
        await self.receive(socket, frame)
        return self.clients.take(socket)

    async def subscribe(self, socket: str, channel: str, **more: Any) -> list[Frame]:
        """Subscribe with whatever is needed for it; return the answer and what follows it."""
        return await self.send(socket, subscribing(socket, channel, **more))

    async def join(self, socket: str, user_id: str | int, channel: str = "presence-room") -> list[Frame]:
        """Subscribe to a presence channel as a user."""
        return await self.send(socket, joining(socket, user_id, channel))

    async def _handle(self, happened: dict[str, Any], caller: Caller | None) -> None:
        assert await self.sockets.handle(happened, caller) == {"statusCode": 200}


class Hesitant:
    """Passes calls on to ``inner``, and hesitates before and after each, so that others overtake it."""

    def __init__(self, inner: Calls, pause: Callable[[], Awaitable[object]]) -> None:
        self._inner = inner
        self._pause = pause

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        await self._pause()
        answer = await self._inner.call(operation, payload)
        await self._pause()
        return answer


def subscribing(socket: str, channel: str, **more: Any) -> Frame:
    """Return the frame that subscribes, with the signature that is needed for it."""
    data: Frame = {"channel": channel, **more}
    if channel.startswith(("private-", "presence-")):
        data.setdefault("auth", signature(SECRET, socket, channel, more.get("channel_data")))
    return {"event": "subscribe", "data": data}


def joining(socket: str, user_id: str | int, channel: str = "presence-room") -> Frame:
    """Return the frame that subscribes a user to a presence channel."""
    member = json.dumps({"user_id": user_id, "user_info": {"name": f"N{user_id}"}})
    return subscribing(socket, channel, channel_data=member)


def event(name: str, socket: str) -> dict[str, Any]:
    """Return the event of a sample, of another socket."""
    found: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    found["requestContext"]["connectionId"] = socket
    return found
