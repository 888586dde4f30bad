"""What providers really send, most of it from public reports: nothing odd costs an answer, nothing cut counts as whole.

Each case goes through the real client over a real socket. What a reply keeps of it is in test_fault_table.py.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from tailrace.events import Reasoning, Text, ToolCall, Usage
from tailrace.providers.finish import finish_of
from tailrace.providers.tolerant import Halves

from .fake_server import FakeServer, Reply
from .helpers import WIRES, Answer, collect, fixture, opened, prompt, run
from .whole_answers import WHOLE

READ = {"name": "read"}


def sse(*events: Any, name: str = "") -> bytes:
    """Return events as a server writes them; text as it is."""
    found = b""
    for event in events:
        # As Python's own encoder has it: halves of surrogate pairs as escapes, numbers of any size.
        data = event if isinstance(event, str) else json.dumps(event)
        found += (f"event: {name}\n" if name else "").encode() + b"data: " + data.encode() + b"\n\n"
    return found


def chat(delta: Any = None, finish: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a chunk of the chat completions wire."""
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}


def said(text: str, **more: Any) -> dict[str, Any]:
    return chat({"content": text}, **more)


def calls(*pieces: Any) -> dict[str, Any]:
    return chat({"tool_calls": list(pieces)})


def messages(*events: dict[str, Any]) -> bytes:
    """Return events of Anthropic's wire."""
    return b"".join(sse(event, name=str(event["type"])) for event in events)


def block(delta: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def gemini(*parts: Any, **candidate: Any) -> dict[str, Any]:
    """Return an event of Gemini's wire."""
    return {"candidates": [{"index": 0, "content": {"parts": list(parts)}, **candidate}], "modelVersion": "m"}


DONE = "[DONE]"
STOP = chat({}, "stop")
CALLED = chat({}, "tool_calls")
MESSAGE_STOP = {"type": "message_stop"}
STOPPED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
COMPLETED = {"type": "response.completed", "response": {"status": "completed", "output": []}}


def ask(wire: str, body: bytes | Sequence[bytes], **more: Any) -> Answer:
    """Return what comes of an answer."""
    pieces = [body] if isinstance(body, bytes) else body

    async def test() -> Answer:
        server = FakeServer(Reply(pieces=[piece for piece in pieces if piece], **more))
        async with server.serving(), opened(wire, server.url) as provider:
            return await collect(provider.stream(prompt()))

    return run(test())


WHOLE_ANSWERS: Mapping[str, tuple[str, bytes, str]] = {
    "an empty finish reason on every chunk": (
        "openai",
        sse(said("Hel", finish=""), said("lo", finish=""), STOP, DONE),
        "Hello",
    ),
    "a real one on every chunk": ("openai", sse(said("Hel", finish="stop"), said("lo", finish="stop"), DONE), "Hello"),
    "one that is text for nothing": ("openai", sse(said("Hel", finish="null"), said("lo"), STOP), "Hello"),
    "one that nobody knows": ("openai", sse(said("Hello"), chat({}, "brand_new"), DONE), "Hello"),
    "no finish reason but the last word": ("openai", sse(said("Hello"), DONE), "Hello"),
    "blanks around the last word": ("openai", sse(said("Hello"), STOP, "[DONE]  "), "Hello"),
    "the last word without its blank line": ("openai", sse(said("Hello"), DONE).rstrip(b"\n"), "Hello"),
    "an event with text after its reason": ("openai", sse(said("Hel"), STOP, said("lo"), DONE), "Hello"),
    "counts with a point": (
        "openai",
        sse(said("Hello"), chat({}, "stop", usage={"prompt_tokens": 3.0, "completion_tokens": "1"}), DONE),
        "Hello",
    ),
    "a count of nobody's": (
        "openai",
        sse(said("Hello"), STOP, chat(usage={"completion_tokens": 10**30}), DONE),
        "Hello",
    ),
    "reasoning in another shape": ("openai", sse(chat({"reasoning": {"text": "hm"}}), said("Hello"), STOP), "Hello"),
    "two entries of one number": (
        "openai",
        sse(
            {"choices": [{"index": 0, "delta": {"content": "Hel"}}, {"index": 0, "delta": {"content": "lo"}}]},
            STOP,
            DONE,
        ),
        "Hello",
    ),
    "another answer beside ours": (
        "openai",
        sse(said("Hello"), {"choices": [{"index": 1, "delta": {"content": "Bye"}}]}, STOP, DONE),
        "Hello",
    ),
    "choices numbered from one": (
        "openai",
        sse({"choices": [{"index": 1, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}, DONE),
        "Hello",
    ),
    "choices that are no list": ("openai", sse({"choices": {"delta": {"content": "Hello"}}}, STOP, DONE), "Hello"),
    "content that is an object": ("openai", sse(chat({"content": {"text": "Hello"}}), STOP, DONE), "Hello"),
    "a name that is a number, and side fields of any type": (
        "openai",
        sse({**said("Hello"), "model": 7, "id": [], "created": "x", "service_tier": {"a": 1}}, STOP, DONE),
        "Hello",
    ),
    "a torn character": ("openai", sse(said("a\ud83d"), said("\ude00b"), STOP, DONE), "a😀b"),
    "half a character": ("openai", sse(said("a\ud83d"), said("b"), STOP, DONE), "a\ufffdb"),
    "half a character at the end": ("openai", sse(said("a\ud83d"), STOP, DONE), "a\ufffd"),
    "bytes that are no UTF-8": (
        "openai",
        b'data: {"choices":[{"delta":{"content":"a\xff"}}]}\n\n' + sse(said("b"), STOP, DONE),
        "a\ufffdb",
    ),
    "pings that are no JSON": ("openai", sse("ping", said("Hel"), "keep-alive", said("lo"), STOP, DONE), "Hello"),
    "an error that is none": ("openai", sse(said("Hello", error={}), chat({}, "stop", error=""), DONE), "Hello"),
    "text without deltas": (
        "openai-responses",
        sse({"type": "response.output_text.done", "text": "Hello"}, COMPLETED),
        "Hello",
    ),
    "text in the item alone": (
        "openai-responses",
        sse(
            {
                "type": "response.output_item.done",
                "item": {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
            },
            COMPLETED,
        ),
        "Hello",
    ),
    "text in the whole response alone": (
        "openai-responses",
        sse(
            {
                "type": "response.completed",
                "response": {
                    "status": "completed",
                    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
                },
            }
        ),
        "Hello",
    ),
    "the end of a text that lost a delta": (
        "openai-responses",
        sse(
            {"type": "response.output_text.delta", "delta": "Hel"},
            {"type": "response.output_text.done", "text": "Hello"},
            {
                "type": "response.output_item.done",
                "item": {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
            },
            COMPLETED,
        ),
        "Hello",
    ),
    "types in the events' names alone": (
        "openai-responses",
        sse({"delta": "Hello"}, name="response.output_text.delta")
        + sse({"response": {"status": "completed"}}, name="response.completed"),
        "Hello",
    ),
    "a proxy's last word": (
        "openai-responses",
        sse({"type": "response.output_text.delta", "delta": "Hello"}, DONE, COMPLETED),
        "Hello",
    ),
    "a delta that is no text, and counts with a point": (
        "openai-responses",
        sse(
            {"type": "response.output_text.delta", "delta": 7, "output_index": "0"},
            {"type": "response.output_text.delta", "delta": "Hello", "output_index": "x"},
            {
                "type": "response.completed",
                "response": {"status": "completed", "output": 7, "usage": {"input_tokens": 3.0, "output_tokens": "1"}},
            },
        ),
        "Hello",
    ),
    "a message without a beginning": (
        "anthropic",
        messages(block({"type": "text_delta", "text": "Hello"}), STOPPED, MESSAGE_STOP),
        "Hello",
    ),
    "side fields of any type": (
        "anthropic",
        messages(
            {"type": "message_start", "message": {"model": 7, "usage": {"input_tokens": "3"}, "content": {}}},
            {"type": "content_block_start", "index": "0", "content_block": {"type": "text", "citations": 7}},
            block({"type": "text_delta", "text": "Hel", "citation": []}),
            {"type": "content_block_delta", "index": 0, "delta": []},
            block({"type": "text_delta", "text": "lo"}),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1.0}},
            MESSAGE_STOP,
        ),
        "Hello",
    ),
    "types in the names": (
        "anthropic",
        sse({"index": 0, "delta": {"text": "Hello"}}, name="content_block_delta") + sse({}, name="message_stop"),
        "Hello",
    ),
    "a torn character of Anthropic's": (
        "anthropic",
        messages(block({"text": "a\ud83d"}), block({"text": "\ude00b"}), STOPPED, MESSAGE_STOP),
        "a😀b",
    ),
    "no reason, in Gemini's word": (
        "gemini",
        sse(
            gemini({"text": "Hel"}, finishReason="FINISH_REASON_UNSPECIFIED"),
            gemini({"text": "lo"}, finishReason="STOP"),
        ),
        "Hello",
    ),
    "a reason on each of Gemini's": (
        "gemini",
        sse(gemini({"text": "Hel"}, finishReason="STOP"), gemini({"text": "lo"}, finishReason="STOP")),
        "Hello",
    ),
    "parts that are no list": (
        "gemini",
        sse({"candidates": {"content": {"parts": {"text": "Hello", "thought": "no"}}, "finishReason": "STOP"}}),
        "Hello",
    ),
    "Gemini's counts as text": (
        "gemini",
        sse({**gemini({"text": "Hello"}, finishReason="STOP"), "usageMetadata": {"promptTokenCount": "3"}}),
        "Hello",
    ),
}


@pytest.mark.parametrize("name", WHOLE_ANSWERS)
def test_it_costs_nothing_of_the_answer(name: str) -> None:
    """The text is whole, and the answer too; in one piece, and byte by byte."""
    wire, body, text = WHOLE_ANSWERS[name]
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        answer = ask(wire, pieces)
        assert answer.error is None
        assert answer.text == text
        for count in (answer.usage.prompt_tokens, answer.usage.completion_tokens):
            assert count is None or count in (1, 3)


FAILED: Mapping[str, tuple[str, bytes, int | None, bool]] = {
    "an empty reason and then nothing": ("openai", sse(said("Hel", finish=""), said("lo", finish="")), None, True),
    "a reason, more text, and then nothing": ("openai", sse(said("Hel", finish="stop"), said("lo")), None, True),
    "an error as the reason": ("openai", sse(said("Hello"), chat({"content": ""}, "error"), DONE), None, True),
    "an error by the event's name": ("openai", sse(said("Hello")) + sse("Internal error", name="error"), None, True),
    "an error as text": ("openai", sse(said("Hello"), {"error": "Internal error"}), None, True),
    "an error as a list": ("openai", sse(said("Hello"), {"error": [{"code": "429"}]}), 429, True),
    "an error in a list": ("openai", sse(said("Hello"), [{"error": {"code": 503}}]), 503, True),
    "an error with a code as text": ("openai", sse(said("Hello"), {"error": {"code": "400"}}), 400, False),
    "an error with a status": ("openai", sse(said("Hello"), {"error": {"status": 403.0}}), 403, False),
    "an error as the whole event": (
        "openai",
        sse(said("Hello"), {"object": "error", "message": "no", "type": "BadRequestError", "code": 400}),
        400,
        False,
    ),
    "a detail as the whole event": ("openai", sse(said("Hello"), {"detail": "Internal"}), None, True),
    "bare JSON": ("openai", sse(said("Hello")) + b'{"error":{"code":429,\n"message":"x"}}', 429, True),
    "bare JSON and a blank line": ("openai", sse(said("Hello")) + b'{"error":{"code":400}}\n\n', 400, False),
    "an empty account": ("openai", sse(said("Hello"), {"error": {"code": "insufficient_quota"}}), 429, False),
    "Anthropic's as text": (
        "anthropic",
        messages(block({"text": "Hello"})) + sse("overloaded", name="error"),
        None,
        True,
    ),
    "Anthropic's without its type": (
        "anthropic",
        messages(block({"text": "Hello"})) + sse({"error": {"type": "overloaded_error"}}),
        529,
        True,
    ),
    "Anthropic's end, and no last word": ("anthropic", messages(block({"text": "Hello"}), STOPPED), None, True),
    "bare JSON after Anthropic's": (
        "anthropic",
        messages(block({"text": "Hello"})) + b'{"type":"error","error":{"type":"rate_limit_error"}}',
        429,
        True,
    ),
    "a response that failed": (
        "openai-responses",
        sse(
            {"type": "response.output_text.delta", "delta": "Hello"},
            {"type": "response.failed", "response": {"status": "failed", "error": "text"}},
        ),
        None,
        True,
    ),
    "an error of the Responses wire": (
        "openai-responses",
        sse({"type": "response.output_text.delta", "delta": "Hello"}, {"type": "error", "code": "429"}),
        429,
        True,
    ),
    "another wire's last word alone": (
        "openai-responses",
        sse({"type": "response.output_text.delta", "delta": "Hello"}, DONE),
        None,
        True,
    ),
    "Gemini's as a list": ("gemini", sse(gemini({"text": "Hello"})) + b'[{"error":{"code":503}}]', 503, True),
    "Gemini's as text": ("gemini", sse(gemini({"text": "Hello"}), {"error": "no"}), None, True),
    "Gemini's without a reason": ("gemini", sse(gemini({"text": "Hello"}, finishReason="")), None, True),
}


@pytest.mark.parametrize("name", FAILED)
def test_it_is_a_failure_that_keeps_the_text(name: str) -> None:
    """With the provider's own status, which says whether to ask again, and its words for the log."""
    wire, body, status, retryable = FAILED[name]
    answer = ask(wire, body)
    assert answer.text == "Hello"
    error = answer.error
    assert error is not None
    assert (error.status_code, error.retryable) == (status, retryable)
    assert "Internal" not in error.message
    assert error.detail


def piece(index: Any = 0, call_id: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    """Return a piece of a tool call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    found = {"index": index, "id": call_id, "function": function}
    return {key: value for key, value in found.items() if value is not None}


CALLS: Mapping[str, tuple[str, bytes, list[tuple[str | None, str, str]]]] = {
    "two under one number": (
        "openai",
        sse(calls(piece(0, "a", "read", '{"p":1}')), calls(piece(0, "b", "read", '{"p":2}')), CALLED, DONE),
        [("a", "read", '{"p":1}'), ("b", "read", '{"p":2}')],
    ),
    "two under one number, in pieces": (
        "openai",
        sse(
            calls(piece(0, "a", "read", '{"p"')),
            calls(piece(0, arguments=":1}")),
            calls(piece(0, "b", "read", '{"p"')),
            calls(piece(0, arguments=":2}")),
            CALLED,
        ),
        [("a", "read", '{"p":1}'), ("b", "read", '{"p":2}')],
    ),
    "an id and a name that repeat": (
        "openai",
        sse(calls(piece(0, "a", "read", '{"p"')), calls(piece(0, "a", "read", ":1}")), CALLED, DONE),
        [("a", "read", '{"p":1}')],
    ),
    "an id that comes late": (
        "openai",
        sse(calls(piece(0, None, "read", '{"p"')), calls(piece(0, "a", None, ":1}")), CALLED, DONE),
        [("a", "read", '{"p":1}')],
    ),
    "a name that comes late": (
        "openai",
        sse(calls(piece(0, "a", None, '{"p"')), calls(piece(0, None, "read", ":1}")), CALLED, DONE),
        [("a", "read", '{"p":1}')],
    ),
    "no id": ("openai", sse(calls(piece(0, None, "read", "{}")), CALLED, DONE), [(None, "read", "{}")]),
    "an id that is a number": ("openai", sse(calls(piece(0, 7, "read", "{}")), CALLED, DONE), [("7", "read", "{}")]),
    "an object as arguments": (
        "openai",
        sse(calls(piece(0, "a", "read", {"p": 1})), CALLED, DONE),
        [("a", "read", '{"p":1}')],
    ),
    "no arguments": ("openai", sse(calls(piece(0, "a", "read")), CALLED, DONE), [("a", "read", "{}")]),
    "no numbers": (
        "openai",
        sse(calls(piece(None, "a", "read", '{"p"'), piece(None, None, None, ":1}"), piece(None, "b", "read")), CALLED),
        [("a", "read", '{"p":1}'), ("b", "read", "{}")],
    ),
    "one call and no list": (
        "openai",
        sse(chat({"tool_calls": piece(0, "a", "read", "{}")}), CALLED, DONE),
        [("a", "read", "{}")],
    ),
    "the old function_call": (
        "openai",
        sse(
            chat({"function_call": {"name": "read", "arguments": '{"p"'}}),
            chat({"function_call": {"arguments": ":1}"}}),
            chat({}, "function_call"),
            DONE,
        ),
        [(None, "read", '{"p":1}')],
    ),
    "a call that is done at once": (
        "openai-responses",
        sse(
            {
                "type": "response.output_item.done",
                "item": {"type": "function_call", "call_id": "a", "name": "read", "arguments": {"p": 1}},
            },
            COMPLETED,
        ),
        [("a", "read", '{"p":1}')],
    ),
    "a call in the whole response alone": (
        "openai-responses",
        sse(
            {
                "type": "response.completed",
                "response": {"output": [{"type": "function_call", "call_id": "a", "name": "read"}]},
            }
        ),
        [("a", "read", "{}")],
    ),
    "a call that is told three times": (
        "openai-responses",
        sse(
            {
                "type": "response.output_item.added",
                "output_index": 3,
                "item": {"type": "function_call", "call_id": "a", "name": "read"},
            },
            {"type": "response.function_call_arguments.done", "output_index": 3, "arguments": '{"p":1}'},
            {
                "type": "response.completed",
                "response": {
                    "output": [{"type": "function_call", "call_id": "a", "name": "read", "arguments": '{"p":1}'}]
                },
            },
        ),
        [("a", "read", '{"p":1}')],
    ),
    "Anthropic's without its end": (
        "anthropic",
        messages(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "read"}},
            block({"partial_json": {"p": 1}}),
            STOPPED,
            MESSAGE_STOP,
        ),
        [(None, "read", '{"p":1}')],
    ),
    "Anthropic's with its input as text": (
        "anthropic",
        messages(
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "tool_use", "id": "a", "name": "read", "input": '{"p":1}'},
            },
            {"type": "content_block_stop", "index": 0},
            STOPPED,
            MESSAGE_STOP,
        ),
        [("a", "read", '{"p":1}')],
    ),
    "Gemini's with text and with nothing": (
        "gemini",
        sse(
            gemini(
                {"functionCall": {"name": "read", "args": '{"p":1}'}},
                {"functionCall": {"name": "read", "args": None}},
                finishReason="STOP",
            )
        ),
        [(None, "read", '{"p":1}'), (None, "read", "{}")],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    """Each once, with its own id or one that nobody else has, and its arguments as JSON text."""
    wire, body, expected = CALLS[name]
    found = [ask(wire, body).tools for _ in range(2)]
    for tools in found:
        assert [(call.name, call.arguments) for call in tools] == [(name, arguments) for _, name, arguments in expected]
        for call, (call_id, _, _) in zip(tools, expected, strict=True):
            assert call_id is None or call.id == call_id
    made_up = [call.id for tools in found for call, (call_id, *_) in zip(tools, expected, strict=True) if not call_id]
    assert len(set(made_up)) == len(made_up)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"Content-Type": "text/plain; charset=utf-8"}),
        (200, {"Content-Type": "application/octet-stream"}),
        (200, {"Content-Type": "application/json"}),
        (200, {}),
        (201, {"Content-Type": "text/event-stream"}),
        (206, {"Content-Type": "TEXT/EVENT-STREAM;charset=UTF-8"}),
    ],
)
def test_what_proxies_call_a_stream(wire: str, status: int, headers: Mapping[str, str]) -> None:
    """It is one all the same."""
    plain = ask(wire, fixture(wire))
    body = b"\r\n" + fixture(wire)
    answer = ask(wire, [body[:1], body[1:5], body[5:]], status=status, headers=headers)
    assert answer.error is None
    assert (answer.text, answer.usage, answer.tools) == (plain.text, plain.usage, plain.tools)


@pytest.mark.parametrize("wire", WIRES)
def test_a_body_that_is_compressed_against_our_wish(wire: str) -> None:
    """gzip, as proxies do."""
    body = gzip.compress(fixture(wire))
    headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
    answer = ask(wire, [body[:100], body[100:]], headers=headers)
    assert answer.error is None
    assert answer.text == ask(wire, fixture(wire)).text


@pytest.mark.parametrize("kind", ["text/html", "text/event-stream", "text/plain"])
def test_the_page_of_a_load_balancer(kind: str) -> None:
    """It is no answer, and nothing of it is shown."""
    answer = ask("openai", b"<html><h1>502 Bad Gateway</h1></html>", headers={"Content-Type": kind})
    assert answer.error is not None
    assert answer.error.retryable
    assert "Gateway" not in answer.error.message


@pytest.mark.parametrize(
    ("body", "status", "retryable"),
    [
        ({"error": {"code": 429, "message": "x"}}, 429, True),
        ({"error": {"code": "invalid_api_key"}}, 401, False),
        ({"error": "x"}, None, True),
        ({"detail": "x"}, None, True),
        ([{"error": {"code": 400}}], 400, False),
        ({"object": "error", "message": "x", "code": 404}, 404, False),
    ],
)
@pytest.mark.parametrize("wire", WIRES)
def test_an_error_in_one_body_with_status_200(wire: str, body: Any, status: int | None, retryable: bool) -> None:
    """Its code decides whether to ask again."""
    for kind in ("application/json", "text/event-stream"):
        answer = ask(wire, msgspec.json.encode(body), headers={"Content-Type": kind})
        assert answer.error is not None
        assert (answer.error.status_code, answer.error.retryable) == (status, retryable)


@pytest.mark.parametrize("wire", WIRES)
def test_one_body_in_place_of_a_stream_that_calls_itself_a_stream(wire: str) -> None:
    """It is read as what it is."""
    answer = ask(wire, msgspec.json.encode(WHOLE[wire]))
    assert answer.error is None
    assert (answer.text, answer.tools) == ("Yes.", [ToolCall("c", "now", "{}")])


def test_a_header_that_is_no_text() -> None:
    """The answer's id is left out, and the answer is there."""
    for value in ("x\xff", "x" * 300):
        headers = {"Content-Type": "text/event-stream", "x-request-id": value}
        answer = ask("openai", sse(said("Hello"), STOP, DONE), headers=headers)
        assert (answer.text, answer.request_id, answer.error) == ("Hello", None, None)


def test_an_early_reason_starts_no_clock() -> None:
    """After a finish reason alone a silence counts as any other. With the usage, which is the last thing there is, two
    seconds are enough for who has no last word."""

    async def test(last: bytes, idle: float) -> Answer:
        server = FakeServer(Reply(pieces=[sse(said("Hello"), STOP), last], ending="stall"))
        async with server.serving(), opened("openai", server.url) as provider:
            return await collect(provider.stream(prompt(timeouts={"idle": idle})))

    early = run(test(b": nothing\n\n", 0.2))
    assert (early.text, early.error) == ("Hello", None)
    with pytest.raises(TimeoutError):
        run(test(b": nothing\n\n", 30), seconds=4)
    usage = sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    settled = run(test(usage, 30), seconds=8)
    assert (settled.text, settled.usage, settled.error) == ("Hello", Usage(3, 1), None)


def test_halves_wait_for_their_own_kind() -> None:
    """Text and reasoning may be told in turn."""
    halves = Halves()
    found = halves.join([Text("a\ud83d"), Reasoning("b\ud83d"), Text("\ude00c"), Reasoning("\ude00")])
    assert found == [Text("a"), Reasoning("b"), Text("😀c"), Reasoning("😀")]
    assert halves.rest() == []
    assert halves.join([Text("\ud83d")]) == []
    assert halves.rest() == [Text("\ufffd")]
    assert halves.join([ToolCall("\ud83d", "ü", "{}")]) == [ToolCall("\ufffd", "ü", "{}")]


@pytest.mark.parametrize(
    ("reason", "calls_there", "finish"),
    [
        ("stop", False, "stop"),
        ("END_TURN", False, "stop"),
        ("tool-calls", False, "tool_calls"),
        ("STOP", True, "tool_calls"),
        ("max_output_tokens", False, "length"),
        ("length", True, "length"),
        ("SAFETY", False, "content_filter"),
        ("error", False, "error"),
        ("brand_new", False, "other"),
        (None, False, "other"),
    ],
)
def test_reasons_have_one_vocabulary(reason: str | None, calls_there: bool, finish: str) -> None:
    """Beside the vendor's own word."""
    assert finish_of(reason, calls=calls_there) == finish


USAGES: Mapping[str, tuple[str, bytes, Usage]] = {
    "chat completions": (
        "openai",
        sse(
            said("x"),
            chat(
                {},
                "stop",
                usage={
                    "prompt_tokens": 100,
                    "completion_tokens": 20,
                    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
                    "completion_tokens_details": {"reasoning_tokens": 5},
                },
            ),
            DONE,
        ),
        Usage(100, 20, cache_read=60, cache_write=10, reasoning=5),
    ),
    "DeepSeek": (
        "openai",
        sse(said("x"), chat({}, "stop", usage={"prompt_tokens": 100, "prompt_cache_hit_tokens": 60})),
        Usage(100, None, cache_read=60),
    ),
    "Responses": (
        "openai-responses",
        sse(
            {"type": "response.output_text.delta", "delta": "x"},
            {
                "type": "response.completed",
                "response": {
                    "status": "completed",
                    "usage": {
                        "input_tokens": 100,
                        "output_tokens": 20,
                        "input_tokens_details": {"cached_tokens": 60},
                        "output_tokens_details": {"reasoning_tokens": 5},
                    },
                },
            },
        ),
        Usage(100, 20, cache_read=60, reasoning=5),
    ),
    "Anthropic": (
        "anthropic",
        messages(
            {
                "type": "message_start",
                "message": {
                    "usage": {"input_tokens": 30, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10}
                },
            },
            block({"text": "x"}),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
            MESSAGE_STOP,
        ),
        Usage(100, 20, cache_read=60, cache_write=10),
    ),
    "Gemini": (
        "gemini",
        sse(
            {
                **gemini({"text": "x"}, finishReason="STOP"),
                "usageMetadata": {
                    "promptTokenCount": 100,
                    "candidatesTokenCount": 15,
                    "thoughtsTokenCount": 5,
                    "cachedContentTokenCount": 60,
                },
            }
        ),
        Usage(100, 20, cache_read=60, reasoning=5),
    ),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_means_the_same(name: str) -> None:
    """The whole prompt with the cached among it, the whole completion with the reasoning, whoever counts."""
    wire, body, expected = USAGES[name]

    async def test() -> Usage | None:
        server = FakeServer(Reply(pieces=[body]))
        usage = None
        async with server.serving(), opened(wire, server.url) as provider:
            async for events in provider.stream(prompt()):
                for event in events:
                    usage = event.over(usage) if isinstance(event, Usage) else usage
        return usage

    assert run(test()) == expected


def test_usage_tells_what_is_known() -> None:
    """What a message says of its tokens has the three that are always there, and of the others those that are known."""
    assert msgspec.to_builtins(Usage(source="estimate")) == {
        "prompt_tokens": None,
        "completion_tokens": None,
        "source": "estimate",
    }
    assert msgspec.to_builtins(Usage(1, 2, "provider", cache_read=0))["cache_read"] == 0
