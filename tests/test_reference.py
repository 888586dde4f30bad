"""docs/reference.md is what the docstrings say now, of everything that is public."""

from __future__ import annotations

import re

import pytest
import tailrace

from tests import reference


def test_it_is_current() -> None:
    """After a change of a signature or a docstring it is made anew."""
    assert reference.PAGE.read_text() == reference.page(), "run make reference"


def test_every_public_name_is_in_it() -> None:
    """All that the package exports, each once."""
    names = [name for chapter in reference.CHAPTERS.values() for name in chapter]
    assert len(names) == len(set(names))
    assert {f"tailrace.{name}" for name in tailrace.__all__} <= set(names)


def test_every_error_is_in_it() -> None:
    """Also those that are not exported: docstrings name them under Raises."""
    from tailrace.errors import TailraceError

    def family(root: type[TailraceError]) -> set[str]:
        return {root.__name__}.union(*map(family, root.__subclasses__()))

    ours = {name for name in family(TailraceError) if hasattr(__import__("tailrace.errors").errors, name)}
    assert {name.rpartition(".")[2] for name in reference.CHAPTERS["Errors"]} == ours


def test_what_is_raised_is_explained() -> None:
    """Every error that a docstring names is one of those."""
    page = reference.PAGE.read_text()
    raised = re.findall(r"\*\*Raises[^\n]*\*\*\n\n((?:- [^\n]+\n)+)", page)
    named = {name for items in raised for line in re.findall(r"- `([\w, ]+)`", items) for name in line.split(", ")}
    assert named
    assert named <= {name.rpartition(".")[2] for name in reference.CHAPTERS["Errors"]}


def test_no_name_without_a_docstring() -> None:
    """It cannot be made of a name that says nothing."""

    def silent() -> None: ...

    with pytest.raises(ValueError, match=r"silent has no docstring$"):
        reference.prose(silent)


def test_how_a_docstring_is_shown() -> None:
    """Sections are lists, and what is broken in the source is whole."""

    def spoken() -> None:
        """Say ``it``.

        Args:
            one, two: what is said,
                and more of it.

        Raises (now and then):
            ValueError: no.
        """

    assert reference.prose(spoken) == (
        "Say `it`.\n\n**Args**\n\n- `one, two`: what is said, and more of it.\n\n"
        "**Raises (now and then)**\n\n- `ValueError`: no.\n"
    )
