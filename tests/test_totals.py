"""What a reply's events come to: the same for its writer and for whoever has its log alone, on every ending."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import ProviderError
from tailrace.events import (
    TERMINAL,
    Attempt,
    Citation,
    Event,
    Message,
    Reasoning,
    Reset,
    ResponseInfo,
    SourceEvent,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    Usage,
)
from tailrace.reply.ending import COMPLETED, TIMED_OUT, Ending, failed, outcome
from tailrace.reply.totals import Totals, tokens_in, totals_of
from tailrace.store import Outcome

FELL_BACK = Attempt("a", "a-1", "api_error", 529, "b", "b-1", detail="private words")


def of(*events: Event) -> Totals:
    """Return what the log says."""
    return totals_of(events, started=0, first_at=1_000_000, now=2_000_000)


def ended(totals: Totals, ending: Ending = COMPLETED, prompt: int | None = None) -> Outcome:
    """Return what the end writes."""
    private = {} if prompt is None else {"prompt_tokens_estimate": prompt}
    return outcome(ending, totals, given={}, private=private, model="a-1", completed=0)


def test_a_reset_voids_everything_that_was_said() -> None:
    """Text, calls, results, citations and counts; who was asked in vain stays."""
    said: list[Event] = [Text("x"), ToolCall("1", "n", "{}"), ToolResult("2", "n", "1"), Citation("u"), Usage(7, 8)]
    totals = of(*said, Reset(), FELL_BACK, Text("y"))
    assert (totals.content, totals.usage, totals.written) == ("y", None, 1)
    assert (totals.tool_calls, totals.tool_results, totals.citations) == ([], [], [])
    assert totals.attempts == [FELL_BACK]


def test_who_answered() -> None:
    """The last one that was asked; what it says of its model is nearer to the truth."""
    end = ended(of(FELL_BACK, Text("y")))
    assert (end.provider, end.model, end.metadata["model"]) == ("b", "b-1", "b-1")
    end = ended(msgspec.structs.replace(of(FELL_BACK, Text("y")), info=ResponseInfo(model="b-1-2026")))
    assert (end.provider, end.model) == ("b", "b-1-2026")
    assert ended(of(Text("y"))).provider is None
    whole = msgspec.structs.replace(FELL_BACK, streamed=False)
    assert ended(of(whole, Text("y"))).metadata["streamed"] is False


def test_the_provider_s_words_stay_private() -> None:
    """Of an attempt as of the end."""
    end = ended(of(FELL_BACK), failed(ProviderError("It failed.", provider="b", detail="other words")))
    assert "words" not in repr((end.metadata, end.error))
    assert end.private == {"error_detail": "other words", "attempt_details": ["private words"]}


REFUSED = failed(ProviderError("no", provider="p", status_code=401))


@pytest.mark.parametrize(
    ("events", "ending", "usage"),
    [
        ([Usage(3, 9), Text("word")], COMPLETED, Usage(3, 9, "provider")),
        ([Usage(None, 0)], COMPLETED, Usage(None, 0, "provider")),
        ([Usage(3), Text("words words")], COMPLETED, Usage(3, 3, "estimate")),
        ([Text("words words")], TIMED_OUT, Usage(100, 3, "estimate")),
        ([Text("水水水水")], TIMED_OUT, Usage(100, 3, "estimate")),
        ([Reasoning("words words"), ToolCall("1", "n", '{"a":1}')], TIMED_OUT, Usage(100, 4, "estimate")),
        ([], TIMED_OUT, Usage(100, 0, "estimate")),
        ([], REFUSED, Usage(None, 0, "estimate")),
        ([Text("half")], REFUSED, Usage(100, 1, "estimate")),
    ],
)
def test_usage(events: Sequence[Event], ending: Ending, usage: Usage) -> None:
    """The provider's count of what it wrote, else an estimate; a prompt that was refused was not read."""
    assert ended(of(*events), ending, prompt=100).usage == usage
    assert tokens_in(1) == 1


def test_what_does_not_fit() -> None:
    """The message's item holds 400 KB: what is long is left out, the least needed first, and the message says so."""
    result, quote, call = (
        ToolResult("1", "n", "x" * 90_000),
        Citation("u", quote="x" * 90_000),
        ToolCall("2", "n", "{}"),
    )
    extras = ended(of(result, quote, call)).metadata
    assert extras["only_in_log"] == ["tool_results.result"]
    assert extras["tool_results"] == [{"id": "1", "name": "n"}]
    assert extras["citations"][0]["quote"]
    extras = ended(of(result, quote, quote, *[ToolCall("2", "n", "x" * 90_000)] * 2)).metadata
    assert extras["only_in_log"] == ["tool_results.result", "citations.quote", "tool_calls.arguments"]
    extras = ended(of(*[Citation("https://example.com/" + "x" * 1000)] * 200)).metadata
    assert extras["only_in_log"] == ["tool_calls", "tool_results", "citations"]


pieces = st.text(min_size=1, max_size=5)
counts = st.none() | st.integers(0, 99)
kinds: st.SearchStrategy[SourceEvent] = st.one_of(
    st.builds(Text, pieces),
    st.builds(Reasoning, pieces),
    st.builds(ToolCallStart, pieces, pieces),
    st.builds(ToolCallDelta, pieces, pieces),
    st.builds(ToolCall, pieces, pieces, pieces),
    st.builds(ToolResult, pieces, pieces, pieces),
    st.builds(Citation, st.none() | pieces),
    st.builds(Usage, counts, counts),
    st.just(FELL_BACK),
    st.just(Reset()),
)


@given(st.lists(kinds, max_size=12))
def test_the_writer_and_the_log_agree(events: list[SourceEvent]) -> None:
    """Of whatever events: content, counts, usage, and all that goes into the metadata."""
    from tailrace.settings import Settings
    from tailrace.store import Store

    from tests.memory_calls import MemoryCalls

    async def both() -> tuple[Message, Outcome]:
        backend = Backend(Settings(table="t"), store=Store(MemoryCalls(), "t"))
        stream = await (await Conversation.create(backend=backend)).stream_response("hi", model="a-1")
        for event in events:
            await stream.append(event)
        message = await stream.complete()
        log = [event async for segment in backend.store.log.read(stream.id) for event in segment.events]
        await backend.close()
        return message, ended(of(*log[:-1]))

    message, end = asyncio.run(both())
    assert (message.content, message.seq, message.usage) == (end.content, end.seq, end.usage)
    for key in ("stream_chunks", "tool_calls", "tool_results", "citations", "attempts", "streamed", "prompt_tokens"):
        assert message.metadata.get(key) == end.metadata.get(key)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["complete", "fail", "cancel", "close", "sweep", "timed out"])
@pytest.mark.parametrize("chunks", [[], ["half a word"]])
async def test_usage_is_on_every_ending(backend: Backend, how: str, chunks: list[str]) -> None:
    """Whoever ends it, and whether anything came; the estimate of the prompt was left by the start."""
    stream = await (await Conversation.create(backend=backend)).stream_response("hi", prompt_tokens=5)
    for chunk in chunks:
        await stream.append(chunk)
    match how:
        case "complete":
            await stream.complete()
        case "fail":
            await stream.fail("no")
        case "cancel":
            await stream.cancel()
        case "timed out":
            await stream.end(TIMED_OUT)
        case "close":
            await backend.open_replies.cancel(stream.id)
        case "sweep":
            backend.open_replies._lease = 0
            await backend.open_replies.sweep()
    message = await backend.store.messages.get(stream.id)
    await stream.complete()
    assert message.status in TERMINAL
    assert message.usage is not None
    assert message.usage.source == "estimate"
    assert message.usage.completion_tokens is not None
    if how != "fail" or chunks:
        assert message.usage.prompt_tokens == 5
    assert "prompt_tokens_estimate" not in message.metadata


@pytest.mark.anyio
async def test_a_call_that_no_item_can_hold(backend: Backend) -> None:
    """The reply fails rather than being stuck; a result of that size is left out of the log."""
    stream = await (await Conversation.create(backend=backend)).stream_response("hi", provider="p")
    await stream.append(ToolResult("1", "search", "x" * 400_000))
    with pytest.raises(ProviderError, match=r"^The provider wrote a tool call that is too long\.$") as caught:
        await stream.append(ToolCall("2", "n", "x" * 400_000))
    message = await stream.fail(caught.value)
    assert (message.status, message.metadata["provider"]) == ("failed", "p")
    assert message.metadata["tool_results"] == [{"id": "1", "name": "search", "result": '{"omitted":"too long"}'}]
