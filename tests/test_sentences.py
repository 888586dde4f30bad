"""Sentences: where they end, that nothing is lost, and that it makes no difference how the text was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tailrace.delivery.sentences import AHEAD, LONGEST, Sentences


def sentences(text: str, cuts: list[int] | None = None) -> list[str]:
    """Return a text's sentences, fed in the pieces that the cuts make of it, and what white space is left."""
    finder = Sentences()
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts or ()), len(text)]
    ends: list[int] = []
    for start, stop in pairwise(places):
        ends += finder.feed(text[start:stop])
    ends += finder.flush()
    ends += [len(text)] if ends[-1:] != [len(text)] and text else []
    return [text[start:stop] for start, stop in pairwise([0, *ends])]


@pytest.mark.parametrize(
    "expected",
    [
        # The seed's regular expression made "Pi is 3." and "14 today." of the first, four pieces of the second,
        # "Dr.", "Smith e." and "g." of the third, and found no end in the fourth.
        ["Pi is 3.14 today. ", "It was 3. ", "Now it is 4."],
        ["Wait... what? ", "Wait... ", "What? ", "Well... yes."],
        ["Dr. Smith met Mr. J. R. Jones, e.g. at 5 p.m. on Main St. in the U.S. ", "It rained."],
        ["你好。", "今天天气很好！", "他说：“好。”\n", "再见。"],  # noqa: RUF001
        ["See https://example.com/a.b?c=d. ", "Then go to example.com. ", "Done!"],
        ["(See Fig. 3.) It works. ", "Yes!? ", "No!!! ", "Maybe."],
        ['He said "Hi." ', "Then he left. ", '"Stop!" she cried.'],
        ["**It ends.** ", "_So does this._ ", "`code.` ", "Note.[1] ", "Then."],
        ["Ça va? ", "Oui. ", "¡Hola! ", "Привет. ", "Как дела? ", "नमस्ते। ", "कैसे हो।"],
        ["A line\nthat goes on. ", "And ends.\n\n", "A paragraph without a stop\n\n", "Another."],
        ["# 1. A title\n", "Its text.\n", "## Two\n", "More."],
        ["Look:\n", "1. First. ", "Still first.\n", "2. Second\n", "   - nested\n\n", "After the list."],
        ["So:\n", "```\nx = 1.\nYes! No.\n```\n", "After it. ", "Bye."],
        ["So:\n", "```py\nx = 1.0  # Dr. No. Yes.\n\ny = 2\n```\n", "After it. ", "Bye."],
        ["| a | b |\n", "|---|---|\n", "| 1. x | No. Yes. |\n\n", "> quoted. ", "Still\n> quoted.\n", "---\n", "fin"],
        ["  \n\n Hello."],
        ["Two spaces.  ", "A tab.\t", "A non-breaking one.\u00a0", "J.\u00a0R. Jones."],
        ["No end"],
        [" \n "],
    ],
    ids=lambda expected: expected[0].strip()[:16],
)
def test_sentences(expected: list[str]) -> None:
    """Whole, character by character, and in twos and threes."""
    text = "".join(expected)
    for step in (len(text), 1, 2, 3):
        assert sentences(text, list(range(0, len(text), step))) == expected


PARTS = [
    *("Dr. ", "e.g. ", "3.14", "U.S. ", "A.\u00a0B. ", "é. ", ". ", ".\n", "...", "…", "?", "!", "。", "！", "？"),  # noqa: RUF001
    *("\n", "\n\n", "\r\n", " ", "   ", "\u2028", "\u3000", "“", "”", '"', ")", "*", "`", "[1]", "[", "]"),
    *("```", "~~~\n", "- ", "1. ", "# ", "> ", "| ", "---", "The ", "wheel ", "http://a.b/c.d", "水", "🌊", "e\u0301"),
]

TEXT = st.lists(
    st.one_of(
        st.sampled_from(PARTS),
        st.text(max_size=6),
        st.sampled_from(["x" * 300, " " * 300, "word " * 90, "```\n" + "code. \n" * 60, "\n" * 200, "。" * 300]),
    ),
    max_size=40,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXT, st.lists(st.integers(0, 10_000), max_size=30))
@example("```\n" + "x " * 900 + "\n```\nThe end. Yes.", [5, 3, 900])
@example("下雨了。[1]是。[", [5])
@example("```\n" + "code. \n" * 60 + "x" * 300 + " " * 300 + "```\n" + "code. \n" * 60, [])
def test_any_text_at_any_cuts(text: str, cuts: list[int]) -> None:
    """Joined they are the text; they are the same whole, at these cuts, and character by character."""
    whole = sentences(text)
    assert "".join(whole) == text
    assert all(whole)
    assert sentences(text, cuts) == whole
    assert sentences(text, list(range(len(text)))) == whole


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_what_is_held_back_is_bounded(text: str) -> None:
    """Never more than one longest sentence and the word after it."""
    finder = Sentences()
    known = 0
    for fed, character in enumerate(text, 1):
        ends = finder.feed(character)
        assert ends == sorted(set(ends))
        known = ends[-1] if ends else known
        assert fed - known <= LONGEST + AHEAD


@settings(max_examples=200, deadline=None)
@given(TEXT, TEXT)
def test_what_follows_changes_nothing(text: str, more: str) -> None:
    """An end that was told stays one, whatever comes."""
    told = Sentences().feed(text)
    assert Sentences().feed(text + more)[: len(told)] == told


def test_an_end_is_told_with_the_next_word() -> None:
    """And not later."""
    finder = Sentences()
    assert finder.feed("It rained. ") == []
    assert finder.feed("Ye") == []
    assert finder.feed("s ") == [11]
    finder.clear()
    assert finder.feed("下雨了。是") == [4]


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("It rained.", True),
        ("It rained. ", True),
        ('"It rained."', True),
        ("下雨了。", True),
        ("- an item\n", True),
        ("It rained", False),
        ("He met Dr.", False),
        ("e.g.", False),
        ("1.", False),
        ("```\ncode.", False),
        ("", False),
        ("wrapped\n", False),
    ],
)
def test_what_looks_ended(text: str, ended: bool) -> None:
    """What may be given when nothing follows for a while; no abbreviation, no number of an item, no code."""
    finder = Sentences()
    assert finder.feed(text) == []
    assert finder.looks_ended() is ended


class Panic(BaseException):
    """As the library's Rust half raises it."""


Panic.__name__ = "PanicException"


def test_a_bug_in_the_library_ends_a_sentence_and_no_reply() -> None:
    """Its panics are not Exceptions; then every stop is an end. Anything else goes through."""

    def panics(language: str, text: str) -> list[str]:
        raise Panic

    assert Sentences(panics).feed("He met Dr. Smith again") == [11]

    def is_cancelled(language: str, text: str) -> list[str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Sentences(is_cancelled).feed("He met Dr. Smith again")


@pytest.mark.parametrize("piece", ["The wheel turned, slowly. ", "a. ", ".", " ", "x", "。", "\n", "`"])
def test_the_work_is_linear(piece: str) -> None:
    """Ten times the text asks the library at most about ten times, about windows of the same size."""

    def asked(count: int) -> int:
        from sentencex import segment  # type: ignore[import-untyped]  # it has no types

        characters = 0

        def counting(language: str, text: str) -> list[str]:
            nonlocal characters
            characters += len(text)
            found: list[str] = segment(language, text)
            return found

        finder = Sentences(counting)
        for _ in range(count):
            finder.feed(piece)
        return characters

    assert asked(5000) <= 11 * asked(500) + 1000
