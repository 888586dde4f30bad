"""A question in the shape of OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat/create).

Images and files stand before the text.
"""

from __future__ import annotations

from typing import Any

from tailrace.providers import ImagePart, InputPart, OutputSchema, PromptMessage, ProviderRequest, question
from tailrace.providers.state import pieces_of


def messages_of(request: ProviderRequest, provider: str) -> list[dict[str, Any]]:
    """The system prompts and the history.

    Raises:
        Unprocessable: a part that this wire has no form for.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": text} for text in request.system]
    asked = max((at for at, message in enumerate(request.messages) if message.role == "user"), default=0)
    for at, message in enumerate(request.messages):
        if message.role == "tool_result":
            messages += [
                {"role": "tool", "tool_call_id": result.id, "content": result.result} for result in message.tool_results
            ]
        else:
            messages.append(_message(message, provider, in_turn=at > asked))
    return messages


def tools_of(request: ProviderRequest) -> list[dict[str, Any]]:
    """The application's own tools."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "parameters": tool.parameters,
            },
        }
        for tool in request.tools
    ]


def tool_choice_of(choice: str) -> str | dict[str, Any]:
    """Which tool to call."""
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def response_format_of(schema: OutputSchema) -> dict[str, Any]:
    """The schema of the answer's text."""
    return {
        "type": "json_schema",
        "json_schema": {"name": schema.name, "schema": schema.schema, "strict": schema.strict},
    }


def _message(message: PromptMessage, provider: str, *, in_turn: bool) -> dict[str, Any]:
    content: str | list[dict[str, Any]] | None = message.content
    if message.parts:
        content = [_part(part, provider) for part in message.parts]
        if message.content:
            content.append({"type": "text", "text": message.content})
    spelled: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        spelled["content"] = message.content or None
        spelled["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    for piece in pieces_of(message, provider) or ():
        for call in spelled.get("tool_calls", ()):
            if piece.call == call["id"] and piece.extra is not None:
                call["extra_content"] = piece.extra
        # The reasoning itself is wanted within a turn, and only then.
        if piece.block is not None and (in_turn or "reasoning_content" not in piece.block):
            spelled |= piece.block
    return spelled


def _part(part: InputPart, provider: str) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": question.data_url(part)}}
    if part.url:
        raise question.unable(provider, "files by their address, only their data")
    return {"type": "file", "file": {"filename": part.name or "file", "file_data": question.data_url(part)}}
