"""The check of an RSA signature: RSASSA-PKCS1-v1_5 (https://www.rfc-editor.org/rfc/rfc8017#section-8.2.2).

Checking needs no secret, so nothing here has to hide how long it takes. The encoded message is never taken apart: the
only one that is right is made anew and compared, which leaves nothing to the attacks on those who parsed it (RFC 8017,
section 8.2.2, note; CVE-2006-4339). Tests compare it with what ``cryptography`` says, signature by signature.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

SMALLEST: Final = 2048
LARGEST: Final = 8192
"""Bits of a modulus: RFC 7518 asks for 2048 or more; each doubling costs four times as much (2048: 1 ms, 8192: 14)."""

LARGEST_EXPONENT: Final = 2**32
"""Nearly all keys have 65537, and a large one would let whoever publishes it stall us."""

# What stands before the digest: its algorithm, in DER (RFC 8017, section 9.2, note 1).
HASHES: Final = {
    "RS256": ("sha256", bytes.fromhex("3031300d060960864801650304020105000420")),
    "RS384": ("sha384", bytes.fromhex("3041300d060960864801650304020205000430")),
    "RS512": ("sha512", bytes.fromhex("3051300d060960864801650304020305000440")),
}
"""The algorithms (https://www.rfc-editor.org/rfc/rfc7518#section-3.3)."""


class PublicKey(msgspec.Struct, frozen=True):
    """An RSA public key.

    Attributes:
        algorithm: the only one that it is for, or None.
    """

    modulus: int
    exponent: int
    algorithm: str | None = None

    @property
    def is_sound(self) -> bool:
        """Whether it is of a size to believe in and to calculate with."""
        fits = SMALLEST <= self.modulus.bit_length() <= LARGEST and 3 <= self.exponent <= LARGEST_EXPONENT
        return fits and self.modulus % 2 == self.exponent % 2 == 1

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Return whether the key's owner signed the message.

        Args:
            algorithm: one of ``HASHES``.
        """
        name, prefix = HASHES[algorithm]
        size = (self.modulus.bit_length() + 7) // 8
        number = int.from_bytes(signature, "big")
        if len(signature) != size or number >= self.modulus:
            return False
        digest = prefix + hashlib.new(name, message).digest()
        encoded = b"\x00\x01" + b"\xff" * (size - 3 - len(digest)) + b"\x00" + digest
        return hmac.compare_digest(pow(number, self.exponent, self.modulus).to_bytes(size, "big"), encoded)
