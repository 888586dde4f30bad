"""A text that grows, with a line under it that changes: redrawn on a terminal, plain anywhere else."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Mapping
from typing import Protocol, TextIO

UP_AND_CLEAR = "\x1b[1A\r\x1b[J"
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


class Screen(Protocol):
    """Where a reply is shown."""

    def add(self, text: str, status: str) -> None:
        """Show more of the text, and the status under it."""
        ...

    def reset(self) -> None:
        """What came so far is void."""
        ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


def open_screen(out: TextIO, environment: Mapping[str, str] = os.environ) -> Screen:
    """Return the screen that suits where the output goes."""
    if out.isatty() and environment.get("TERM", "dumb") != "dumb":
        return Terminal(out)
    return Plain(out)


class Plain:
    """No control codes: the text as it comes, and the last status once at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._status = ""

    def add(self, text: str, status: str) -> None:
        """See ``Screen``."""
        self._status = status
        self._out.write(printable(text))
        self._out.flush()

    def reset(self) -> None:
        """See ``Screen``."""
        self._out.write("\n[another answer follows]\n")

    def end(self) -> None:
        """See ``Screen``."""
        self._out.write(f"\n\n{self._status}\n")
        self._out.flush()


class Terminal:
    """The last line of the text and the status are drawn again for each piece. The text is wrapped here,
    because a line that the terminal wraps would take two rows and only one would be cleared."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._line = ""  # the text's last line, not complete yet
        self._drawn = False
        self._status = ""

    def add(self, text: str, status: str) -> None:
        """See ``Screen``."""
        self._status = status
        width = shutil.get_terminal_size().columns - 1
        *complete, self._line = wrapped(self._line + printable(text), width)
        before = UP_AND_CLEAR if self._drawn else ""
        above = "".join(f"{line}\n" for line in complete)
        self._out.write(f"{before}{above}{self._line}\n{DIM}{clipped(status, width)}{PLAIN}")
        self._out.flush()
        self._drawn = True

    def reset(self) -> None:
        """See ``Screen``."""
        self.add("\n[another answer follows]\n", self._status)

    def end(self) -> None:
        """See ``Screen``."""
        self._out.write("\n")
        self._out.flush()


def printable(text: str) -> str:
    """Return the text without control characters: a reply must not steer the terminal."""
    return "".join(c for c in text.replace("\t", "    ") if c == "\n" or unicodedata.category(c) != "Cc")


def columns(text: str) -> int:
    """Return how wide a terminal shows the text."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def clipped(text: str, width: int) -> str:
    """Return as much of the text as fits."""
    while columns(text) > width:
        text = text[:-1]
    return text


def wrapped(text: str, width: int) -> list[str]:
    """Return the text's lines, none wider than ``width``, broken after a space where there is one."""
    lines: list[str] = []
    for line in text.split("\n"):
        rest = line
        while columns(rest) > width:
            fits = clipped(rest, width)
            space = fits.rfind(" ") + 1
            cut = space or max(len(fits), 1)
            lines.append(rest[:cut].rstrip(" "))
            rest = rest[cut:]
        lines.append(rest)
    return lines
