"""What JSON of a client is refused although a parser would take it: it could not be stored, or not be read again.

One linear look at the bytes, before any parser sees them: parsers recurse, turn numbers into infinity, and differ in
what they make of half a surrogate pair.
"""

from __future__ import annotations

import re
from typing import Final

from tailrace.errors import RequestError, Unprocessable

DEEPEST: Final = 64
"""Objects and arrays inside each other. What nests deeper is no chat, and encoders recurse."""

MOST_VALUES: Final = 50_000
"""Members and elements. A megabyte of JSON may be half a million of them, each an object of Python's."""

NOT_JSON: Final = "The body is not valid JSON."
NOT_UNICODE: Final = "The body has text that is not Unicode: half a surrogate pair."
TOO_DEEP: Final = f"The body nests deeper than {DEEPEST} objects and arrays."
TOO_MANY: Final = f"The body has more than {MOST_VALUES} values."
NO_NUMBER: Final = "The body has a number that cannot be kept: NaN, infinite, or beyond 64 bits."

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, also one that never ends: so each byte is looked at once."""

_UNUSUAL: Final = re.compile(rb"NaN|Infinity|\d[eE]|\d{18}")

# Compiled when a body first needs them, as hardly any does.
_ESCAPE: Final = rb"(?s)\\(?:u([0-9a-fA-F]{4})|.)"
_BRACKET: Final = rb"[\[{\]}]"
_NUMBER: Final = rb"-?\d[\d.]*+(?:[eE][+-]?\d++)?"
_LONGEST_NUMBER: Final = 400
"""Bytes; the longest numbers that mean something have about 340."""


def check_json(text: bytes, *, is_kept: bool = True) -> None:
    """Pass if the text may be given to a parser, and if all that it says can be kept. It may still be no JSON.

    Args:
        is_kept: whether what it says will be stored; otherwise its numbers may be any.

    Raises:
        RequestError: no JSON has such bytes.
        Unprocessable: text that is not Unicode, too deep a nesting, too many values, or a number that cannot be kept.
    """
    if b"\0" in text:  # JSON has none, and UTF-16, which one of the parsers would take, is full of them
        raise RequestError(NOT_JSON)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise RequestError(NOT_JSON) from error
    if b"\\u" in text and _has_half_a_pair(text):
        raise Unprocessable(NOT_UNICODE)
    bare = _STRING.sub(b"", text) if b'"' in text else text
    if bare.count(b"[") + bare.count(b"{") > DEEPEST and _depth(bare) > DEEPEST:
        raise Unprocessable(TOO_DEEP)
    if bare.count(b",") >= MOST_VALUES:
        raise Unprocessable(TOO_MANY)
    if is_kept and _UNUSUAL.search(bare) is not None and not _can_be_kept(bare):
        raise Unprocessable(NO_NUMBER)


def _has_half_a_pair(text: bytes) -> bool:
    """Whether an escape names one half of a surrogate pair and the other half does not stand beside it."""
    expected = -1  # where the second half has to begin
    for escape in re.finditer(_ESCAPE, text):
        unit = int(escape[1], 16) if escape[1] else 0
        is_second = 0xDC00 <= unit <= 0xDFFF
        if is_second != (escape.start() == expected):
            return True
        if expected >= 0 and not is_second:
            return True
        expected = escape.end() if 0xD800 <= unit <= 0xDBFF else -1
    return expected >= 0


def _depth(bare: bytes) -> int:
    depth = deepest = 0
    for bracket in re.finditer(_BRACKET, bare):
        depth += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _can_be_kept(bare: bytes) -> bool:
    if b"NaN" in bare or b"Infinity" in bare:
        return False
    for number in re.finditer(_NUMBER, bare):
        digits = number[0]
        if len(digits) < 18 and b"e" not in digits and b"E" not in digits:
            continue
        if len(digits) > _LONGEST_NUMBER:
            return False
        if digits.lstrip(b"-").isdigit():
            if not -(2**63) <= int(digits) < 2**64:
                return False
            continue
        try:
            if abs(float(digits)) == float("inf"):
                return False
        except ValueError:
            continue  # two points: the parser says that it is no JSON
    return True
