"""What stands around the functions of the WebSocket: the WebSocket API, the table's stream, and Lambda's own API."""

from __future__ import annotations

import sys

from tailrace.http.requests import Receive, Scope, Send

from local.connections_api import PREFIX, ConnectionsApi
from local.environment import STAGE
from local.gateway import Gateway
from local.invoke_api import PATH, InvokeApi
from local.lambda_function import LambdaFunction
from local.table_stream import TableStream

ADDRESSES = (f"/{STAGE}", f"/{STAGE}/")


class Broadcasting:
    """An ASGI application for what ``serves`` says.

    Args:
        announcing: the broadcast function, closed together with this.
        chatting: the chat function, likewise.
        stream: what calls it for changes in the table; None when the table's stream is not read.
    """

    def __init__(
        self, gateway: Gateway, announcing: LambdaFunction, chatting: LambdaFunction, stream: TableStream | None
    ) -> None:
        self._gateway = gateway
        self._connections = ConnectionsApi(gateway)
        self._invoke = InvokeApi({announcing.name: announcing, chatting.name: chatting})
        self._announcing = announcing
        self._chatting = chatting
        self._stream = stream

    def serves(self, scope: Scope) -> bool:
        """Return whether a request is for this."""
        path: str = scope["path"]
        return scope["type"] == "websocket" or path.startswith(PREFIX) or PATH.match(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        if scope["type"] != "websocket":
            await (self._connections if scope["path"].startswith(PREFIX) else self._invoke)(scope, receive, send)
        elif scope["path"] in ADDRESSES:
            await self._gateway(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close"})  # the server makes a 403 of it

    async def start(self) -> None:
        """Begin to read the table's stream."""
        if self._stream is None:
            return
        try:
            await self._stream.begin()
        except Exception as error:  # a database that knows no streams, whatever it answers
            print(
                f"The table's stream cannot be read ({type(error).__name__}). "
                "MessageCreated, MessageCompleted, MessageFailed and ConversationCreated are not broadcast.",
                file=sys.stderr,
            )

    async def close(self) -> None:
        """Read the stream no more, and close the functions."""
        if self._stream is not None:
            await self._stream.close()
        await self._gateway.close()
        await self._chatting.close()  # before those to whom it hands over
        await self._announcing.close()
        await self._invoke.close()
