"""The WebSocket API's management API, `/ws/@connections/{id}`: send to a client, look at it, disconnect it.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html
"""

from __future__ import annotations

import uuid
from typing import Final

from tailrace.clock import rfc3339
from tailrace.errors import TooLarge
from tailrace.http.requests import ClientGone, Receive, Scope, Send, header, read_body
from tailrace.http.responses import respond_json

from local.environment import STAGE
from local.gateway import NORMALLY, Connection, Full, Gateway, Gone
from local.websocket import LARGEST_MESSAGE

PREFIX: Final = f"/{STAGE}/@connections/"


class ConnectionsApi:
    """An ASGI application for the paths under ``PREFIX``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not (header(scope, b"authorization") or "").startswith("AWS4-HMAC-SHA256 "):
            # Not checked, but asked for: unsigned it would not work in AWS, and a page that the developer
            # happens to visit must not be able to send to the clients.
            await _refuse(send, 403, "MissingAuthenticationTokenException", "Missing Authentication Token")
            return
        try:
            connection = self._gateway.connection(scope["path"].removeprefix(PREFIX))
            await self._do(scope, receive, send, connection)
        except Gone:
            await _refuse(send, 410, "GoneException")
        except Full:
            await _refuse(send, 429, "LimitExceededException", "The WebSocket client side buffer is full")
        except TooLarge:
            await _refuse(send, 413, "PayloadTooLargeException", "Message too long")
        except UnicodeDecodeError:
            await _refuse(send, 400, "BadRequestException", "The message is not UTF-8")
        except ClientGone:
            return

    async def _do(self, scope: Scope, receive: Receive, send: Send, connection: Connection) -> None:
        if scope["method"] == "POST":
            await connection.post((await read_body(scope, receive, LARGEST_MESSAGE)).decode())
            await _respond(send, 200)
        elif scope["method"] == "GET":
            state = {
                "connectedAt": rfc3339(connection.peer.connected_at),
                "identity": connection.peer.identity,
                "lastActiveAt": rfc3339(connection.last_active),
            }
            await respond_json(send, 200, state, [_request_id()])
        elif scope["method"] == "DELETE":
            await connection.close(*NORMALLY)
            await _respond(send, 204)
        else:
            await _refuse(send, 403, "MissingAuthenticationTokenException", "Missing Authentication Token")


async def _respond(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    length = [] if status == 204 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length, _request_id()]})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Send, status: int, name: str, message: str | None = None) -> None:
    """Answer with an error as the service does: its name in a header, and for a 410 nothing else."""
    kind = (b"x-amzn-errortype", name.encode())
    if message is None:
        await _respond(send, status, kind)
    else:
        await respond_json(send, status, {"message": message}, [kind, _request_id()])


def _request_id() -> tuple[bytes, bytes]:
    return b"x-amzn-requestid", str(uuid.uuid4()).encode()
