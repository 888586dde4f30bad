"""The schema of an answer: read before anybody is asked, and safe whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from tailrace.errors import InvalidOutput, Unprocessable
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
        read.check(text, "p")
        return
    with pytest.raises(InvalidOutput) as caught:
        read.check(text, "p")
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
        schema.check("1", "p")


async def test_a_schema_that_turns_in_circles() -> None:
    """It ends."""
    schema = await Schema.read({"$ref": "#"})
    with pytest.raises(InvalidOutput):
        schema.check("1", "p")
