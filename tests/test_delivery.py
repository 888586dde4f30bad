"""Deliveries: lossless and in order at most every so often, and resumed exactly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailrace.delivery import Delivery, Paced, Part, Piece, Voided
from tailrace.delivery.sentences import AHEAD, LONGEST
from tailrace.errors import ProviderError, Unprocessable
from tailrace.events import Event, Reasoning, Reset, StepEnd, Text, ToolCall, Usage
from tailrace.testing import ManualClock

from tests.test_sentences import sentences

Found = list[Piece | Voided | Part]

CHUNK = st.one_of(
    st.sampled_from(
        [
            "Dr. ",
            "Smith. ",
            "It ",
            "rains. ",
            "Yes!",
            "\n\n",
            "- a\n",
            "。",
            "水。",
            "3",
            ".",
            "14",
            " ",
            "```\n",
            "e\u0301",
        ]
    ),
    st.text(min_size=1, max_size=4),
)
EVENT: st.SearchStrategy[Event] = st.one_of(
    CHUNK.map(Text),
    CHUNK.map(Text),
    CHUNK.map(Text),
    st.just(Reasoning("hm")),
    st.just(Usage(1, 2)),
    st.just(ToolCall("1", "look", "{}")),
    st.just(StepEnd()),
    st.just(Reset()),
)
STEP = st.tuples(st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.3, 2.0]), st.lists(EVENT, min_size=1, max_size=4))
STEPS = st.lists(STEP, max_size=25)
DELIVERY = st.builds(
    Delivery,
    st.sampled_from(["chunk", "sentence"]),
    st.sampled_from([None, 50, 200]),
    st.just(False),
    st.booleans(),
)


def entries(steps: Sequence[tuple[float, Sequence[Event]]]) -> list[Event]:
    """Return a log of these steps."""
    return [event for _, events in steps for event in events]


def shown(log: Sequence[Event]) -> list[list[str]]:
    """Return the chunks of a log, a list for each answer that a reset begins."""
    answers: list[list[str]] = [[]]
    for event in log:
        if isinstance(event, Reset):
            answers.append([])
        elif isinstance(event, Text):
            answers[-1].append(event.text)
    return answers


def answers_of(found: Found) -> list[list[Piece]]:
    """Return the pieces, a list for each answer."""
    answers: list[list[Piece]] = [[]]
    for piece in found:
        if isinstance(piece, Voided):
            answers.append([])
        elif isinstance(piece, Piece):
            answers[-1].append(piece)
    return answers


def delivered(
    delivery: Delivery, steps: Sequence[tuple[float, Sequence[Event]]], *, after: int = 0, taken: int = 0
) -> list[tuple[float, Piece | Voided | Part]]:
    """Deliver a reply at the steps' moments; return what came, and when."""

    async def run() -> list[tuple[float, Piece | Voided | Part]]:
        clock = ManualClock()
        found: list[tuple[float, Piece | Voided | Part]] = []
        paced = Paced(
            delivery.open(after=after, taken=taken),
            lambda pieces: found.extend((clock.monotonic(), piece) for piece in pieces),
            clock=clock,
        )
        seq = 1
        for wait, events in steps:
            await clock.advance(wait)
            paced.feed(seq, events)
            seq += len(events)
        await clock.advance(5.0)
        found.append((clock.monotonic(), Voided(0)))  # a mark: what comes now waited for the end
        paced.flush()
        return found

    return asyncio.run(run())


@settings(max_examples=300, deadline=None)
@given(DELIVERY, STEPS)
def test_any_reply_at_any_time(delivery: Delivery, steps: list[tuple[float, list[Event]]]) -> None:
    """All of the last answer is delivered, in order; of one that was voided a beginning; ids are right."""
    log = entries(steps)
    found = [piece for _, piece in delivered(delivery, steps) if piece != Voided(0)]
    answers = answers_of(found)
    chunks = shown(log)
    assert len(answers) == len(chunks)
    for number, (pieces, texts) in enumerate(zip(answers, chunks, strict=True)):
        got, whole = "".join(map(str, pieces)), "".join(texts)
        assert whole.startswith(got)
        assert all(map(str, pieces))
        assert number < len(answers) - 1 or got == whole
    seqs = [(piece.seq, piece.taken or 10**9 if isinstance(piece, Piece) else 0) for piece in found]
    assert seqs == sorted(set(seqs))
    for pieces in answers:
        text = ""
        for piece in pieces:
            text += piece.text
            assert text == text_up_to(log, piece.seq, piece.taken)
            assert piece.characters == len(text)


def text_up_to(log: Sequence[Event], seq: int, taken: int) -> str:
    """Return the text of a reader whose cursor this is."""
    last = log[seq - 1]
    assert isinstance(last, Text)
    assert taken < len(last.text)
    before = "".join(shown(log[: seq - 1])[-1])
    return before + (last.text[:taken] if taken else last.text)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([None, 50]), STEPS, st.data())
def test_a_reader_that_resumes(
    interval: int | None, steps: list[tuple[float, list[Event]]], data: st.DataObject
) -> None:
    """From any id it gets the rest, nothing twice; by sentence the very same pieces as without the cut."""
    log = entries(steps)
    first = [piece for _, piece in delivered(Delivery("sentence", interval), steps) if piece != Voided(0)]
    if not first:
        return
    place = data.draw(st.integers(0, len(first) - 1))
    last = first[place]
    taken = last.taken if isinstance(last, Piece) else 0
    again = [
        piece
        for _, piece in delivered(Delivery("sentence"), [(0.0, log)], after=last.seq, taken=taken)
        if piece != Voided(0)
    ]
    if interval is None:
        assert again == first[place + 1 :]
    before = answers_of(first[: place + 1])[-1]
    rest = answers_of(again)
    assert "".join(map(str, rest[-1] if len(rest) > 1 else before + rest[0])) == "".join(shown(log)[-1])
    for piece in again:
        if isinstance(piece, Piece):  # the sentences have the same numbers as without a cut
            whole = [p for p in (q for _, q in delivered(Delivery("sentence"), [(0.0, log)])) if isinstance(p, Piece)]
            assert (piece.seq, piece.taken, piece.sentences) in {(p.seq, p.taken, p.sentences) for p in whole}


@settings(max_examples=200, deadline=None)
@given(st.lists(CHUNK, max_size=60))
def test_sentences_are_the_text_s_however_it_came(chunks: list[str]) -> None:
    """By sentence, pieces are the sentences of the whole text, numbered from 1; what is held back is bounded."""
    pieces = Delivery("sentence").open()
    found: Found = []
    waiting = 0
    for seq, chunk in enumerate(chunks, 1):
        came = pieces.feed(seq, [Text(chunk)], 0.0)
        found += came
        waiting += len(chunk) - sum(len(str(piece)) for piece in came)
        assert waiting <= LONGEST + AHEAD
        assert pieces.due is None
    found += pieces.flush()
    assert [str(piece) for piece in found] == sentences("".join(chunks))
    assert [piece.sentences for piece in found if isinstance(piece, Piece)] == list(range(1, len(found) + 1))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["chunk", "sentence"]), st.sampled_from([50, 200]), STEPS)
def test_the_interval_is_kept(by: str, interval: int, steps: list[tuple[float, list[Event]]]) -> None:
    """Two pieces are never closer, but for the end's; and what may be delivered waits no longer."""
    delivery = Delivery("sentence" if by == "sentence" else "chunk", interval)
    found = delivered(delivery, steps)
    mark = found.index(next(entry for entry in found if entry[1] == Voided(0)))
    times = [at for at, piece in found[:mark] if isinstance(piece, Piece)]
    assert all(later - sooner >= interval / 1000 - 1e-9 for sooner, later in pairwise(times))
    if by == "chunk":
        assert found[mark + 1 :] == []  # all was delivered before the end, by the clock alone
    log = entries(steps)
    now = 0.0
    came = [0.0]  # by seq
    for wait, events in steps:
        now += wait
        came += [now] * len(events)
    if by == "chunk" and not any(isinstance(event, Reset) for event in log):
        for at, piece in found[:mark]:
            assert isinstance(piece, Piece)
            oldest = came[piece.seq - count_back(log, piece)]
            assert at - oldest <= interval / 1000 + 1e-9


def count_back(log: Sequence[Event], piece: Piece) -> int:
    """Return how many entries before its last one a joined piece begins."""
    left = len(piece.text)
    for back, entry in enumerate(reversed(log[: piece.seq])):
        if isinstance(entry, Text):
            left -= len(entry.text)
            if left <= 0:
                return back
    raise AssertionError("the piece is longer than the log")


# ---- one by one ----------------------------------------------------------------------------------------


def test_a_pause_flushes_what_waits() -> None:
    """The seed's recipe left the last words waiting until more came."""
    found = delivered(Delivery(interval_ms=100), [(0.0, [Text("a")]), (0.02, [Text("b")]), (0.02, [Text("c")])])
    assert [(at, str(piece)) for at, piece in found[:2] if isinstance(piece, Piece)] == [(0.0, "a"), (0.1, "bc")]


def test_a_pause_gives_what_looks_like_a_sentence() -> None:
    """One that ended waits for no next word, with an interval; an abbreviation is none, and half a sentence neither."""
    found = delivered(
        Delivery("sentence", 100),
        [
            (0.0, [Text("It rained.")]),
            (0.5, [Text(" He met Dr.")]),
            (0.5, [Text(" Smith in")]),
            (0.5, [Text(" town. ")]),
        ],
    )
    assert [(at, p.text, p.sentences) for at, p in found if isinstance(p, Piece)] == [
        (0.1, "It rained.", 1),
        (1.6, " He met Dr. Smith in town. ", 2),
    ]


def test_what_looked_like_a_sentence_and_was_none_keeps_its_number() -> None:
    """So the numbers are the same for a reader that was not there at the time."""
    found = delivered(Delivery("sentence", 100), [(0.0, [Text("Pi is 3.")]), (0.5, [Text("14 today. Yes. ")])])
    assert [(p.text, p.sentences) for _, p in found if isinstance(p, Piece)] == [
        ("Pi is 3.", 1),
        ("14 today. ", 1),
        ("Yes. ", 2),
    ]


def test_several_sentences_in_an_interval_are_one_piece() -> None:
    """With the number of the last of them, and the id where it ends."""
    chunks = [Text("One. "), Text("Two. Thr"), Text("ee. Four. Fi")]
    found = delivered(Delivery("sentence", 100), [(0.0, [Text("Zero. On")]), *((0.01, [chunk]) for chunk in chunks)])
    pieces = [(p.text, p.sentences, p.seq, p.taken) for _, p in found if isinstance(p, Piece)]
    assert pieces == [
        ("Zero. ", 1, 1, 6),
        ("OnOne. Two. Three. ", 4, 4, 4),
        ("Four. Fi", 6, 4, 0),
    ]


def test_a_tool_call_ends_a_sentence() -> None:
    """What the model says before it calls a tool does not wait for the tool."""
    found = delivered(Delivery("sentence"), [(0.0, [Text("Let me look"), ToolCall("1", "f", "{}"), Text("It is so")])])
    assert [str(piece) for _, piece in found if isinstance(piece, Piece)] == ["Let me look", "It is so"]


@pytest.mark.parametrize("delivery", [Delivery("sentence"), Delivery("sentence", 100), Delivery("chunk", 100)])
def test_a_reset_voids_what_waits(delivery: Delivery) -> None:
    """It is not delivered any more; what comes after is counted anew."""
    found = delivered(delivery, [(0.0, [Text("One. Tw")]), (0.01, [Text("o wai")]), (0.01, [Reset(), Text("Other. ")])])
    assert "wai" not in "".join(str(piece) for _, piece in found if isinstance(piece, Piece))
    (reset,) = [number for number, (_, piece) in enumerate(found) if piece == Voided(3)]
    after = [p for _, p in found[reset + 1 :] if isinstance(p, Piece)]
    assert [(p.text, p.chunks, p.characters) for p in after] == [("Other. ", 1, 7)]
    assert after[0].sentences in (0, 1)


def test_nothing_fills_the_memory() -> None:
    """What waits for a long interval is delivered when it has become too much."""
    found = delivered(Delivery(interval_ms=60_000), [(0.0, [Text("a")]), *((0.0, [Text("x" * 1000)]),) * 100])
    assert [len(str(piece)) for _, piece in found if isinstance(piece, Piece)] == [1, 65_000, 35_000]


@pytest.mark.parametrize("interval", [0, 9, 60_001, -5])
def test_an_interval_that_cannot_be(interval: int) -> None:
    """It is refused with a sentence."""
    with pytest.raises(Unprocessable, match=r"^delivery\.interval_ms must be 10 to 60000\.$"):
        Delivery(interval_ms=interval).check()


# ---- over a source of the user's own -----------------------------------------------------------------


async def source(
    clock: ManualClock, steps: Sequence[tuple[float, str]], error: Exception | None = None
) -> AsyncIterator[str]:
    """Yield texts, each after a while, then fail if there is an error."""
    for wait, text in steps:
        await clock.sleep(wait)
        yield text
    if error is not None:
        raise error


async def collect(
    pieces: AsyncIterator[Piece | Voided | Part], clock: ManualClock, got: list[tuple[float, str]]
) -> None:
    """Note what comes, and when."""
    async for piece in pieces:
        got.append((clock.monotonic(), str(piece)))  # noqa: PERF401  # as it comes, so that a failure leaves the rest


@pytest.mark.anyio
async def test_pieces_of_a_source() -> None:
    """Sentences as they end, the rest at the end; with an interval by the clock alone."""
    clock = ManualClock()
    got: list[tuple[float, str]] = []
    steps = [(0.1, "One. And "), (0.1, "two."), (3.0, " Three. Fo"), (0.1, "ur")]
    task = asyncio.create_task(collect(Delivery("sentence", 500).pieces(source(clock, steps), clock=clock), clock, got))
    await clock.advance(10.0)
    await task
    assert got == [(0.1, "One. "), (0.7, "And two."), (3.3, " Three. Four")]


@pytest.mark.anyio
async def test_a_source_that_fails() -> None:
    """What waits is delivered first, then its error is raised."""
    clock = ManualClock()
    got: list[tuple[float, str]] = []
    error = ProviderError("No.", provider="scripted")
    pieces = Delivery("sentence").pieces(source(clock, [(0.1, "One. Tw")], error), clock=clock)
    task = asyncio.create_task(collect(pieces, clock, got))
    await clock.advance(1.0)
    with pytest.raises(ProviderError, match=r"^No\.$"):
        await task
    assert [text for _, text in got] == ["One. ", "Tw"]


@pytest.mark.anyio
async def test_whoever_stops_iterating_stops_the_source() -> None:
    """No task is left, and the source was closed."""
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "One. "
        finally:
            closed.set()

    count = len(asyncio.all_tasks())
    pieces = Delivery("sentence", 100).pieces(endless())
    assert str(await anext(pieces)).startswith("One. ")
    await pieces.aclose()
    assert closed.is_set()
    assert len(asyncio.all_tasks()) == count


def test_a_source_s_interval_that_cannot_be() -> None:
    """It is refused before anything is read."""
    with pytest.raises(Unprocessable, match=r"interval_ms"):
        Delivery(interval_ms=1).pieces(source(ManualClock(), []))
