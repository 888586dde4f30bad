"""What stands in front of the functions on one machine: function URLs, the WebSocket API and the page, on one port."""

from __future__ import annotations

import asyncio
import sys
import uuid
from datetime import UTC, datetime
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.routing import compile_path
from starlette.staticfiles import StaticFiles
from tailrace.errors import TooLarge
from tailrace.http.client_routes import CLIENT_ROUTES
from tailrace.http.requests import App, ClientGone, Message, Receive, Scope, Send, read_body
from tailrace.http.responses import respond_error, respond_json
from tailrace.http.under_api import PREFIX

from local.broadcasting import Broadcasting
from local.lambda_event import http_response, lambda_event
from local.lambda_function import LambdaContext, LambdaFunction
from local.page import INDEX, WEB, Settings, document
from local.schedule import Schedule

STREAMED: Final = (
    ("POST", "/conversations/{conversation_id}/stream"),
    ("GET", "/conversations/{conversation_id}/stream"),
    ("GET", "/messages/{message_id}/stream"),
    ("GET", "/messages/{message_id}/events"),
    *((each.method, each.path) for each in CLIENT_ROUTES),
)
"""The routes of the stream function; every other one is the API function's. Both have all of them; a long poll
would hold one of the API function's few threads."""

LARGEST_PAYLOAD: Final = 6 * 1024 * 1024
"""https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""

SETTLE_SECONDS: Final = 5.0
"""How long replies that were cut by the end of the server may take to store their own end."""


class Front:
    """Gives each request to whom it is for.

    Args:
        stream: the stream function's application, behind no more than a server as it is behind the
            Lambda Web Adapter.
        api: the API function, which gets events.
        schedule: what is called by the clock as long as requests are served.
        broadcasting: what serves WebSockets and calls the functions behind them.
        page: what the page is told.
    """

    def __init__(
        self,
        stream: App,
        api: LambdaFunction,
        schedule: Schedule | None = None,
        broadcasting: Broadcasting | None = None,
        page: Settings | None = None,
    ) -> None:
        self._stream = stream
        self._api = api
        self._schedule = schedule
        self._broadcasting = broadcasting
        self._page = page or {}
        self._static = StaticFiles(directory=WEB)
        self._streamed = [
            (method, compile_path(prefix + path)[0]) for prefix in ("", PREFIX) for method, path in STREAMED
        ]
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        self._open += 1
        self._idle.clear()
        try:
            await self._respond(scope, receive, send)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._broadcasting is not None and self._broadcasting.serves(scope):
            await self._broadcasting(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is open: the server makes a 403 of it
            return
        method, path = scope["method"], scope["path"]
        if any(method == each and pattern.match(path) for each, pattern in self._streamed):
            await self._stream(scope, receive, send)
        elif path == "/" and method in ("GET", "HEAD"):
            content = document(INDEX.read_text(), self._page)
            await HTMLResponse(content)(scope, receive, send)
        elif path.startswith("/static/") and method in ("GET", "HEAD"):
            await self._file(scope, receive, send)
        else:
            await self._call(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, LARGEST_PAYLOAD)
        except ClientGone:
            return
        except TooLarge as error:
            await respond_error(send, error)
            return
        context = LambdaContext(self._api.name, str(uuid.uuid4()))
        event = lambda_event(scope, body, now=datetime.now(UTC), request_id=context.aws_request_id)
        # As a function URL names the call. Only what came through an event has it.
        request_id = (b"x-amzn-requestid", context.aws_request_id.encode())
        try:
            status, headers, content = http_response(await self._api.call(event, context))
        except Exception as error:  # as a function URL answers for a function that failed
            print(f"{scope['method']} {scope['path']}: {type(error).__name__}", file=sys.stderr)
            failed = {"error": {"type": "general_error", "message": "The function failed."}}
            await respond_json(send, 502, failed, [request_id])
            return
        await send({"type": "http.response.start", "status": status, "headers": [*headers, request_id]})
        await send({"type": "http.response.body", "body": content})

    async def _file(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._static.get_response(scope["path"].removeprefix("/static/"), scope)
        except HTTPException:
            await respond_json(send, 404, {"error": {"type": "not_found", "message": "No such file."}})
            return
        await response(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The stream function's own lifespan, ended only when no request is left."""
        if self._broadcasting is not None:
            await self._broadcasting.start()
        if self._schedule is not None:
            self._schedule.start()

        async def receive_late() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                # The server has cut what was open; a cut reply is storing its end now.
                try:
                    await asyncio.wait_for(self._idle.wait(), SETTLE_SECONDS)
                except TimeoutError:
                    print("A reply's end could not be stored.", file=sys.stderr)
                if self._schedule is not None:
                    await self._schedule.close()
                if self._broadcasting is not None:
                    await self._broadcasting.close()
                await self._api.close()
            return message

        await self._stream(scope, receive_late, send)
