"""One reply, every wire format: live, resumed and polled, all readers have the text that the table has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from tailrace.protocols import PROTOCOLS

from tests.http.conftest import Client

pytestmark = pytest.mark.anyio

Object = dict[str, Any]

TEXTS: dict[str, Callable[[Object], str]] = {
    "simple": lambda event: event.get("chunk", ""),
    "ai_sdk": lambda event: event["delta"] if event["type"] == "text-delta" else "",
    "ag_ui": lambda event: event["delta"] if event["type"] == "TEXT_MESSAGE_CONTENT" else "",
    "openai_chat": lambda event: event["choices"][0]["delta"].get("content", "") if event["choices"] else "",
    "openai_responses": lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
}
"""What each adds to the text."""

IS_END: dict[str, Callable[[Object], bool]] = {
    "simple": lambda event: event.get("done") is True,
    "ai_sdk": lambda event: event["type"] == "finish",
    "ag_ui": lambda event: event["type"] == "RUN_FINISHED",
    "openai_chat": lambda event: any(choice["finish_reason"] for choice in event["choices"]),
    "openai_responses": lambda event: event["type"] == "response.completed",
}
"""Which says that it is whole."""


def objects(body: bytes) -> list[Object]:
    """Return the events of a stream."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [msgspec.json.decode(line) for line in lines if line != b"[DONE]"]


async def streamed(client: Client, message: str, protocol: str) -> list[Object]:
    """Read a reply from its beginning, while it is written and until its end."""
    async with client.session.get(f"/messages/{message}/stream?protocol={protocol}") as response:
        return objects(await response.read())


async def polled(client: Client, message: str, protocol: str) -> list[Object]:
    """Read a reply page by page, from cursor to cursor."""
    found: list[Object] = []
    after = ""
    while True:
        path = f"/messages/{message}/events?protocol={protocol}&wait=20{after}"
        status, page = await client.json("GET", path)
        assert status == 200
        if not page:
            return found
        bare = [{name: value for name, value in each.items() if name != "id"} for each in page]
        found += bare if protocol == "simple" else [each["data"] for each in page]
        after = f"&after={page[-1]['id']}"


def text(protocol: str, events: Sequence[Object]) -> str:
    """Return the text that a reader has in the end, if it knows that this is all."""
    assert [IS_END[protocol](event) for event in events].count(True) == 1
    return "".join(TEXTS[protocol](event) for event in events)


def test_each_is_judged() -> None:
    """A new one is not forgotten here."""
    assert TEXTS.keys() == PROTOCOLS.keys() == IS_END.keys()


@pytest.mark.parametrize("starter", sorted(PROTOCOLS))
async def test_all_agree(client: Client, starter: str) -> None:
    """Whichever of them started it."""
    conversation = await client.conversation()
    script = {
        "chunks": [f"水 {n}. " for n in range(60)],
        "every": 0.01,
        "reasoning": ["Hm."],
        "tool_results": [{"id": "w", "name": "search", "result": "{}"}],
    }
    body = {"input": "Hi", "options": {"script": script}}
    path = f"/conversations/{conversation}/stream?protocol={starter}"
    async with asyncio.timeout(60), client.session.post(path, json=body) as response:
        assert response.status == 200
        message = response.headers["X-Message-Id"]
        streams = [asyncio.ensure_future(streamed(client, message, name)) for name in PROTOCOLS]
        polls = [asyncio.ensure_future(polled(client, message, name)) for name in PROTOCOLS]
        live = await response.read()
        await asyncio.gather(*streams, *polls)
    _, stored = await client.json("GET", f"/messages/{message}")
    assert stored["status"] == "completed"
    assert text(starter, objects(live)) == stored["content"]
    for name, stream, poll in zip(PROTOCOLS, streams, polls, strict=True):
        assert text(name, stream.result()) == stored["content"], name
        assert poll.result() == stream.result(), name
    assert await streamed(client, message, starter) == objects(live)  # from the log, byte for byte the same events
