"""The schema of an answer: read before anybody is asked, and safe whoever wrote it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from tailrace.errors import InvalidOutput, Unprocessable
from tailrace.providers import output_schema
from tailrace.providers.output_schema import Schema

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("schema", "text", "right"),
    [
        ({"type": "object"}, "{}", True),
        ({"type": "object"}, "[]", False),
        ({"enum": ["a", "b"]}, '"b"', True),
        ({"enum": ["a", "b"]}, '"c"', False),
        ({"$defs": {"n": {"type": "number"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}, "[1, 2.5]", True),
        ({"$defs": {"n": {"type": "number"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}, '["1"]', False),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "const": 1}, "1", True),
        ({"anyOf": [{"type": "null"}, {"minimum": 3}]}, "2", False),
        ({"type": "string", "pattern": "^a"}, '"b"', True),
        ({}, "not JSON", False),
        ({}, "[" * 100_000, False),
        ({}, "NaN", False),
    ],
)
async def test_answers(schema: dict[str, Any], text: str, right: bool) -> None:
    """Draft 2020-12, or the one it names; patterns are the provider's matter."""
    read = await Schema.read(schema)
    if right:
        await read.check(text, "p")
        return
    with pytest.raises(InvalidOutput) as caught:
        await read.check(text, "p")
    assert (caught.value.provider, caught.value.retryable) == ("p", False)
    assert text not in caught.value.message


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "thing"}, r"^Bad options: response_format has no JSON schema: 'thing' is not valid"),
        ({"properties": 5}, "response_format has no JSON schema"),
        (
            {"items": {"patternProperties": {"(a+)+$": {}}}},
            r"patternProperties is not available in a response_format\.$",
        ),
    ],
)
async def test_what_is_no_schema(schema: dict[str, Any], said: str) -> None:
    """Refused before anybody is asked."""
    with pytest.raises(Unprocessable, match=said):
        await Schema.read(schema)


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/schema.json", "file:///etc/passwd", "#/$defs/absent"])
async def test_references_lead_nowhere_outside(target: str) -> None:
    """Nothing is fetched for a client."""
    schema = await Schema.read({"$ref": target})
    with pytest.raises(
        InvalidOutput, match=r"^The answer could not be checked: its schema refers to what is not there\.$"
    ):
        await schema.check("1", "p")


async def test_a_schema_that_turns_in_circles() -> None:
    """It ends."""
    schema = await Schema.read({"$ref": "#"})
    with pytest.raises(InvalidOutput):
        await schema.check("1", "p")


DOUBLING = {
    "$defs": {
        **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(18)},
        "d18": {"type": "integer"},
    },
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (DOUBLING, "1"),
        ({"items": {"enum": [str(n) for n in range(5_000)]}}, msgspec.json.encode(["x5000"] * 5_000).decode()),
        ({"items": {"required": [str(n) for n in range(5_000)]}}, msgspec.json.encode([{}] * 5_000).decode()),
        (
            {"items": {"anyOf": [{"const": n} for n in range(1_000)]}},
            msgspec.json.encode([*range(1, 900)] * 10).decode(),
        ),
    ],
    ids=["references that double", "enum", "required", "anyOf"],
)
async def test_no_schema_keeps_a_core_busy(monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], text: str) -> None:
    """It ends as too much, or with its first mistake."""
    read = await Schema.read(schema)
    monkeypatch.setattr(output_schema, "MOST_SECONDS", 0.2)
    begun = time.process_time()
    with pytest.raises(InvalidOutput, match=r"takes too long|does not match"):
        await read.check(text, "p")
    assert time.process_time() - begun < 2


async def test_a_schema_that_takes_too_long_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anybody is asked."""
    monkeypatch.setattr(output_schema, "MOST_SECONDS", 0.0)
    with pytest.raises(Unprocessable, match="takes too long to read"):
        await Schema.read({"anyOf": [{"properties": {str(n): {"type": "string"}}} for n in range(2_000)]})


async def test_what_is_stopped_stops() -> None:
    """A cancel ends the thread too, at its next look."""
    read = await Schema.read(DOUBLING)
    checking = asyncio.ensure_future(read.check("1", "p"))
    budgets: list[output_schema._Budget] = []

    class Kept(output_schema._Budget):
        def __init__(self) -> None:
            super().__init__()
            budgets.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_schema, "_Budget", Kept)
        await asyncio.sleep(0)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
    with pytest.raises(output_schema._TooMuch):
        budgets[0].spend()


@pytest.mark.parametrize(
    ("text", "is_unique"),
    [
        ("[1, 2, 3]", True),
        ("[1, 1.0]", False),
        ('[{"a": 1, "b": [2.0]}, {"b": [2], "a": 1}]', False),
        ('[1, true, "1", null, false, 0]', True),
        (msgspec.json.encode([*range(20_000)]).decode(), True),
    ],
)
async def test_unique_items(text: str, is_unique: bool) -> None:
    """As JSON Schema means it, and in one pass."""
    read = await Schema.read({"uniqueItems": True})
    if is_unique:
        await read.check(text, "p")
    else:
        with pytest.raises(InvalidOutput):
            await read.check(text, "p")


async def test_a_large_answer_is_checked() -> None:
    """What is only long is not too much."""
    item = {"type": "object", "properties": {"id": {"type": "integer"}, "tags": {"items": {"enum": ["a", "b"]}}}}
    read = await Schema.read({"$defs": {"item": item}, "type": "array", "items": {"$ref": "#/$defs/item"}})
    answer = [{"id": n, "tags": ["a", "b"]} for n in range(10_000)]
    await read.check(msgspec.json.encode(answer).decode(), "p")
