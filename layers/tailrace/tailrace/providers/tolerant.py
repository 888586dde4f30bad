"""Reading what a provider sends that is not quite its wire: what can be used is kept, the rest is left out.

The typed decoders of msgspec are strict, and most of their speed is that. They stay the way of every usual event; only
one that they refuse is read here, by the same types: a field in a shape that cannot be used is as good as absent, and
costs neither its event nor the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, TypeVar
from uuid import uuid4

import msgspec
from msgspec import inspect

from tailrace.events import ProviderEvent, Reasoning, Text
from tailrace.protocols.sse import ServerSentEvent
from tailrace.providers import failures

Kind = TypeVar("Kind")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number of tokens. What is larger is nobody's count, and could not be stored in every place."""

DONE: Final = "[DONE]"
"""The last word of the chat completions wire, which proxies add to others."""

REFUSED: Final = (msgspec.MsgspecError, UnicodeDecodeError)
"""What a typed decoder raises."""

_UNUSABLE: Final = object()


def read_slowly(data: bytes, kind: type[Kind]) -> Kind | None:
    """Return an event that its typed decoder refused, as far as it can be used; None when it is no object at all, such
    as a proxy's ``ping``.

    Raises:
        ValueError: it is JSON that is broken: who knows what it said.
    """
    text = data.decode("utf-8", "replace").strip()
    if text == DONE:
        return None
    try:
        # It takes halves of surrogate pairs and numbers of any size; what is no number becomes nothing.
        value = json.loads(text, parse_constant=lambda name: None)
    except ValueError:
        if text[:1] in ("{", "["):
            raise
        return None
    if isinstance(value, list):
        value = next((each for each in value if isinstance(each, dict)), None)
    return fitted(value, kind) if isinstance(value, dict) else None


def odd_event(event: ServerSentEvent, kind: type[Kind], provider: str) -> Kind | None:
    """The same of a server-sent event.

    Raises:
        ProviderError: it is named an error, in whatever words.
        ValueError: as above.
    """
    if event.event == b"error":
        raise failures.reported(provider, event.data)
    return read_slowly(event.data, kind)


def fitted(value: Any, kind: type[Kind]) -> Kind:
    """Return an object as a struct of this kind, without what does not fit into it."""
    made: Kind = _fit(value, _shape(kind))  # type: ignore[arg-type]  # a type is hashable
    return made


@cache
def _shape(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _fit(value: Any, shape: inspect.Type) -> Any:
    """Return a value as this shape has it, or ``_UNUSABLE``."""
    match shape:
        case inspect.StructType(cls=cls, fields=fields) if isinstance(value, dict):
            given = {
                field.name: found
                for field in fields
                if field.encode_name in value and (found := _fit(value[field.encode_name], field.type)) is not _UNUSABLE
            }
            return cls(**given)
        case inspect.UnionType(types=types):
            found = (_fit(value, each) for each in types)
            return next((each for each in found if each is not _UNUSABLE), _UNUSABLE)
        case inspect.ListType(item_type=item):
            items = value if isinstance(value, list) else [value] if isinstance(value, dict) else None
            if items is None:
                return _UNUSABLE
            return [found for each in items if (found := _fit(each, item)) is not _UNUSABLE]
        case inspect.StrType() if isinstance(value, str):
            return value
        case inspect.StrType() if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        case inspect.IntType(ge=least, le=most):
            return _whole_number(value, least, most)
        case inspect.BoolType() if isinstance(value, bool):
            return value
        case inspect.NoneType() if value is None:
            return None
        case inspect.RawType():
            return msgspec.Raw(json_text(value).encode("utf-8", "replace"))
        case inspect.AnyType():
            return value
    return _UNUSABLE


def _whole_number(value: Any, least: int | None, most: int | None) -> Any:
    try:
        number = int(float(value))
        if isinstance(value, bool) or number != float(value):
            return _UNUSABLE
    except (TypeError, ValueError, OverflowError):
        return _UNUSABLE
    is_within = (least is None or number >= least) and (most is None or number <= most)
    return number if is_within else _UNUSABLE


def json_text(value: Any) -> str:
    """Return a value as JSON, whatever came with it."""
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, UnicodeError, OverflowError, TypeError):
        return whole_characters(json.dumps(value, ensure_ascii=False))


def text_of(arguments: Any) -> str:
    """Return the arguments of a call as their JSON text: that is how most send them, and some send the object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json_text(arguments)


def text_of_raw(arguments: msgspec.Raw) -> str:
    """Return the arguments of a call as the text of the object that they are; an empty one where there is none."""
    text = bytes(arguments).decode("utf-8", "replace")
    if text in ("", "null"):
        return "{}"
    return text_of(msgspec.json.decode(arguments)) or "{}" if text.startswith('"') else text


def made_up_id() -> str:
    """Return an id for a call that came without one. It must be its conversation's only one: vendors refuse a history
    in which two calls have the same."""
    return f"call_{uuid4().hex}"


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header of a response when it is one to be kept: some printable ASCII."""
    value = headers.get(name)
    return value if value is not None and value.isascii() and value.isprintable() and len(value) <= 256 else None


# ---- halves of characters ------------------------------------------------------------------------


def whole_characters(text: str) -> str:
    """Return a text with pairs of surrogates joined, and half ones replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Halves:
    """Joins characters that a server tore apart: ``"\\ud83d"`` at the end of one chunk, ``"\\ude00"`` at the beginning
    of the next. Used from the first event on that a typed decoder refused."""

    def __init__(self) -> None:
        self._held: dict[type[Text | Reasoning], str] = {}

    def join(self, events: Sequence[ProviderEvent]) -> list[ProviderEvent]:
        """Return the events with whole characters; a half at the end of a text waits for the next."""
        found: list[ProviderEvent] = []
        for event in events:
            if isinstance(event, Text | Reasoning):
                kind = type(event)
                text = self._held.pop(kind, "") + event.text
                if "\ud800" <= text[-1:] <= "\udbff":
                    self._held[kind] = text[-1]
                    text = text[:-1]
                if text:
                    found.append(kind(whole_characters(text)))
            else:
                found.append(_with_whole_characters(event))
        return found

    def rest(self) -> list[ProviderEvent]:
        """Return what still waits; it is no character any more."""
        found: list[ProviderEvent] = [kind(whole_characters(text)) for kind, text in self._held.items()]
        self._held.clear()
        return found


def _with_whole_characters(event: ProviderEvent) -> ProviderEvent:
    changes = {
        name: whole_characters(value)
        for name in event.__struct_fields__
        if isinstance(value := getattr(event, name), str) and not value.isascii()
    }
    return msgspec.structs.replace(event, **changes) if changes else event
