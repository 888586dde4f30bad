"""``HEAD``: as ``GET``, without a body (https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2)."""

from __future__ import annotations

import asyncio
from typing import Final

from tailrace.http.requests import App, Message, Receive, Scope, Send

IS_HEAD: Final = "tailrace.head"
"""In the scope of a request that came as ``HEAD``, for a route whose ``GET`` does something."""


class Head:
    """Pure ASGI middleware: calls the application with ``GET``, and hangs up when it has answered with headers."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        answered = asyncio.Event()
        asked = False

        async def headers_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answered.set()

        async def nothing_more() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await answered.wait()  # what streams sees a client that leaves then, and stops
            return {"type": "http.disconnect"}

        await self._app({**scope, "method": "GET", IS_HEAD: True}, nothing_more, headers_only)
