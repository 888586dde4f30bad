"""The WebSocket function: every route of the WebSocket API, ``$connect``, ``$disconnect`` and ``$default``; and what
the chat function did not do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tailrace.aws.event_loop import run
from tailrace.aws.invoke import Invoke
from tailrace.backend import Backend
from tailrace.broadcast.allowance import Allowance
from tailrace.broadcast.chats import Chats
from tailrace.broadcast.socket import Sockets
from tailrace.telemetry import logger

backend = Backend()
auth = backend.auth  # what checks tokens is imported as the function starts


def handler(event: Mapping[str, Any], context: object) -> dict[str, int]:
    """Answer an event of API Gateway. A client is never refused: it would only come back, and not alone.

    Or tell a client that its chat is not answered: Lambda gives what the chat function was called with, as
    ``requestPayload``, which no event of API Gateway has
    (https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html).
    """
    if not backend.broadcast.on:
        logger.error("not configured", extra={"missing": "TAILRACE_WEBSOCKET_URL, or TAILRACE_BROADCAST is off"})
        return {"statusCode": 200}
    return run(_answer(event))


async def _answer(event: Mapping[str, Any]) -> dict[str, int]:
    if "requestPayload" in event:
        await _sockets().chat_failed(event["requestPayload"]["chat"])
        return {"statusCode": 200}
    caller = None
    if event["requestContext"]["eventType"] == "CONNECT":  # what is seen then holds for all that the connection sends
        caller = await auth.connecting(event)
    return await _sockets().handle(event, caller)


@cache
def _sockets() -> Sockets:
    broadcast, open_to_all = backend.broadcast, backend.settings.auth == "none"
    allowance = Allowance(backend.store, backend.socket_limits, backend.clock, backend.random_bytes)
    return Sockets(
        backend.store,
        broadcast.fan_out,
        broadcast.frames,
        backend.clock,
        allowance=allowance,
        grants=backend.grants,
        secret=broadcast.secret,
        open_to_all=open_to_all,
        chats=_chats(allowance, open_to_all),
    )


def _chats(allowance: Allowance, open_to_all: bool) -> Chats:
    settings, hand_over = backend.settings, None
    if settings.chat_function is not None:
        invoke = Invoke(settings.chat_function, region=settings.region, endpoint_url=settings.lambda_endpoint)
        backend.on_close(invoke.close)
        hand_over = invoke.hand_over
    return Chats(backend.store, hand_over, backend.open_replies.cancel, allowance=allowance, open_to_all=open_to_all)
