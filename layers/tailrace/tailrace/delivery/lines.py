"""Markdown as far as sentences need it: what kind of line this is, and whether it ends another's sentence."""

from __future__ import annotations

import re
from typing import Final, Literal

Kind = Literal["fence", "heading", "item", "other", "quote", "row"]

# https://spec.commonmark.org/0.31.2/: thematic break, ATX heading, list marker, fenced code, block quote; and a
# table's row. The first word of a line is enough to tell, but for "* * *", which is a list here.
_KINDS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    ("fence", re.compile(r"`{3,}[^`]*|~{3,}.*")),
    ("row", re.compile(r"(?:-{3,}|\*{3,}|_{3,}|\|.*)")),
    ("heading", re.compile(r"#{1,6}")),
    ("item", re.compile(r"[-*+•]|[0-9]{1,9}[.)]")),
    ("quote", re.compile(r">.*")),
)

MARKERS: Final = "`~|-*_#+•>0123456789"
"""What a line of another kind than ``other`` begins with."""


def kind_of(word: str) -> Kind:
    """Return the kind of a line that begins with this word."""
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(word)), "other")


def parts(before: Kind, after: Kind) -> bool:
    """Return whether what a line says is over when a line of another kind follows, however it is punctuated."""
    if before == after == "quote":
        return False  # a quotation goes on
    return before in ("heading", "row") or after != "other"


def fence_of(word: str) -> str:
    """Return the marks that a code fence is opened with."""
    return re.match(r"`+|~+", word)[0]  # type: ignore[index]  # only for a word of that kind


def closes(line: str, fence: str) -> bool:
    """Return whether a line ends the code that this fence has opened."""
    line = line.strip()
    return line.startswith(fence) and not line.strip(fence[0])
