"""What a start may ask of an agent: of the rest it is told before anything runs."""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.errors import Unprocessable
from tailrace.events import ToolResult
from tailrace.protocols.stored import value_of
from tailrace.providers import ProviderRequest
from tailrace.providers.timeouts import Timeouts
from tailrace.providers.tolerant import json_text, whole_characters


class NoOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of an agent whose model is asked as the agent was made."""

    timeouts: Timeouts = Timeouts()


class ModelOptions(NoOptions, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the frameworks have that let a run say how its model is asked."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    parallel_tool_calls: bool | None = None


def given(options: NoOptions) -> dict[str, Any]:
    """Return the options that were given, for the framework."""
    found: dict[str, Any] = msgspec.to_builtins(options)
    found.pop("timeouts", None)
    return found


def check(request: ProviderRequest, framework: str, *, tools: bool = False, schema: bool = False) -> None:
    """Refuse what the agent could only leave out.

    Args:
        tools: whether it takes tools of the client's.
        schema: whether it takes a schema for its text.

    Raises:
        Unprocessable: the message says what it does not take.
    """
    if request.model is not None:
        raise Unprocessable(f"An agent of {framework} answers with its own model: name none.")
    if request.tools and not tools:
        raise Unprocessable(f"An agent of {framework} calls its own tools only: give none.")
    if request.schema is not None and not schema:
        raise Unprocessable(f"An agent of {framework} takes no response_format: give its output a type.")
    if request.tool_choice is not None and not tools:
        raise Unprocessable(f"An agent of {framework} chooses its tools itself: give no tool_choice.")


def with_plain_results(request: ProviderRequest) -> ProviderRequest:
    """Return a request in whose history a tool's result that is a text is that text, as the model was told it in its
    time, and no JSON of it."""
    messages = [
        msgspec.structs.replace(message, tool_results=[_plain_result(each) for each in message.tool_results])
        if message.tool_results
        else message
        for message in request.messages
    ]
    return msgspec.structs.replace(request, messages=messages)


def _plain_result(result: ToolResult) -> ToolResult:
    value = value_of(result.result)
    return msgspec.structs.replace(result, result=value) if isinstance(value, str) else result


def result_text(value: Any) -> str:
    """Return what a tool returned as JSON text: as it is where it is that of an object or an array, which is what most
    frameworks make of one; what is no JSON as the text that Python shows of it."""
    if isinstance(value, str):
        value = whole_characters(value)
        return value if isinstance(value_of(value), dict | list) else json_text(value)
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return json_text(whole_characters(str(value)))


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # pydantic's
    return dump(mode="json") if dump is not None else str(value)
