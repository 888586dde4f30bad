"""How much of a conversation a start sends, and how a chat opens at its end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.conftest import Client, events

pytestmark = pytest.mark.anyio


async def conversation_of(client: Client, rounds: int) -> str:
    """Return the id of a conversation of so many questions and answers."""
    conversation = await client.conversation(system="Be brief.")
    for number in range(rounds):
        for role, mark in (("user", "?"), ("assistant", "!")):
            path = f"/conversations/{conversation}/messages"
            assert (await client.json("POST", path, {"role": role, "content": f"{number}{mark}"}))[0] == 201
    return conversation


async def left_out(client: Client, conversation: str, body: dict[str, Any]) -> Any:
    """Return what the metadata of a reply say of its prompt."""
    _, stream = await client.start({"model": "fast", **body}, conversation)
    return events(stream)[-1]["message"]["metadata"].get("history")


async def test_a_start_says_how_much_is_sent(client: Client) -> None:
    """By messages or by tokens; what was left out is counted, the answers of before too."""
    conversation = await conversation_of(client, 5)
    assert await left_out(client, conversation, {"input": "a"}) is None
    assert await left_out(client, conversation, {"input": "b", "history": {"messages": 4}}) == {
        "messages": 4,
        "left_out": 8,
    }
    assert await left_out(client, conversation, {"input": "c", "history": {"messages": 0}}) == {
        "messages": 0,
        "left_out": 14,
    }
    assert await left_out(client, conversation, {"input": "d", "history": {"tokens": 1}}) == {
        "messages": 0,
        "left_out": 16,
    }
    assert await left_out(client, conversation, {"input": "e", "history": {"messages": 100}}) is None
    # Nothing new is asked: the question is the last one there is, whatever the window.
    path = f"/conversations/{conversation}/messages"
    await client.json("POST", path, {"role": "user", "content": "f"})
    assert await left_out(client, conversation, {"history": {"messages": 0}}) == {"messages": 1, "left_out": 20}


async def test_a_window_that_cannot_be_is_refused(client: Client) -> None:
    """And nothing is stored."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    for history, words in (
        ({"messages": -1}, "Expected `int` >= 0 - at `$.history.messages`"),
        ({"tokens": 1.5}, "Expected `int | null`, got `float` - at `$.history.tokens`"),
        ({"message": 1}, "unknown field `message` - at `$.history`"),
    ):
        status, body = await client.json("POST", path, {"input": "a", "history": history})
        assert status == 422
        assert words in body["error"]["message"]
    assert (await client.json("GET", f"/conversations/{conversation}/messages"))[1]["messages"] == []


async def test_a_chat_opens_at_its_end(client: Client) -> None:
    """Newest first, then what comes before the oldest that is shown; by cursor, or by its id."""
    conversation = await conversation_of(client, 3)
    path = f"/conversations/{conversation}/messages?limit=2&order=desc"
    found: list[dict[str, Any]] = []
    more = ""
    while True:
        status, page = await client.json("GET", path + more)
        assert status == 200
        if not page["messages"]:
            break
        found += page["messages"]
        more = f"&before={page['messages'][-1]['id']}"
    assert [each["content"] for each in found] == ["2!", "2?", "1!", "1?", "0!", "0?"]
    by_cursor: list[dict[str, Any]] = []
    more = ""
    while True:
        _, page = await client.json("GET", path + more)
        by_cursor += page["messages"]
        if page["next_cursor"] is None:
            break
        more = f"&cursor={page['next_cursor']}"
    assert by_cursor == found
    _, page = await client.json("GET", f"/conversations/{conversation}/messages?before={found[2]['id']}")
    assert [each["content"] for each in page["messages"]] == ["0?", "0!", "1?"]
    _, page = await client.json("GET", f"/conversations/{conversation}/messages?before={found[2]['id']}&limit=1")
    more = f"&cursor={page['next_cursor']}"
    _, page = await client.json(
        "GET", f"/conversations/{conversation}/messages?before={found[2]['id']}&limit=100{more}"
    )
    assert [each["content"] for each in page["messages"]] == ["0!", "1?"]


async def test_what_comes_before_nothing(client: Client) -> None:
    """A message of elsewhere, or none, is not found; a cursor of another query is refused; so is another order."""
    conversation, other = await conversation_of(client, 1), await conversation_of(client, 1)
    path = f"/conversations/{conversation}/messages"
    strange = (await client.json("GET", f"/conversations/{other}/messages"))[1]["messages"][0]["id"]
    for before in (strange, "nothing"):
        status, body = await client.json("GET", f"{path}?before={before}")
        assert (status, body["error"]["message"]) == (404, "No such message.")
    assert (await client.json("GET", f"{path}?order=up"))[0] == 422
    first, second = (await client.json("GET", path))[1]["messages"]
    cursor = (await client.json("GET", f"{path}?order=desc&limit=1"))[1]["next_cursor"]
    status, body = await client.json("GET", f"{path}?before={second['id']}&cursor={cursor}")
    assert (status, body["error"]["message"]) == (400, "The cursor is not one of ours.")
    assert (await client.json("GET", f"{path}?before={first['id']}"))[1]["messages"] == []
