"""What a user says besides text: images and files, as they come in, are stored, and go into a prompt. Pure."""

from __future__ import annotations

import binascii
import ipaddress
import re
from collections.abc import Sequence
from socket import inet_aton
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from tailrace.errors import TooLarge, Unprocessable
from tailrace.events import Json
from tailrace.providers import FilePart, ImagePart, InputPart

LARGEST_PARTS: Final = 300_000
"""Bytes of JSON that the parts of a message may have: they lie in its item, and DynamoDB's items have 400 KB
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)."""

MEDIA_TYPE: Final = r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*"

KEY: Final = "parts"
"""Where they lie in the message's metadata."""


class TextPart(msgspec.Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A piece of text among the parts."""

    text: str


Input = str | list[TextPart | ImagePart | FilePart]
"""What a start's ``input`` may be."""


def split_input(given: Input) -> tuple[str, Sequence[InputPart]]:
    """Return the text, its pieces joined by line breaks, and the rest in order.

    Raises:
        Unprocessable: a part cannot be; the message says which and why.
        TooLarge: together they do not fit into an item.
    """
    if isinstance(given, str):
        return given, ()
    text = "\n".join(part.text for part in given if isinstance(part, TextPart))
    parts = [part for part in given if not isinstance(part, TextPart)]
    check_parts(parts)
    return text, parts


def check_parts(parts: Sequence[InputPart]) -> None:
    """Refuse parts that no provider would take.

    Raises:
        Unprocessable: the message says which and why.
        TooLarge: together they do not fit into an item.
    """
    for number, part in enumerate(parts):
        if (problem := _problem(part)) is not None:
            raise Unprocessable(f"Image or file {number + 1} of the input: {problem}.")
    if parts and len(msgspec.json.encode(parts)) > LARGEST_PARTS:
        raise TooLarge(
            f"The images and files of a message may have {LARGEST_PARTS} bytes as base64; give a URL instead."
        )


def _problem(part: InputPart) -> str | None:
    if (part.data is None) == (part.url is None):
        return "it must have either data or url"
    if part.url is not None:
        if not part.url.startswith(("https://", "http://")) or len(part.url) > 8192:
            return "its url must begin with https:// or http://"
        if not _is_public(part.url):
            return "its url must be one of the public internet"
        return None if not part.media_type or re.fullmatch(MEDIA_TYPE, part.media_type) else "its media_type is none"
    if not re.fullmatch(MEDIA_TYPE, part.media_type):
        return 'it must have a media_type, such as "image/png"'
    if isinstance(part, ImagePart) and not part.media_type.startswith("image/"):
        return "its media_type must begin with image/"
    try:
        empty = not binascii.a2b_base64(part.data or "", strict_mode=True)
    except (binascii.Error, ValueError):
        return "its data must be base64"
    return "its data is empty" if empty else None


_LOCAL: Final = ("localhost", "local", "internal", "intranet", "lan", "home.arpa")
"""Names that no public server has (https://www.rfc-editor.org/rfc/rfc6761, https://www.rfc-editor.org/rfc/rfc8375)."""


def _is_public(url: str) -> bool:
    """Return whether an address can be of a public server, as far as it tells by itself.

    Nothing is fetched here; but a vendor, or a server of one's own that speaks a vendor's wire, fetches what it is
    given, and one within the network would be asked for what only that sees (server-side request forgery).
    """
    try:
        split = urlsplit(url)
        host = (split.hostname or "").rstrip(".")
        _ = split.port
    except ValueError:
        return False
    if not host or "@" in split.netloc:
        return False
    try:
        return ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(inet_aton(host)).is_global  # 127.1, 0x7f000001 and 2130706433, as curl reads them
    except OSError:
        return "." in host and not any(host == name or host.endswith(f".{name}") for name in _LOCAL)


def read_data_url(url: str) -> tuple[str, str] | None:
    """Return the media type and the base64 of a ``data:`` URL (RFC 2397) in base64; None of any other text."""
    about, comma, data = url.partition(",")
    if not comma or not about.startswith("data:") or not about.endswith(";base64"):
        return None
    return about.removeprefix("data:").removesuffix(";base64").partition(";")[0], data


def parts_metadata(parts: Sequence[InputPart]) -> dict[str, Any]:
    """Return the metadata that keeps parts with their message."""
    if not parts:
        return {}
    kept = [{name: value for name, value in each.items() if value} for each in msgspec.to_builtins(parts)]
    return {KEY: kept}


def read_parts(metadata: Json) -> Sequence[InputPart]:
    """Return the parts that a message's metadata has.

    Raises:
        Unprocessable: there is something else under their key.
    """
    given = metadata.get(KEY)
    if given is None:
        return ()
    try:
        return msgspec.convert(given, list[InputPart])
    except msgspec.ValidationError as error:
        raise Unprocessable(f"metadata.parts is for images and files: {error}.") from error
