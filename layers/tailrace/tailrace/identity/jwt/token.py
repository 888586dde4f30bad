"""The compact form of a signed token: three pieces of base64url (https://www.rfc-editor.org/rfc/rfc7515#section-7.1)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from typing import Any, Final

import msgspec

from tailrace.errors import Unauthenticated

LONGEST: Final = 16 * 1024
"""Characters. Lambda takes 6 MB of headers; no issuer's token comes near this."""

_PIECES: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")

MALFORMED: Final = "The token is not a signed JSON Web Token."


class Token(msgspec.Struct, frozen=True):
    """A token of which nothing has been checked yet.

    Attributes:
        algorithm: that it says it is signed with.
        key_id: of the key that it says it is signed with, or None.
        signed: what the signature is of.
        payload: the claims, in JSON.
    """

    algorithm: str
    key_id: str | None
    signed: bytes
    signature: bytes
    payload: bytes


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: Any = None


def parse(text: str) -> Token:
    """Return the parts of a token.

    Raises:
        Unauthenticated: it is none, or it asks for an extension: ``crit`` lists what must be understood, and we
            understand none (https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11).
    """
    pieces = _PIECES.fullmatch(text) if len(text) <= LONGEST else None
    if pieces is None:
        raise Unauthenticated(MALFORMED, "invalid_token")
    try:
        header = msgspec.json.decode(decode(pieces[1]), type=_Header)
        payload, signature = decode(pieces[2]), decode(pieces[3])
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise Unauthenticated(MALFORMED, "invalid_token") from error
    if header.crit is not None:
        raise Unauthenticated("The token asks for an extension that is not understood here.", "invalid_token")
    return Token(header.alg, header.kid, f"{pieces[1]}.{pieces[2]}".encode(), signature, payload)


def decode(piece: str) -> bytes:
    """Return the bytes of base64url without padding.

    Raises:
        ValueError: it is not.
    """
    return urlsafe_b64decode(piece + "=" * (-len(piece) % 4))
