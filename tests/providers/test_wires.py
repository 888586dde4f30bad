"""Each wire's reading of its bytes, without a socket, at every cut."""

from __future__ import annotations

import msgspec
import pytest
from tailrace.errors import ProviderError
from tailrace.events import ProviderEvent, ResponseInfo, Text, ToolCall, Usage
from tailrace.providers.anthropic import MessagesParser
from tailrace.providers.http import Parser
from tailrace.providers.openai import ChatParser
from tailrace.sse import ServerSentEvent, SSEDecoder

from .helpers import WIRES, Answer, cuts, fixture

STORY = 'Once upon a time, 很久以前，\n\né🐟👩‍👩‍👧 "quoted" \\ and\ttabs'  # noqa: RUF001  # Chinese


def parser_of(wire: str) -> Parser:
    """A new parser of that wire."""
    return MessagesParser("req_1") if wire == "anthropic" else ChatParser("req_1")


def read(wire: str, pieces: list[bytes]) -> tuple[list[ProviderEvent], Parser, Exception | None]:
    """The events, and the exception that came after them."""
    decoder, parser = SSEDecoder(), parser_of(wire)
    events: list[ProviderEvent] = []
    try:
        for piece in pieces:
            parser.feed(decoder.feed(piece), events)
            if parser.done:
                break
    except (ProviderError, ValueError) as error:
        return events, parser, error
    return events, parser, None


def chat(**fields: object) -> bytes:
    """One event of the chat completions wire."""
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("wire", WIRES)
def test_a_whole_answer(wire: str, line_end: bytes) -> None:
    """Text, reasoning, tool calls, usage, model and finish reason, with pings and unknown events in between."""
    stream = fixture(wire).replace(b"\n", line_end)
    unknown = b'event: news\ndata: {"type":"news","delta":{"hm":1},"choices":[]}\n\n'.replace(b"\n", line_end)
    for pieces in [*cuts(stream), *cuts(b"\xef\xbb\xbf" + unknown + stream)]:
        events, parser, error = read(wire, pieces)
        answer = Answer()
        answer.add(events)
        assert error is None
        assert parser.whole
        assert parser.done
        assert answer.text == STORY
        assert answer.reasoning == "Where does 水 go? 🌊"
        assert answer.tools == [
            ToolCall(tool_id, name, arguments)
            for tool_id, name, arguments in (
                ("toolu_01" if wire == "anthropic" else "call_1", "measure", '{"river": "Po 河", "m": 3}'),
                ("toolu_02" if wire == "anthropic" else "call_2", "now", "{}"),
            )
        ]
        assert answer.usage == Usage(25, 89)
        assert answer.finish_reason == ("tool_use" if wire == "anthropic" else "tool_calls")
        assert answer.request_id == "req_1"
        assert sum(isinstance(event, Text) for event in events) == 5  # a chunk is passed on as it was sent


@pytest.mark.parametrize("wire", WIRES)
def test_every_prefix_is_told_from_the_whole(wire: str) -> None:
    """A body cut anywhere before the provider said so is not whole, and its text is a prefix of the whole one's."""
    stream = fixture(wire)
    end = stream.index(b"event: message_stop") if wire == "anthropic" else stream.index(b'"finish_reason": "tool')
    for at in range(end):
        events, parser, error = read(wire, [stream[:at]])
        assert error is None
        assert not parser.whole
        assert STORY.startswith("".join(event.text for event in events if isinstance(event, Text)))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {\n\n",
        b"data: hello\n\n",
        b"data: 7\n\n",
        b'data: {"model":"\xff"}\n\n',
        b'data: {"delta":7,"choices":7}\n\n',
    ],
)
def test_garbage_in_the_middle(wire: str, garbage: bytes) -> None:
    """What came before the garbage is kept, at every cut, and the garbage is an error."""
    if wire == "anthropic":
        garbage = garbage.replace(b'"model":"\xff"', b'"type":"\xff"')
    for pieces in cuts(fixture(f"{wire}_half") + garbage + fixture(wire)):
        events, parser, error = read(wire, pieces)
        assert isinstance(error, ValueError)
        assert [event.text for event in events if isinstance(event, Text)] == ["Half 水"]
        assert not parser.whole


@pytest.mark.parametrize(
    ("kind", "status", "retryable"),
    [
        ("overloaded_error", 529, True),
        ("rate_limit_error", 429, True),
        ("api_error", 500, True),
        ("timeout_error", 504, True),
        ("invalid_request_error", 400, False),
        ("authentication_error", 401, False),
        ("brand_new_error", None, True),
    ],
)
def test_an_anthropic_error_in_the_middle(kind: str, status: int | None, retryable: bool) -> None:
    """It has the status that its type means, and what came before is kept."""
    error = b'event: error\ndata: {"type":"error","error":{"type":"%b","message":"Secret words"}}\n\n' % kind.encode()
    for pieces in cuts(fixture("anthropic_half") + error):
        events, _, failure = read("anthropic", pieces)
        assert isinstance(failure, ProviderError)
        assert (failure.status_code, failure.retryable) == (status, retryable)
        assert "Secret" not in failure.message
        assert failure.detail is not None
        assert "Secret words" in failure.detail
        assert [event.text for event in events if isinstance(event, Text)] == ["Half 水"]


@pytest.mark.parametrize(
    ("data", "status", "retryable"),
    [
        ({"message": "Secret", "type": "server_error", "code": None}, 500, True),
        ({"message": "Secret", "type": "tokens", "code": "rate_limit_exceeded"}, 429, True),
        ({"message": "Secret", "type": "insufficient_quota", "code": "insufficient_quota"}, 429, False),
        ({"message": "Secret", "code": 502}, 502, True),
        ({"message": "Secret", "type": "BadRequestError", "code": 400}, 400, False),
        ("Secret, bare", None, True),
    ],
)
def test_an_openai_error_in_the_middle(data: object, status: int | None, retryable: bool) -> None:
    """Whatever shape a compatible server gives it."""
    for pieces in cuts(fixture("openai_half") + chat(error=data)):
        events, _, failure = read("openai", pieces)
        assert isinstance(failure, ProviderError)
        assert (failure.status_code, failure.retryable) == (status, retryable)
        assert "Secret" not in failure.message
        assert [event.text for event in events if isinstance(event, Text)] == ["Half 水"]


def test_an_openai_event_named_error() -> None:
    """It is one, even if its data has no member of that name."""
    _, _, failure = read("openai", [b'event: error\ndata: {"message":"no"}\n\n'])
    assert isinstance(failure, ProviderError)


def test_a_compatible_server_without_done() -> None:
    """A finish reason makes the answer whole; usage that comes after it is still read."""
    pieces = [
        fixture("openai_half"),
        chat(choices=[{"delta": {"content": "!", "reasoning": "Hm."}, "finish_reason": "stop"}], error=None),
        chat(choices=None, usage={"prompt_tokens": 1, "completion_tokens": 2}),
    ]
    events, parser, error = read("openai", pieces)
    answer = Answer()
    answer.add(events)
    assert error is None
    assert (parser.whole, parser.done) == (True, False)
    assert (answer.text, answer.reasoning, answer.usage) == ("Half 水!", "Hm.", Usage(1, 2))


def test_tool_calls_without_numbers() -> None:
    """Some compatible servers send each call whole, without an index, and some in pieces."""
    pieces: list[dict[str, object]] = [
        {"id": "a", "function": {"name": "one", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": "b", "function": {"name": "two"}},
    ]
    stream = [chat(choices=[{"delta": {"content": "Hm", "tool_calls": [piece]}}]) for piece in pieces]
    events, _, _ = read("openai", [*stream, b"data: [DONE]\n\n"])
    assert [event for event in events if isinstance(event, ToolCall)] == [
        ToolCall("a", "one", "{}"),
        ToolCall("b", "two", "{}"),
    ]
    assert sum(isinstance(event, Text) for event in events) == 3


def test_pings_are_no_progress() -> None:
    """A read of pings alone says so, so that a provider that only pings counts as silent."""
    ping = ServerSentEvent(b'{"type":"ping"}', b"ping")
    out: list[ProviderEvent] = []
    assert MessagesParser().feed([ping, ping], out) is False
    assert MessagesParser().feed([ping, ServerSentEvent(b'{"type":"news"}')], out) is True
    assert ChatParser().feed([], out) is False
    assert out == []


def test_the_early_count_of_completion_tokens_is_not_believed() -> None:
    """message_start has an output count of 1 or so, which would be wrong for whoever is cut off after it."""
    events, _, _ = read("anthropic", [fixture("anthropic_half")])
    assert events[:2] == [ResponseInfo("claude-sonnet-4-5-20250929", None, "req_1"), Usage(prompt_tokens=3)]
