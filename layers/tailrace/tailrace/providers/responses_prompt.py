"""A question in the shape of OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses/create).

Images and files stand before the text. Tool calls and their results are items of their own.
"""

from __future__ import annotations

from typing import Any

from tailrace.events import ToolCall
from tailrace.providers import ImagePart, InputPart, PromptMessage, ProviderRequest, question
from tailrace.providers.state import arranged, pieces_of


def input_of(request: ProviderRequest, provider: str) -> list[dict[str, Any]]:
    """The history."""
    items: list[dict[str, Any]] = []
    for message in request.messages:
        if (pieces := pieces_of(message, provider)) is not None:
            for what, _ in arranged(message, pieces):
                if isinstance(what, ToolCall):
                    items.append(_call(what))
                else:
                    items.append({"role": "assistant", "content": what} if isinstance(what, str) else what)
            continue
        if message.content or message.parts:
            items.append({"role": message.role, "content": _content(message)})
        items += [_call(call) for call in message.tool_calls]
        items += [
            {"type": "function_call_output", "call_id": result.id, "output": result.result}
            for result in message.tool_results
        ]
    return items


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def tools_of(request: ProviderRequest) -> list[dict[str, Any]]:
    """The application's own tools. Not strict, which is the default here and not in the other API: it would refuse
    most schemas."""
    return [
        {
            "type": "function",
            "name": tool.name,
            **({"description": tool.description} if tool.description else {}),
            "parameters": tool.parameters,
            "strict": False,
        }
        for tool in request.tools
    ]


def tool_choice_of(choice: str) -> str | dict[str, Any]:
    """Which tool to call."""
    return choice if choice in ("auto", "none", "required") else {"type": "function", "name": choice}


def _content(message: PromptMessage) -> str | list[dict[str, Any]]:
    if not message.parts:
        return message.content
    content = [_part(part) for part in message.parts]
    if message.content:
        content.append({"type": "input_text", "text": message.content})
    return content


def _part(part: InputPart) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return {"type": "input_image", "image_url": question.data_url(part), "detail": "auto"}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": part.name or "file", "file_data": question.data_url(part)}
