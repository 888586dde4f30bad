"""The AI SDK's routes below its clients: who is answered once, what is taken back, what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tailrace.http.replaced import MOST_REPLACED

from tests.http.conftest import Client
from tests.http.test_all_protocols import objects

pytestmark = pytest.mark.anyio

Json = dict[str, Any]

CALLS = {"tool_calls": [{"id": f"c{n}", "name": "f", "arguments": "{}"} for n in (1, 2)]}


def said(identity: str, text: str) -> Json:
    """Return a user's message as the page has it."""
    return {"id": identity, "role": "user", "parts": [{"type": "text", "text": text}]}


def returned(*outputs: Json) -> Json:
    """Return an assistant's message with what its tools returned."""
    return {"id": "a", "role": "assistant", "parts": [{"type": "tool-f", **each} for each in outputs]}


def body(*messages: Json, chat: str = "chat", script: Json | None = None, **more: Any) -> Json:
    """Return what a transport posts."""
    given = {"echo": True} if script is None else script
    return {"id": chat, "messages": list(messages), "model": "fast", "options": {"script": given}, **more}


async def post(client: Client, content: Json) -> tuple[int, str | None, bytes]:
    """Return the status, the run's id and the whole body."""
    async with asyncio.timeout(30), client.session.post("/api/chat", json=content) as response:
        return response.status, response.headers.get("x-workflow-run-id"), await response.read()


async def texts(client: Client, chat: str = "chat") -> list[str]:
    """Return the texts of a chat's stored messages."""
    _, content = await client.json("GET", f"/api/chat/{chat}/messages")
    return ["".join(part.get("text", "") for part in message["parts"]) for message in content["messages"]]


async def run_at(client: Client, run: str, start: int) -> list[Json]:
    """Return the events of a run from an index on."""
    async with client.session.get(f"/api/chat/{run}/stream?startIndex={start}") as response:
        assert response.status == 200
        assert response.headers["x-workflow-run-id"] == run
        return objects(await response.read())


@pytest.mark.parametrize(
    "more",
    [{}, {"trigger": "regenerate-message"}, {"messageId": "u"}],
    ids=["sent", "answered again", "edited"],
)
async def test_posts_at_once_are_answered_once(client: Client, more: Json) -> None:
    """All have the same answer, and it is stored once."""
    if more:
        await post(client, body(said("u", "before")))
    content = body(
        said("u", "after" if "messageId" in more else "before"), script={"chunks": 20, "every": 0.01}, **more
    )
    answers = await asyncio.gather(*(post(client, content) for _ in range(5)))
    assert {status for status, _, _ in answers} == {200}
    assert len({run for _, run, _ in answers}) == 1
    assert len({answer for _, _, answer in answers}) == 1
    assert len(await texts(client)) == 2


async def test_another_answer_that_is_named_is_given_once(client: Client) -> None:
    """Posted again after its end too: the answer it names is gone. The one that took its place may be named next."""
    _, first, _ = await post(client, body(said("u", "hello")))
    again = body(said("u", "hello"), trigger="regenerate-message", messageId=first)
    _, second, answer = await post(client, again)
    assert second != first
    assert await post(client, again) == (200, second, answer)
    _, third, _ = await post(client, {**again, "messageId": second})
    assert third not in (first, second)
    assert await texts(client) == ["hello", "hello"]


async def test_another_answer_to_what_was_never_stored_is_a_first_one(client: Client) -> None:
    """A page asks so after a refusal; what was answered before stays."""
    again: Json = {"trigger": "regenerate-message"}
    assert (await post(client, body(said("u1", "one"), **again)))[0] == 200
    assert await texts(client) == ["one", "one"]
    assert (await post(client, body(said("u1", "one"), said("u2", "one"), **again)))[0] == 200
    assert await texts(client) == ["one", "one", "one", "one"]
    assert (await post(client, body(said("u1", "one"), said("u2", "changed"), **again)))[0] == 200
    assert await texts(client) == ["one", "one", "changed", "changed"]


async def test_a_page_with_ids_of_its_own_has_another_answer(client: Client) -> None:
    """Where it has the words of what was said last."""
    conversation = await client.conversation()
    await client.start({"input": "hello", "model": "echo"}, conversation)
    content = body(said("other", "hello"), chat=conversation, script={"chunks": ["New."]}, trigger="regenerate-message")
    assert (await post(client, content))[0] == 200
    assert await texts(client, conversation) == ["hello", "New."]


async def test_a_post_of_outputs_is_answered_once_whenever_it_comes(client: Client) -> None:
    """Also after other outputs of the same reply."""
    await post(client, body(said("u", "hello"), script={"chunks": ["Wait."], **CALLS}))
    one = {"toolCallId": "c1", "state": "output-available", "output": {"a": 1}}
    two = {"toolCallId": "c2", "state": "output-error", "errorText": "No."}
    first = body(said("u", "hello"), returned(one), script={"chunks": ["One."]})
    second = body(said("u", "hello"), returned(one, two), script={"chunks": ["Two."]})
    runs = [await post(client, content) for content in (first, second, second, first)]
    assert [status for status, _, _ in runs] == [200] * 4
    assert runs[0] == runs[3]
    assert runs[1] == runs[2]
    assert runs[0][1] != runs[1][1]
    _, content = await client.json("GET", "/api/chat/chat/messages")
    tools = [part for part in content["messages"][1]["parts"] if part["type"] == "tool-f"]
    assert [(part["state"], part.get("output", part.get("errorText"))) for part in tools] == [
        ("output-available", {"a": 1}),
        ("output-error", "No."),
    ]


async def test_a_run_is_read_from_an_index(client: Client) -> None:
    """After its end too."""
    _, run, answer = await post(client, body(said("u", "hello"), script={"chunks": ["a", "b", "c"]}))
    assert run is not None
    whole = objects(answer)
    for start in range(len(whole) + 2):
        assert await run_at(client, run, start) == whole[start:]


async def test_who_has_all_of_a_stopped_run_is_told_to_leave(client: Client) -> None:
    """Its client asks again until it has a finish, which an answer that was stopped does not have."""
    stopped = asyncio.Event()

    async def reading() -> tuple[str, bytes]:
        content = body(said("u", "hello"), script={"chunks": 5000, "every": 0.02})
        async with client.session.post("/api/chat", json=content) as response:
            stopped.set()
            return response.headers["x-workflow-run-id"], await response.read()

    task = asyncio.create_task(reading())
    await stopped.wait()
    status, content = await client.json("POST", "/api/chat/chat/stop")
    assert (status, content["message"]["status"]) == (200, "cancelled")
    run, answer = await task
    whole = objects(await (await client.session.get(f"/api/chat/{run}/stream")).read())
    assert [event["type"] for event in whole].count("finish") == 0
    assert objects(answer)[-1] == whole[-1] == {"type": "abort"}
    assert await run_at(client, run, len(whole) - 1) == [{"type": "abort"}]
    assert await run_at(client, run, len(whole)) == [{"type": "finish"}]
    assert await run_at(client, run, len(whole) + 5) == [{"type": "finish"}]
    assert await client.json("POST", "/api/chat/chat/stop") == (200, {"message": None})


@pytest.mark.parametrize("ending", [{}, {"error_at": 3}], ids=["completed", "failed"])
async def test_an_index_from_the_end(client: Client, ending: Json) -> None:
    """The last events that there are, and in a header the index of the last one, by which the client counts on."""
    _, run, answer = await post(client, body(said("u", "hello"), script={"chunks": ["a", "b", "c", "d"], **ending}))
    assert run is not None
    whole = objects(answer)
    for start in range(1, len(whole) + 3):
        async with client.session.get(f"/api/chat/{run}/stream?startIndex=-{start}") as response:
            assert response.headers["x-workflow-stream-tail-index"] == str(len(whole) - 1)
            assert objects(await response.read()) == whole[-start:]


async def test_an_index_from_the_end_of_what_is_being_written(client: Client) -> None:
    """Counts from what is there, and goes on live: by run, and by chat. From the start on there is no such header."""
    content = body(said("u", "hello"), script={"chunks": 60, "every": 0.02})
    sending = asyncio.create_task(post(client, content))
    while (found := await client.json("GET", "/api/chat/chat/messages"))[1]["messages"] == []:
        pass
    assert found[0] == 200
    reading = await asyncio.gather(
        *(client.session.get(f"/api/chat/chat/stream?startIndex={start}") for start in (-3, 0))
    )
    _, run, answer = await sending
    whole, (last, first) = objects(answer), reading
    assert {each.headers["x-workflow-run-id"] for each in reading} == {run}
    assert "x-workflow-stream-tail-index" not in first.headers
    begin = max(0, int(last.headers["x-workflow-stream-tail-index"]) - 2)
    assert objects(await last.read()) == whole[begin:]
    assert objects(await first.read()) == whole


async def test_nothing_is_resumed_where_nothing_is_active(client: Client) -> None:
    """A chat that nobody has begun is no error: a page that opens asks for it."""
    for _ in range(2):
        async with client.session.get("/api/chat/chat/stream") as response:
            assert (response.status, await response.read()) == (204, b"")
        await post(client, body(said("u", "hello")))
    assert await client.json("GET", "/api/chat/other/messages") == (200, {"messages": [], "before": None})


REFUSED: list[tuple[Json, str]] = [
    (body(), "messages must not be empty"),
    (body({"id": "s", "role": "system", "parts": []}), "The last of messages must be"),
    (body(said("u", " ")), "must have a text or a file"),
    (body(said("u", "a"), returned({"toolCallId": "c1", "state": "input-available"})), "There is nothing new"),
    (body(said("u", "a"), metadata={"private": 1}), "metadata.private"),
    (body(said("u", "a"), trigger="else"), "trigger"),
    (body({"id": "u", "role": "user", "parts": [{"type": "file", "url": "data:text/plain,a"}]}), "in base64"),
    (body(said("", "a")), "id"),
]


@pytest.mark.parametrize(("content", "problem"), REFUSED)
async def test_what_is_refused_is_not_stored(client: Client, content: Json, problem: str) -> None:
    """And says which field it is."""
    status, answer = await client.json("POST", "/api/chat", content)
    assert status == 422
    assert problem in answer["error"]["message"]
    assert await texts(client) == []


@pytest.mark.parametrize("start", ["--1", "x", "", "-", "1" * 12, "-" + "1" * 12, "1.5", "%D9%A1"])
async def test_an_index_is_a_number(client: Client, start: str) -> None:
    """From the start of the stream, or from what is its end now."""
    status, answer = await client.json("GET", f"/api/chat/chat/stream?startIndex={start}")
    assert status == 400
    assert "startIndex" in answer["error"]["message"]


async def test_an_edit_takes_back_so_much_and_no_more(client: Client) -> None:
    """What it would take back stays when it is too much."""
    conversation = await client.conversation()
    await post(client, body(said("u", "first"), chat=conversation))
    for number in range(MOST_REPLACED - 2):
        sent = {"role": "user", "content": str(number)}
        assert (await client.json("POST", f"/conversations/{conversation}/messages", sent))[0] == 201
    edit = body(said("u", "edited"), chat=conversation, messageId="u")
    path = f"/conversations/{conversation}/messages"
    assert (await client.json("POST", path, {"role": "user", "content": "one more"}))[0] == 201
    status, answer = await client.json("POST", "/api/chat", edit)
    assert (status, answer["error"]["type"]) == (422, "unprocessable")
    assert str(MOST_REPLACED) in answer["error"]["message"]
    assert (await texts(client, conversation))[-1] == "one more"
    newest = (await client.json("GET", path + "?limit=100"))[1]["messages"][-1]["id"]
    assert (await client.json("DELETE", f"/messages/{newest}"))[0] in (200, 204)
    assert (await post(client, edit))[0] == 200
    assert await texts(client, conversation) == ["edited", "edited"]
