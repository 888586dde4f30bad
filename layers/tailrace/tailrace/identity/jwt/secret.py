"""Tokens signed with a secret that is shared: HS256 (https://www.rfc-editor.org/rfc/rfc7518#section-3.2)."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Final

from tailrace.errors import ConfigurationError, Unauthenticated
from tailrace.identity.jwt.token import Token

SHORTEST: Final = 32
"""Bytes: as long as the hash, RFC 7518 asks. A shorter one can be guessed from a single token, without asking us."""


class SharedSecret:
    """Whoever has the secret may sign.

    Args:
        read: returns the secret, which may change.
    """

    def __init__(self, read: Callable[[], Awaitable[str]]) -> None:
        self._read = read

    async def check(self, token: Token) -> None:
        """Return if the token is signed with the secret.

        Raises:
            Unauthenticated: it is not, or says that it is signed in another way.
            ConfigurationError: the secret is too short.
        """
        if token.algorithm != "HS256":
            raise Unauthenticated("The token's algorithm is not accepted: it must be HS256.", "invalid_token")
        secret = (await self._read()).encode()
        if len(secret) < SHORTEST:
            raise ConfigurationError(f"The secret of the tokens must have {SHORTEST} bytes or more.")
        if not hmac.compare_digest(hmac.digest(secret, token.signed, "sha256"), token.signature):
            raise Unauthenticated("The token's signature is wrong.", "invalid_token")

    async def close(self) -> None:
        """There is nothing to fetch."""
