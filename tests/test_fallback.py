"""Several providers as one source: who is asked when, and that no two answers are ever glued together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest
from tailrace.errors import (
    ConnectTimeout,
    ContentFiltered,
    FirstChunkTimeout,
    InvalidOutput,
    ProviderError,
    ProviderTimeout,
    Unprocessable,
)
from tailrace.events import (
    Attempt,
    ProviderEvent,
    Reasoning,
    Reset,
    ResponseInfo,
    SourceEvent,
    Text,
    ToolCall,
    Usage,
)
from tailrace.providers import PromptMessage, ProviderRequest
from tailrace.providers.fallback import Candidate, Fallback, Mode
from tailrace.providers.options import read_options
from tailrace.providers.output_schema import Schema
from tailrace.providers.timeouts import Timeouts
from tailrace.testing import ManualClock

pytestmark = pytest.mark.anyio

Play = Sequence[Sequence[ProviderEvent] | ProviderError]
"""What a provider does when it is asked: batches of events, and an error as the last."""


class Actor:
    """A provider that plays one thing after the other.

    Attributes:
        asked: the requests, in order.
        closed: how many answers were closed or came to their end.
    """

    def __init__(self, name: str, *plays: Play, whole: Play | None = None, takes: float = 0.0) -> None:
        self.name = name
        self.plays = list(plays)
        self.whole = whole
        self.takes = takes
        self.asked: list[ProviderRequest] = []
        self.closed = 0
        self.clock: ManualClock | None = None

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``."""
        if "colour" in request.options:
            raise Unprocessable("unknown option")
        if not request.streamed and self.whole is None:
            raise Unprocessable("cannot")
        return self._play(request)

    async def _play(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        self.asked.append(request)
        play = self.plays.pop(0) if request.streamed else self.whole
        assert play is not None
        try:
            if self.clock is not None:
                await self.clock.advance(self.takes)
            for each in play:
                if isinstance(each, ProviderError):
                    raise each
                yield each
        finally:
            self.closed += 1


class Quick(ManualClock):
    """Time passes when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Be there at once."""
        self.pauses.append(seconds)
        await self.advance(seconds)


def down(status: int = 529, **more: Any) -> ProviderError:
    """An error that may pass."""
    return ProviderError("down", provider="p", status_code=status, retryable=True, **more)


def refused() -> ProviderError:
    """An error that stays."""
    return ProviderError("no", provider="p", status_code=401, detail="private words")


def broken() -> ProviderError:
    """A stream that broke."""
    return ProviderError("broke", provider="p", retryable=True, in_stream=True)


GOOD: Play = [[ResponseInfo(model="m"), Usage(7)], [Text("good")], [Usage(None, 1), ResponseInfo(finish_reason="stop")]]
INTRODUCTION: Sequence[ProviderEvent] = [ResponseInfo(model="never"), Usage(99)]


class Told:
    """What a source told, and how it ended."""

    def __init__(self, events: list[SourceEvent], error: ProviderError | None, clock: Quick) -> None:
        self.events = events
        self.error = error
        self.pauses = clock.pauses
        self.text = "".join(event.text for event in events if isinstance(event, Text))
        self.attempts = [event for event in events if isinstance(event, Attempt)]


async def tell(
    *actors: Actor,
    mode: Mode = "before_first_chunk",
    schema: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    random: float = 1.0,
) -> Told:
    """Let actors answer, and return what was told."""
    clock = Quick()
    for actor in actors:
        actor.clock = clock
    read = read_options(options or {})
    source = Fallback(
        [Candidate(actor, f"{actor.name}-model") for actor in actors],
        ProviderRequest(model=None, messages=[PromptMessage("user", "hi")], options=read.others),
        read,
        schema=None if schema is None else await Schema.read(schema),
        mode=mode,
        clock=clock,
        random=lambda: random,
    )
    events: list[SourceEvent] = []
    error = None
    try:
        async for batch in source.stream():
            assert batch
            events += batch
    except ProviderError as failure:
        error = failure
    for actor in actors:
        assert actor.closed == len(actor.asked)
    return Told(events, error, clock)


async def test_a_provider_that_answers() -> None:
    """Nobody else is asked, and nothing is added."""
    second = Actor("b")
    told = await tell(Actor("a", GOOD), second)
    assert told.events == [event for batch in GOOD if not isinstance(batch, ProviderError) for event in batch]
    assert second.asked == []


@pytest.mark.parametrize(("random", "pauses"), [(0.0, [0.25, 0.5]), (1.0, [0.5, 1.0])])
async def test_retries_with_jitter(random: float, pauses: list[float]) -> None:
    """The same provider is asked again after a pause that grows and is never twice the same for all; the attempts are
    told, what it said before it failed is not."""
    actor = Actor("a", [down()], [INTRODUCTION, down(500)], GOOD)
    told = await tell(actor, random=random)
    assert told.pauses == pauses
    assert told.attempts == [
        Attempt("a", "a-model", "api_error", 529, "a", "a-model"),
        Attempt("a", "a-model", "api_error", 500, "a", "a-model"),
    ]
    assert ResponseInfo(model="never") not in told.events
    assert (told.text, told.error) == ("good", None)


async def test_how_often() -> None:
    """Twice, unless the start says otherwise; then the last error stands."""
    actor = Actor("a", [down(500)], [down(501)], [down(502)])
    told = await tell(actor)
    assert told.error is not None
    assert told.error.status_code == 502
    actor = Actor("a", [down()])
    assert (await tell(actor, options={"retries": 0})).error is not None
    assert len(actor.asked) == 1


@pytest.mark.parametrize(
    ("asked_for", "others", "pause"), [(7.0, 0, 7.5), (59.0, 0, 59.5), (61.0, 0, None), (4.0, 1, 4.5), (7.0, 1, None)]
)
async def test_retry_after(asked_for: float, others: int, pause: float | None) -> None:
    """It is honoured, up to a minute; not so long while another provider stands by."""
    actor = Actor("a", [down(429, retry_after=asked_for)], GOOD)
    told = await tell(actor, *(Actor("b", GOOD) for _ in range(others)))
    assert told.pauses == ([] if pause is None else [pause])
    assert len(actor.asked) == (1 if pause is None else 2)
    assert (told.error is None) == (others == 1 or pause is not None)


async def test_the_total_bounds_the_retries() -> None:
    """A pause that would end after the total time is not begun, and each attempt gets what is left of it."""
    timeouts = {"total": 10.0}
    actor = Actor("a", [down(429, retry_after=9.9)], GOOD)
    assert (await tell(actor, options={"timeouts": timeouts})).error is not None
    actor = Actor("a", [down(429, retry_after=5)], GOOD, takes=1.0)
    assert (await tell(actor, options={"timeouts": timeouts})).text == "good"
    left = [msgspec.convert(request.options["timeouts"], Timeouts).total for request in actor.asked]
    assert left == [10.0, pytest.approx(3.5)]


async def test_no_time_for_another_one() -> None:
    """Who took all the time leaves none to the next provider."""
    second = Actor("b", GOOD)
    told = await tell(Actor("a", [ProviderTimeout("late", provider="a", retryable=True)]), second)
    assert told.error is not None
    assert told.error.error_type == "timeout"
    assert second.asked == []


async def test_what_does_not_pass_goes_to_the_next_at_once() -> None:
    """A wrong key is not tried again; the list is gone through in order, each with its own model."""
    first, second, third = Actor("a", [refused()]), Actor("b", [refused()]), Actor("c", GOOD)
    told = await tell(first, second, third)
    assert told.pauses == []
    assert [attempt.provider for attempt in told.attempts] == ["a", "b"]
    assert told.attempts[0] == Attempt("a", "a-model", "api_error", 401, "b", "b-model", detail="private words")
    assert third.asked[0].model == "c-model"
    assert told.text == "good"


async def test_nobody_answers() -> None:
    """The last one's error is the reply's."""
    told = await tell(Actor("a", [refused()]), Actor("b", [ContentFiltered("filtered", provider="b")]))
    assert told.error is not None
    assert told.error.error_type == "content_filter"
    assert told.text == ""


@pytest.mark.parametrize("mode", ["before_first_chunk", "reset"])
@pytest.mark.parametrize("begun", [Text("half"), Reasoning("hm"), ToolCall("1", "n", "{}")])
async def test_after_the_first_chunk(mode: Mode, begun: ProviderEvent) -> None:
    """The honest failure, or a reset and a whole new answer: never two answers glued together."""
    first = Actor("a", [INTRODUCTION, [begun], down()])
    second = Actor("b", GOOD)
    told = await tell(first, second, mode=mode)
    assert len(first.asked) == 1
    if mode == "before_first_chunk":
        assert (told.error is not None, told.events) == (True, [*INTRODUCTION, begun])
        assert second.asked == []
        return
    at = told.events.index(Reset())
    assert told.events[: at + 1] == [*INTRODUCTION, begun, Reset()]
    assert isinstance(told.events[at + 1], Attempt)
    assert "".join(event.text for event in told.events[at:] if isinstance(event, Text)) == "good"


async def test_reset_with_nobody_left() -> None:
    """There is nothing to reset for."""
    told = await tell(Actor("a", [[Text("half")], down()]), mode="reset")
    assert (told.text, told.error is not None, told.attempts) == ("half", True, [])


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (ConnectTimeout("late", provider="a", retryable=True), 2),
        (FirstChunkTimeout("late", provider="a", retryable=True), 1),
    ],
)
async def test_a_provider_that_was_waited_for_long_enough(error: ProviderError, asked: int) -> None:
    """Without a connection it is tried again; one that got the request and is silent is not, but the next one is."""
    first = Actor("a", [error], [error])
    told = await tell(first, Actor("b", GOOD), options={"retries": 1})
    assert len(first.asked) == asked
    assert told.text == "good"


async def test_the_last_resort() -> None:
    """When the last one's streaming fails, it is asked for the answer in one body, with all the time that is left."""
    first = Actor("a", [broken()], whole=GOOD)
    last = Actor("b", [broken()], whole=GOOD)
    told = await tell(first, last, options={"retries": 0, "timeouts": {"total": 50, "idle": 5}})
    assert [request.streamed for request in first.asked] == [True]
    assert [request.streamed for request in last.asked] == [True, False]
    assert told.attempts[-1] == Attempt("b", "b-model", "api_error", None, "b", "b-model", streamed=False)
    assert told.text == "good"
    assert last.asked[1].options["timeouts"]["idle"] == 50.0


async def test_no_last_resort() -> None:
    """Not for a provider that cannot, not for a refusal, not after the first chunk, and only once."""
    assert (await tell(Actor("a", [broken()]), options={"retries": 0})).error is not None
    plays: list[Play] = [[refused()], [[Text("half")], broken()]]
    for play in plays:
        actor = Actor("a", play, whole=GOOD)
        assert (await tell(actor)).error is not None
        assert len(actor.asked) == 1
    actor = Actor("a", [broken()], whole=[broken()])
    assert (await tell(actor, options={"retries": 0})).error is not None
    assert len(actor.asked) == 2


async def test_an_answer_without_a_word() -> None:
    """It is an answer, and what it says of itself is told; so is what a failed one said, when nobody else comes."""
    told = await tell(Actor("a", [[Usage(7, 0), ResponseInfo(finish_reason="stop")]]))
    assert (told.events, told.error) == ([Usage(7, 0), ResponseInfo(finish_reason="stop")], None)
    told = await tell(Actor("a", [INTRODUCTION, refused()]))
    assert told.events == [*INTRODUCTION]


async def test_closing_it_closes_the_provider() -> None:
    """As soon as whoever reads has enough."""
    actor = Actor("a", [[Text("a")], [Text("b")]])
    read = read_options({})
    request = ProviderRequest(model=None, messages=[])
    stream = Fallback(
        [Candidate(actor, None)], request, read, schema=None, mode="reset", clock=Quick(), random=lambda: 0.0
    ).stream()
    assert await anext(stream) == [Text("a")]
    assert actor.closed == 0
    await stream.aclose()
    assert actor.closed == 1


async def test_every_candidate_is_checked_first() -> None:
    """An option that only the third one does not know is refused before the first one is asked."""
    actor = Actor("a", GOOD)
    with pytest.raises(Unprocessable, match="unknown option"):
        await tell(actor, options={"colour": "red"})
    assert actor.asked == []


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (['{"n": ', "1}"], None),
        (['{"n": ', '"one"}'], "The answer does not match its schema."),
        (['{"n": 1'], "The answer is not valid JSON."),
        (["Sure! ", '{"n": 1}'], "The answer is not valid JSON."),
    ],
)
async def test_an_answer_with_a_schema(pieces: list[str], message: str | None) -> None:
    """It streams as it comes, and is checked at its end; what is wrong with it is kept to ourselves."""
    told = await tell(Actor("a", [[Text(piece)] for piece in pieces]), schema=SCHEMA)
    assert told.text == "".join(pieces)
    assert (told.error and told.error.message) == message
    if told.error is not None:
        assert isinstance(told.error, InvalidOutput)
        assert told.error.detail


async def test_a_schema_and_no_text() -> None:
    """An answer that calls a tool has none to check; one without either does not match."""
    assert (await tell(Actor("a", [[ToolCall("1", "n", "{}")]]), schema=SCHEMA)).error is None
    assert (await tell(Actor("a", [[Usage(1, 1)]]), schema=SCHEMA)).error is not None


async def test_an_answer_that_does_not_match_may_be_reset() -> None:
    """The next provider may do better."""
    told = await tell(Actor("a", [[Text("no")]]), Actor("b", [[Text('{"n":1}')]]), schema=SCHEMA, mode="reset")
    assert told.attempts[0].error_type == "invalid_output"
    assert told.error is None
