"""Where sentences end, while the text is still coming.

Whether a full stop ends a sentence is asked of `sentencex <https://github.com/wikimedia/sentencex>`_. It was chosen
of six (November 2026; import and first call, a call with 80 characters, what it adds to the layer): sentencex 3 ms,
3 µs, 3.1 MB, about 300 languages' terminators, alive, lossless; nupunkt 180 ms, 32 µs, 1.2 MB, no CJK, trims; syntok
70 ms, 360 µs, 3.9 MB, no CJK, of 2022; pysbd 90 ms, 1,000 µs, 0.7 MB, of 2021, cuts URLs; uniseg 200 ms, 14,000 µs,
knows no abbreviation; blingfire 100 MB, of 2021.

It knows whole texts only, so this asks about one place at a time, with a few characters before it and the word after
it. That word is what is waited for, and the answer depends on nothing else: so it is the same however the text was
cut into chunks, each character is looked at a bounded number of times, and nothing is held back for long. A code
block is never cut inside a line; a list's item, a heading and a table's row are sentences of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from tailrace.delivery.lines import MARKERS, Kind, closes, fence_of, kind_of, parts

LONGEST: Final = 1000
"""Characters of a sentence; a longer one is cut between words, and a longer code block between lines."""

AHEAD: Final = 24
"""Characters of the word after an end that are waited for at most."""

BACK: Final = 200
"""Characters before an end that are shown to the library at most."""

Segment = Callable[[str, str], Sequence[str]]
"""Takes a language and a text; returns its sentences, which joined are the text."""

LANGUAGE: Final = "en"
"""Whose abbreviations count; terminators are known in any script."""

# Marks of other scripts look like ASCII ones on purpose: that is what they are.
_WIDE = "。！？．｡"  # noqa: RUF001  # full-width: no space follows them
_SPACE = re.compile(r"\s")
_WORD = re.compile(r"\S")
_BREAK = re.compile(rf"[\s{_WIDE}]")
# Quotes, brackets, Markdown's emphasis and notes.
_CLOSERS = r"(?:[)\]}>\"'”’»›」』】）〉》*_`~]|\[[\w^]{1,4}\])*"  # noqa: RUF001
_STOP = re.compile(rf"[.!?…‽؟۔।॥։።။។{_WIDE}]+({_CLOSERS})$")  # noqa: RUF001
_WIDE_STOP = re.compile(rf"[.!?…{_WIDE}]+{_CLOSERS}")
# The library panics on an initial before a space that is not ASCII ("A\u00a0."), and means the same by a plain one.
_OTHER_SPACE = re.compile(r"[^\S\n]")


class Sentences:
    """Finds the ends of a text's sentences. Offsets count characters from the last ``clear``.

    Args:
        segment: the library's function; imported when None.
    """

    def __init__(self, segment: Segment | None = None) -> None:
        self._segment = segment or _sentencex()
        self.clear()

    def clear(self) -> None:
        """Begin another text."""
        self._text = ""  # from the beginning of the unfinished sentence on; all places below are places in it
        self._offset = 0
        self._begin_block()

    def _begin_block(self) -> None:
        self._place = 0  # where to look on
        self._fresh = True  # whether there a line begins of which nothing is known yet
        self._line = 0  # where the line begins
        self._kind: Kind = "other"
        self._fence: str | None = None  # what the code that this is in was opened with
        self._opened = False  # whether what opened it is the line of now, which looks as if it closed it
        self._marker = 0  # the end of the item's own number, whose full stop is none
        self._gap = 0  # the last place where it may be cut if it becomes too long

    def feed(self, text: str) -> list[int]:
        """Take more of the text; return where sentences end, as far as nothing can change that any more."""
        self._text += text
        return self._scan(last=False)

    def flush(self) -> list[int]:
        """Return the other ends: what was fed is over. What may be fed after it begins a sentence."""
        ends = self._scan(last=True)
        if self._text and not self._text.isspace():
            ends.append(self._offset + len(self._text))
            self._offset, self._text = ends[-1], ""
        self._begin_block()
        return ends

    def looks_ended(self) -> bool:
        """Return whether the text so far would end a sentence, if nothing or another sentence followed."""
        text = self._text.rstrip()
        stop = _STOP.search(text, max(len(text) - 60, 0))
        if self._fence is not None or not text:
            return False
        if self._kind in ("heading", "item", "row") and self._text.endswith("\n"):
            return True
        if stop is None or len(text) <= self._marker or kind_of(text.rpartition("\n")[2].strip()) == "item":
            return False
        # A word that says nothing of its own: neither a name nor how sentences begin.
        return self._ends_sentence(text + " Xx", stop, 0, len(text) + 1, len(text) + 3)

    # ---- looking ----

    def _scan(self, *, last: bool) -> list[int]:
        ends: list[int] = []
        begin = 0
        while (end := self._next(begin, last)) is not None:
            ends.append(self._offset + end)
            begin = self._gap = end
        self._text = self._text[begin:]
        self._offset += begin
        self._place -= begin
        self._line -= begin
        self._marker -= begin
        self._gap = max(self._gap - begin, 0)
        return ends

    def _next(self, begin: int, last: bool) -> int | None:
        """Return where the sentence that starts at ``begin`` ends, or None when that is not known yet."""
        text, size, limit = self._text, len(self._text), begin + LONGEST
        while True:
            stop = None if self._fresh else _BREAK.search(text, self._place)
            place = self._place if self._fresh else size if stop is None else stop.start()
            wide = stop is not None and text[place] in _WIDE
            after = self._after(place, wide)
            if after > limit:
                return self._cut_long(begin, limit)
            if after == size:
                # Nothing follows. Before the end there may be more of what was found.
                self._place = place
                return None
            if wide and text[after].isspace():
                self._place = after
                continue
            # A note in brackets may follow wide terminators, and a line of another kind begins with a mark of its own.
            known = text[after] != "[" if wide else self._fresh and text[after] not in MARKERS
            ahead = after + 1 if known else self._ahead(after, last)
            if ahead is None:
                self._place = place
                return None
            end = self._end_at(begin, place, after, ahead, wide)
            self._place = after
            if end is not None and text[begin:end].strip():
                return end

    def _after(self, place: int, wide: bool) -> int:
        """Return where the text goes on after white space, or after wide terminators and what closes with them."""
        if wide:
            found = _WIDE_STOP.match(self._text, place)
            assert found is not None
            return found.end()
        word = _WORD.search(self._text, place)
        return len(self._text) if word is None else word.start()

    def _ahead(self, after: int, last: bool) -> int | None:
        """Return the end of the word that begins there; None while it is not known."""
        space = _SPACE.search(self._text, after, after + AHEAD)
        if space is not None:
            return space.start()
        if len(self._text) >= after + AHEAD:
            return after + AHEAD
        return len(self._text) if last else None

    def _end_at(self, begin: int, place: int, after: int, ahead: int, wide: bool) -> int | None:
        """Return the end of a sentence between a word's end and the next one's beginning, or None."""
        text = self._text
        line = 0 if wide else text.rfind("\n", place, after) + 1  # where the next line begins
        if self._fresh:
            self._fresh = False
            line = line or place
        elif not line:
            if self._fence is not None:
                return None
            self._gap = after
            return after if self._asks(begin, after if wide else place, after, ahead) else None
        return self._new_line(begin, place, line, after, ahead)

    def _new_line(self, begin: int, place: int, line: int, after: int, ahead: int) -> int | None:
        text = self._text
        before, self._line, first = self._kind, line, self._line
        self._gap = line
        if self._fence is not None:
            opened, self._opened = self._opened, False
            # A line that was cut, since it is too long, closes nothing: how it began may be gone.
            if opened or first < begin or not closes(text[first:place], self._fence):
                return None
            self._fence = None
            before = "row"  # the code is over
        word = text[after:ahead]
        kind = self._kind = kind_of(word)
        if kind == "fence":
            self._fence = fence_of(word)
            self._opened = True
        if kind == "item":
            self._marker = ahead
        blank = text.count("\n", place, after) > 1
        if blank or parts(before, kind) or self._asks(begin, place, after, ahead):
            return line
        return None

    def _asks(self, begin: int, place: int, after: int, ahead: int) -> bool:
        """Ask whether a sentence ends with the word that ends at ``place``."""
        stop = _STOP.search(self._text, max(begin, place - 40), place)
        if stop is None or place <= self._marker or self._kind in ("heading", "row"):
            return False
        return self._ends_sentence(self._text, stop, begin, after, ahead)

    def _ends_sentence(self, text: str, stop: re.Match[str], begin: int, after: int, ahead: int) -> bool:
        start = max(begin, after - BACK)
        seen = start
        try:
            for sentence in self._segment(LANGUAGE, _OTHER_SPACE.sub(" ", text[start:ahead])):
                seen += len(sentence)
                if seen > stop.start():
                    return seen <= after
        except BaseException as error:
            # A Rust panic, and not an Exception. A bug over there must not end a reply here: then a stop is an end.
            if type(error).__name__ != "PanicException":
                raise
        return True

    def _cut_long(self, begin: int, limit: int) -> int:
        end = self._gap if self._gap > begin + LONGEST // 2 else limit
        self._place = end
        self._fresh = False
        return end


def _sentencex() -> Segment:
    # Imported when sentences are asked for: nobody else pays for it.
    from sentencex import segment  # type: ignore[import-untyped]  # it has no types

    function: Segment = segment
    return function
