"""Options of either vendor's shape mean the same, and what has no shape is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from tailrace.errors import Unprocessable
from tailrace.providers import OutputSchema, Tool
from tailrace.providers.options import read_options
from tailrace.providers.timeouts import Timeouts

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT = {"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": PARAMETERS}}
RESPONSES = {"type": "function", "name": "weather", "description": "Now.", "parameters": PARAMETERS}
ANTHROPIC = {"name": "weather", "description": "Now.", "input_schema": PARAMETERS}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}


@pytest.mark.parametrize("tool", [CHAT, RESPONSES, ANTHROPIC, {**ANTHROPIC, "type": "custom"}])
def test_tools(tool: dict[str, Any]) -> None:
    """One tool in four spellings."""
    read = read_options({"tools": [tool], "temperature": 1})
    assert read.tools == (Tool(name="weather", description="Now.", parameters=PARAMETERS),)
    assert read.others == {"temperature": 1}


def test_tools_of_the_provider() -> None:
    """They stay what they are, beside the application's own."""
    read = read_options({"tools": [SEARCH, CHAT]})
    assert [tool.name for tool in read.tools] == ["weather"]
    assert read.others == {"server_tools": [SEARCH]}
    assert read_options({"tools": [SEARCH], "tool_choice": "auto"}).tool_choice == "auto"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("any", "required"),
        ({"type": "any"}, "required"),
        ({"type": "auto"}, "auto"),
        ({"type": "tool", "name": "weather"}, "weather"),
        ({"type": "function", "name": "weather"}, "weather"),
        ({"type": "function", "function": {"name": "weather"}}, "weather"),
        (None, None),
    ],
)
def test_tool_choice(given: Any, meant: str | None) -> None:
    """A word, or a tool's name."""
    assert read_options({"tools": [CHAT], "tool_choice": given}).tool_choice == meant


def test_response_format() -> None:
    """A schema is neutral, text is nothing, and an object without a schema is left to the providers that have it."""
    schema = {"type": "object"}
    given = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    assert read_options({"response_format": given}).schema == OutputSchema(name="answer", schema=schema, strict=True)
    given = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert read_options({"response_format": given}).schema == OutputSchema(name="output", schema=schema, strict=False)
    assert read_options({"response_format": {"type": "text"}}).others == {}
    given = {"type": "json_object"}
    assert read_options({"response_format": given}).others == {"response_format": given}


def test_what_is_ours() -> None:
    """Time-outs and retries are read here; the time-outs go on to the provider's module, which has the connection."""
    read = read_options({"retries": 0, "timeouts": {"idle": 5}})
    assert (read.retries, read.timeouts) == (0, Timeouts(idle=5))
    assert read.others == {"timeouts": {"idle": 5}}
    assert read_options({}).retries == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tools": {}}, r"tools must be an array\.$"),
        ({"tools": [1]}, r"tools\[0\] must be \{\"type\": \"function\""),
        ({"tools": [CHAT, {"type": "function"}]}, r"tools\[1\] must be"),
        ({"tools": [{"type": "function", "function": {"name": "a", "colour": 1}}]}, r"tools\[0\] must be"),
        ({"tools": [{"name": "a", "parameters": {}}]}, r"tools\[0\] must be"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, r"name of tools\[0\] must be 1 to 64 letters"),
        ({"tools": [{"name": "auto", "input_schema": {}}]}, r"no word of tool_choice\.$"),
        ({"tools": [CHAT, ANTHROPIC]}, r"two tools have the same name\.$"),
        ({"tools": [CHAT], "tool_choice": "other"}, r"tool_choice must be \"auto\", .* or name one of the tools\.$"),
        ({"tools": [CHAT], "tool_choice": {"type": "function"}}, r"tool_choice must be"),
        ({"tool_choice": "auto"}, r"tool_choice without tools\.$"),
        ({"response_format": {"type": "xml"}}, r"response_format must be"),
        ({"response_format": "json"}, r"response_format must be"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}, "response_format"),
        ({"retries": 11}, r"Expected `int` <= 10 - at `\$\.retries`\.$"),
        ({"retries": "twice"}, r"Expected `int`, got `str` - at `\$\.retries`\.$"),
        ({"timeouts": {"idle": 0}}, r"at `\$\.timeouts\.idle`\.$"),
        ({"timeouts": {"later": 1}}, r"unknown field `later`"),
    ],
)
def test_what_is_refused(options: dict[str, Any], said: str) -> None:
    """The message says where, and how it should be."""
    with pytest.raises(Unprocessable, match=said) as caught:
        read_options(options)
    assert caught.value.message.startswith("Bad options: ")
