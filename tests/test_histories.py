"""The checker of histories finds nothing in correct ones and everything that is planted."""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import Cut, Entry, Final, History, Kind, Nothing, Shown, Snapshot, Terminal, ahead, check

# seq 1 and 9 are usage, which the wire does not show; 5 is a reset.
LOG = [Shown(2, "wrong "), Shown(3, "🌊"), Shown(4, ""), Shown(5, None), *(Shown(n, f"水{n} ") for n in (6, 7, 8))]
CONTENT = "水6 水7 水8 "
DONE = Terminal(seq=10, status="completed", content=CONTENT)
COMPLETED = Final(seq=10, status="completed", content=CONTENT, log=LOG)
ERROR = {"type": "interrupted", "message": "The reply was interrupted."}
FAILED = Terminal(seq=10, error=ERROR)
INTERRUPTED = Final(seq=10, status="interrupted", content=CONTENT, error=ERROR, log=LOG)


def readers(end: Entry) -> list[History]:
    """One correct reader of each kind."""
    final = COMPLETED if end == DONE else INTERRUPTED
    return [
        History("whole", "starting", seen=[*LOG, end]),
        History("cut", "starting", seen=[*LOG[:4], Cut(), Cut(), *LOG[4:], end]),
        History("late", "resumed", after=4, seen=[*LOG[3:], end]),
        History("at the end", "resumed", after=10, seen=[], left=True),
        History("poll", "polling", after=3, seen=[*LOG[2:5], *LOG[5:], end]),
        History("gone", "polling", seen=[*LOG[:3], Cut()], left=True),
        History(
            "snapshots",
            "snapshots",
            seen=[
                Snapshot(seq=0, status="pending", content=""),
                Snapshot(seq=1, status="streaming", content=""),
                Snapshot(seq=3, status="streaming", content="wrong 🌊"),
                Snapshot(seq=6, status="streaming", content="水6 "),
                Snapshot(seq=10, status=final.status, content=CONTENT, error=final.error),
            ],
        ),
    ]


@pytest.mark.parametrize(("final", "end"), [(COMPLETED, DONE), (INTERRUPTED, FAILED)])
def test_correct_histories_pass(final: Final, end: Entry) -> None:
    """All kinds of readers, whole, cut and resumed, of a reply that completed and of one that did not."""
    assert check(readers(end), final) == []


def test_the_starting_connection_may_be_ahead() -> None:
    """What was not flushed when the server died is allowed, until the cut, and is counted."""
    lost = [Shown(10, "lost "), Shown(11, "too")]
    histories = [
        History("told at once", "starting", seen=[*LOG, *lost, FAILED]),
        History("cut, then told", "starting", seen=[*LOG, *lost, Cut(), FAILED]),
        History("cut and gone", "starting", seen=[*LOG, *lost, Cut()], left=True),
    ]
    assert check(histories, INTERRUPTED) == []
    assert [ahead(history, INTERRUPTED) for history in histories] == [2, 2, 2]
    assert ahead(readers(FAILED)[1], INTERRUPTED) == 0


def test_a_reply_that_goes_on() -> None:
    """While there is no end nobody must have one, and nobody is missed at it."""
    so_far = Final(seq=8, status="streaming", content=CONTENT, log=LOG)
    assert check([History("a", "starting", seen=[*LOG, Shown(9, "more")]), History("b", "resumed")], so_far) == []
    assert check([History("a", "resumed", seen=[*LOG, DONE])], so_far)[0].endswith("and the reply goes on")
    assert check([History("a", "resumed", seen=[*LOG, Shown(9, "more")])], so_far) == [
        "a (resumed): seq 9 is not in the log"
    ]


def one(*seen: Entry, kind: Kind = "resumed", after: int = 0, left: bool = False) -> History:
    """A reader that something is wrong with."""
    return History("bad", kind, after, list(seen), left)


PLANTED: dict[str, tuple[History, str]] = {
    "a gap": (one(*LOG[:2], *LOG[3:], DONE), "gap: seq [4] between 3 and 5"),
    "a gap before the end": (one(*LOG[:-1], DONE), "gap: seq [8] between 7 and 10"),
    "a gap after the cursor": (one(*LOG[3:], DONE, after=3), "gap: seq [4] between 3 and 5"),
    "a gap at a cut": (one(*LOG[:3], Cut(), *LOG[4:], DONE), "gap: seq [5] between 4 and 6"),
    "a lost reset": (one(*LOG[:3], *LOG[4:], DONE), "gap: seq [5] between 4 and 6"),
    "a double": (one(*LOG[:3], *LOG[2:], DONE), "double: seq 4 after 4"),
    "a double at a cut": (one(*LOG[:4], Cut(), *LOG[2:], DONE), "double: seq 4 after 5"),
    "what the reader had": (one(*LOG[1:], DONE, after=3), "double: seq 3 after 3"),
    "an older event": (one(*LOG[:2], LOG[0], *LOG[2:], DONE), "double: seq 2 after 3"),
    "another text": (one(*LOG[:-1], Shown(8, "火"), DONE), "seq 8 is '火', stored is '水8 '"),
    "text in place of a reset": (one(*LOG[:3], Shown(5, ""), *LOG[4:], DONE), "seq 5 is '', stored is None"),
    "an invented event": (one(*LOG, Shown(9, "x"), DONE), "seq 9 is not in the log"),
    "a log reader that is ahead": (one(*LOG, Shown(10, "x"), Cut(), FAILED), "seq 10 is not in the log"),
    "ahead again after a cut": (
        one(*LOG, Cut(), Shown(10, "x"), FAILED, kind="starting"),
        "seq 10 is not in the log",
    ),
    "ahead of a whole reply": (
        one(*LOG, Shown(10, "x"), DONE, kind="starting"),
        "it was ahead of the log of a reply that completed",
    ),
    "ahead and not told": (
        one(*LOG, Shown(10, "x"), kind="starting", left=True),
        "it is ahead of the log, and nothing tells it so",
    ),
    "two terminal events": (one(*LOG, DONE, DONE), "two terminal events"),
    "two kinds of end": (one(*LOG, DONE, FAILED), "two terminal events"),
    "text after the end": (one(*LOG[:-1], DONE, LOG[-1]), "after the terminal event"),
    "a cut after the end": (one(*LOG, DONE, Cut()), "after the terminal event"),
    "no end": (one(*LOG), "it has no end"),
    "no end after a cut": (one(*LOG, Cut()), "it has no end"),
    "sent away without the end": (one(*LOG, Nothing(), left=True), "it was told that it has the terminal event"),
    "another content": (
        one(*LOG, Terminal(seq=10, status="completed", content=CONTENT + " ")),
        "its end has the content '水6 水7 水8  '",
    ),
    "another status": (
        one(*LOG, Terminal(seq=10, status="failed", content=CONTENT)),
        "its end has the status 'failed', stored is 'completed'",
    ),
    "another error": (one(*LOG, Terminal(seq=10, error={"type": "timeout"})), "its end has the error {'type'"),
    "the end at another place": (one(*LOG, Terminal(seq=9)), "its end has the seq 9, stored is 10"),
    "a snapshot with other text": (
        one(Snapshot(seq=6, status="streaming", content="水"), left=True),
        "a snapshot at seq 6 has other content than the log",
    ),
    "a snapshot that is ahead": (
        one(Snapshot(seq=12, status="streaming", content=CONTENT), left=True),
        "a snapshot at seq 12 has other content",
    ),
    "a snapshot that goes back": (
        one(*(Snapshot(seq=n, status="streaming", content="水6 ") for n in (6, 5)), left=True),
        "a snapshot at seq 5 after one at 6",
    ),
    "a snapshot that waits with text": (
        one(Snapshot(seq=6, status="pending", content="水6 "), left=True),
        "a snapshot at seq 6 says pending",
    ),
    "an end that was taken back": (
        one(
            Snapshot(seq=10, status="completed", content=CONTENT),
            Snapshot(seq=10, status="cancelled", content=CONTENT),
        ),
        "after the terminal event",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(name: str) -> None:
    """Among correct readers, the one that saw something wrong is named, and what it was."""
    bad, says = PLANTED[name]
    end, final = (FAILED, INTERRUPTED) if FAILED in bad.seen and DONE not in bad.seen else (DONE, COMPLETED)
    found = check([*readers(end), bad], final)
    assert any(says in what for what in found), found
    assert all("bad" in what for what in found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"content": CONTENT[:-1]}, "the content is not the log's text"),
        ({"log": [*LOG[:2], *LOG[3:]]}, "seq 4 is not in the log"),
        ({"log": [LOG[1], LOG[0], *LOG[2:]]}, "the log is not in order"),
        ({"status": "failed"}, "its end has the status 'completed', stored is 'failed'"),
        ({"wrong": ["segment 3 begins with seq 8, not 7"]}, "segment 3 begins with seq 8"),
    ],
)
def test_what_is_wrong_in_the_table_is_found(change: dict[str, object], says: str) -> None:
    """The stored log and message are no more trusted than the readers."""
    found = check(readers(DONE), msgspec.structs.replace(COMPLETED, **change))
    assert any(says in what for what in found), found


def test_readers_that_disagree_are_named() -> None:
    """Two readers with different text at one seq, whatever is stored."""
    log = [Shown(1, "a")]
    histories = [History("one", "starting", seen=[Shown(1, "a"), Shown(2, "b")], left=True)]
    histories.append(History("other", "resumed", seen=[Shown(1, "a"), Shown(2, "c")], left=True))
    assert "other and one disagree about seq 2" in check(
        histories, Final(seq=1, status="streaming", content="a", log=log)
    )


EDITS: dict[str, Callable[[list[Entry], int], object]] = {
    "drop": lambda seen, at: seen.pop(at),
    "double": lambda seen, at: seen.insert(at, seen[at]),
    "change": lambda seen, at: seen.__setitem__(at, _changed(seen[at])),
    "swap": lambda seen, at: seen.insert(at + 1, seen.pop(at)),
}


def _changed(entry: Entry) -> Entry:
    if isinstance(entry, Shown):
        return Shown(entry.seq, (entry.text or "") + "x")
    assert isinstance(entry, Terminal)
    return Terminal(seq=entry.seq, status=entry.status, content=(entry.content or "") + "x")


@given(
    st.sampled_from(sorted(EDITS)),
    st.integers(0, len(LOG)),
    st.sampled_from([(COMPLETED, DONE), (INTERRUPTED, FAILED)]),
)
def test_any_one_change_to_a_history_is_found(edit: str, at: int, reply: tuple[Final, Entry]) -> None:
    """Whatever entry of a whole history is dropped, doubled, changed or moved."""
    final, end = reply
    history = copy.deepcopy(readers(end)[0])
    if edit == "swap" and at == len(LOG):
        return
    EDITS[edit](history.seen, at)
    assert check([history], final) != []
