"""AWS's event stream, written: https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html (botocore only
reads it)."""

from __future__ import annotations

import binascii
import struct

import msgspec


def message(payload: object, **headers: str) -> bytes:
    """One message. ``event_type="metadata"`` stands for the header ``:event-type``."""
    data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    fields = b""
    for name, value in {"content_type": "application/json", **headers}.items():
        spelled = ":" + name.replace("_", "-")
        fields += (
            struct.pack(">B", len(spelled)) + spelled.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        )
    prelude = struct.pack(">II", 16 + len(fields) + len(data), len(fields))
    whole = prelude + struct.pack(">I", binascii.crc32(prelude)) + fields + data
    return whole + struct.pack(">I", binascii.crc32(whole))


def event(kind: str, payload: object) -> bytes:
    """An event of that kind."""
    return message(payload, event_type=kind, message_type="event")


def failure(kind: str, payload: object) -> bytes:
    """An exception in mid-stream."""
    return message(payload, exception_type=kind, message_type="exception")


def encoded(lines: bytes) -> bytes:
    """The events of a file that has one a line, ``[kind, payload]``."""
    return b"".join(
        event(*msgspec.json.decode(line, type=tuple[str, dict[str, object]])) for line in lines.splitlines()
    )
