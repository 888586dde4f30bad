"""HTTP requests become Lambda events, and what a function returns becomes an HTTP response."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote, unquote

import pytest
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from mangum.handlers.api_gateway import HTTPGateway
from mangum.types import LambdaConfig

from local.lambda_event import http_response, lambda_event
from local.lambda_function import LambdaContext

NOW = datetime(2026, 11, 22, 9, 30, 0, 123000, tzinfo=UTC)


def request_scope(
    path: bytes = b"/", query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None, method: str = "GET"
) -> dict[str, Any]:
    """A scope as uvicorn makes it."""
    return {
        "type": "http",
        "method": method,
        "http_version": "1.1",
        "scheme": "http",
        "path": unquote(path.decode()),
        "raw_path": path,
        "query_string": query,
        "headers": [(b"host", b"127.0.0.1:8787"), *(headers or [])],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8787),
    }


def event_of(scope: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
    return lambda_event(scope, body, now=NOW, request_id="5e1f7ad2-3a6b-4f0e-9d53-0c9a5f1b2c3d")


def test_the_documented_shape() -> None:
    """The event has the fields of the payload format 2.0, and absent ones are absent."""
    event = event_of(request_scope(b"/health", headers=[(b"user-agent", b"curl/8")]))
    assert event["version"] == "2.0"
    assert event["routeKey"] == event["requestContext"]["stage"] == "$default"
    assert event["rawPath"] == "/health"
    assert event["rawQueryString"] == ""
    assert event["isBase64Encoded"] is False
    assert not event.keys() & {"body", "cookies", "queryStringParameters"}
    context = event["requestContext"]
    assert context["http"] == {
        "method": "GET",
        "path": "/health",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "curl/8",
    }
    assert context["time"] == "22/Nov/2026:09:30:00 +0000"
    assert context["timeEpoch"] == 1795339800123
    assert context["requestId"] == "5e1f7ad2-3a6b-4f0e-9d53-0c9a5f1b2c3d"
    assert event["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert event["headers"]["x-forwarded-proto"] == "http"
    assert event["headers"]["x-amzn-trace-id"].startswith("Root=1-6b02b618-")


def test_query_strings() -> None:
    """The raw query stays as it was; the parsed one is decoded, and a parameter given twice is joined."""
    event = event_of(request_scope(query=b"a=1&b=x%20y&a=2&c=&d=%E6%B0%B4&e=1+1"))
    assert event["rawQueryString"] == "a=1&b=x%20y&a=2&c=&d=%E6%B0%B4&e=1+1"
    assert event["queryStringParameters"] == {"a": "1,2", "b": "x y", "c": "", "d": "水", "e": "1 1"}


def test_repeated_headers_and_cookies() -> None:
    """A header that came twice is joined by a comma; cookies are a list of their own."""
    headers = [
        (b"X-Twice", b"one"),
        (b"x-twice", b"two"),
        (b"cookie", b"a=1; b=2"),
        (b"cookie", b"c=3"),
    ]
    event = event_of(request_scope(headers=headers))
    assert event["headers"]["x-twice"] == "one,two"
    assert event["cookies"] == ["a=1", "b=2", "c=3"]
    assert "cookie" not in event["headers"]


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        (b"application/json", '{"水":1}'.encode(), '{"水":1}'),
        (b"application/problem+json; charset=utf-8", b"{}", "{}"),
        (b"text/plain", b"hello", "hello"),
        (b"text/plain", b"\xff\xfe", None),
        (b"application/octet-stream", b"\x00\x01", None),
        (b"application/x-www-form-urlencoded", b"a=1", None),
        (b"", b"{}", None),
    ],
)
def test_bodies(content_type: bytes, body: bytes, text: str | None) -> None:
    """Text travels as text, everything else as base64."""
    event = event_of(request_scope(method="POST", headers=[(b"content-type", content_type)]), body)
    assert event["isBase64Encoded"] is (text is None)
    assert event["body"] == (b64encode(body).decode() if text is None else text)


PATHS = [b"/", b"/conversations/a%2Fb/stream", quote("/水/🐟").encode(), b"/a%20b+c", b"/100%25", b"//double"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", [b"", b"message=a%20b&x=%25&x=2"])
@pytest.mark.parametrize("body", [b"", b'{"a":1}', b"\x00\xff"])
def test_mangum_makes_the_same_scope_of_it(path: bytes, query: bytes, body: bytes) -> None:
    """An independent judge, the adapter that runs in the function, reads back what was sent."""
    headers = [(b"content-type", b"application/json"), (b"x-name", b"value"), (b"cookie", b"a=1; b=2")]
    sent = request_scope(path, query, headers, method="POST")
    config: LambdaConfig = {
        "api_gateway_base_path": "/",
        "text_mime_types": [*DEFAULT_TEXT_MIME_TYPES],
        "exclude_headers": [],
    }
    event = event_of(sent, body)
    context = LambdaContext("tailrace-api")
    assert HTTPGateway.infer(event, cast("Any", context), config)
    read = HTTPGateway(event, cast("Any", context), config)
    assert read.body == body
    for name in ("type", "method", "path", "query_string", "scheme", "server", "http_version"):
        assert read.scope[name] == sent[name], name
    assert read.scope["client"][0] == sent["client"][0]
    got = {bytes(name): bytes(value) for name, value in read.scope["headers"]}
    assert got.items() >= dict(sent["headers"]).items()


def test_responses() -> None:
    """Status, headers, cookies and a text body come out; the length is counted anew."""
    status, headers, body = http_response(
        {
            "statusCode": 201,
            "headers": {"Content-Type": "application/json", "content-length": "999"},
            "cookies": ["a=1", "b=2"],
            "body": '{"水":1}',
            "isBase64Encoded": False,
        }
    )
    assert status == 201
    assert body == '{"水":1}'.encode()
    assert headers == [
        (b"content-type", b"application/json"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"content-length", b"9"),
    ]


def test_binary_and_empty_responses() -> None:
    """Base64 is decoded, and a 204 has neither a body nor its length."""
    assert http_response({"statusCode": 200, "body": "AP8=", "isBase64Encoded": True})[2] == b"\x00\xff"
    assert http_response({"statusCode": 204, "body": ""}) == (204, [], b"")


def test_the_context_is_lambdas() -> None:
    """The context counts down and names its call."""
    context = LambdaContext("tailrace-api", "the-request")
    assert context.aws_request_id == "the-request"
    assert context.invoked_function_arn.endswith(":function:tailrace-api")
    assert 0 < context.get_remaining_time_in_millis() <= 900_000
