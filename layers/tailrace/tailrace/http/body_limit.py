"""The limit of a request's body, for applications that read it themselves."""

from __future__ import annotations

from tailrace.errors import TooLarge
from tailrace.http.requests import App, ClientGone, Message, Receive, Scope, Send, read_body
from tailrace.http.responses import respond_error


class LimitBody:
    """Pure ASGI middleware: refuses a body over the limit while it comes in."""

    def __init__(self, app: App, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS", "DELETE"):
            await self._app(scope, receive, send)
            return
        try:
            body = await read_body(scope, receive, self._limit)
        except TooLarge as error:
            await respond_error(send, error)
            return
        except ClientGone:
            return
        delivered = False

        async def replay() -> Message:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)
