"""Tools that run here: what a model is told of a function, and how its arguments become the function's."""

from __future__ import annotations

import asyncio
import dataclasses
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.tools import LocalTool, ToolContext, tool, tools_by_name
from tailrace.errors import ConfigurationError
from tailrace.events import ToolCall
from typing_extensions import TypedDict

from tests import own_tools

pytestmark = pytest.mark.anyio


class Colour(Enum):
    """Of a thing."""

    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Size:
    """How large it is."""

    width: int
    height: int | None = None


class Label(TypedDict):
    """What it says."""

    text: str


class Thing(BaseModel):
    """Something."""

    colour: Colour
    size: Size
    labels: list[Label] = []


def paint(thing: Thing, count: Annotated[int, Field(ge=1)] = 1, how: Literal["fast", "well"] | None = None) -> str:
    """Paint things.

    Slowly, if it is to be good.

    :param thing: what to paint
    :param how: the way
    """
    return f"{count} {thing.colour.value} {thing.size.width} {thing.labels} {how}"


def test_the_schema_of_a_function() -> None:
    """From its signature and its docstring: nested, nullable, with enums and bounds."""
    made = LocalTool(paint)
    assert (made.name, made.definition.description) == ("paint", "Paint things.\n\nSlowly, if it is to be good.")
    schema: Any = made.definition.parameters
    assert schema["required"] == ["thing"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["thing"]["description"] == "what to paint"
    assert schema["properties"]["count"] == {"type": "integer", "minimum": 1, "default": 1}
    assert schema["properties"]["how"]["description"] == "the way"
    assert {"type": "null"} in schema["properties"]["how"]["anyOf"]
    assert schema["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert set(schema["$defs"]["Size"]["properties"]) == {"width", "height"}
    assert "title" not in str(schema["properties"])


async def call(made: LocalTool, arguments: str, context: ToolContext | None = None) -> tuple[str, bool]:
    """Return what a call comes to, and whether that is an error."""
    result = await made.call(ToolCall("c", made.name, arguments), context)
    assert (result.id, result.name) == ("c", made.name)
    return result.result, result.is_error


async def test_arguments_become_the_function_s_own_types() -> None:
    """Models, enums, data classes; what the model writes a little wrong is read, what is wrong is told to it."""
    made = LocalTool(paint)
    thing = '{"colour":"red","size":{"width":"3"},"labels":[{"text":"x"}]}'
    assert await call(made, f'{{"thing":{thing},"how":"well"}}') == ("1 red 3 [{'text': 'x'}] well", False)
    text, is_error = await call(made, f'{{"thing":{thing},"count":0}}')
    assert (text, is_error) == (
        "The arguments are not right: count: Input should be greater than or equal to 1.",
        True,
    )
    text, _ = await call(made, '{"thing":{"colour":"green","size":{}}}')
    assert "thing.colour: Input should be 'red' or 'blue'; thing.size.width: Field required" in text


async def test_results_become_text() -> None:
    """A text as it is, anything else as JSON."""

    async def several(what: int) -> Any:
        return ["text", {"a": 1}, None, Size(1), Colour.RED, [Label(text="x")]][what]

    made = LocalTool(several)
    found = [await call(made, f'{{"what":{n}}}') for n in range(6)]
    assert [text for text, _ in found] == [
        "text",
        '{"a":1}',
        "null",
        '{"width":1,"height":null}',
        '"red"',
        '[{"text":"x"}]',
    ]


async def test_what_it_may_know() -> None:
    """By annotation; the model is not told of it. A name that pydantic has too does no harm."""

    async def know(schema: str, context: ToolContext, talk: Conversation, *, copy: bool = False) -> str:
        return f"{schema} {context.owner} {talk is context.conversation} {copy}"

    made = LocalTool(know)
    assert set(made.definition.parameters["properties"]) == {"schema", "copy"}
    conversation: Any = object()
    context = ToolContext(conversation=conversation, owner="u", metadata={}, message_id="m", call_id="c")
    assert await call(made, '{"schema":"s"}', context) == ("s u True False", False)


async def test_what_cannot_be_a_tool() -> None:
    """Said when it is made."""

    def rest(*args: int) -> None: ...
    def unknown(value: asyncio.Event) -> None: ...
    def nowhere(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function, said in (
        (rest, "must take its arguments by their names"),
        (unknown, "a parameter of a type that has no JSON schema"),
        (nowhere, "The annotations of the tool nowhere cannot be read."),
        (lambda: None, "A tool's name must be 1 to 64 letters"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            LocalTool(function)
    with pytest.raises(ConfigurationError, match="Two tools have the name paint"):
        tools_by_name([paint, paint])


async def test_a_class_and_a_method_can_be_tools() -> None:
    """Anything that can be called by names."""

    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self, number: int) -> int:
            """Add."""
            self.count += number
            return self.count

        async def __call__(self, number: int) -> int:
            return number

    counter = Counter()
    assert await call(LocalTool(counter.add), '{"number":2}') == ("2", False)
    named = LocalTool(counter, name="counter", description="Count.")
    assert await call(named, '{"number":3}') == ("3", False)
    assert named.definition.description == "Count."


async def test_the_decorator() -> None:
    """With and without options; what it makes can be called as before."""

    @tool
    def plain(a: int) -> int:
        return a

    assert plain(1) == 1
    assert not plain.needs_approval(ToolCall("c", "plain", "{}"))
    assert own_tools.send_mail.needs_approval(ToolCall("c", "send_mail", "{}"))
    assert own_tools.pay.needs_approval(ToolCall("c", "pay", '{"amount":101}'))
    assert not own_tools.pay.needs_approval(ToolCall("c", "pay", '{"amount":"x"}'))


async def test_a_rule_that_breaks_asks() -> None:
    """Better once too often."""

    def broken(a: int) -> bool:
        raise ValueError("secret")

    @tool(approval=broken)
    def act(a: int) -> None: ...

    assert act.needs_approval(ToolCall("c", "act", '{"a":1}'))
