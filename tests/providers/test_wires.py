"""Each wire's reading of its bytes, without a socket, at every cut."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from tailrace.errors import ContentFiltered, ProviderError
from tailrace.events import (
    Citation,
    ProviderEvent,
    Reasoning,
    ResponseInfo,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Usage,
)
from tailrace.protocols.sse import ServerSentEvent, SSEDecoder
from tailrace.providers.anthropic_parser import MessagesParser
from tailrace.providers.gemini_parser import GeminiParser
from tailrace.providers.http import Parser
from tailrace.providers.openai_parser import ChatParser
from tailrace.providers.responses_parser import ResponsesParser

from .helpers import WIRES, Answer, cuts, fixture
from .whole_answers import WHOLE

PARSERS: dict[str, Callable[[], Parser]] = {
    "anthropic": lambda: MessagesParser("req_1"),
    "gemini": GeminiParser,
    "openai": lambda: ChatParser("req_1"),
    "openai-responses": lambda: ResponsesParser("req_1"),
}

FINISHED = {"anthropic": "tool_use", "gemini": "stop", "openai": "tool_calls", "openai-responses": "completed"}
STREAMED = ['{"river": "Po', ' 河", ', '"m": 3}']
ARGUMENTS = {"anthropic": STREAMED, "openai": ["{}", *STREAMED[:2]], "openai-responses": STREAMED}
"""The first pieces of tool calls' arguments: the chat wire's calls are written at the same time."""

STORY = 'Once upon a time, 很久以前，\n\né🐟👩‍👩‍👧 "quoted" \\ and\ttabs'  # noqa: RUF001  # Chinese


def parser_of(wire: str) -> Parser:
    """A new parser of that wire."""
    return PARSERS[wire]()


def read(wire: str, pieces: list[bytes]) -> tuple[list[ProviderEvent], Parser, Exception | None]:
    """The events, and the exception that came after them."""
    decoder, parser = SSEDecoder(), parser_of(wire)
    events: list[ProviderEvent] = []
    try:
        for piece in pieces:
            parser.feed(decoder.feed(piece), events)
            if parser.done:
                break
        else:
            parser.end(decoder.rest, events)
    except (ProviderError, ValueError) as error:
        return events, parser, error
    return events, parser, None


def chat(**fields: object) -> bytes:
    """One event that is a JSON object."""
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def answer_of(events: list[ProviderEvent]) -> Answer:
    """The events as one answer."""
    answer = Answer()
    answer.add(events)
    return answer


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("wire", WIRES)
def test_a_whole_answer(wire: str, line_end: bytes) -> None:
    """Text, reasoning, tool calls, usage, model and finish reason, with pings and unknown events in between."""
    stream = fixture(wire).replace(b"\n", line_end)
    unknown = b'event: news\ndata: {"type":"news","delta":{"hm":1},"choices":[]}\n\n'.replace(b"\n", line_end)
    comments = stream.replace(line_end * 2, line_end * 2 + b": ping" + line_end * 2)
    for pieces in [*cuts(stream), *cuts(b"\xef\xbb\xbf" + unknown + stream), *cuts(comments)]:
        events, parser, error = read(wire, pieces)
        answer = answer_of(events)
        assert error is None
        assert parser.whole
        assert parser.done == (wire != "gemini")  # which has no last word
        assert answer.text == STORY
        assert answer.reasoning == "Where does 水 go? 🌊"
        assert answer.tools == [
            ToolCall(tool_id, name, arguments)
            for tool_id, name, arguments in (
                ("toolu_01" if wire == "anthropic" else "call_1", "measure", '{"river": "Po 河", "m": 3}'),
                ("toolu_02" if wire == "anthropic" else "call_2", "now", "{}"),
            )
        ]
        assert [event.arguments for event in events if isinstance(event, ToolCallDelta)][:3] == [
            *([] if wire == "gemini" else ARGUMENTS[wire])
        ]
        # Anthropic counts what came from its cache apart; here it is among the prompt's.
        assert answer.usage == Usage(32 if wire == "anthropic" else 25, 89)
        assert answer.finish_reason == FINISHED[wire]
        assert answer.request_id == ("Il0taoSYJ5Cez7" if wire == "gemini" else "req_1")
        assert sum(isinstance(event, Text) for event in events) == 5  # a chunk is passed on as it was sent


@pytest.mark.parametrize("wire", WIRES)
def test_every_prefix_is_told_from_the_whole(wire: str) -> None:
    """A body cut anywhere before the provider said so is not whole, and its text is a prefix of the whole one's."""
    stream = fixture(wire)
    end = {
        "anthropic": b"event: message_stop",
        "gemini": b'"finishReason": "STOP"',
        "openai": b'"finish_reason": "tool',
        "openai-responses": b"event: response.completed",
    }[wire]
    for at in range(stream.index(end)):
        events, parser, error = read(wire, [stream[:at]])
        assert error is None
        assert not parser.whole
        assert STORY.startswith("".join(event.text for event in events if isinstance(event, Text)))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "garbage", [b"data: {\n\n", b'data: {"type":"response.output_text.delta","choices":[{"delta":{"content":"x\n\n']
)
def test_garbage_in_the_middle(wire: str, garbage: bytes) -> None:
    """What came before the garbage is kept, at every cut, and the garbage is an error."""
    for pieces in cuts(fixture(f"{wire}_half") + garbage + fixture(wire)):
        events, parser, error = read(wire, pieces)
        assert isinstance(error, ValueError)
        assert [event.text for event in events if isinstance(event, Text)] == ["Half 水"]
        assert not parser.whole


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "odd",
    [
        b"data: hello\n\n",
        b"data: 7\n\n",
        b"data: null\n\n",
        b"data: []\n\n",
        b"data: {}\n\n",
        b"data:\n\n",
        b'data: {"type":"response.output_text.delta","delta":7,"choices":7,"candidates":7}\n\n',
        b'data: {"type":"content_block_delta","delta":[],"choices":[7],"candidates":{"content":{"parts":7}}}\n\n',
    ],
)
def test_what_is_odd_costs_nothing_else(wire: str, odd: bytes) -> None:
    """Before, in the middle and after: the answer is what it is without it."""
    stream = fixture(wire)
    first, rest = stream.split(b"\n\n", 1)
    plain, _, _ = read(wire, [stream])
    for pieces in cuts(odd + first + b"\n\n" + odd + rest):
        events, parser, error = read(wire, pieces)
        assert error is None
        assert parser.whole
        assert answer_of(events) == answer_of(plain)


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


SEARCHED = "A tailrace carries water away."
WEB = Citation(url="https://mills.example/a", title="Mills 水")


@pytest.mark.parametrize(
    ("wire", "citations", "results"),
    [
        (
            "anthropic",
            [
                Citation("https://mills.example/a", "Mills 水", "A tailrace is"),
                Citation(None, "mills.pdf", "channel"),
            ],
            [
                ToolResult(
                    "srvtoolu_1",
                    "web_search",
                    '[{"type":"web_search_result","url":"https://mills.example/a","title":"Mills 水","page_age":null}]',
                )
            ],
        ),
        (
            "gemini",
            [WEB, Citation("gs://b/mills.pdf", "mills.pdf", "A tailrace is"), Citation("https://other.example/")],
            [
                ToolResult(
                    "ci_1",
                    "code_execution",
                    '{"language":"PYTHON","code":"2+2","outcome":"OUTCOME_OK","output":"4"}',
                )
            ],
        ),
        ("openai", [WEB], []),
        (
            "openai-responses",
            [WEB, Citation(title="mills.pdf")],
            [
                ToolResult(
                    "ws_1",
                    "web_search",
                    '{"action":{"type":"search","query":"mill race","queries":["mill race"],'
                    '"sources":[{"type":"url","url":"https://mills.example/a"}]}}',
                ),
                ToolResult("ci_1", "code_interpreter", '{"code":"2+2","outputs":[{"type":"logs","logs":"4"}]}'),
            ],
        ),
    ],
)
def test_what_the_provider_looked_up(wire: str, citations: list[Citation], results: list[ToolResult]) -> None:
    """Citations, and the results of tools that the provider itself ran, at every cut; its calls are none of ours."""
    for pieces in cuts(fixture(f"{wire}_search")):
        events, parser, error = read(wire, pieces)
        answer = answer_of(events)
        assert error is None
        assert parser.whole
        assert answer.text == SEARCHED
        assert (answer.citations, answer.results, answer.tools) == (citations, results, [])
        assert answer.usage == Usage(25, 89)


def anthropic_stop(reason: str) -> bytes:
    """The end of an answer, with the usage."""
    delta = {"stop_reason": reason, "stop_details": {"type": "refusal", "category": "bio"}}
    return chat(type="message_delta", delta=delta, usage={"output_tokens": 9}) + chat(type="message_stop")


def responses_stop(kind: str, **fields: object) -> bytes:
    """The end of an answer, with the usage."""
    usage = {"input_tokens": 3, "output_tokens": 9}
    return chat(type=f"response.{kind}", response={"status": kind, "usage": usage, **fields})


def gemini_stop(reason: str) -> bytes:
    """The end of an answer, with the usage."""
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 9}
    return chat(candidates=[{"finishReason": reason, "finishMessage": "Secret"}], usageMetadata=usage)


CHAT_USAGE = chat(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 9})


@pytest.mark.parametrize(
    ("wire", "stop", "reason", "text"),
    [
        ("anthropic", anthropic_stop("refusal"), "refusal", ""),
        (
            "openai",
            chat(choices=[{"delta": {}, "finish_reason": "content_filter"}]) + CHAT_USAGE + b"data: [DONE]\n\n",
            "content_filter",
            "",
        ),
        # A compatible server without [DONE], and a refusal by the model.
        ("openai", chat(choices=[{"finish_reason": "content_filter"}]) + CHAT_USAGE, "content_filter", ""),
        (
            "openai",
            chat(choices=[{"delta": {"refusal": " No."}, "finish_reason": "stop"}]) + CHAT_USAGE + b"data: [DONE]\n\n",
            "stop",
            " No.",
        ),
        (
            "openai-responses",
            responses_stop("incomplete", incomplete_details={"reason": "content_filter"}),
            "content_filter",
            "",
        ),
        (
            "openai-responses",
            chat(type="response.refusal.delta", delta=" No.") + responses_stop("completed"),
            "completed",
            " No.",
        ),
        *[
            ("gemini", gemini_stop(reason), reason.lower(), "")
            for reason in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY")
        ],
    ],
)
def test_a_content_filter(wire: str, stop: bytes, reason: str, text: str) -> None:
    """What came before it is kept, and so are the reason and the usage; it is not worth another try."""
    for pieces in cuts(fixture(f"{wire}_half") + stop):
        events, _, error = read(wire, pieces)
        answer = answer_of(events)
        assert isinstance(error, ContentFiltered)
        assert error.message == "The provider's content filter stopped the answer."
        assert (error.provider, error.retryable) == (wire, False)
        assert (answer.text, answer.finish_reason, answer.usage.completion_tokens) == ("Half 水" + text, reason, 9)


def test_a_prompt_that_gemini_blocks() -> None:
    """Before any text, in an event of its own."""
    blocked = chat(promptFeedback={"blockReason": "PROHIBITED_CONTENT"}, usageMetadata={"promptTokenCount": 3})
    events, _, error = read("gemini", [blocked])
    assert isinstance(error, ContentFiltered)
    assert answer_of(events).finish_reason == "prohibited_content"


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"])
def test_a_malformed_answer_of_gemini(reason: str) -> None:
    """It says itself that this answer is not to be used; another may."""
    _, parser, error = read("gemini", [fixture("gemini_half"), gemini_stop(reason)])
    assert type(error) is ProviderError
    assert (error.message, error.retryable) == ("The model's answer was malformed.", True)
    assert not parser.whole


@pytest.mark.parametrize(
    ("wire", "stop", "reason"),
    [
        ("anthropic", anthropic_stop("max_tokens"), "max_tokens"),
        ("gemini", gemini_stop("MAX_TOKENS"), "max_tokens"),
        ("openai", chat(choices=[{"finish_reason": "length"}]) + b"data: [DONE]\n\n", "length"),
        (
            "openai-responses",
            responses_stop("incomplete", incomplete_details={"reason": "max_output_tokens"}),
            "max_output_tokens",
        ),
    ],
)
def test_a_limit_that_was_reached(wire: str, stop: bytes, reason: str) -> None:
    """The answer is whole, as far as was asked for, and the reason is the provider's word in lower case."""
    events, parser, error = read(wire, [fixture(f"{wire}_half"), stop])
    assert error is None
    assert parser.whole
    assert answer_of(events).finish_reason == reason


@pytest.mark.parametrize(
    ("event", "status", "retryable"),
    [
        ({"type": "error", "code": "server_error", "message": "Secret"}, 500, True),
        ({"type": "error", "error": {"type": "rate_limit_exceeded", "message": "Secret"}}, 429, True),
        ({"type": "error", "error": {"code": "insufficient_quota", "message": "Secret"}}, 429, False),
        ({"type": "error", "code": None, "message": "Secret"}, None, True),
        ({"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}}, 500, True),
        ({"type": "response.failed", "response": {"status": "failed", "error": {"code": "invalid_image"}}}, 400, False),
    ],
)
def test_a_responses_error_in_the_middle(event: dict[str, object], status: int | None, retryable: bool) -> None:
    """As an event of its own, in both shapes that are seen, or as the response's state."""
    for pieces in cuts(fixture("openai-responses_half") + chat(**event)):
        events, _, error = read("openai-responses", pieces)
        assert isinstance(error, ProviderError)
        assert (error.status_code, error.retryable) == (status, retryable)
        assert "Secret" not in error.message
        assert answer_of(events).text == "Half 水"


def test_a_responses_policy_is_a_filter() -> None:
    """The vendor's policies are told as errors."""
    failed = {"status": "failed", "error": {"code": "bio_policy", "message": "Secret"}}
    _, _, error = read("openai-responses", [chat(type="response.failed", response=failed)])
    assert isinstance(error, ContentFiltered)


@pytest.mark.parametrize("before", ["half", "finished"])
@pytest.mark.parametrize("form", ["event", "plain"])
def test_a_gemini_error_in_the_middle(before: str, form: str) -> None:
    """As an event, or as plain JSON in place of one; even after a reason for the end."""
    error = msgspec.json.encode({"error": {"code": 503, "message": "Secret", "status": "UNAVAILABLE"}})
    stream = fixture("gemini_half") + (gemini_stop("STOP") if before == "finished" else b"")
    stream += b"data: " + error + b"\n\n" if form == "event" else msgspec.json.format(error, indent=2) + b"\n"
    for pieces in cuts(stream):
        events, _, failure = read("gemini", pieces)
        assert isinstance(failure, ProviderError)
        assert (failure.status_code, failure.retryable) == (503, True)
        assert answer_of(events).text == "Half 水"


def test_gemini_calls_without_ids() -> None:
    """They get one that is made up, so that each result finds its call."""
    part = {"functionCall": {"name": "now"}}
    candidate = {"content": {"parts": [part, part]}, "finishReason": "STOP"}
    events, _, _ = read("gemini", [chat(responseId="r1", candidates=[candidate])])
    assert [(call.name, call.arguments) for call in answer_of(events).tools] == [("now", "{}"), ("now", "{}")]
    assert len({call.id for call in answer_of(events).tools}) == 2


def test_chat_calls_without_ids() -> None:
    """They get ids that no other answer of the conversation has: vendors refuse a history in which two are the same."""
    calls = [{"index": number, "function": {"name": "now", "arguments": "{}"}} for number in (0, 1)]
    events, _, _ = read(
        "openai", [chat(id="c1", choices=[{"delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}])]
    )
    assert [(call.name, call.arguments) for call in answer_of(events).tools] == [("now", "{}"), ("now", "{}")]
    again, _, _ = read(
        "openai", [chat(id="c1", choices=[{"delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}])]
    )
    assert len({call.id for call in [*answer_of(events).tools, *answer_of(again).tools]}) == 4


def test_mistrals_pieces() -> None:
    """Its content may be a list, with the reasoning among it."""
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "closed": True},
        {"type": "text", "text": "Yes."},
        {"type": "reference", "reference_ids": [1]},
        "odd",
    ]
    events, _, error = read("openai", [chat(choices=[{"delta": {"content": content}, "finish_reason": "stop"}])])
    assert error is None
    assert [event for event in events if isinstance(event, Text | Reasoning)] == [Reasoning("Hm."), Text("Yes.")]


def test_summaries_of_reasoning_are_kept_apart() -> None:
    """Responses tells several; between two of them lies a blank line."""
    pieces = [
        chat(type="response.reasoning_summary_part.added", summary_index=number)
        + chat(type="response.reasoning_summary_text.delta", delta=text)
        for number, text in enumerate(["One.", "Two."])
    ]
    events, _, _ = read("openai-responses", pieces)
    assert answer_of(events).reasoning == "One.\n\nTwo."


@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_in_one_body(wire: str) -> None:
    """What was not streamed gives the same events."""
    parser, events = parser_of(wire), list[ProviderEvent]()
    parser.read(msgspec.json.encode(WHOLE[wire]), events)
    assert parser.whole
    answer = answer_of(events)
    assert answer == Answer(
        text="Yes.",
        reasoning="Hm.",
        tools=[ToolCall("c", "now", "{}")],
        citations=[Citation(title="T")],
        usage=Usage(3, 9),
        model="m",
        finish_reason=FINISHED[wire],
        request_id="req_1",
    )


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("body", [b"", b"7", b"{", b'{"output":[7],"choices":7,"content":7,"candidates":7}'])
def test_one_body_that_is_no_answer(wire: str, body: bytes) -> None:
    """It is an error, or not whole."""
    parser = parser_of(wire)
    with suppress(ValueError):
        parser.read(body, [])
    assert not parser.whole
