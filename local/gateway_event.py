"""What API Gateway gives a function for a WebSocket.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-mapping-template-reference.html
has the fields of the context. Which of them an event has, and what lies beside them, is in no list; it is here as in
events that were recorded: a message has neither headers nor query, and a $disconnect has headers of its own.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

from tailrace.http.requests import Scope

from local.environment import STAGE
from local.lambda_event import API_ID, Event

NOT_PASSED_ON: Final = ("connection", "upgrade")


def new_id() -> str:
    """Return an id as API Gateway makes them, such as ``L0SM9cOFvHcCIhw=``."""
    return urlsafe_b64encode(secrets.token_bytes(11)).decode()


@dataclass(frozen=True)
class Peer:
    """What all events of one connection say of it.

    Attributes:
        connected_at: microseconds since 1970.
        identity: `sourceIp` and, if the client told it, `userAgent`.
    """

    connection_id: str
    connected_at: int
    domain: str
    identity: dict[str, str]


def peer(scope: Scope, now: int) -> Peer:
    """Return a new connection's, with an id of its own.

    Args:
        scope: the ASGI scope of the WebSocket.
        now: microseconds since 1970.
    """
    headers = _headers(scope)
    identity = {"sourceIp": _address(scope)}
    if agent := headers.get("User-Agent"):
        identity["userAgent"] = agent[-1]
    host = headers.get("Host", [f"{API_ID}.execute-api.localhost"])[-1]
    return Peer(new_id(), now, host, identity)


def connect_event(peer: Peer, scope: Scope, now: int) -> Event:
    """Return the event of a client that wants to connect.

    Args:
        scope: the ASGI scope of the WebSocket.
        now: microseconds since 1970.
    """
    headers = _headers(scope)
    headers["X-Amzn-Trace-Id"] = [f"Root=1-{now // 1_000_000:08x}-{secrets.token_hex(12)}"]
    headers.setdefault("X-Forwarded-For", []).append(_address(scope))
    headers["X-Forwarded-Port"] = [str(scope["server"][1] if scope.get("server") else 80)]
    headers["X-Forwarded-Proto"] = ["https" if scope["scheme"] == "wss" else "http"]
    event: Event = {**_both("headers", headers), "requestContext": _context(peer, "CONNECT", now)}
    # What a request does not have is absent from its event, not empty.
    if query := parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        event |= _both("queryStringParameters", query)
    return {**event, "isBase64Encoded": False}


def message_event(peer: Peer, body: str, now: int) -> Event:
    """Return the event of a frame from the client."""
    context = _context(peer, "MESSAGE", now) | {"messageId": new_id()}
    return {"requestContext": context, "body": body, "isBase64Encoded": False}


def disconnect_event(peer: Peer, code: int, reason: str, now: int) -> Event:
    """Return the event of a connection that has ended.

    Args:
        code: why, as in RFC 6455, 7.4.
        reason: the same in words.
    """
    headers = {"Host": [peer.domain], "x-api-key": [""], "X-Forwarded-For": [""], "x-restapi": [""]}
    context = _context(peer, "DISCONNECT", now) | {"disconnectStatusCode": code, "disconnectReason": reason}
    return {**_both("headers", headers), "requestContext": context, "isBase64Encoded": False}


ROUTES: Final = {"CONNECT": "$connect", "MESSAGE": "$default", "DISCONNECT": "$disconnect"}


def _context(peer: Peer, kind: str, now: int) -> dict[str, Any]:
    request_id = new_id()
    return {
        "routeKey": ROUTES[kind],
        "eventType": kind,
        "extendedRequestId": request_id,
        "requestTime": datetime.fromtimestamp(now // 1_000_000, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "messageDirection": "IN",
        "stage": STAGE,
        "connectedAt": peer.connected_at // 1000,
        "requestTimeEpoch": now // 1000,
        "identity": dict(peer.identity),
        "requestId": request_id,
        "domainName": peer.domain,
        "connectionId": peer.connection_id,
        "apiId": API_ID,
    }


def _both(name: str, values: dict[str, list[str]]) -> dict[str, Any]:
    """Return the two forms in which API Gateway tells what may come more than once."""
    last = {key: each[-1] for key, each in values.items()}
    return {name: last, f"multiValue{name[0].upper()}{name[1:]}": values}


def _headers(scope: Scope) -> dict[str, list[str]]:
    """Return the headers as clients write them; ASGI has them in lower case."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        if (plain := name.decode("latin-1")) not in NOT_PASSED_ON:
            written = "-".join(part.capitalize() for part in plain.split("-")).replace("Websocket", "WebSocket")
            headers.setdefault(written, []).append(value.decode("latin-1"))
    return headers


def _address(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else "127.0.0.1"
