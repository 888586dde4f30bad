"""HTTP to what Lambda gives a function and back: the payload format 2.0 of function URLs and HTTP APIs.

https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html. Where the two differ it is as a
function URL has it, since that is what template.yaml makes: the path stays percent-encoded.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from tailrace.http.requests import Scope

Event = dict[str, Any]

API_ID: Final = "local"

TEXT_TYPES: Final = ("text/", "application/json", "application/javascript", "application/xml")
"""Bodies of these types are text in the event; all others are base64."""


def lambda_event(scope: Scope, body: bytes, *, now: datetime, request_id: str) -> Event:
    """Return the event of an HTTP request.

    Args:
        scope: the request's ASGI scope.
        now: when it came, with a time zone.
    """
    headers, cookies = _headers(scope["headers"])
    path = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    client = scope["client"][0] if scope.get("client") else "127.0.0.1"
    domain = headers.get("host", f"{API_ID}.lambda-url.localhost")
    # What the gateway adds, from which the function learns how it was called.
    headers["x-forwarded-for"] = ",".join(filter(None, (headers.get("x-forwarded-for"), client)))
    headers["x-forwarded-proto"] = scope["scheme"]
    headers["x-forwarded-port"] = str(scope["server"][1] if scope.get("server") else 80)
    headers.setdefault("x-amzn-trace-id", f"Root=1-{int(now.timestamp()):08x}-{request_id.replace('-', '')[:24]}")
    event: Event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": API_ID,
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "http": {
                "method": scope["method"],
                "path": path,
                "protocol": f"HTTP/{scope['http_version']}",
                "sourceIp": client,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": now.astimezone(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "isBase64Encoded": False,
    }
    # What a request does not have is absent from its event, not empty.
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _query_parameters(query)
    if body:
        text = _text(body, headers.get("content-type", ""))
        event["body"] = b64encode(body).decode() if text is None else text
        event["isBase64Encoded"] = text is None
    return event


def http_response(result: Mapping[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body of what a function returned.

    Raises:
        KeyError, ValueError, TypeError: it is not a response in the payload format.
    """
    body = result.get("body", "")
    content = b64decode(body) if result.get("isBase64Encoded") else body.encode()
    headers = [
        (name.lower().encode("latin-1"), str(value).encode("latin-1"))
        for name, value in result.get("headers", {}).items()
        if name.lower() != "content-length"  # the gateway's own business
    ]
    headers += [(b"set-cookie", cookie.encode("latin-1")) for cookie in result.get("cookies", ())]
    status = int(result["statusCode"])
    if status >= 200 and status not in (204, 304):
        headers.append((b"content-length", str(len(content)).encode()))
    return status, headers, content


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> tuple[dict[str, str], list[str]]:
    """Return the headers, one that came twice joined by a comma, and the cookies, which are apart."""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for name_bytes, value_bytes in raw:
        name, value = name_bytes.decode("latin-1").lower(), value_bytes.decode("latin-1")
        if name == "cookie":
            cookies += [cookie for part in value.split(";") if (cookie := part.strip())]
        elif name in headers:
            headers[name] += f",{value}"
        else:
            headers[name] = value
    return headers, cookies


def _query_parameters(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def _text(body: bytes, content_type: str) -> str | None:
    """Return the body as text, or None when it has to travel as base64."""
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind.startswith(TEXT_TYPES) or kind.endswith(("+json", "+xml"))):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
