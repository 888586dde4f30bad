"""Lambda's Invoke API on one machine, for a function that is called by another one.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Mapping
from typing import Final

from starlette.routing import compile_path
from tailrace.errors import TooLarge
from tailrace.http.requests import ClientGone, Receive, Scope, Send, header, read_body
from tailrace.http.responses import respond_json

from local.lambda_event import Event
from local.lambda_function import LambdaContext, LambdaFunction

PATH: Final = compile_path("/2015-03-31/functions/{name}/invocations")[0]

LARGEST_PAYLOAD: Final = 6 * 1024 * 1024
"""https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""


LARGEST_EVENT: Final = 1024 * 1024
"""The same of what nobody waits for."""

MOST_WAITING: Final = 1000
"""Calls that nobody waits for, under way or not begun: Lambda's queue is longer, and this machine's memory is not."""


class InvokeApi:
    """An ASGI application for the paths that are like ``PATH``. It waits for the function (RequestResponse), or it does
    not (Event); then nothing is tried again here, as the functions that are called so want it."""

    def __init__(self, functions: Mapping[str, LambdaFunction]) -> None:
        self._functions = functions
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = PATH.match(scope["path"])
        function = self._functions.get(found["name"]) if found else None
        if not (header(scope, b"authorization") or "").startswith("AWS4-HMAC-SHA256 "):
            # As in connections_api.py: not checked, but asked for.
            await _refuse(send, 403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        elif scope["method"] != "POST" or function is None:
            await _refuse(send, 404, "ResourceNotFoundException", "Function not found")
        elif (kind := header(scope, b"x-amz-invocation-type") or "RequestResponse") not in ("RequestResponse", "Event"):
            await _refuse(send, 400, "InvalidParameterValueException", f"{kind[:20]} is not known here")
        else:
            await self._invoke(scope, receive, send, function, is_awaited=kind == "RequestResponse")

    async def close(self) -> None:
        """Wait until calls that nobody waits for have ended; their functions are closed by now."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _invoke(
        self, scope: Scope, receive: Receive, send: Send, function: LambdaFunction, *, is_awaited: bool
    ) -> None:
        largest = LARGEST_PAYLOAD if is_awaited else LARGEST_EVENT
        try:
            event = json.loads(await read_body(scope, receive, largest) or b"{}")
        except ClientGone:
            return
        except TooLarge as error:
            await _refuse(send, 413, "RequestTooLargeException", error.message)
            return
        except ValueError:
            await _refuse(send, 400, "InvalidRequestContentException", "Could not parse request body into json")
            return
        context = LambdaContext(function.name)
        if not is_awaited:
            if len(self._running) >= MOST_WAITING:
                await _refuse(send, 429, "TooManyRequestsException", "Rate Exceeded.")
                return
            task = asyncio.create_task(_run(function, event, context))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            request_id = (b"x-amzn-requestid", context.aws_request_id.encode())
            await send(
                {"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0"), request_id]}
            )
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [
            (b"x-amz-executed-version", b"$LATEST"),
            (b"x-amzn-requestid", context.aws_request_id.encode()),
        ]
        try:
            result: object = await function.call(event, context)
        except Exception as error:  # as Lambda tells what a function has raised
            print(f"{function.name}: {type(error).__name__}", file=sys.stderr)
            headers.append((b"x-amz-function-error", b"Unhandled"))
            result = {
                "errorMessage": str(error),
                "errorType": type(error).__name__,
                "requestId": context.aws_request_id,
                "stackTrace": traceback.format_tb(error.__traceback__),
            }
        await respond_json(send, 200, result, headers)


async def _run(function: LambdaFunction, event: Event, context: LambdaContext) -> None:
    try:
        await function.call(event, context)
    except Exception as error:
        print(f"{function.name}: {type(error).__name__}", file=sys.stderr)


async def _refuse(send: Send, status: int, name: str, message: str) -> None:
    await respond_json(send, status, {"Type": "User", "Message": message}, [(b"x-amzn-errortype", name.encode())])
