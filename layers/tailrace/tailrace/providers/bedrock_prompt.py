"""A question in the shape of Bedrock's Converse API
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html).

Images and files stand before the text. The roles must take turns, so neighbouring messages of one side become one.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

import msgspec

from tailrace.events import ToolCall
from tailrace.protocols.stored import value_of
from tailrace.providers import FilePart, ImagePart, InputPart, PromptMessage, ProviderRequest, question
from tailrace.providers.state import arranged, pieces_of

FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
"""The kinds of documents, and of images below, that the API takes."""
IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}


def messages_of(request: ProviderRequest, provider: str, *, citations: bool) -> list[dict[str, Any]]:
    """The history.

    Raises:
        Unprocessable: a part that this wire has no form for.
    """
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        role = "assistant" if message.role == "assistant" else "user"
        content = _content(message, provider, citations)
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += content
        else:
            messages.append({"role": role, "content": content})
    return messages


def tool_config_of(request: ProviderRequest, server_tools: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The tools and which of them to call. The API knows no ``none``: no tools are offered then. It wants those that
    the history calls declared, though."""
    offered = {} if request.tool_choice == "none" else {tool.name: tool for tool in request.tools}
    tools = [_tool(name, tool.description, dict(tool.parameters)) for name, tool in offered.items()] + server_tools * (
        request.tool_choice != "none"
    )
    called = {call.name for message in request.messages for call in message.tool_calls}
    tools += [_tool(name, None, {"type": "object"}) for name in sorted(called - offered.keys())]
    if not tools:
        return None
    config: dict[str, Any] = {"tools": tools}
    if (choice := request.tool_choice) in ("auto", "required"):
        config["toolChoice"] = {"auto": {}} if choice == "auto" else {"any": {}}
    elif choice in offered:
        config["toolChoice"] = {"tool": {"name": choice}}
    return config


def output_config_of(request: ProviderRequest) -> dict[str, Any] | None:
    """The schema of the answer's text."""
    if request.schema is None:
        return None
    schema = {"schema": msgspec.json.encode(request.schema.schema).decode(), "name": request.schema.name}
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}


def _tool(name: str, description: str | None, parameters: dict[str, Any]) -> dict[str, Any]:
    described = {"description": description} if description else {}
    return {"toolSpec": {"name": name, **described, "inputSchema": {"json": parameters}}}


def _content(message: PromptMessage, provider: str, citations: bool) -> list[dict[str, Any]]:
    blocks = [_part(part, number, provider, citations) for number, part in enumerate(message.parts, 1)]
    if (pieces := pieces_of(message, provider)) is not None:
        for what, _ in arranged(message, pieces):
            if isinstance(what, ToolCall):
                blocks.append(_call(what))
            else:
                blocks.append({"text": what} if isinstance(what, str) else _thought(what))
        return blocks
    if message.content and not message.tool_results:
        blocks.append({"text": message.content})
    blocks += [_call(call) for call in message.tool_calls]
    for result in message.tool_results:
        value = value_of(result.result)
        said = {"json": value} if isinstance(value, dict) else {"text": result.result}
        blocks.append({"toolResult": {"toolUseId": question.tool_id(result.id), "content": [said]}})
    return blocks


def _call(call: ToolCall) -> dict[str, Any]:
    asked = {"toolUseId": question.tool_id(call.id), "name": call.name, "input": question.arguments_of(call)}
    return {"toolUse": asked}


def _thought(block: dict[str, Any]) -> dict[str, Any]:
    if "redactedContent" in block:
        block = {"redactedContent": b64decode(block["redactedContent"])}
    return {"reasoningContent": block}


def _part(part: InputPart, number: int, provider: str, citations: bool) -> dict[str, Any]:
    match part:
        case ImagePart(media_type=kind) if kind in IMAGE_FORMATS:
            return {"image": {"format": IMAGE_FORMATS[kind], "source": _source(part, provider)}}
        case FilePart(media_type=kind) if kind in FORMATS:
            # The API allows few characters in a name.
            name = re.sub(r"[^A-Za-z0-9()\[\]-]+", " ", part.name or "").strip()[:200] or f"file {number}"
            document = {"format": FORMATS[kind], "name": name, "source": _source(part, provider)}
            return {"document": {**document, **({"citations": {"enabled": True}} if citations else {})}}
    what = "images" if isinstance(part, ImagePart) else "files"
    raise question.unable(provider, f"{what} of the type {part.media_type[:64]!r}")


def _source(part: InputPart, provider: str) -> dict[str, Any]:
    if part.url is None:
        return {"bytes": question.data_of(part, provider)}
    if part.url.startswith("s3://"):
        return {"s3Location": {"uri": part.url}}
    raise question.unable(provider, "images and files by their address, only their data, or an address in S3")
