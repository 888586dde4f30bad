"""What becomes of an unexpected error: a masked 500, and a log line without its text.

Starlette's own handler raises the error again after answering, and the server would then log its text,
which may quote a prompt.
"""

from __future__ import annotations

from tailrace.errors import where
from tailrace.http.requests import App, Message, Receive, Scope, Send
from tailrace.http.responses import respond_error
from tailrace.telemetry import logger


class MaskErrors:
    """Pure ASGI middleware around an application."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            logger.error("request failed", extra=where(error))
            if not started:
                await respond_error(send, error)
