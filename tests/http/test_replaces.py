"""A start that comes in the place of messages: another answer, or the question in other words."""

from __future__ import annotations

import pytest
from tailrace.http.replaced import MOST_REPLACED

from tests.http.conftest import Client, Json, events, script

pytestmark = pytest.mark.anyio


async def history(client: Client, conversation: str) -> list[Json]:
    """Return the messages that there are."""
    status, page = await client.json("GET", f"/conversations/{conversation}/messages")
    assert status == 200
    messages: list[Json] = page["messages"]
    return messages


def texts(messages: list[Json]) -> list[tuple[str, str]]:
    """Return roles and texts."""
    return [(message["role"], message["content"]) for message in messages]


async def two_turns(client: Client) -> tuple[str, list[Json]]:
    """Return a conversation of two questions with their answers."""
    conversation = await client.conversation()
    for question, answer in (("one", "1"), ("two", "2")):
        await client.start({**script(answer), "input": question}, conversation)
    return conversation, await history(client, conversation)


async def test_another_answer(client: Client) -> None:
    """It is asked for without an input; the old one leaves the history and the prompt, and the new one says so."""
    conversation, before = await two_turns(client)
    body = {"replaces": before[-1]["id"], "options": {"script": {"echo": True}}}
    response, streamed = await client.start(body, conversation)
    assert response.status == 200
    done = events(streamed)[-1]["message"]
    assert done["metadata"]["replaces"] == before[-1]["id"]
    after = await history(client, conversation)
    assert texts(after) == [("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "two")]
    status, _ = await client.json("GET", f"/messages/{before[-1]['id']}")
    assert status == 404


async def test_a_question_in_other_words(client: Client) -> None:
    """All that came after it goes with it."""
    conversation, before = await two_turns(client)
    await client.start(
        {"input": "three", "replaces": before[0]["id"], "options": {"script": {"echo": True}}}, conversation
    )
    assert texts(await history(client, conversation)) == [("user", "three"), ("assistant", "three")]


async def test_the_same_start_again(client: Client) -> None:
    """Under its key it attaches to its reply, though what it replaced is gone; and replaces nothing else."""
    conversation, before = await two_turns(client)
    body = {**script("3"), "input": "three", "replaces": before[2]["id"]}
    seen = []
    for _ in range(2):
        async with client.session.post(
            f"/conversations/{conversation}/stream", json=body, headers={"Idempotency-Key": "k"}
        ) as response:
            assert response.status == 200
            seen.append((response.headers["X-Message-Id"], events(await response.read())[-1]["message"]["content"]))
    assert seen[0] == seen[1]
    assert texts(await history(client, conversation))[2:] == [("user", "three"), ("assistant", "3")]
    headers = {"Idempotency-Key": "k", "Accept": "application/json"}
    status, whole = await client.json("POST", f"/conversations/{conversation}/stream", body, headers=headers)
    assert (status, whole["message"]["id"]) == (200, seen[0][0])
    changed = {**body, "input": "four"}
    status, refused = await client.json("POST", f"/conversations/{conversation}/stream", changed, headers=headers)
    assert (status, refused["error"]["type"]) == (409, "conflict")


async def test_what_is_being_written_is_cancelled(client: Client) -> None:
    """And replaced with the rest."""
    conversation = await client.conversation()
    body = {"input": "one", "options": {"script": {"stall_after": 1}}}
    async with client.session.post(f"/conversations/{conversation}/stream", json=body) as response:
        open_id = response.headers["X-Message-Id"]
        await client.start({**script("1"), "input": None, "replaces": open_id}, conversation)
    assert texts(await history(client, conversation)) == [("user", "one"), ("assistant", "1")]


async def test_what_is_refused(client: Client) -> None:
    """A message that is not there, or not here; more than there is room for; and together with going on."""
    conversation, before = await two_turns(client)
    other, elsewhere = await two_turns(client)
    gone = before[-1]["id"]
    await client.start({**script("again"), "replaces": gone}, conversation)
    for body, expected in (
        ({"replaces": gone}, 404),
        ({"replaces": elsewhere[-1]["id"]}, 404),
        ({"replaces": "none"}, 404),
        ({"replaces": before[0]["id"], "continue": True}, 422),
    ):
        status, refused = await client.json("POST", f"/conversations/{conversation}/stream", body)
        assert status == expected, (body, refused)
    for number in range(MOST_REPLACED):
        await client.json("POST", f"/conversations/{other}/messages", {"role": "user", "content": str(number)})
    status, refused = await client.json("POST", f"/conversations/{other}/stream", {"replaces": elsewhere[0]["id"]})
    assert status == 422, refused
    assert texts(await history(client, other))[:4] == texts(elsewhere)
