"""What is refused of a request's body before an application reads it itself: its length, its type, and odd JSON."""

from __future__ import annotations

from typing import Final

from tailrace.errors import RequestError
from tailrace.http.requests import App, ClientGone, Message, Receive, Scope, Send, check_type, is_form, read_body
from tailrace.http.responses import respond_error
from tailrace.protocols.strict_json import check_json

FORM_PATH: Final = "/broadcasting/auth"
"""Where pusher-js sends a form."""


class CheckBody:
    """Pure ASGI middleware: refuses a body over the limit while it comes in, and one that is no JSON of ours."""

    def __init__(self, app: App, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS", "DELETE"):
            await self._app(scope, receive, send)
            return
        try:
            body = await read_body(scope, receive, self._limit)
            if body and not (scope["path"].endswith(FORM_PATH) and is_form(scope)):
                check_type(scope)
                check_json(body)
        except RequestError as error:
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
