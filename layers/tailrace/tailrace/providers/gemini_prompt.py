"""A question in the shape of Google's Gemini API (https://ai.google.dev/api/generate-content).

Images and files stand before the text. Neighbouring messages of one side become one, as the vendor wants the results
of one turn's calls.
"""

from __future__ import annotations

from typing import Any

from tailrace.events import ToolCall
from tailrace.protocols.stored import value_of
from tailrace.providers import InputPart, PromptMessage, ProviderRequest, question
from tailrace.providers.state import arranged, pieces_of

UNSIGNED = "skip_thought_signature_validator"
"""Gemini 3 refuses a call in the history without the signature of the thought before it, which never was where the call
is another vendor's. This is the vendor's own word for such calls
(https://ai.google.dev/gemini-api/docs/thought-signatures)."""


def contents_of(request: ProviderRequest, model: str, provider: str) -> list[dict[str, Any]]:
    """The history."""
    contents: list[dict[str, Any]] = []
    signed = not model.removeprefix("models/").startswith(("gemini-1", "gemini-2"))
    for message in request.messages:
        role = "model" if message.role == "assistant" else "user"
        parts = _parts(message, signed, provider)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def tools_of(request: ProviderRequest) -> list[dict[str, Any]]:
    """The application's own tools."""
    if not request.tools:
        return []
    declared = [
        {
            "name": tool.name,
            **({"description": tool.description} if tool.description else {}),
            "parametersJsonSchema": tool.parameters,
        }
        for tool in request.tools
    ]
    return [{"functionDeclarations": declared}]


def tool_config_of(choice: str) -> dict[str, Any]:
    """Which tool to call."""
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
    if choice in modes:
        return {"functionCallingConfig": {"mode": modes[choice]}}
    return {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [choice]}}


def _parts(message: PromptMessage, signed: bool, provider: str) -> list[dict[str, Any]]:
    parts = [_part(part) for part in message.parts]
    if (pieces := pieces_of(message, provider)) is not None:
        for what, signature in arranged(message, pieces):
            said = _call(what) if isinstance(what, ToolCall) else {"text": what}
            parts.append({**said, **({"thoughtSignature": signature} if signature else {})})
        return parts
    if message.content and not message.tool_results:
        parts.append({"text": message.content})
    for number, call in enumerate(message.tool_calls):
        # The first of a turn's calls bears the signature.
        parts.append({**_call(call), **({"thoughtSignature": UNSIGNED} if signed and not number else {})})
    for result in message.tool_results:
        value = value_of(result.result)
        answer = value if isinstance(value, dict) else {"result": value}  # it must be an object
        parts.append({"functionResponse": {"id": result.id, "name": result.name, "response": answer}})
    return parts


def _call(call: ToolCall) -> dict[str, Any]:
    return {"functionCall": {"id": call.id, "name": call.name, "args": question.arguments_of(call)}}


def _part(part: InputPart) -> dict[str, Any]:
    if part.url:
        return {"fileData": {**({"mimeType": part.media_type} if part.media_type else {}), "fileUri": part.url}}
    return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
