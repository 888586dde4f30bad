"""The demo, and how it shows a text that grows."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest

from local.child import ROOT
from local.screen import Plain, Terminal, open_screen, wrapped

DEADLINE = 90.0


def run_demo(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local.demo"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_the_demo() -> None:
    """It streams a reply, says how it went, reads the same back, resumes another, and leaves nothing running."""
    done = run_demo()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("Once upon a time") for line in lines)
    (progress,) = (line for line in lines if "characters/s" in line)
    assert re.fullmatch(r"\d+ chunks · \d+ characters · \d+ characters/s · first chunk after \d+ ms", progress)
    assert any(line.startswith("Read back from DynamoDB: the same ") for line in lines)
    facts = dict(line.split(None, 1) for line in lines if line.startswith("  "))
    assert facts["status"] == "completed"
    assert facts["stream_chunks"] == progress.split()[0]
    (cut,) = (line for line in lines if line.startswith("A second reply, cut "))
    assert re.search(r"resumed with Last-Event-ID: \S+:\d+$", cut)
    joined = re.fullmatch(
        r"The (\d+) characters before the cut and the (\d+) after it are what is stored, byte for byte\.",
        lines[lines.index(cut) + 1],
    )
    assert joined is not None
    assert all(int(count) > 0 for count in joined.groups())
    assert lines[-1].startswith("The demo took ")


def test_a_demo_that_fails() -> None:
    """A reply that fails is said in one sentence, and the exit code is 1."""
    done = run_demo(TAILRACE_MODEL="break")
    assert done.returncode == 1
    assert done.stderr == "\nThe demo failed: The reply ended with an error: The provider ended its answer early.\n"


def rendered(output: str) -> list[str]:
    """Return what a terminal shows: it understands what ``Terminal`` uses, and nothing else."""
    rows, row = [""], 0
    for piece in re.findall(r"\x1b\[[0-9]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", output):
        if piece == "\n":
            row += 1
            if row == len(rows):
                rows.append("")
        elif piece == "\x1b[1A":
            row -= 1
        elif piece == "\x1b[J":
            del rows[row + 1 :]
            rows[row] = ""
        elif piece not in ("\r", "\x1b[2m", "\x1b[0m"):
            assert "\x1b" not in piece
            rows[row] += piece
    return rows


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 20 columns."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "10")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_terminal_shows_the_text_and_one_line_of_progress(size: int) -> None:
    """However the text is cut, the screen ends with all of it, wrapped, and the last status only."""
    text = "Once upon a time 水在石头之间继续流动 there\n\nwas averyveryverylongwordindeed."
    out = io.StringIO()
    screen = Terminal(out)
    for start in range(0, len(text), size):
        screen.add(text[start : start + size], f"status {start} which is too long for a line")
    screen.end()
    *shown, status, below = rendered(out.getvalue())
    assert "".join(shown).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert "" in shown
    assert status.startswith("status ")
    assert len(status) == 19
    assert below == ""


def test_lines_are_broken_after_a_space_by_columns_not_characters() -> None:
    """A Chinese character takes two columns; a word that does not fit is cut."""
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("水在石头", 5) == ["水在", "石头"]
    assert wrapped("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrapped("", 4) == [""]


def test_a_reply_cannot_steer_the_terminal() -> None:
    """Control characters are not written."""
    out = io.StringIO()
    screen = open_screen(out)
    assert isinstance(screen, Plain)
    screen.add("a\x1b[2Jb\x07\x9bc\n", "one")
    screen.reset()
    screen.add("d", "two")
    screen.end()
    assert out.getvalue() == "a[2Jbc\n\n[another answer follows]\nd\n\ntwo\n"
