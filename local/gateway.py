"""API Gateway's WebSocket API on one machine: connections, whose events go to a function.

What the service does and this does not: it throttles, and it may call the function for a $disconnect late or never.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tailrace.clock import Clock
from tailrace.http.requests import Message, Receive, Scope, Send

from local.gateway_event import Peer, connect_event, disconnect_event, message_event, peer
from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction

FULL_SECONDS: Final = 0.1
"""How long a message waits for a client that does not read before it counts as refused."""

CLOSE_SECONDS: Final = 1.0
"""How long such a client may take to let itself be closed."""

CALLS_AT_ONCE: Final = 16
"""Messages of one client for which the function is being called; while there are more, it is not read."""

GOING_AWAY: Final = (1001, "Going away")
NORMALLY: Final = (1000, "Connection closed normally")
NOT_TEXT: Final = (1003, "Binary frames are not supported")
LOST: Final = (1006, "Connection closed abnormally")
NO_STATUS: Final = (1005, "Client-side close frame status not set")


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html

    Attributes:
        idle: without a message either way. A ping of the protocol is none.
        duration: of a connection.
        call: of a call of the function.
    """

    idle: float = 600.0
    duration: float = 7200.0
    call: float = 29.0


class Gone(Exception):
    """There is no such connection: not yet, or no longer."""


class Full(Exception):
    """The client does not read."""


class CallFailed(Exception):
    """The function could not be called, failed, or returned something else than a response.

    Args:
        status: what a client that wants to connect is answered.
        message: what the client learns.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Connection:
    """A client that is connected."""

    def __init__(self, peer: Peer, send: Send, clock: Clock) -> None:
        self.peer = peer
        self.last_active = peer.connected_at
        self._send = send
        self._clock = clock
        self._opened = self._active = clock.monotonic()
        self._end: tuple[int, str] | None = None
        self._reading = asyncio.timeout(None)

    async def post(self, text: str) -> None:
        """Send a message to the client.

        Raises:
            Gone: it has gone.
            Full: it does not read.
        """
        if self._end is not None:
            raise Gone
        try:
            async with asyncio.timeout(FULL_SECONDS):
                await self._send({"type": "websocket.send", "text": text})
        except TimeoutError as error:
            raise Full from error
        except (OSError, RuntimeError) as error:  # it left, or was closed while this waited
            raise Gone from error
        self._touch()

    async def close(self, code: int, reason: str) -> None:
        """Close it, whether the client reads or not."""
        if self._end is not None:
            return
        self._end = (code, reason)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            with suppress(RuntimeError):  # it left in this moment
                self._reading.reschedule(asyncio.get_running_loop().time())
        except (OSError, RuntimeError):
            pass  # it left by itself

    async def read(self, receive: Receive, take: Any) -> tuple[int, str]:
        """Hand each message to ``take``, a coroutine function; return code and reason of the end."""
        message: Message = {}
        with suppress(TimeoutError):
            async with self._reading:
                while (message := await receive())["type"] == "websocket.receive":
                    if message.get("text") is None:
                        await self.close(*NOT_TEXT)
                    elif self._end is None:
                        self._touch()
                        await take(message["text"])
        ended, self._end = self._end, self._end or LOST
        return ended or _told(message)

    async def expire(self, limits: Limits) -> None:
        """Close it when it was idle for too long, or open."""
        while True:
            due = min(self._active + limits.idle, self._opened + limits.duration)
            if (left := due - self._clock.monotonic()) <= 0:
                break
            await self._clock.sleep(left)
        await self.close(*GOING_AWAY)

    def _touch(self) -> None:
        self._active = self._clock.monotonic()
        self.last_active = self._clock.now()


def _told(message: Message) -> tuple[int, str]:
    """Return how it has ended: by the client, or by the server's own end, which uvicorn reports without a reason.
    So it does a connection that was lost, as 1005, or 1006 before it was open."""
    code, reason = int(message["code"]), message.get("reason")
    if reason is None and code in (LOST[0], NO_STATUS[0]):
        return LOST
    return NO_STATUS if code == NO_STATUS[0] else (code, reason or "")


class Gateway:
    """The connections, and the function that is called for them.

    Args:
        function: closed together with this.
    """

    def __init__(self, function: LambdaFunction, *, clock: Clock, limits: Limits | None = None) -> None:
        self._function = function
        self._clock = clock
        self._limits = limits or Limits()
        self._connections: dict[str, Connection] = {}

    def connection(self, connection_id: str) -> Connection:
        """Return an open connection; one whose $connect is being answered is not open yet.

        Raises:
            Gone: there is none.
        """
        try:
            return self._connections[connection_id]
        except KeyError:
            raise Gone from None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket, an ASGI application."""
        await receive()  # that it wants to connect
        client = peer(scope, self._clock.now())
        try:
            answer = await self._call(connect_event(client, scope, self._clock.now()))
        except CallFailed as failed:
            await _refuse(send, failed.status, failed.message)
            return
        status = int(answer["statusCode"])
        if not 200 <= status < 300:
            await _refuse(send, status, "Forbidden")
            return
        headers = {name.lower(): value for name, value in (answer.get("headers") or {}).items()}
        with suppress(OSError):  # it may have left meanwhile; then the next that is received says so
            await send({"type": "websocket.accept", "subprotocol": headers.get("sec-websocket-protocol")})
        await self._serve(Connection(client, send, self._clock), receive)

    async def close(self) -> None:
        """Close the function."""
        await self._function.close()

    async def _serve(self, connection: Connection, receive: Receive) -> None:
        client = connection.peer
        places = asyncio.Semaphore(CALLS_AT_ONCE)
        self._connections[client.connection_id] = connection
        async with asyncio.TaskGroup() as tasks:

            async def take(text: str) -> None:
                await places.acquire()
                tasks.create_task(self._answer(connection, text)).add_done_callback(lambda _: places.release())

            expiry = tasks.create_task(connection.expire(self._limits))
            try:
                code, reason = await connection.read(receive, take)
            finally:
                expiry.cancel()
                del self._connections[client.connection_id]
            # Calls for messages may still be running, as they may in AWS.
            with suppress(CallFailed):
                await self._call(disconnect_event(client, code, reason, self._clock.now()))

    async def _answer(self, connection: Connection, text: str) -> None:
        """Call the function for a message. What it returns is not sent: the route has no route response."""
        event = message_event(connection.peer, text, self._clock.now())
        try:
            await self._call(event)
        except CallFailed as failed:
            told = {
                "message": failed.message,
                "connectionId": connection.peer.connection_id,
                "requestId": event["requestContext"]["requestId"],
            }
            with suppress(Gone, Full):
                await connection.post(json.dumps(told))

    async def _call(self, event: Event) -> Mapping[str, Any]:
        """Return the function's response.

        Raises:
            CallFailed: there is none. Like API Gateway this tells the client nothing of why.
        """
        context = LambdaContext(self._function.name)
        try:
            async with asyncio.timeout(self._limits.call):
                answer = await self._function.call(event, context)
            int(answer["statusCode"])
        except TimeoutError as error:
            raise CallFailed(504, "Endpoint request timed out") from error
        except Exception as error:  # whatever the function raised, or a response that is none
            print(f"{event['requestContext']['routeKey']}: {type(error).__name__}", file=sys.stderr)
            raise CallFailed(502, "Internal server error") from error
        return answer


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"application/json")]
    body = json.dumps({"message": message}).encode()
    # The client may have left meanwhile.
    with suppress(OSError):
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
