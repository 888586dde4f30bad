"""What an owner lets others do in a conversation: by a grant's token, or as another owner."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tailrace.identity.grants import MOST, OPENED, PREFIX
from tailrace.settings import Settings

from tests.http.conftest import Client, Serve, events, script
from tests.http.test_owner import BODIES, CLIENTS, a_reply, asking, by_token, routes, token

pytestmark = pytest.mark.anyio

Headers = dict[str, str]

ME, YOU = by_token("me"), by_token("you")


@pytest.fixture
async def client(serve: Serve, settings: Settings) -> AsyncIterator[Client]:
    """A stack that asks who is calling."""
    async with serve(asking(settings, "jwt")) as client:
        yield client


async def grant(client: Client, conversation: str, **body: Any) -> dict[str, Any]:
    status, made = await client.json("POST", f"/conversations/{conversation}/grants", body, headers=ME)
    assert status == 201, made
    found: dict[str, Any] = made
    return found


def by(granted: dict[str, Any]) -> Headers:
    return {"Authorization": f"Bearer {granted['token']}"}


def needed(method: str, path: str) -> str | None:
    """Return the right that opens a route, if a grant does."""
    found = re.fullmatch(r"/(conversations|messages)/\{\w+\}(/[a-z]+)?", path)
    return None if found is None else OPENED.get((method, found[1], found[2] or ""))


async def text_of(client: Client, path: str, headers: Headers) -> str:
    async with client.session.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        return "".join(event.get("chunk", "") for event in events(await response.read()))


async def refusal(client: Client, method: str, path: str, headers: Headers, body: Any = None) -> tuple[int, str]:
    status, content = await client.json(method, path, body, headers=headers)
    return status, content["error"]["message"]


async def test_a_grant_for_reading(client: Client) -> None:
    """Its token reads, follows and polls the conversation and its messages, in the header or where streams are read in
    the address, and changes nothing."""
    conversation, message = await a_reply(client, ME)
    made = await grant(client, conversation)
    assert made["token"].startswith(PREFIX)
    assert (made["right"], made["message_id"], made["owner"]) == ("read", None, None)
    reader = by(made)
    assert await text_of(client, f"/messages/{message}/stream", reader) == "a"
    for path in (f"/messages/{message}/stream", f"/conversations/{conversation}/stream"):
        assert await text_of(client, f"{path}?access_token={made['token']}", {}) == "a"
    for path in (
        f"/conversations/{conversation}",
        f"/conversations/{conversation}/messages",
        f"/messages/{message}",
        f"/messages/{message}/events",
        f"/api/messages/{message}",
    ):
        status, content = await client.json("GET", path, headers=reader)
        assert status == 200, content
    said = (403, "The grant is for reading alone.")
    assert await refusal(client, "POST", f"/conversations/{conversation}/stream", reader, script("b")) == said
    assert await refusal(client, "GET", f"/conversations/{conversation}/stream?message=hi", reader) == said
    assert await refusal(client, "GET", f"/conversations/{conversation}/stream?message", reader) == said
    assert await refusal(client, "POST", f"/messages/{message}/cancel", reader) == said


async def test_a_grant_for_writing(client: Client) -> None:
    """Its token starts replies, adds messages and stops, as if its owner had."""
    conversation, message = await a_reply(client, ME)
    writer = by(await grant(client, conversation, right="write", expires_in=60))
    async with client.session.post(
        f"/conversations/{conversation}/stream", json=script("more"), headers=writer
    ) as response:
        assert events(await response.read())[-1]["done"] is True
    body = {"role": "user", "content": "added"}
    status, _ = await client.json("POST", f"/conversations/{conversation}/messages", body, headers=writer)
    assert status == 201
    assert (await client.json("POST", f"/messages/{message}/cancel", headers=writer))[0] == 200
    _, found = await client.json("GET", f"/conversations/{conversation}/messages", headers=ME)
    assert [each["content"] for each in found["messages"]][-2:] == ["more", "added"]


@pytest.mark.parametrize("right", ["read", "write"])
async def test_a_grant_opens_no_other_route(client: Client, right: str) -> None:
    """Every route of the application that is not in the list answers 403, whatever the right; and those that are in it
    know nothing of another conversation."""
    conversation, message = await a_reply(client, ME)
    other, others = await a_reply(client, ME)
    holder = by(await grant(client, conversation, right=right))
    for method, path in sorted(routes()):
        body = BODIES.get((method, path))
        filled = path.replace("{conversation_id}", conversation).replace("{message_id}", message)
        if needed(method, path) is not None:
            filled = path.replace("{conversation_id}", other).replace("{message_id}", others)
            status, content = await client.json(method, filled, body, headers=holder)
            assert (status, content["error"]["type"]) == (404, "not_found"), (method, path)
            continue
        async with client.session.request(method, filled, json=body, headers=holder) as response:
            assert response.status == 403, (method, path)
            assert "A grant is for the routes of its conversation" in await response.text()


async def test_a_grant_for_one_message(client: Client) -> None:
    """No other message, not the conversation, and none that does not lie in it."""
    conversation, message = await a_reply(client, ME)
    made = await grant(client, conversation, message_id=message)
    assert await text_of(client, f"/messages/{message}/stream", by(made)) == "a"
    said = (403, "The grant is for one message alone.")
    assert await refusal(client, "GET", f"/conversations/{conversation}", by(made)) == said
    _, found = await client.json("GET", f"/conversations/{conversation}/messages", headers=ME)
    first = found["messages"][0]["id"]
    assert await refusal(client, "GET", f"/messages/{first}", by(made)) == (404, "No such message.")
    _, elsewhere = await a_reply(client, ME)
    body = {"message_id": elsewhere}
    path = f"/conversations/{conversation}/grants"
    assert await refusal(client, "POST", path, ME, body) == (404, "No such message.")


async def test_another_owner_may_read(client: Client) -> None:
    """With a token of their own, until it is revoked; nobody else, and nothing but reading."""
    conversation, message = await a_reply(client, ME)
    paths = [
        f"/conversations/{conversation}",
        f"/conversations/{conversation}/messages",
        f"/messages/{message}",
        f"/messages/{message}/events",
    ]
    for path in paths:
        assert (await client.json("GET", path, headers=YOU))[0] == 404
    made = await grant(client, conversation, owner="you")
    assert (made.get("token"), made["owner"], made["expires_at"]) == (None, "you", None)
    for path in paths:
        assert (await client.json("GET", path, headers=YOU))[0] == 200
        assert (await client.json("GET", path, headers=by_token("third")))[0] == 404
    for path in (f"/messages/{message}/stream", f"/conversations/{conversation}/stream"):
        assert await text_of(client, path, YOU) == "a"
    for method, path in sorted(routes() - CLIENTS):
        if "{" not in path or needed(method, path) == "read":
            continue
        filled = path.replace("{conversation_id}", conversation).replace("{message_id}", message)
        status, _ = await client.json(
            method, filled.replace("{grant_id}", made["id"]), BODIES.get((method, path)), headers=YOU
        )
        assert status == 404, (method, path)
    assert (await client.json("DELETE", f"/conversations/{conversation}/grants/{made['id']}", headers=ME))[0] == 204
    for path in paths:
        assert (await client.json("GET", path, headers=YOU))[0] == 404


async def test_another_owner_may_read_one_message(client: Client) -> None:
    """And nothing else of the conversation."""
    conversation, message = await a_reply(client, ME)
    await grant(client, conversation, owner="you", message_id=message)
    assert (await client.json("GET", f"/messages/{message}", headers=YOU))[0] == 200
    assert (await client.json("GET", f"/conversations/{conversation}", headers=YOU))[0] == 404


async def test_grants_are_listed_and_revoked(client: Client) -> None:
    """Without their tokens; one that is revoked is gone at once, and a second time it is 404."""
    conversation, message = await a_reply(client, ME)
    path = f"/conversations/{conversation}/grants"
    made = [await grant(client, conversation), await grant(client, conversation, owner="you")]
    again = await grant(client, conversation, owner="you", expires_in=3600)
    status, listed = await client.json("GET", path, headers=ME)
    assert (status, listed) == (200, {"grants": [{k: v for k, v in made[0].items() if k != "token"}, again]})
    assert again["id"] == made[1]["id"]
    assert (await client.json("DELETE", f"{path}/{made[0]['id']}", headers=ME))[0] == 204
    refused = (401, "The grant has expired, or was revoked.")
    assert await refusal(client, "GET", f"/messages/{message}", by(made[0])) == refused
    assert await refusal(client, "DELETE", f"{path}/{made[0]['id']}", ME) == (404, "No such grant.")
    _, listed = await client.json("GET", path, headers=ME)
    assert [each["id"] for each in listed["grants"]] == [again["id"]]


async def test_a_conversation_that_is_deleted(client: Client) -> None:
    """Its grants open nothing, and do again after a restore."""
    conversation, message = await a_reply(client, ME)
    holder = by(await grant(client, conversation))
    await grant(client, conversation, owner="you")
    assert (await client.json("DELETE", f"/conversations/{conversation}", headers=ME))[0] == 204
    for headers in (holder, YOU):
        assert await refusal(client, "GET", f"/messages/{message}", headers) == (404, "No such message.")
    await client.json("POST", f"/conversations/{conversation}/restore", headers=ME)
    for headers in (holder, YOU):
        assert (await client.json("GET", f"/messages/{message}", headers=headers))[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"right": "all"}, 422, "Input should be 'read' or 'write' - at body.right."),
        ({"expires_in": 59}, 422, "Input should be greater than or equal to 60 - at body.expires_in."),
        ({"expires_in": 2592001}, 422, "Input should be less than or equal to 2592000 - at body.expires_in."),
        ({"owner": ""}, 422, "String should have at least 1 character - at body.owner."),
        ({"owner": "you", "right": "write"}, 422, "Another owner may be let read, not write."),
        ({"message_id": "x"}, 404, "No such message."),
        ({"reader": "you"}, 422, "Extra inputs are not permitted - at body.reader."),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_cannot_be_granted(client: Client, body: dict[str, Any], status: int, said: str) -> None:
    """It is said which field, and nothing is stored."""
    conversation, _ = await a_reply(client, ME)
    path = f"/conversations/{conversation}/grants"
    assert await refusal(client, "POST", path, ME, body) == (status, said)
    assert await client.json("GET", path, headers=ME) == (200, {"grants": []})


async def test_a_conversation_has_so_many_grants(client: Client) -> None:
    """Growth has a bound: whoever wants another revokes one."""
    conversation, _ = await a_reply(client, ME)
    path = f"/conversations/{conversation}/grants"
    for number in range(MOST):
        await grant(client, conversation, owner=f"user-{number}")
    said = (409, "A conversation may have 100 grants: revoke one first.")
    assert await refusal(client, "POST", path, ME, {}) == said
    assert len((await client.json("GET", path, headers=ME))[1]["grants"]) == MOST


@pytest.mark.parametrize(
    "token", [PREFIX, f"{PREFIX}{'a' * 47}", f"{PREFIX}{'a' * 49}", f"{PREFIX}{'a' * 47}!", f"{PREFIX}{'é' * 48}"]
)
async def test_what_is_no_grant(client: Client, token: str) -> None:
    """A token that begins like one and is none is refused, before the table is asked."""
    headers = {"Authorization": f"Bearer {token}"}
    assert await refusal(client, "GET", "/conversations", headers) == (401, "The token is not one of a grant.")


async def test_nobody_s_grant(client: Client) -> None:
    """One of the right form that nobody made, and one with a letter changed."""
    conversation, message = await a_reply(client, ME)
    token = (await grant(client, conversation))["token"]
    said = (401, "The grant has expired, or was revoked.")
    for forged in (f"{PREFIX}{'a' * 48}", token[:-1] + ("a" if token[-1] != "a" else "b")):
        headers = {"Authorization": f"Bearer {forged}"}
        assert await refusal(client, "GET", f"/messages/{message}", headers) == said


async def test_where_nobody_is_asked(serve: Serve, settings: Settings) -> None:
    """A grant is one all the same, so that it can be tried on one machine."""
    async with serve(settings) as client:
        conversation, message = await a_reply(client, {})
        _, made = await client.json("POST", f"/conversations/{conversation}/grants", {})
        assert (await client.json("GET", f"/messages/{message}", headers=by(made)))[0] == 200
        assert (await client.json("GET", "/conversations", headers=by(made)))[0] == 403


async def test_scopes(serve: Serve, settings: Settings) -> None:
    """A token without the scope is told which it needs (RFC 6750, section 3.1)."""
    rules = (("GET *", "read"), ("* /conversations*", "write"))
    scoped = msgspec.structs.replace(asking(settings, "jwt"), jwt_scopes=rules)
    async with serve(scoped) as client:
        reading = {"Authorization": f"Bearer {token('me', scope='read')}"}
        assert (await client.json("GET", "/conversations", headers=reading))[0] == 200
        assert (await client.json("GET", "/api/conversations", headers=reading))[0] == 200
        async with client.session.post("/api/conversations", json={}, headers=reading) as response:
            assert response.status == 403
            assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="write"'
            error = (await response.json())["error"]
        assert error == {"type": "forbidden", "message": "The token needs the scope write for this."}
        writing = {"Authorization": f"Bearer {token('me', scope='write')}"}
        assert (await client.json("POST", "/conversations", {}, headers=writing))[0] == 201
        assert await refusal(client, "GET", "/report", writing) == (403, "The token needs the scope read for this.")
