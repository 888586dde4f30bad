"""Who may do what: every route asks who is calling, and what is somebody else's looks as if it were not there."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest
from starlette.routing import Route
from tailrace.backend import Backend
from tailrace.http.api_app import create_api_app
from tailrace.http.client_routes import CLIENT_ROUTES
from tailrace.http.stream_app import hot_routes
from tailrace.settings import Settings

from tests.http.conftest import Client, Json, Serve, events, script
from tests.issuer import SECRET, Issuer, shared_token

pytestmark = pytest.mark.anyio

Headers = dict[str, str]


def by_arn(name: str) -> Headers:
    """Return how the adapter tells of a signed request."""
    context = {"authorizer": {"iam": {"userArn": f"arn:aws:iam::1:user/{name}"}}}
    return {"x-amzn-request-context": msgspec.json.encode(context).decode()}


def by_token(name: str) -> Headers:
    """Return a good token's header."""
    return {"Authorization": f"Bearer {token(name)}"}


def token(name: str, **changed: Any) -> str:
    """Return a token of the tests' secret."""
    return shared_token({"sub": name, "exp": time.time() + 600, **changed})


def asking(settings: Settings, auth: str) -> Settings:
    """Return settings with which callers are identified."""
    more: Json = {"in_lambda": True} if auth == "iam" else {"jwt_secret": SECRET}
    # Nobody is there to post to; what is told to nobody is told for nothing.
    return msgspec.structs.replace(
        settings, auth=auth, websocket_url="http://127.0.0.1:1/ws", channel_secret="s", **more
    )


def routes() -> set[tuple[str, str]]:
    """Return every route of the application but the one for health checks."""
    backend = Backend(Settings())
    schema = create_api_app(backend).openapi()["paths"]
    found = {(method.upper(), path) for path, methods in schema.items() for method in methods}
    for route in hot_routes(backend):
        assert isinstance(route, Route)
        found |= {(method, route.path.replace(":path}", "}")) for method in route.methods or () if method != "HEAD"}
    return found - {("GET", "/health")}


BODIES: dict[tuple[str, str], Json] = {
    ("PATCH", "/conversations/{conversation_id}"): {"title": "mine"},
    ("POST", "/broadcasting/auth"): {"socket_id": "L0SM9cOFvHcCIhw=", "channel_name": "private-conversation.{id}"},
    ("POST", "/conversations"): {},
    ("POST", "/conversations/{conversation_id}/grants"): {},
    ("POST", "/conversations/{conversation_id}/messages"): {"role": "user", "content": "hello"},
    ("POST", "/conversations/{conversation_id}/stream"): script("a"),
    ("POST", "/api/chat"): {
        "id": "{id}",
        "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}],
        "options": {"script": {"chunks": ["b"]}},
    },
    ("POST", "/api/ag-ui"): {
        "threadId": "{id}",
        "runId": "r",
        "messages": [{"id": "m", "role": "user", "content": "hello"}],
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {"options": {"script": {"chunks": ["b"]}}},
    },
    ("POST", "/v1/chat/completions"): {
        "model": "fast",
        "messages": [{"role": "user", "content": "hello"}],
        "options": {"script": {"chunks": ["b"]}},
    },
    ("POST", "/v1/responses"): {"model": "fast", "input": "hello", "previous_response_id": "{id}"},
}

CLIENTS = {(each.method, each.path.replace(":path}", "}")) for each in CLIENT_ROUTES}

OF_NOBODY = {("GET", "/conversations"), ("POST", "/conversations"), ("GET", "/report")}
"""Routes that name nothing of anybody: there, another caller gets their own."""


@pytest.mark.parametrize(("auth", "caller"), [("iam", by_arn), ("jwt", by_token)])
async def test_somebody_else_s_reply(serve: Serve, settings: Settings, auth: str, caller: Any) -> None:
    """Read, resume, poll, snapshot, cancel, change and delete of another owner's things are 404, their channels 403; of
    nobody's, 401."""
    mine, other = caller("me"), caller("you")
    async with serve(asking(settings, auth)) as client:
        conversation, message = await a_reply(client, mine)
        _, grant = await client.json("POST", f"/conversations/{conversation}/grants", {}, headers=mine)
        for method, path in sorted(routes() - CLIENTS):
            filled = path.replace("{conversation_id}", conversation).replace("{message_id}", message)
            filled = filled.replace("{grant_id}", grant["id"])
            assert "{" not in filled
            body = BODIES.get((method, path))
            if path == "/broadcasting/auth":
                body = {**(body or {}), "channel_name": f"private-conversation.{conversation}"}
            status, content = await client.json(method, filled, body)
            assert (status, content["error"]["type"]) == (401, "unauthenticated"), (method, path)
            status, content = await client.json(method, filled, body, headers=other)
            if (method, path) in OF_NOBODY:
                assert status < 300
                assert conversation not in msgspec.json.encode(content).decode()
            elif path == "/broadcasting/auth":
                assert (status, content["error"]["type"]) == (403, "forbidden")
            else:
                assert (status, content["error"]["type"]) == (404, "not_found"), (method, path)
        status, content = await client.json("GET", f"/messages/{message}", headers=mine)
        assert (status, content["content"]) == (200, "a")


@pytest.mark.parametrize(("auth", "caller"), [("iam", by_arn), ("jwt", by_token)])
async def test_somebody_else_s_chat(serve: Serve, settings: Settings, auth: str, caller: Any) -> None:
    """By the routes of other protocols' clients: an id of somebody else's is unknown, or one's own, where nothing
    is of the other's; to nobody they answer 401."""
    mine, other = caller("me"), caller("you")
    async with serve(asking(settings, auth)) as client:
        conversation, message = await a_reply(client, mine)
        before = await client.json("GET", f"/conversations/{conversation}/messages", headers=mine)
        for method, path in sorted(CLIENTS):
            for known in (conversation, message, f"resp_{message}"):
                filled = re.sub(r"\{[^}]+\}", known, path)
                body = msgspec.json.decode(
                    msgspec.json.encode(BODIES.get((method, path))).replace(b"{id}", known.encode())
                )
                async with client.session.request(method, filled, json=body) as response:
                    assert response.status == 401, (method, path)
                async with client.session.request(method, filled, json=body, headers=other) as response:
                    answer = await response.read()
                    assert response.status in (200, 204, 404), (method, path, answer)
                    assert b'"a"' not in answer, (method, path)
        assert await client.json("GET", f"/conversations/{conversation}/messages", headers=mine) == before


async def a_reply(client: Client, headers: Headers) -> tuple[str, str]:
    """Return a conversation and its reply, which has ended."""
    status, conversation = await client.json("POST", "/conversations", {}, headers=headers)
    assert status == 201
    path = f"/conversations/{conversation['id']}/stream"
    async with client.session.post(path, json=script("a"), headers=headers) as response:
        await response.read()
        return conversation["id"], response.headers["X-Message-Id"]


async def test_event_source_brings_its_token_in_the_address(serve: Serve, settings: Settings) -> None:
    """It can send no header. So where streams are read, and nowhere else, the query may have it."""
    async with serve(asking(settings, "jwt")) as client:
        conversation, message = await a_reply(client, by_token("me"))
        query = {"access_token": token("me")}
        for path in (f"/messages/{message}/stream", f"/conversations/{conversation}/stream"):
            async with client.session.get(path, params=query) as response:
                assert response.status == 200
                assert events(await response.read())[-1]["done"] is True
        for method, path in (
            ("GET", f"/messages/{message}"),
            ("GET", f"/messages/{message}/events"),
            ("POST", f"/messages/{message}/cancel"),
            ("POST", f"/conversations/{conversation}/stream"),
        ):
            status, _ = await client.json(method, path, script("a"), params=query)
            assert status == 401, path
        twice = [("access_token", token("me")), ("access_token", token("you"))]
        status, _ = await client.json("GET", f"/messages/{message}/stream", params=twice)
        assert status == 401
        status, _ = await client.json(
            "GET", f"/messages/{message}/stream", params=query, headers={"Authorization": "Bearer x"}
        )
        assert status == 401


@pytest.mark.parametrize(
    ("headers", "challenge", "said"),
    [
        ({}, "Bearer", "There is no token: send it in the header Authorization: Bearer."),
        ({"Authorization": "Basic eDp5"}, "Bearer", "The Authorization header must be a Bearer token."),
        ({"Authorization": "Bearer "}, "Bearer", "The Authorization header must be a Bearer token."),
        ({"Authorization": "bearer x"}, 'Bearer error="invalid_token"', "The token is not a signed JSON Web Token."),
        (
            {"Authorization": f"Bearer {token('me', exp=1)}"},
            'Bearer error="invalid_token"',
            "The token has expired.",
        ),
    ],
    ids=["none", "another scheme", "empty", "nonsense", "expired"],
)
async def test_what_was_wrong_is_said(
    serve: Serve, settings: Settings, headers: Headers, challenge: str, said: str
) -> None:
    """RFC 6750, section 3: the header says that a token is asked for, and what was wrong with the one that came."""
    async with serve(asking(settings, "jwt")) as client:
        for path in ("/conversations", "/messages/x/stream"):
            async with client.session.get(path, headers=headers) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == challenge
                assert (await response.json())["error"] == {"type": "unauthenticated", "message": said}


async def test_an_issuer_that_is_away(serve: Serve, settings: Settings) -> None:
    """503 says that it is not the caller's fault; health checks need nobody."""
    async with Issuer.open() as issuer:
        believing = msgspec.structs.replace(settings, auth="jwt", jwt_issuers=(issuer.url,), jwt_audience=("app",))
        issuer.document = {"issuer": "another"}
        async with serve(believing) as client:
            headers = {"Authorization": f"Bearer {issuer.token(issuer.claims(int(time.time())))}"}
            status, content = await client.json("GET", "/conversations", headers=headers)
            assert (status, content["error"]["message"]) == (503, "The token cannot be checked now. Please try again.")
            assert (await client.json("GET", "/health"))[0] == 200


def test_no_token_is_logged() -> None:
    """Nothing of ours logs addresses, where the token of an EventSource is: uvicorn's access log is off."""
    from tailrace.http.server import server

    assert server(None, host="127.0.0.1", port=0).config.access_log is False
