"""Seeded mutations of every fixture, through the real client over real sockets: nothing hangs, nothing but a provider's
error is raised, no task is left, all that comes can be stored, and what lacks the sign of its end is never whole.

More of them: ``FUZZ=2000 pytest tests/providers/test_fuzz.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from tailrace.errors import ProviderError
from tailrace.events import ProviderEvent, ResponseInfo, Text
from tailrace.protocols.sse import ServerSentEvent
from tailrace.providers import Provider, openai_parser
from tailrace.providers.anthropic_parser import SoFar
from tailrace.store.segment import pack

from . import event_stream
from .fake_server import FakeServer, Reply
from .helpers import ALL_WIRES, FIXTURES, fixture, opened, prompt, run

SEEDS = int(os.environ.get("FUZZ", "60"))

SIGN = {
    "anthropic": b"message_stop",
    "bedrock": b"messageStop",
    "gemini": b"finishReason",
    "openai": b"finish_reason",
    "openai-responses": b"response.completed",
}
"""What an answer cannot be whole without."""

MATTERS = {
    *("text", "content", "delta", "choices", "candidates", "parts", "type", "index", "message", "error", "output"),
    *("finish_reason", "finishReason", "stop_reason", "stopReason", "response", "status", "functionCall", "tool_calls"),
    *("content_block", "contentBlockDelta", "contentBlockStart", "messageStop", "start", "toolUse", "thought", "item"),
    *("contentBlockIndex", "refusal", "incomplete_details", "promptFeedback", "reason", "executableCode", "thinking"),
}
"""Members that decide on the text, on the end or on the kind of an event. Any other may have any type at no cost."""

STRANGE: list[Any] = [None, True, 7, -1.5, 10**30, "", "strange", "\ud83d", [], [7], {}, {"a": [None]}]


def pieces_of(wire: str) -> list[bytes]:
    """The events of a fixture, each whole."""
    if wire == "bedrock":
        lines = (FIXTURES / "bedrock.jsonl").read_bytes().splitlines()
        return [event_stream.encoded(line) for line in lines]
    return [event + b"\n\n" for event in fixture(wire).split(b"\n\n") if event.strip()]


def retyped(wire: str, place: int, choose: random.Random) -> tuple[list[bytes], bool]:
    """One member of one event with another type; and whether it may cost anything."""
    pieces = pieces_of(wire)
    if wire == "bedrock":
        kind, value = msgspec.json.decode((FIXTURES / "bedrock.jsonl").read_bytes().splitlines()[place])
    else:
        head, found, data = pieces[place].strip().partition(b"data: ")
        if not found or not data.startswith(b"{"):
            return pieces, False
        value = json.loads(data)
    members: list[tuple[dict[str, Any], str, bool]] = []

    def walk(node: Any, matters: bool) -> None:
        if isinstance(node, dict):
            for name in node:
                members.append((node, name, matters or name in MATTERS))
                walk(node[name], False)
        elif isinstance(node, list):
            for each in node:
                walk(each, False)

    walk(value, False)
    if not members:
        return pieces, False
    node, name, matters = choose.choice(members)
    node[name] = choose.choice(STRANGE)
    text = json.dumps(value).encode()
    pieces[place] = event_stream.event(kind, text) if wire == "bedrock" else head + b"data: " + text + b"\n\n"
    return pieces, matters


def mutated(wire: str, seed: int) -> tuple[str, list[bytes], bool]:
    """Return what was done, the body in pieces, and whether the answer must be as it was."""
    choose = random.Random(f"{wire} {seed}")
    pieces = pieces_of(wire)
    place = choose.randrange(len(pieces))
    kind = choose.choice(["cut", "drop", "repeat", "swap", "flip", "retype", "retype"])
    match kind:
        case "cut":
            whole = b"".join(pieces)
            return kind, [whole[: choose.randrange(len(whole))]], False
        case "drop":
            del pieces[place]
        case "repeat":
            pieces.insert(place, pieces[place])
        case "swap":
            other = choose.randrange(len(pieces))
            pieces[place], pieces[other] = pieces[other], pieces[place]
        case "flip":
            body = bytearray(b"".join(pieces))
            body[choose.randrange(len(body))] ^= 1 << choose.randrange(8)
            return kind, [bytes(body)], False
        case _:
            pieces, matters = retyped(wire, place, choose)
            return kind, pieces, not matters
    return kind, pieces, False


async def answered(provider: Provider) -> tuple[str, ProviderError | None]:
    """Return an answer's text, and how it failed. All of it can be stored."""
    events: list[ProviderEvent] = []
    error = None
    try:
        async for batch in provider.stream(prompt(timeouts={"idle": 5, "first_chunk": 5, "total": 10})):
            events += batch
    except ProviderError as failure:
        error = failure
    pack([event for event in events if not isinstance(event, ResponseInfo)])
    msgspec.json.encode(events)
    return "".join(event.text for event in events if isinstance(event, Text)), error


async def fuzz(wire: str, seeds: int) -> tuple[Counter[str], list[str]]:
    """Return what was tried how often, and what came out wrong."""
    tried: Counter[str] = Counter()
    wrong: list[str] = []
    headers = {"Content-Type": "application/vnd.amazon.eventstream" if wire == "bedrock" else "text/event-stream"}
    server = FakeServer(Reply(headers=headers, pieces=pieces_of(wire)))
    async with server.serving(), opened(wire, server.url) as provider:
        plain, _ = await answered(provider)
        tasks = len(asyncio.all_tasks())
        for seed in range(seeds):
            kind, pieces, is_as_it_was = mutated(wire, seed)
            server.reply = Reply(headers=headers, pieces=[piece for piece in pieces if piece])
            body = b"".join(pieces)
            try:
                async with asyncio.timeout(20):
                    text, error = await answered(provider)
            except Exception as bug:  # what no provider may cause
                wrong.append(f"{kind} {seed}: {type(bug).__name__}: {bug}")
                continue
            tried[f"{kind}, {'whole' if error is None else 'failed'}"] += 1
            if error is None and SIGN[wire] not in body:
                wrong.append(f"{kind} {seed}: whole without the sign of its end")
            if kind == "cut" and not plain.startswith(text):
                wrong.append(f"{kind} {seed}: {text!r} is no beginning")
            if is_as_it_was and (error is not None or text != plain):
                wrong.append(f"{kind} {seed}: {error} {text!r}")
        for _ in range(100):  # connections that were closed need a turn or two
            if len(asyncio.all_tasks()) <= tasks:
                break
            await asyncio.sleep(0)
        else:
            wrong.append(f"{len(asyncio.all_tasks()) - tasks} tasks are left")
    return tried, wrong


@pytest.mark.parametrize("wire", ALL_WIRES)
def test_whatever_comes(wire: str) -> None:
    """It is read as far as it can be, or fails as a provider does."""
    tried, wrong = run(fuzz(wire, SEEDS), seconds=120 + SEEDS)
    assert wrong == []
    assert sum(tried.values()) == SEEDS


def test_a_strict_reader_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes no chunk but those of its own types: the mutations notice."""

    def strict(event: ServerSentEvent, kind: type[Any], provider: str) -> Any:
        return msgspec.json.decode(event.data, type=kind)

    monkeypatch.setattr(openai_parser, "odd_event", strict)
    _, wrong = run(fuzz("openai", SEEDS), seconds=120 + SEEDS)
    assert wrong


@pytest.mark.parametrize("seed", range(200))
def test_what_a_pause_goes_on_with_is_gathered_from_whatever_comes(seed: int) -> None:
    """The blocks for the vendor are gathered beside the answer: nothing odd in them costs it."""
    choose = random.Random(seed)
    pieces, _ = retyped("anthropic", choose.randrange(len(pieces_of("anthropic"))), choose)
    so_far = SoFar(pauses=True)
    for piece in pieces:
        so_far.take(piece.partition(b"data: ")[2].strip())
    msgspec.json.encode(so_far.blocks)


@pytest.mark.parametrize(
    "event",
    [
        b"[]",
        b'{"type":"content_block_start","index":0}',
        b'{"type":"content_block_delta","index":1,"delta":null}',
        b'{"type":"content_block_delta","index":1,"delta":{"partial_json":"{\\"a"}}',
        b'{"type":"content_block_delta","index":1,"delta":{"text":"\\ud83d"}}',
        b'{"type":"content_block_delta","index":[1],"delta":{"text":"x"}}',
    ],
)
def test_an_odd_event_leaves_the_other_blocks(event: bytes) -> None:
    """The block that had begun is there, with its end."""
    so_far = SoFar(pauses=True)
    so_far.take(b'{"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","input":{}}}')
    so_far.take(event)
    so_far.take(b'{"type":"content_block_stop","index":1}')
    assert so_far.blocks == [{"type": "server_tool_use", "input": {}}]
