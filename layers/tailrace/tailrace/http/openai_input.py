"""The ``input`` of OpenAI's Responses API: its items as messages of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tailrace.conversation.additions import NewMessage
from tailrace.conversation.parts import check_parts, parts_metadata, read_data_url
from tailrace.errors import Unprocessable
from tailrace.events import Role
from tailrace.http.openai_errors import BadParameter
from tailrace.providers import FilePart, ImagePart, InputPart

ROLES: Final = ("user", "assistant", "system", "developer")

TEXTS: Final = ("input_text", "output_text", "text")


def read_input(given: str | Sequence[dict[str, Any]] | None) -> tuple[list[str], list[NewMessage]]:
    """Return what the system says, and the messages in order. Calls, and results, that follow each other are one
    message. Reasoning is passed over: what a provider wants back of it is kept here.

    Raises:
        BadParameter: an item cannot be read; the error names it.
    """
    system: list[str] = []
    found: list[NewMessage] = []
    if given is None:
        return system, found
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    gathered: list[dict[str, Any]] = []  # calls or results
    gathering = ""

    def flush() -> None:
        nonlocal gathering
        if gathered:
            role: Role = "tool_call" if gathering == "function_call" else "tool_result"
            found.append(NewMessage(role, msgspec.json.encode(gathered).decode()))
            gathered.clear()
        gathering = ""

    for number, item in enumerate(given):
        where = f"input[{number}]"
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind != gathering:
            flush()
        if kind == "message":
            _message(item, where, system, found)
        elif kind == "function_call":
            gathering = kind
            texts = {name: _text(item.get(name), f"{where}.{name}") for name in ("call_id", "name", "arguments")}
            gathered.append({"id": texts["call_id"], "name": texts["name"], "arguments": texts["arguments"]})
        elif kind == "function_call_output":
            gathering = kind
            call_id = _text(item.get("call_id"), f"{where}.call_id")
            gathered.append({"id": call_id, "result": _output(item.get("output"), f"{where}.output")})
        elif kind == "item_reference":
            raise BadParameter(
                "An item cannot be referred to by its id: give it whole, or use previous_response_id.", where
            )
        elif kind != "reasoning":
            raise BadParameter(f"{where}.type {kind!r} is not supported here.", f"{where}.type")
    flush()
    return system, found


def _message(item: dict[str, Any], where: str, system: list[str], found: list[NewMessage]) -> None:
    role = item.get("role")
    if role not in ROLES:
        raise BadParameter(f"{where}.role must be one of: {', '.join(ROLES)}.", f"{where}.role")
    text, parts = _content(item.get("content"), f"{where}.content")
    if role in ("system", "developer"):
        if parts:
            raise BadParameter(f"{where}.content must be text.", f"{where}.content")
        if text.strip():
            system.append(text)
    elif role == "assistant":
        if parts:
            raise BadParameter(f"{where}.content of an assistant must be text.", f"{where}.content")
        if text.strip():
            found.append(NewMessage("assistant", text))
    elif not text.strip() and not parts:
        raise BadParameter(f"{where}.content must not be blank.", f"{where}.content")
    else:
        found.append(NewMessage("user", text, parts_metadata(parts)))


def _content(given: Any, where: str) -> tuple[str, list[InputPart]]:
    if isinstance(given, str):
        return given, []
    if not isinstance(given, list):
        raise BadParameter(f"{where} must be a text or an array of parts.", where)
    texts: list[str] = []
    parts: list[InputPart] = []
    for number, part in enumerate(given):
        place = f"{where}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXTS:
            texts.append(_text(part.get("text"), f"{place}.text"))
        elif kind == "refusal":
            texts.append(_text(part.get("refusal"), f"{place}.refusal"))
        elif kind == "input_image":
            if part.get("file_id"):
                raise BadParameter("Uploaded files are not kept here: give image_url.", f"{place}.file_id")
            data, media_type, url = _address(part.get("image_url"), f"{place}.image_url")
            parts.append(ImagePart(media_type=media_type, data=data, url=url))
        elif kind == "input_file":
            parts.append(_file(part, place))
        else:
            raise BadParameter(f"{place}.type {kind!r} is not supported here.", f"{place}.type")
    try:
        check_parts(parts)
    except Unprocessable as error:
        raise BadParameter(error.message, where) from error
    return "\n".join(texts), parts


def _file(part: dict[str, Any], place: str) -> FilePart:
    if part.get("file_id"):
        raise BadParameter("Uploaded files are not kept here: give file_data or file_url.", f"{place}.file_id")
    name = part.get("filename")
    if part.get("file_url") is not None:
        url = _text(part["file_url"], f"{place}.file_url")
        return FilePart(url=url, name=name if isinstance(name, str) else None)
    data, media_type, _ = _address(part.get("file_data"), f"{place}.file_data")
    if data is None:
        raise BadParameter(f"{place}.file_data must be a data: URL in base64.", f"{place}.file_data")
    return FilePart(media_type=media_type, data=data, name=name if isinstance(name, str) else None)


def _address(given: Any, where: str) -> tuple[str | None, str, str | None]:
    """Return base64, media type and URL of what a text names: one of the first and the last."""
    text = _text(given, where)
    if not text.startswith("data:"):
        return None, "", text
    found = read_data_url(text)
    if found is None:
        raise BadParameter(f"{where} must be a data: URL in base64, or begin with https:// or http://.", where)
    return found[1], found[0], None


def _output(given: Any, where: str) -> str:
    if isinstance(given, str):
        return given
    text, parts = _content(given, where)
    if parts:
        raise BadParameter(f"{where} must be text: images and files of tools are not sent on.", where)
    return text


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str):
        raise BadParameter(f"{where} must be a text.", where)
    return given
