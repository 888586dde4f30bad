"""Resume: a reply from any cursor, while its writer lives and after, in any transport."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tailrace.settings import Settings

from tests.faults import once
from tests.http.conftest import Client, Serve, events, script
from tests.http.test_start import chat_chunk, openai_settings
from tests.providers.fake_server import FakeServer, Reply

pytestmark = pytest.mark.anyio

NOT_OURS = {"error": {"type": "invalid_request", "message": "The cursor is not one of ours."}}


async def finished(client: Client, *chunks: str) -> tuple[str, bytes]:
    """Return the id of a finished reply and what its starting connection got."""
    response, body = await client.start(script(*chunks))
    return response.headers["X-Message-Id"], body


async def get(client: Client, path: str, **headers: str) -> tuple[int, bytes]:
    """Return the status and the whole body of a GET."""
    async with asyncio.timeout(20), client.session.get(path, headers=headers) as response:
        return response.status, await response.read()


async def test_a_replay_is_the_stream_byte_for_byte(client: Client) -> None:
    """Event boundaries, ids and the terminal event are the same every time."""
    message, body = await finished(client, *(f"{number} ✓" for number in range(100)))
    assert await get(client, f"/messages/{message}/stream") == (200, body)
    assert await get(client, f"/messages/{message}/stream") == (200, body)


async def test_from_every_cursor(client: Client) -> None:
    """What comes after it, no more and no less; nothing, for good, when the reader has the end."""
    message, body = await finished(client, "a", "b", "c")
    blocks = [block + b"\n\n" for block in body.split(b"\n\n")[:-1]]
    ids = [event["id"] for event in events(body)]
    for place, cursor in enumerate(ids[:-1]):
        rest = b"".join(blocks[place + 1 :])
        assert await get(client, f"/messages/{message}/stream", **{"Last-Event-ID": cursor}) == (200, rest)
        assert await get(client, f"/messages/{message}/stream?after={cursor}") == (200, rest)
        assert await get(client, f"/messages/{message}/stream?after={cursor.split(':')[1]}") == (200, rest)
    assert await get(client, f"/messages/{message}/stream", **{"Last-Event-ID": ids[-1]}) == (204, b"")


async def test_the_reconnecting_browser_s_header_wins(client: Client) -> None:
    """``?after=`` stays in the URL while ``Last-Event-ID`` moves on."""
    message, body = await finished(client, "a", "b")
    last = events(body)[-2]["id"]
    status, rest = await get(client, f"/messages/{message}/stream?after=0", **{"Last-Event-ID": last})
    assert (status, len(events(rest))) == (200, 1)


async def test_a_reader_ahead_of_the_log_gets_the_terminal_event(client: Client) -> None:
    """A starting connection may have seen what a crash took back: the end's whole message wins."""
    message, _ = await finished(client, "a")
    assert await get(client, f"/messages/{message}/stream?after=4") == (204, b"")
    stream = await client.open_stream()
    await stream.append("only this was stored")
    await client.flushed(stream)
    following = asyncio.create_task(get(client, f"/messages/{stream.id}/stream?after=99"))
    await client.json("POST", f"/messages/{stream.id}/cancel")
    (last,) = events((await following)[1])
    assert last["error_type"] == "cancelled"


CURSORS = [
    "x",
    "-1",
    "1.5",
    "1.",
    "1.0.0",
    "1.00",
    "9" * 20,
    "\u0661",
    "{message}:",
    ":1",
    "{other}:1",
    "{message}:1:1",
]


@pytest.mark.parametrize("cursor", CURSORS)
async def test_a_cursor_that_is_not_ours(client: Client, cursor: str) -> None:
    """400 in our shape, wherever it stands; another message's cursor is not ours either."""
    message, _ = await finished(client, "a")
    other, _ = await finished(client, "a")
    text = cursor.replace("{message}", message).replace("{other}", other)
    for path in (f"/messages/{message}/stream", f"/messages/{message}/events"):
        status, content = await client.json("GET", path, params={"after": text})
        assert (status, content) == (400, NOT_OURS)
    if text.isascii():
        status, raw = await get(client, f"/messages/{message}/stream", **{"Last-Event-ID": text})
        assert (status, msgspec.json.decode(raw)) == (400, NOT_OURS)


@pytest.mark.parametrize("path", ["/messages/x/stream", "/messages/x/events", "/conversations/x/stream"])
async def test_nothing_to_follow(client: Client, path: str) -> None:
    """404 for what is not there."""
    assert (await get(client, path))[0] == 404
    assert (await client.json("POST", "/messages/x/cancel"))[0] == 404
    status, content = await client.json("GET", f"/conversations/{await client.conversation()}/stream")
    assert (status, content["error"]["message"]) == (404, "The conversation has no reply yet.")


async def test_a_follower_gets_what_comes_live(client: Client) -> None:
    """Replay, then live, with no gap and no double, until the terminal event; it stays as long as it takes."""
    stream = await client.open_stream()
    await stream.append("stored before ")
    await client.flushed(stream)
    async with asyncio.timeout(20), client.session.get(f"/messages/{stream.id}/stream") as response:
        assert b"stored before" in await response.content.readuntil(b"\n\n")
        await stream.append("while it follows ")
        assert b"while it follows" in await response.content.readuntil(b"\n\n")
        await stream.append("and the rest")
        message = await stream.complete()
        *chunks, done = events(await response.content.read())
    assert [chunk["chunk"] for chunk in chunks] == ["and the rest"]
    assert done["message"] == msgspec.to_builtins(message)


async def test_long_polling_gets_the_same_events(client: Client) -> None:
    """As a JSON array with their ids; at once what is there, else what comes, else nothing."""
    message, body = await finished(client, "a", "b")
    assert await client.json("GET", f"/messages/{message}/events") == (200, events(body))
    cursor = events(body)[0]["id"]
    assert await client.json("GET", f"/messages/{message}/events?after={cursor}") == (200, events(body)[1:])
    last = events(body)[-1]["id"]
    assert await client.json("GET", f"/messages/{message}/events?wait=5&after={last}") == (200, [])

    stream = await client.open_stream()
    assert await client.json("GET", f"/messages/{stream.id}/events") == (200, [])
    waiting = asyncio.create_task(client.json("GET", f"/messages/{stream.id}/events?wait=20"))
    await stream.append("now")
    status, (event,) = await asyncio.wait_for(waiting, 20)
    assert (status, event["chunk"], event["id"]) == (200, "now", f"{stream.id}:1")
    assert await client.json("GET", f"/messages/{stream.id}/events?wait=1&after=1") == (200, [])
    await stream.complete()
    _, (done,) = await client.json("GET", f"/messages/{stream.id}/events?after=1")
    assert done["done"] is True


@pytest.mark.parametrize("wait", ["-1", "26", "x", "1.5", ""])
async def test_a_wait_that_is_too_long(client: Client, wait: str) -> None:
    """The limit is named."""
    message, _ = await finished(client, "a")
    status, content = await client.json("GET", f"/messages/{message}/events", params={"wait": wait})
    assert (status, content["error"]["message"]) == (400, "wait must be a whole number of seconds from 0 to 25.")


async def test_a_follower_that_cannot_read_is_cut_and_resumes(client: Client) -> None:
    """The body ends without a terminal event, which says that there is more; the cursor gets the rest."""
    stream = await client.open_stream()
    await stream.append("a")
    await client.flushed(stream)
    async with asyncio.timeout(20), client.session.get(f"/messages/{stream.id}/stream") as response:
        first = await response.content.readuntil(b"\n\n")
        client.calls.choose = once("refused", lambda operation, payload: operation == "Query")
        assert await response.content.read() == b""
    await stream.append("b")
    message = await stream.complete()
    _, rest = await get(client, f"/messages/{stream.id}/stream?after={events(first)[0]['id']}")
    chunk, done = events(rest)
    assert (chunk["chunk"], done["message"]["content"]) == ("b", message.content)


async def test_a_log_that_has_expired(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the retention a reader at any cursor gets the final message, not an error."""
    message, body = await finished(client, "a", "b", "c")
    done = events(body)[-1]
    now = client.backend.clock.now()
    monkeypatch.setattr(client.backend.clock, "now", lambda: now + 26 * 3600 * 1_000_000)
    for after in (0, 3):
        status, rest = await get(client, f"/messages/{message}/stream?after={after}")
        assert (status, events(rest)) == (200, [done])
        assert await client.json("GET", f"/messages/{message}/events?after={after}") == (200, [done])
    assert (await client.json("GET", f"/messages/{message}"))[1] == done["message"]


# ---- idempotent starts -----------------------------------------------------------------------------------


def chat_reply(*chunks: str) -> Reply:
    """Return a whole answer of the chat wire."""
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    return Reply(pieces=[*map(chat_chunk, chunks), end])


async def test_one_key_one_provider_call(serve: Serve, settings: Settings) -> None:
    """However often it is posted, also at once: one call, one reply, the same bytes for everybody."""
    upstream = FakeServer(chat_reply("a", "b"))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        conversation = await client.conversation()
        path = f"/conversations/{conversation}/stream"

        async def post(accept: str) -> bytes:
            headers = {"Idempotency-Key": "one", "Accept": accept}
            async with client.session.post(path, json={"input": "x"}, headers=headers) as response:
                assert response.status == 200
                return bytes(await response.read())

        async with asyncio.timeout(30):
            bodies = await asyncio.gather(*(post("text/event-stream") for _ in range(6)))
            later = await post("text/event-stream")
            whole = msgspec.json.decode(await post("application/json"))
        assert len({body.replace(b":\n", b"") for body in [*bodies, later]}) == 1  # but for keep-alives
        assert whole["message"] == events(later)[-1]["message"]
        assert len(upstream.requests) == 1
        _, history = await client.json("GET", f"/conversations/{conversation}/messages")
        assert [message["role"] for message in history["messages"]] == ["user", "assistant"]


async def test_a_key_attaches_from_a_cursor(client: Client) -> None:
    """A client that posts again with what it has gets the rest."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    headers = {"Idempotency-Key": "k"}
    async with client.session.post(path, json=script("a", "b"), headers=headers) as response:
        body = await response.read()
    first = events(body)[0]["id"]
    async with client.session.post(path, json=script("a", "b"), headers={**headers, "Last-Event-ID": first}) as again:
        assert events(await again.read()) == events(body)[1:]


async def test_a_key_with_another_body(client: Client) -> None:
    """409, and nothing is stored; the same meaning spelled otherwise is the same body."""
    path = f"/conversations/{await client.conversation()}/stream"
    headers = {"Idempotency-Key": "k"}
    async with client.session.post(path, json=script("a"), headers=headers) as response:
        body = await response.read()
    status, content = await client.json("POST", path, script("b"), headers=headers)
    assert status == 409
    assert content["error"] == {"type": "conflict", "message": "The idempotency key was used for another request."}
    spelled = msgspec.json.encode(dict(reversed(script("a").items())))
    async with client.session.post(
        path, data=spelled, headers={**headers, "Content-Type": "application/json"}
    ) as response:
        assert await response.read() == body


async def test_a_key_belongs_to_its_conversation(client: Client) -> None:
    """The same text elsewhere is another key."""
    replies = set()
    for _ in range(2):
        path = f"/conversations/{await client.conversation()}/stream"
        async with client.session.post(path, json=script("a"), headers={"Idempotency-Key": "k"}) as response:
            await response.read()
            replies.add(response.headers["X-Message-Id"])
    assert len(replies) == 2


async def test_a_key_is_free_again_after_a_day(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although DynamoDB may not have deleted it yet."""
    path = f"/conversations/{await client.conversation()}/stream"
    start = client.backend.clock.now()
    replies = []
    for hours in (0, 23, 25):
        monkeypatch.setattr(client.backend.clock, "now", lambda hours=hours: start + hours * 3600 * 1_000_000)
        async with client.session.post(path, json=script("a"), headers={"Idempotency-Key": "k"}) as response:
            await response.read()
            replies.append(response.headers["X-Message-Id"])
    assert replies[0] == replies[1] != replies[2]


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_that_cannot_be(client: Client, key: str) -> None:
    """400, with the limit."""
    path = f"/conversations/{await client.conversation()}/stream"
    status, content = await client.json("POST", path, script("a"), headers={"Idempotency-Key": key})
    assert (status, content["error"]["message"]) == (400, "The idempotency key must have 1 to 255 characters.")


# ---- EventSource ---------------------------------------------------------------------------------------------


async def test_a_browser_starts_and_reconnects(client: Client) -> None:
    """GET with a message starts; the reconnect with the id it got resumes and starts nothing, even when the
    connection dropped before the first chunk."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    async with client.session.get(path, params={"message": "hello", "model": "fast"}) as response:
        first = await response.content.readuntil(b"\n\n")
        message = response.headers["X-Message-Id"]
        assert first == f"id: {message}:0\n\n".encode()
        body = await response.read()
    status, again = await get(client, f"{path}?message=hello&model=fast", **{"Last-Event-ID": f"{message}:0"})
    assert (status, again) == (200, body)
    last = events(body)[-1]["id"]
    assert await get(client, f"{path}?message=hello&model=fast", **{"Last-Event-ID": last}) == (204, b"")
    assert await get(client, path) == (200, body)  # without a message: the newest reply
    _, history = await client.json("GET", f"/conversations/{conversation}/messages")
    assert len(history["messages"]) == 2


async def test_a_browser_s_key(client: Client) -> None:
    """``?key=`` makes the start safe even when not a byte of the answer arrived. So every block of such a start has
    data: clients that are not browsers would hand on one that has none."""
    path = f"/conversations/{await client.conversation()}/stream"
    parameters = {"message": "hello", "model": "fast", "key": "k"}
    replies = []
    for _ in range(2):
        async with client.session.get(path, params=parameters) as response:
            replies.append((response.headers["X-Message-Id"], await response.read()))
    assert replies[0] == replies[1]
    assert replies[0][1].startswith(b"data: ")
    status, content = await client.json("GET", path, params={**parameters, "message": "other"})
    assert (status, content["error"]["type"]) == (409, "conflict")


async def test_a_cursor_of_another_conversation_is_refused(client: Client) -> None:
    """A browser cannot be led into somebody else's reply."""
    message, _ = await finished(client, "a")
    path = f"/conversations/{await client.conversation()}/stream"
    status, content = await get(client, path, **{"Last-Event-ID": f"{message}:1"})
    assert (status, msgspec.json.decode(content)) == (400, NOT_OURS)


# ---- stopping -----------------------------------------------------------------------------------------------


async def test_cancel_from_another_device(serve: Serve, settings: Settings) -> None:
    """The starting reader and every follower get the end, the text is kept, the provider's connection is closed
    within a second of the cancel while it talks, and cancelling again changes nothing."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("partial ")], ending="stall"))
    settings = msgspec.structs.replace(settings, lease=2.0)
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        async with asyncio.timeout(20), client.session.post(path, json={"input": "x"}) as starting:
            message = starting.headers["X-Message-Id"]
            await starting.content.readuntil(b"\n\n")
            following = asyncio.create_task(get(client, f"/messages/{message}/stream"))
            await client.until(message, lambda stored: stored.seq >= 1)
            status, cancelled = await client.json("POST", f"/messages/{message}/cancel")
            assert (status, cancelled["status"], cancelled["content"]) == (200, "cancelled", "partial ")
            assert cancelled["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "source": "estimate"}
            assert cancelled["metadata"]["stream_chunks"] == 1
            rest = (await starting.content.read()).lstrip(b":\n")
        await asyncio.wait_for(upstream.left.wait(), 5)
        (last,) = events(rest)
        assert (last["error"], last["error_type"], last["message"]) == (True, "cancelled", "The reply was cancelled.")
        assert events((await following)[1])[-1] == last
        assert await client.json("POST", f"/messages/{message}/cancel") == (200, cancelled)


async def test_cancel_of_a_finished_reply(client: Client) -> None:
    """It stays as it ended."""
    message, body = await finished(client, "a")
    assert await client.json("POST", f"/messages/{message}/cancel") == (200, events(body)[-1]["message"])


async def test_a_reader_may_take_the_reply_with_it(serve: Serve, settings: Settings) -> None:
    """``on_disconnect: "cancel"``: when the starting connection is gone, the provider is closed and the reply ends
    as cancelled with its text."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("partial")], ending="stall"))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        async with client.session.post(path, json={"input": "x", "on_disconnect": "cancel"}) as response:
            message = response.headers["X-Message-Id"]
            await response.content.readuntil(b"\n\n")
            response.close()
        stored = await client.ended(message)
        assert (stored.status, stored.content) == ("cancelled", "partial")
        await asyncio.wait_for(upstream.left.wait(), 5)


async def test_before_lambda_kills_it(serve: Serve, settings: Settings) -> None:
    """The adapter passes the deadline: the reply ends as timed out before it, with a terminal event."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("partial")], ending="stall"))
    settings = msgspec.structs.replace(settings, in_lambda=True)
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        deadline = client.backend.clock.now() // 1000 + 5_300
        headers = {"x-amzn-lambda-context": msgspec.json.encode({"deadline": deadline}).decode()}
        async with asyncio.timeout(20), client.session.post(path, json={"input": "x"}, headers=headers) as response:
            *chunks, last = events(await response.read())
        assert [chunk["chunk"] for chunk in chunks] == ["partial"]
        assert (last["error_type"], last["message"]) == ("timeout", "The reply took too long.")
        assert (await client.ended(response.headers["X-Message-Id"])).status == "timed_out"


@pytest.mark.parametrize("context", ["{", "null", "[]", "{}", '{"deadline": null}', '{"deadline": "soon"}'])
async def test_a_context_without_a_deadline(serve: Serve, settings: Settings, context: str) -> None:
    """Whatever the header looks like, it is no reason to fail."""
    async with serve(msgspec.structs.replace(settings, in_lambda=True)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        async with client.session.post(path, json=script("a"), headers={"x-amzn-lambda-context": context}) as response:
            assert events(await response.read())[-1]["done"] is True


async def test_the_deadline_is_believed_only_in_lambda(client: Client) -> None:
    """Elsewhere anybody could send the header."""
    path = f"/conversations/{await client.conversation()}/stream"
    headers = {"x-amzn-lambda-context": '{"deadline": 1}'}
    async with client.session.post(path, json=script("a"), headers=headers) as response:
        assert events(await response.read())[-1]["done"] is True


async def test_an_orphan_is_ended_by_its_reader(client: Client, settings: Settings) -> None:
    """A follower whose writer is gone does not wait for the sweep: the lease is enough."""
    stream = await client.open_stream()
    await stream.append("all that was stored")
    await client.flushed(stream)
    client.abandon(stream)
    client.backend.open_replies._lease = 1.0
    lease = msgspec.structs.replace(client.backend.settings, lease=1.0)
    client.backend.settings = lease
    status, body = await get(client, f"/messages/{stream.id}/stream")
    chunk, last = events(body)
    assert (status, chunk["chunk"], last["error_type"]) == (200, "all that was stored", "interrupted")
    await end_again(client, last)


async def end_again(client: Client, last: dict[str, Any]) -> None:
    """Check that the id of an end from elsewhere tells it from the chunk of that number, which a starting connection
    that was ahead of the log may have seen."""
    message, seq = last["message_id"], last["id"].rpartition(":")[2]
    number, dot, part = seq.partition(".")
    assert (dot, part) == (".", "0")
    path = f"/messages/{message}"
    assert await get(client, f"{path}/stream", **{"Last-Event-ID": last["id"]}) == (204, b"")
    assert await get(client, f"{path}/stream?after={seq}") == (204, b"")
    assert await client.json("GET", f"{path}/events", params={"after": seq}) == (200, [])
    _, again = await get(client, f"{path}/stream", **{"Last-Event-ID": f"{message}:{number}"})
    assert events(again) == [last]
    assert await client.json("GET", f"{path}/events", params={"after": number}) == (200, [last])


async def test_the_end_of_a_cancelled_reply_has_an_id_of_its_own(client: Client) -> None:
    """A reader that was cut at the chunk whose number the end was given is told the end; one that has it is not."""
    stream = await client.open_stream()
    await stream.append("all that was stored")
    await client.flushed(stream)
    await client.json("POST", f"/messages/{stream.id}/cancel")
    *_, last = events((await get(client, f"/messages/{stream.id}/stream"))[1])
    assert last["error_type"] == "cancelled"
    await end_again(client, last)
