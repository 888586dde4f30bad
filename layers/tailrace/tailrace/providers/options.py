"""The options of a start, read once and made neutral, so that whichever provider answers is asked the same. Pure.

``tools``, ``tool_choice`` and ``response_format`` may have OpenAI's shape or Anthropic's. All others stay as they are,
and each provider's module says which of them it knows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final

import msgspec

from tailrace.errors import Unprocessable
from tailrace.events import Json
from tailrace.providers import OutputSchema, Tool
from tailrace.providers.timeouts import Timeouts

TOOL_NAME: Final = r"[A-Za-z0-9_-]{1,64}"
"""What both vendors allow."""

WORDS: Final = frozenset({"auto", "none", "required"})

OURS: Final = ("retries", "cache", "timeouts", "max_steps")
"""The options that are for nobody else."""

MOST_STEPS: Final = 100
"""How often the model may be asked for one reply."""

RETRIES: Final = 2
"""As often as both vendors' SDKs ask again."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for.

    Attributes:
        own_tools: the names of tools that run here.
        max_steps: how often the model is asked at most, where such tools answer it.
        retries: how often a provider is asked again before another one is.
        cache: whether a vendor that has to be asked keeps the prompt for the next turn.
        others: for the provider's own module.
    """

    tools: tuple[Tool, ...] = ()
    own_tools: tuple[str, ...] = ()
    max_steps: int | None = None
    tool_choice: str | None = None
    schema: OutputSchema | None = None
    retries: int = RETRIES
    cache: bool = True
    timeouts: Timeouts = Timeouts()
    others: Json = msgspec.field(default_factory=dict)


class _Ours(msgspec.Struct):
    cache: bool = True
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = RETRIES
    timeouts: Timeouts = Timeouts()
    max_steps: Annotated[int, msgspec.Meta(ge=1, le=MOST_STEPS)] | None = None


def read_options(options: Json) -> Options:
    """Return the options, made neutral.

    Raises:
        Unprocessable: one of them has no shape that is known; the message says where, and how it should be.
    """
    others = dict(options)
    try:
        ours = msgspec.convert({name: others[name] for name in OURS if name in others}, _Ours)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"Bad options: {error}.") from error
    for name in ("retries", "cache", "max_steps"):
        others.pop(name, None)
    tools, own_tools, server_tools = _tools(others.pop("tools", None))
    if server_tools:
        others["server_tools"] = server_tools
    choice = _choice(others.pop("tool_choice", None), {*own_tools, *(tool.name for tool in tools)}, bool(server_tools))
    schema = _schema(others.pop("response_format", None), others)
    return Options(
        tools=tools,
        own_tools=own_tools,
        max_steps=ours.max_steps,
        tool_choice=choice,
        schema=schema,
        retries=ours.retries,
        cache=ours.cache,
        timeouts=ours.timeouts,
        others=others,
    )


def _tools(given: Any) -> tuple[tuple[Tool, ...], tuple[str, ...], list[dict[str, Any]]]:
    if given is None:
        return (), (), []
    if not isinstance(given, list):
        raise Unprocessable("Bad options: tools must be an array.")
    tools: list[Tool] = []
    own_tools: list[str] = []
    server_tools: list[dict[str, Any]] = []
    for number, each in enumerate(given):
        if isinstance(each, str):
            own_tools.append(each)
            continue
        kind = each.get("type", "custom") if isinstance(each, dict) else None
        if kind == "function":
            # Chat completions has the function inside, Responses has it flat.
            inner = each.get("function", {name: value for name, value in each.items() if name != "type"})
            tools.append(_tool(number, inner, "parameters"))
        elif kind == "custom":
            tools.append(_tool(number, {name: value for name, value in each.items() if name != "type"}, "input_schema"))
        elif isinstance(kind, str):
            server_tools.append(each)
        else:
            raise _bad_tool(number)
    names = [*own_tools, *(tool.name for tool in tools)]
    if len(set(names)) < len(names):
        raise Unprocessable("Bad options: two tools have the same name.")
    return tuple(tools), tuple(own_tools), server_tools


def _tool(number: int, given: Any, parameters: str) -> Tool:
    if not isinstance(given, dict) or not set(given) <= {"name", "description", "strict", parameters}:
        raise _bad_tool(number)
    fields = {"parameters" if name == parameters else name: value for name, value in given.items()}
    fields = {name: value for name, value in fields.items() if value is not None}
    try:
        tool = msgspec.convert(fields, Tool)
    except msgspec.ValidationError as error:
        raise _bad_tool(number) from error
    if not re.fullmatch(TOOL_NAME, tool.name) or tool.name in WORDS:
        raise Unprocessable(
            f"Bad options: the name of tools[{number}] must be 1 to 64 letters, digits, _ and -, and no word of"
            " tool_choice."
        )
    return tool


def _bad_tool(number: int) -> Unprocessable:
    return Unprocessable(
        f'Bad options: tools[{number}] must be {{"type": "function", "function": {{"name", "description"?,'
        ' "parameters"?, "strict"?}}, or {"name", "description"?, "input_schema"}, or a tool of the provider\'s own'
        " with its type, or the name of a tool that runs here."
    )


def _choice(given: Any, names: Collection[str], more: bool) -> str | None:
    if given is None:
        return None
    choice: Any = given
    if isinstance(given, Mapping):
        kind = given.get("type")
        if kind in ("function", "tool"):
            inner = given.get("function", given)
            choice = inner.get("name") if isinstance(inner, Mapping) else None
        else:
            choice = kind
    choice = "required" if choice == "any" else choice
    if not isinstance(choice, str) or choice not in {*WORDS, *names}:
        raise Unprocessable('Bad options: tool_choice must be "auto", "none", "required", or name one of the tools.')
    if not names and not more and choice != "none":
        raise Unprocessable("Bad options: tool_choice without tools.")
    return choice


def _schema(given: Any, others: dict[str, Any]) -> OutputSchema | None:
    kind = given.get("type") if isinstance(given, Mapping) else None
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        others["response_format"] = given  # no schema: a matter of the providers that have it
        return None
    inner = given.get("json_schema") if isinstance(given, Mapping) else None
    if kind == "json_schema" and isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
        name, strict = inner.get("name", "output"), inner.get("strict") or False
        if isinstance(name, str) and re.fullmatch(TOOL_NAME, name) and isinstance(strict, bool):
            return OutputSchema(name=name, schema=inner["schema"], strict=strict)
    raise Unprocessable(
        'Bad options: response_format must be {"type": "json_schema", "json_schema": {"name", "schema", "strict"?}},'
        ' {"type": "json_object"} or {"type": "text"}.'
    )
