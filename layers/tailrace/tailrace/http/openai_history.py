"""The ``messages`` of a chat completion: as messages of a conversation, and which of them are new there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from tailrace.conversation.additions import NewMessage
from tailrace.conversation.parts import check_parts, parts_metadata, read_data_url
from tailrace.conversation.prompt import as_said
from tailrace.errors import Unprocessable
from tailrace.events import TERMINAL, Message
from tailrace.http.openai_errors import BadParameter
from tailrace.protocols.stored import calls_of, outputs_of
from tailrace.providers import FilePart, ImagePart, InputPart


class Function(msgspec.Struct, frozen=True):
    """What a call calls."""

    name: str
    arguments: str = ""


class Call(msgspec.Struct, frozen=True):
    """A call of a tool, in the history."""

    id: str
    function: Function
    type: str = "function"


class Url(msgspec.Struct, frozen=True):
    """Where an image is, or the image itself."""

    url: str
    detail: str | None = None


class File(msgspec.Struct, frozen=True):
    """A file itself."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class ContentPart(msgspec.Struct, frozen=True):
    """A part of what is said."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Url | None = None
    file: File | None = None


class ChatMessage(msgspec.Struct, frozen=True):
    """A message of the request."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    function_call: None = None  # as calls were before there were tools: dropped in silence, a turn would be lost


# ---- reading them ----


def system_of(messages: Sequence[ChatMessage]) -> str | None:
    """Return what is said to the model of its part, which is the conversation's."""
    said = [_text(each) for each in messages if each.role in ("system", "developer")]
    return "\n\n".join(filter(str.strip, said)) or None


def after_last_answer(messages: Sequence[ChatMessage]) -> int:
    """Return where that begins what comes after the last answer."""
    return max((place for place, each in enumerate(messages) if each.role == "assistant"), default=-1) + 1


def read_messages(messages: Sequence[ChatMessage], begin: int, calls: Collection[str] | None) -> list[NewMessage]:
    """Return messages from a place on, without what the system says. What says nothing is left out.

    Args:
        calls: the ids of the tool calls that were made before that place; None where they are not known.

    Raises:
        BadParameter: one cannot be read, or there is nothing to answer; the error names it.
    """
    known = None if calls is None else set(calls)
    found: list[NewMessage] = []
    for number, message in enumerate(messages[begin:], begin):
        where = f"messages[{number}]"
        if message.role == "tool":
            if message.tool_call_id is None or (known is not None and message.tool_call_id not in known):
                raise BadParameter(
                    f"{where}.tool_call_id must be that of a call in an answer before.", f"{where}.tool_call_id"
                )
            result = [{"id": message.tool_call_id, "result": _text(message)}]
            found.append(NewMessage("tool_result", msgspec.json.encode(result).decode()))
        elif message.role == "assistant":
            found += _answer(message)
            if known is not None:
                known.update(call.id for call in message.tool_calls or ())
        elif message.role == "user":
            text, parts = _text(message), _parts(message, where)
            if text.strip() or parts:
                found.append(NewMessage("user", text, parts_metadata(parts)))
    if not found or found[-1].role not in ("user", "tool_result"):
        raise BadParameter(
            "There is nothing to answer: the last message must be of the role user or tool, and not blank.", "messages"
        )
    return found


def _answer(message: ChatMessage) -> list[NewMessage]:
    found: list[NewMessage] = []
    if (text := _text(message)).strip():
        found.append(NewMessage("assistant", text))
    if message.tool_calls:
        calls = [
            {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
            for call in message.tool_calls
        ]
        found.append(NewMessage("tool_call", msgspec.json.encode(calls).decode()))
    return found


def _text(message: ChatMessage) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return "\n".join(part.text or part.refusal or "" for part in message.content if part.type in ("text", "refusal"))


def _parts(message: ChatMessage, where: str) -> list[InputPart]:
    found: list[InputPart] = []
    for number, part in enumerate(message.content if isinstance(message.content, list) else ()):
        place = f"{where}.content[{number}]"
        if part.type == "image_url" and part.image_url is not None:
            media_type, data = read_data_url(part.image_url.url) or ("", None)
            found.append(ImagePart(media_type=media_type, data=data, url=None if data else part.image_url.url))
        elif part.type == "file" and part.file is not None:
            if part.file.file_data is None:
                raise BadParameter("Uploaded files are not kept here: give file_data.", f"{place}.file")
            file = read_data_url(part.file.file_data)
            if file is None:
                raise BadParameter("file_data must be a data: URL in base64.", f"{place}.file.file_data")
            found.append(FilePart(media_type=file[0], data=file[1], name=part.file.filename))
        elif part.type not in ("text", "refusal"):
            raise BadParameter(f"A part of the type {part.type[:64]!r} is not supported here.", f"{place}.type")
    try:
        check_parts(found)
    except Unprocessable as error:
        raise BadParameter(error.message, f"{where}.content") from error
    return found


# ---- which are new ----


class Tail(NamedTuple):
    """The end of a conversation as it is stored.

    Attributes:
        pending: what came after the last answer, oldest first: nothing has answered it, or what tried has failed.
        calls: the ids of the last answer's tool calls; None if it lies further back.
        newest: the id of the last reply that has ended, however; empty if there is none.
    """

    pending: list[NewMessage]
    calls: set[str] | None
    newest: str


def tail_of(stored: Sequence[Message], *, is_all: bool) -> Tail:
    """Return the end of a conversation.

    Args:
        stored: its last messages, newest first.
        is_all: whether there are no others.
    """
    pending: list[NewMessage] = []
    calls: set[str] | None = None
    for message in stored:
        if message.role == "tool_call" or (message.role == "assistant" and message.status == "completed"):
            calls = (calls or set()) | calls_of(message).keys()
            if message.role == "assistant":
                break
        elif calls is not None:
            break
        elif message.role in ("user", "tool_result"):
            parts = {"parts": message.metadata["parts"]} if "parts" in message.metadata else {}
            pending.insert(0, NewMessage(message.role, message.content, parts))
    if calls is None and is_all:
        calls = set()
    ended = (each.id for each in stored if each.role == "assistant" and each.status in TERMINAL)
    return Tail(pending, calls, next(ended, ""))


def new_of(given: Sequence[NewMessage], pending: Sequence[NewMessage]) -> list[NewMessage]:
    """Return what of the messages after the last answer is not stored: what the stored ones end with, they begin
    with."""
    marks, stored = [_mark(each) for each in given], [_mark(each) for each in pending]
    for count in range(min(len(marks), len(stored)), 0, -1):
        if marks[:count] == stored[-count:]:
            return list(given[count:])
    return list(given)


def _mark(message: NewMessage) -> Any:
    """Return what tells messages apart. A result is its call's, whatever it says: the one that is stored counts."""
    if outputs := outputs_of(as_said(message.role, message.content, message.metadata)):
        return {each.id for each in outputs}
    return message.role, message.content, message.metadata.get("parts")
