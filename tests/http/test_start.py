"""``POST /conversations/{id}/stream``, over a real socket."""

from __future__ import annotations

import asyncio
import random
import re

import msgspec
import pytest
from tailrace.settings import Settings

from tests.http.conftest import Client, Serve, events, script
from tests.providers.fake_server import FakeServer, Reply

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


def openai_settings(settings: Settings, upstream: FakeServer) -> Settings:
    """Return settings whose provider is the fake server, over the chat wire."""
    environment = {"OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": "key"}
    return msgspec.structs.replace(settings, provider="openai", model="m", environment=environment, keep_alive=0.1)


def chat_chunk(text: str) -> bytes:
    """Return one chunk of the chat wire."""
    return b'data: {"model":"m-1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()


async def test_the_stream_byte_for_byte(client: Client) -> None:
    """The shapes, the order in a block, the headers: nothing may change under a client."""
    response, body = await client.start(script("Once", ' "upon"', "\n✓ 日本"))
    message = response.headers["X-Message-Id"]
    blocks = body.decode().split("\n\n")
    assert blocks[:3] == [
        f'data: {{"chunk":"Once","message_id":"{message}"}}\nid: {message}:2',
        f'data: {{"chunk":" \\"upon\\"","message_id":"{message}"}}\nid: {message}:3',
        f'data: {{"chunk":"\\n✓ 日本","message_id":"{message}"}}\nid: {message}:4',
    ]
    assert re.fullmatch(rf'data: {{"done":true,"message":{{"id":"{message}",.*}}}}\nid: {message}:6', blocks[3])
    assert blocks[4:] == [""]
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"


async def test_what_fetches_as_a_page_gets_the_bare_type(client: Client) -> None:
    """On each route that streams: the example of an ``onopen`` in @microsoft/fetch-event-source compares with that."""
    path = f"/conversations/{await client.conversation()}/stream"
    as_page = {"Sec-Fetch-Mode": "cors"}
    async with client.session.post(path, json=script("a"), headers=as_page) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        message = response.headers["X-Message-Id"]
    for url in (path, f"{path}?message=hello&model=fast", f"/messages/{message}/stream"):
        async with client.session.get(url, headers=as_page) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            assert response.headers["X-Message-Id"]
    async with client.session.get(path) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    async with client.session.get("/messages/none/stream", headers=as_page) as response:
        assert response.headers["Content-Type"] == "application/json"


async def test_the_terminal_event_is_the_message_that_is_stored(client: Client) -> None:
    """What the starting connection is told is what everybody reads."""
    conversation = await client.conversation(system="be kind")
    response, body = await client.start(
        {**script("a", "b"), "metadata": {"k": 1, "private": {"ip": "10.0.0.1"}}}, conversation
    )
    done = events(body)[-1]
    status, stored = await client.json("GET", f"/messages/{response.headers['X-Message-Id']}")
    assert (status, stored) == (200, done["message"])
    assert set(stored) == {
        "id", "conversation_id", "role", "content", "status", "seq", "metadata", "provider", "model", "usage",
        "finish_reason", "error", "created_at", "completed_at",
    }  # fmt: skip
    assert stored["content"] == "ab"
    assert stored["status"] == "completed"
    assert stored["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "source": "provider"}
    assert stored["metadata"]["stream_chunks"] == 2
    assert stored["metadata"]["k"] == 1
    assert b"10.0.0.1" not in body
    assert b"be kind" not in body
    _, history = await client.json("GET", f"/conversations/{conversation}/messages")
    assert [message["role"] for message in history["messages"]] == ["user", "assistant"]


async def test_progress_when_asked(client: Client) -> None:
    """Characters are characters, not bytes; counts are of what came so far."""
    _, body = await client.start({**script("日本", "ab"), "delivery": {"progress": True}})
    first, second, _ = events(body)
    assert first["progress"]["chunks"] == 1
    assert first["progress"]["characters"] == 2
    assert (second["progress"]["chunks"], second["progress"]["characters"]) == (2, 4)
    assert second["progress"]["elapsed"] >= 0
    assert set(second["progress"]) == {"chunks", "characters", "elapsed", "speed"}


async def test_ten_thousand_chunks_of_mixed_unicode_arrive_as_they_were_sent(client: Client) -> None:
    """The text received is the text sent, in the stream, in the table, and in the terminal event."""
    alphabet = 'aé日😀\u200d\n"\\ \u2028\x7f\x00'
    source = random.Random(7)
    chunks = ["".join(source.choices(alphabet, k=source.randint(1, 6))) for _ in range(10_000)]
    response, body = await client.start(
        {**script(*chunks, batch=7)},
    )
    *received, done = events(body)
    assert [event["chunk"] for event in received] == chunks
    assert done["message"]["content"] == "".join(chunks)
    assert done["message"]["metadata"]["stream_chunks"] == 10_000
    stored = await client.backend.store.messages.get(response.headers["X-Message-Id"])
    assert stored.content == "".join(chunks)


async def test_the_first_byte_leaves_before_the_last_one_is_there(serve: Serve, settings: Settings) -> None:
    """A reader sees the first chunk while the provider has not ended its answer, and a keep-alive meanwhile:
    a comment on its line with no blank line after it."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("first")], ending="stall"))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        body = {"input": "hi", "options": {"timeouts": {"idle": 1.0}}}
        async with asyncio.timeout(20), client.session.post(path, json=body) as response:
            first = await response.content.readuntil(b"\n\n")
            assert b'"chunk":"first"' in first
            assert not upstream.left.is_set()
            assert await response.content.readline() == b":\n"
            rest = await response.content.read()
        assert b":\n\n" not in rest
        last = rest.decode().split("\n\n")[-2].lstrip(":\n")
        assert '"error":true' in last
        assert '"error_type":"timeout_idle"' in last
        await asyncio.wait_for(upstream.left.wait(), 5)


async def test_the_same_reply_not_streamed(client: Client) -> None:
    """``Accept: application/json`` gets the message whole."""
    conversation = await client.conversation()
    status, content = await client.json(
        "POST", f"/conversations/{conversation}/stream", script("a", "b"), headers={"Accept": "application/json"}
    )
    assert (status, content["streamed"], content["message"]["content"]) == (200, False, "ab")
    assert (await client.json("GET", f"/messages/{content['message']['id']}"))[1] == content["message"]


async def test_a_reader_that_leaves_does_not_end_the_reply(client: Client) -> None:
    """The reply is in the log, whole, although nobody listens any more."""
    path = f"/conversations/{await client.conversation()}/stream"
    async with client.session.post(path, json=script(*"abcdefgh", every=0.02)) as response:
        message = response.headers["X-Message-Id"]
        await response.content.readuntil(b"\n\n")
        response.close()
    stored = await client.ended(message)
    assert stored.content == "abcdefgh"


async def test_a_reader_that_does_not_read_does_not_hold_up_the_reply(client: Client) -> None:
    """The relay never waits for its reader; what the sockets do not take is dropped, not kept for ever."""
    path = f"/conversations/{await client.conversation()}/stream"
    chunks = ["x" * 30_000] * 8
    async with client.session.post(path, json=script(*chunks), read_bufsize=1024) as response:
        stored = await client.ended(response.headers["X-Message-Id"])
        assert stored.content == "".join(chunks)
        response.close()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, r"The body is not valid JSON\."),
        (b"\xff\xfe", 400, r"The body is not valid JSON\."),
        (b"[]", 422, r"The body does not validate: Expected `object`, got `array`\."),
        (b'{"input": 3}', 422, r".*Expected `str \| array \| null`, got `int` - at `\$\.input`\."),
        (b'{"input": [{"type": "sound"}]}', 422, r".*Invalid value 'sound' - at `\$\.input\[0\]\.type`\."),
        (b'{"input": [{"type": "image"}]}', 422, r"Image or file 1 of the input: it must have either data or url\."),
        (b'{"input": []}', 422, r"input must not be blank.*"),
        (b'{"input": " "}', 422, r"input must not be blank.*"),
        (b"{}", 422, r"There is nothing to answer: the conversation has no user message\."),
        (b'{"input": "x", "provider": "nobody"}', 422, r"Unknown provider 'nobody'\. Known providers: .*scripted.*\."),
        (b'{"input": "x", "options": {"script": 3}}', 422, r"Bad options for scripted.*"),
        (b'{"input": "x", "delivery": {"by": "word"}}', 422, r".*Invalid enum value 'word' - at `\$\.delivery\.by`\."),
        (b'{"input": "x", "delivery": {"interval_ms": 9}}', 422, r"delivery\.interval_ms must be 10 to 60000\."),
        (b'{"input": "x", "fallbacks": [{"provider": "nobody"}]}', 422, r"Unknown provider 'nobody'\..*"),
        (b'{"input": "x", "fallback": "always"}', 422, r".*Invalid enum value 'always' - at `\$\.fallback`\."),
        (b'{"input": "x", "options": {"retries": -1}}', 422, r"Bad options: Expected `int` >= 0 - at `\$\.retries`\."),
        (b'{"input": "x", "options": {"tools": [{}]}}', 422, r"Bad options: tools\[0\] must be .*"),
        (b'{"input": "x", "metadata": {"private": 1}}', 422, r"metadata\.private must be an object\."),
        (b'{"input": "' + b"x" * 300_000 + b'"}', 413, r"The body has more than 262144 bytes\."),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_bad_input_is_refused_and_nothing_is_written(client: Client, body: bytes, status: int, said: str) -> None:
    """A clear message with the right status; the conversation is as it was."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    for chunked in (False, True):

        async def pieces() -> object:
            for start in range(0, len(body), 10_000):
                yield body[start : start + 10_000]

        async with client.session.post(path, data=pieces() if chunked else body, headers=JSON) as response:
            content = await response.json()
        assert response.status == status
        assert re.fullmatch(said, content["error"]["message"]), content
    assert (await client.json("GET", f"/conversations/{conversation}/messages"))[1]["messages"] == []


async def test_unknown_conversation(client: Client) -> None:
    """404, in our shape, for an id of ours and for nonsense."""
    for conversation in ("0zB3M7plLMljp-s7GlCmFQ", "nonsense", "%00"):
        response, body = await client.start(script("a"), conversation)
        assert response.status == 404
        assert body == b'{"error":{"type":"not_found","message":"No such conversation."}}'
