"""What somebody sends who means no good: characters that break lines, cursors that nobody made, headers of a proxy that
is not there."""

from __future__ import annotations

import logging
import random
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from tailrace.settings import Settings

from tests.http.conftest import Client, Serve, script
from tests.http.test_owner import a_reply, asking, by_token

pytestmark = pytest.mark.anyio

ODD = ["\r\nX-Evil: 1", "\n", "\r", "\x00", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\U0001f600", "é"]
"""What ends a line, of a header, a log or a terminal; what turns text round; what is more than a byte or two."""


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log's lines, as Powertools writes them."""
    (handler, *_) = logging.getLogger("tailrace").handlers
    return [handler.format(record) for record in caplog.records if record.name == "tailrace"]


@pytest.mark.parametrize("odd", ODD, ids=lambda text: ascii(text))
async def test_characters_that_break_lines(client: Client, caplog: pytest.LogCaptureFixture, odd: str) -> None:
    """In titles, names, texts and metadata they are kept as they are, or refused; nothing that they say becomes a
    header, a field of a log or a line of one, and nothing is 500."""
    word = f"a{odd}b"
    status, made = await client.json("POST", "/conversations", {"title": word, "metadata": {word: word}})
    assert (status, made["title"], made["metadata"]) == (201, word, {word: word})
    path = f"/conversations/{made['id']}"
    body: dict[str, Any] = {**script(word), "input": word, "metadata": {word: word}}
    async with client.session.post(f"{path}/stream", json=body) as response:
        assert response.status == 200
        assert "X-Evil" not in response.headers
        assert msgspec.json.encode(word)[1:-1] in await response.read()
    for field in ("provider", "model", "channel"):
        async with client.session.post(f"{path}/stream", json={**body, field: word}) as response:
            assert response.status in (200, 400, 422), field
            assert "X-Evil" not in response.headers
    for name in ("Idempotency-Key", "X-Socket-ID", "X-Correlation-Id", "Last-Event-ID"):
        if odd.isprintable():  # HTTP itself has no room for the others
            async with client.session.post(f"{path}/stream", json=body, headers={name: word}) as response:
                assert response.status in (200, 400, 422), name
    for place in (f"{path}%2F..", f"/conversations/{quote(word)}", f"/messages/{quote(word)}/stream"):
        async with client.session.get(place) as response:
            assert response.status == 404, place
    query = quote(word)
    for place in (
        f"/conversations?cursor={query}",
        f"{path}/messages?cursor={query}",
        f"{path}/messages?before={query}",
        f"{path}/stream?after={query}",
        f"{path}/stream?protocol={query}",
        f"{path}/stream?by={query}",
        f"/report?day={query}",
    ):
        async with client.session.get(place) as response:
            assert 400 <= response.status < 500, place
    lines = logged(caplog)
    assert lines
    for line in lines:
        assert not any(ord(character) < 32 for character in line)  # JSON has other words for them
        assert msgspec.json.decode(line)["level"] in ("INFO", "WARNING")


async def test_cursors_that_nobody_made(client: Client) -> None:
    """Good ones with a character changed, cut or added, and noise: refused, or one that could be ours; never 500, and
    never anything of somebody else's."""
    conversation, message = await a_reply(client, {})
    _, other = await a_reply(client, {})
    for _ in range(3):
        await client.conversation()
    _, page = await client.json("GET", "/conversations?limit=1")
    _, history = await client.json("GET", f"/conversations/{conversation}/messages?limit=1")
    dice = random.Random(20261129)
    letters = "abcXYZ019-_.:=+/%\x7fé"

    def spoilt(text: str) -> str:
        place = dice.randrange(len(text))
        return dice.choice(
            [
                text[:place] + dice.choice(letters) + text[place + 1 :],
                text[:place],
                text[:place] + dice.choice(letters) + text[place:],
                text[place:] + text[:place],
                "".join(dice.choice(letters) for _ in range(dice.randrange(80))),
            ]
        )

    for _ in range(150):
        for path, good in (
            ("/conversations?limit=1&cursor=", page["next_cursor"]),
            (f"/conversations/{conversation}/messages?cursor=", history["next_cursor"]),
            (f"/conversations/{conversation}/messages?before=", message),
            (f"/messages/{message}/events?after=", f"{message}:1"),
            (f"/conversations/{conversation}/stream?after=", f"{message}:2"),
        ):
            async with client.session.get(path + quote(spoilt(good))) as response:
                body = await response.read()
                assert response.status in (200, 204, 400, 404, 422), (path, body)
                assert other.encode() not in body or path.startswith("/conversations?"), path


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amzn-request-context": '{"authorizer":{"iam":{"userArn":"arn:aws:iam::1:user/me"}}}'},
        {"x-amzn-lambda-context": '{"deadline":1}'},
        {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": "evil.example"},
        {"forwarded": "for=127.0.0.1;host=evil.example", "host": "evil.example"},
        {"x-forwarded-prefix": "/api", "x-original-url": "/report", "x-rewrite-url": "/report"},
        {"x-http-method-override": "DELETE", "x-user": "me", "x-amzn-oidc-identity": "me"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_headers_of_a_proxy_that_is_not_there(serve: Serve, settings: Settings, headers: dict[str, str]) -> None:
    """Outside Lambda nobody is believed who says what only Lambda or a proxy knows: not who is asking, not until when,
    not where."""
    async with serve(asking(settings, "jwt")) as client:
        conversation, message = await a_reply(client, by_token("me"))
        assert (await client.json("GET", f"/messages/{message}", headers=headers))[0] == 401
        status, _ = await client.json("GET", f"/messages/{message}", headers={**headers, **by_token("you")})
        assert status == 404
        path = f"/conversations/{conversation}/stream"
        async with client.session.post(path, json=script("a", "b"), headers={**headers, **by_token("me")}) as response:
            assert '"done":true' in await response.text()
            assert "evil" not in str(response.headers)
