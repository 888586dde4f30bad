"""The JSON routes, over a real socket."""

from __future__ import annotations

import pytest
from tailrace.conversation.conversation import Conversation

from tests.http.conftest import Client, script

pytestmark = pytest.mark.anyio


async def test_health(client: Client) -> None:
    """The adapter's readiness check."""
    assert await client.json("GET", "/health") == (200, {"status": "ok"})


async def test_a_conversation_s_life(client: Client) -> None:
    """Create, read, list, rename, delete; the system prompt is in none of the answers."""
    status, created = await client.json(
        "POST",
        "/conversations",
        {"title": "T", "system": "the system prompt", "metadata": {"a": 1, "private": {"ip": "203.0.113.7"}}},
    )
    assert (status, created["metadata"]) == (201, {"a": 1})
    assert set(created) == {"id", "title", "metadata", "created_at", "updated_at"}
    path = f"/conversations/{created['id']}"
    assert await client.json("GET", path) == (200, created)
    assert (await client.json("GET", "/conversations"))[1] == {"conversations": [created], "next_cursor": None}

    status, changed = await client.json("PATCH", path, {"title": "New"})
    assert (status, changed["title"], changed["metadata"]) == (200, "New", {"a": 1})
    assert changed["updated_at"] > created["updated_at"]

    assert await client.json("DELETE", path) == (204, None)
    gone = (404, {"error": {"type": "not_found", "message": "No such conversation."}})
    for method in ("GET", "DELETE"):
        assert await client.json(method, path) == gone
    assert await client.json("PATCH", path, {"title": "x"}) == gone
    assert await client.json("GET", f"{path}/messages") == gone
    assert (await client.json("GET", "/conversations"))[1] == {"conversations": [], "next_cursor": None}


async def test_messages_of_a_deleted_conversation_are_gone(client: Client) -> None:
    """Also by their own ids."""
    conversation = await client.conversation()
    response, _ = await client.start(script("a"), conversation)
    path = f"/messages/{response.headers['X-Message-Id']}"
    assert (await client.json("GET", path))[0] == 200
    await client.json("DELETE", f"/conversations/{conversation}")
    assert await client.json("GET", path) == (404, {"error": {"type": "not_found", "message": "No such message."}})


async def test_a_deleted_conversation_is_restored(client: Client) -> None:
    """With its messages, but for those that were deleted one by one; a second restore is answered as the first."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}"
    kept, lost = [
        (await client.json("POST", f"{path}/messages", {"role": "user", "content": content}))[1]
        for content in ("kept", "lost")
    ]
    assert await client.json("DELETE", f"/messages/{lost['id']}") == (204, None)
    _, before = await client.json("GET", path)
    await client.json("DELETE", path)
    assert (await client.json("POST", f"/messages/{lost['id']}/restore"))[0] == 404
    for _ in range(2):
        assert await client.json("POST", f"{path}/restore") == (200, before)
    assert (await client.json("GET", f"{path}/messages"))[1]["messages"] == [kept]
    assert (await client.json("GET", "/conversations"))[1]["conversations"] == [before]
    gone = (404, {"error": {"type": "not_found", "message": "No such conversation."}})
    assert await client.json("POST", "/conversations/x/restore") == gone


async def test_a_message_is_deleted_and_restored(client: Client) -> None:
    """In between it is nowhere, its stream included; deleting it twice is 404, restoring it twice is not."""
    conversation = await client.conversation()
    response, _ = await client.start(script("a"), conversation)
    path = f"/messages/{response.headers['X-Message-Id']}"
    _, message = await client.json("GET", path)
    gone = (404, {"error": {"type": "not_found", "message": "No such message."}})
    assert await client.json("DELETE", path) == (204, None)
    for method, more in (("GET", ""), ("DELETE", ""), ("GET", "/stream"), ("GET", "/events"), ("POST", "/cancel")):
        assert await client.json(method, path + more) == gone
    _, listed = await client.json("GET", f"/conversations/{conversation}/messages")
    assert [each["role"] for each in listed["messages"]] == ["user"]
    for _ in range(2):
        assert await client.json("POST", f"{path}/restore") == (200, message)
    assert await client.json("GET", path) == (200, message)
    assert await client.json("POST", "/messages/x/restore") == gone


async def test_a_reply_that_is_being_written_is_not_deleted(client: Client) -> None:
    """409, in words that say what to do; and after that nothing of it is left in the history."""
    conversation = await Conversation.create(backend=client.backend)
    stream = await conversation.stream_response("question")
    path = f"/messages/{stream.id}"
    said = {"error": {"type": "conflict", "message": "The reply is still being written: cancel it first."}}
    assert await client.json("DELETE", path) == (409, said)
    await client.json("POST", f"{path}/cancel")
    assert await client.json("DELETE", path) == (204, None)
    _, listed = await client.json("GET", f"/conversations/{conversation.id}/messages")
    assert [each["content"] for each in listed["messages"]] == ["question"]


async def test_pages(client: Client) -> None:
    """Conversations newest first, messages in order, each page once."""
    ids = [await client.conversation() for _ in range(5)]
    _, first = await client.json("GET", "/conversations?limit=3")
    _, second = await client.json("GET", "/conversations", params={"limit": 3, "cursor": first["next_cursor"]})
    assert [c["id"] for c in first["conversations"] + second["conversations"]] == ids[::-1]
    assert second["next_cursor"] is None

    path = f"/conversations/{ids[0]}/messages"
    for number in range(5):
        status, _ = await client.json("POST", path, {"role": "user", "content": str(number)})
        assert status == 201
    _, first = await client.json("GET", f"{path}?limit=3")
    _, second = await client.json("GET", path, params={"limit": 3, "cursor": first["next_cursor"]})
    assert [m["content"] for m in first["messages"] + second["messages"]] == list("01234")


async def test_a_message_is_added_without_generating(client: Client) -> None:
    """201, the message; private metadata stays."""
    conversation = await client.conversation()
    status, message = await client.json(
        "POST",
        f"/conversations/{conversation}/messages",
        {"role": "user", "content": "é", "metadata": {"a": 1, "private": {"b": 2}}},
    )
    assert (status, message["content"], message["metadata"], message["seq"]) == (201, "é", {"a": 1}, 0)
    assert message["status"] == "completed"
    assert await client.json("GET", f"/messages/{message['id']}") == (200, message)


async def test_system_messages_are_never_shown(client: Client) -> None:
    """One that the library added is neither listed nor read."""
    conversation = await Conversation.create(backend=client.backend)
    message = await conversation.add_system_message("the system prompt")
    assert (await client.json("GET", f"/conversations/{conversation.id}/messages"))[1]["messages"] == []
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/stream"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/restore"),
    ):
        status, content = await client.json(method, f"/messages/{message.id}{path}")
        assert (status, content["error"]["message"]) == (404, "No such message."), path


@pytest.mark.parametrize(
    ("request_line", "body", "status", "error_type", "said"),
    [
        ("POST /conversations", b"{", 400, "invalid_request", "The body is not valid JSON."),
        (
            "POST /conversations",
            b'{"title":3}',
            422,
            "unprocessable",
            "Input should be a valid string - at body.title.",
        ),
        ("POST /conversations", b'"' + b"x" * 300_000, 413, "too_large", "The body has more than 262144 bytes."),
        ("GET /conversations?limit=x", b"", 422, "unprocessable", "Input should be a valid integer, unable to parse"),
        ("GET /conversations?limit=101", b"", 422, "unprocessable", "Input should be less than or equal to 100"),
        ("GET /conversations?cursor=x", b"", 400, "invalid_request", "The cursor is not one of ours."),
        ("GET /conversations/x", b"", 404, "not_found", "No such conversation."),
        ("GET /messages/x", b"", 404, "not_found", "No such message."),
        ("GET /nowhere", b"", 404, "not_found", "Not Found."),
        ("PUT /conversations", b"{}", 405, "invalid_request", "Method Not Allowed."),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_bad_input(
    client: Client, request_line: str, body: bytes, status: int, error_type: str, said: str
) -> None:
    """One shape for every error, with words that help."""
    method, path = request_line.split(" ")
    headers = {"Content-Type": "application/json"}
    async with client.session.request(method, path, data=body, headers=headers) as response:
        assert response.status == status
        content = await response.json()
    assert content["error"]["type"] == error_type
    assert content["error"]["message"].startswith(said)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/conversations", "GET, POST"),
        ("/conversations/x", "DELETE, GET, PATCH"),
        ("/api/conversations/x/stream", "GET, HEAD, POST"),
        ("/v1/responses/x", "DELETE, GET, HEAD"),
    ],
)
async def test_a_method_that_there_is_not(client: Client, path: str, allowed: str) -> None:
    """The answer names all that there are (RFC 9110, section 15.5.6)."""
    async with client.session.put(path) as response:
        assert (response.status, response.headers["Allow"]) == (405, allowed)


async def test_a_role_that_may_not_be_added(client: Client) -> None:
    """A system prompt is given at the conversation's creation, not slipped in as a message."""
    conversation = await client.conversation()
    status, content = await client.json(
        "POST", f"/conversations/{conversation}/messages", {"role": "system", "content": "x"}
    )
    assert status == 422
    assert "at body.role" in content["error"]["message"]


async def test_no_table(client: Client) -> None:
    """503 in our shape."""
    client.calls.choose = lambda operation, payload: "refused"
    assert (await client.json("GET", "/conversations")) == (
        503,
        {"error": {"type": "store_unavailable", "message": "The store is not available. Please try again."}},
    )


async def test_the_openapi_document(client: Client) -> None:
    """It describes the JSON routes."""
    _, document = await client.json("GET", "/openapi.json")
    assert {"/conversations", "/conversations/{conversation_id}/messages", "/messages/{message_id}"} <= set(
        document["paths"]
    )
