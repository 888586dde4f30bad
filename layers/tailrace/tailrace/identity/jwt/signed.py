"""The signature of a token and the keys that check it, by PyJWT (https://www.rfc-editor.org/rfc/rfc7515)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jwt
import msgspec
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from tailrace.errors import Unauthenticated

LONGEST: Final = 16 * 1024
"""Characters. Lambda takes 6 MB of headers; no issuer's token comes near this."""

LARGEST_MODULUS: Final = 8192
"""Bits of an RSA key: each doubling costs four times as much. PyJWT refuses those of fewer than 2048."""

MALFORMED: Final = "The token is not a signed JSON Web Token."

RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
EDWARDS: Final = ("EdDSA", "Ed25519")
"""One algorithm: its name, and its newer one (https://www.rfc-editor.org/rfc/rfc9864)."""

PUBLISHED: Final = (*RSA, "ES256", "ES384", "ES512", *EDWARDS)
"""Algorithms with keys that may be published."""

_BY_CURVE: Final = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": EDWARDS}
_JWS: Final = jwt.PyJWS(
    algorithms=[*RSA, "ES256", "ES384", "ES512", "EdDSA", "HS256"], options={"enforce_minimum_key_length": True}
)
_JWS.register_algorithm("Ed25519", OKPAlgorithm())


class Header(msgspec.Struct, frozen=True):
    """What a token says of its signature; nothing of it has been checked.

    Attributes:
        algorithm: that it says it is signed with.
        key_id: of the key that it says it is signed with, or None.
    """

    algorithm: str
    key_id: str | None


def read_header(text: str) -> Header:
    """Return what a token says of its signature.

    Raises:
        Unauthenticated: it is no token, or it asks for an extension: ``crit`` lists what must be understood, and we
            understand none (https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11).
    """
    if len(text) > LONGEST or not text.isascii():
        raise Unauthenticated(MALFORMED, "invalid_token")
    try:
        header = _JWS.decode_complete(text, options={"verify_signature": False})["header"]
    except jwt.PyJWTError as error:
        if "crit" in str(error):
            raise Unauthenticated(
                "The token asks for an extension that is not understood here.", "invalid_token"
            ) from error
        raise Unauthenticated(MALFORMED, "invalid_token") from error
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Unauthenticated(MALFORMED, "invalid_token")
    return Header(algorithm, header.get("kid"))


def unverified_payload(text: str) -> bytes:
    """Return the claims of a token whose header could be read, in JSON, which anybody may have written."""
    payload: bytes = _JWS.decode_complete(text, options={"verify_signature": False})["payload"]
    return payload


def check_algorithm(header: Header, accepted: tuple[str, ...]) -> None:
    """Let a token through that is signed with one of these algorithms.

    Raises:
        Unauthenticated: it is not.
    """
    if header.algorithm not in accepted:
        said = ", ".join(accepted)
        raise Unauthenticated(f"The token's algorithm is not accepted: it must be {said}.", "invalid_token")


def verified_payload(text: str, key: Any, algorithm: str) -> bytes:
    """Return the claims of a token, in JSON, once its signature has been checked.

    Args:
        key: as PyJWT takes it, of that algorithm.

    Raises:
        Unauthenticated: the signature is wrong.
    """
    try:
        payload: bytes = _JWS.decode_complete(text, key, [algorithm])["payload"]
    except jwt.PyJWTError as error:
        raise Unauthenticated("The token's signature is wrong.", "invalid_token") from error
    return payload


class PublishedKey(msgspec.Struct, frozen=True):
    """A key of an issuer.

    Attributes:
        name: its ``kid``, or None.
        algorithms: what it may be used with: the one that it is published for, or those of its kind.
        key: as ``cryptography`` has it.
    """

    name: str | None
    algorithms: tuple[str, ...]
    key: Any


def published_key(entry: Any) -> PublishedKey | None:
    """Return a key of a set (https://www.rfc-editor.org/rfc/rfc7517#section-5); None for one that is not for signatures
    that are accepted here, such as one for encryption or of a kind that nobody knows yet."""
    if not isinstance(entry, Mapping) or entry.get("use", "sig") != "sig":
        return None
    name, curve = entry.get("kid"), entry.get("crv")
    algorithms: tuple[str, ...] = RSA if entry.get("kty") == "RSA" else _BY_CURVE.get(str(curve), ())
    if (alone := entry.get("alg")) is not None:
        algorithms = algorithms if algorithms == EDWARDS and alone in EDWARDS else (alone,) * (alone in algorithms)
    if not algorithms or not isinstance(name, str | None):
        return None
    try:
        # A private part, which nobody should publish, is left unread.
        public = {part: value for part, value in entry.items() if part in ("kty", "crv", "n", "e", "x", "y")}
        made = jwt.PyJWK(public, algorithms[0])
        if made.Algorithm.check_key_length(made.key) is not None:
            return None
    except jwt.PyJWTError:
        return None
    if isinstance(made.Algorithm, RSAAlgorithm) and made.key.key_size > LARGEST_MODULUS:
        return None
    return PublishedKey(name, algorithms, made.key)
