"""A question in the shape of Anthropic's Messages API (https://platform.claude.com/docs/en/api/messages).

Images and files stand before the text, as the vendor advises. It reads PDF and plain text.
"""

from __future__ import annotations

from typing import Any

from tailrace.events import ToolCall
from tailrace.providers import FilePart, ImagePart, InputPart, PromptMessage, ProviderRequest, question
from tailrace.providers.state import arranged, pieces_of


def messages_of(request: ProviderRequest, provider: str, *, citations: bool) -> list[dict[str, Any]]:
    """The history.

    Raises:
        Unprocessable: a part that this wire has no form for.
    """
    return [{"role": _role(message), "content": _content(message, provider, citations)} for message in request.messages]


def tools_of(request: ProviderRequest) -> list[dict[str, Any]]:
    """The application's own tools."""
    return [
        {
            "name": tool.name,
            **({"description": tool.description} if tool.description else {}),
            "input_schema": tool.parameters,
        }
        for tool in request.tools
    ]


def tool_choice_of(choice: str | None, parallel: bool | None) -> dict[str, Any] | None:
    """Which tool to call; ``parallel`` False asks for one call at most."""
    if choice is None and parallel is None:
        return None
    known = {None: "auto", "auto": "auto", "none": "none", "required": "any"}
    chosen: dict[str, Any] = {"type": known[choice]} if choice in known else {"type": "tool", "name": choice}
    if parallel is not None and choice != "none":
        chosen["disable_parallel_tool_use"] = not parallel
    return chosen


def _role(message: PromptMessage) -> str:
    return "assistant" if message.role == "assistant" else "user"


def _content(message: PromptMessage, provider: str, citations: bool) -> str | list[dict[str, Any]]:
    blocks = [_part(part, provider, citations) for part in message.parts]
    blocks += [
        {
            "type": "tool_result",
            "tool_use_id": question.tool_id(result.id),
            "content": result.result,
            **({"is_error": True} if result.is_error else {}),
        }
        for result in message.tool_results
    ]
    if (pieces := pieces_of(message, provider)) is not None:
        for what, _ in arranged(message, pieces):
            if isinstance(what, ToolCall):
                blocks.append(_call(what))
            else:
                blocks.append({"type": "text", "text": what} if isinstance(what, str) else what)
        return blocks
    if not blocks and not message.tool_calls:
        return message.content
    if message.content:  # the API refuses an empty block
        blocks.append({"type": "text", "text": message.content})
    blocks += [_call(call) for call in message.tool_calls]
    return blocks


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": question.tool_id(call.id),
        "name": call.name,
        "input": question.arguments_of(call),
    }


def _part(part: InputPart, provider: str, citations: bool) -> dict[str, Any]:
    match part:
        case ImagePart():
            return {"type": "image", "source": _source(part)}
        case FilePart(media_type="text/plain", url=None):
            text = question.text_of(part, provider)
            source = {"type": "text", "media_type": "text/plain", "data": text}
        case FilePart(media_type="application/pdf" | "", url=url) if url or part.media_type:
            source = _source(part)
        case _:
            raise question.unable(provider, f"files of the type {part.media_type[:64]!r}, only PDF and plain text")
    return {
        "type": "document",
        "source": source,
        **({"title": part.name} if part.name else {}),
        **({"citations": {"enabled": True}} if citations else {}),
    }


def _source(part: InputPart) -> dict[str, Any]:
    if part.url:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": part.data}
