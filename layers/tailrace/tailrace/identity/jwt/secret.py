"""Tokens signed with a secret that is shared: HS256 (https://www.rfc-editor.org/rfc/rfc7518#section-3.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tailrace.errors import ConfigurationError
from tailrace.identity.jwt.signed import Header, check_algorithm, verified_payload

SHORTEST: Final = 32
"""Bytes: as long as the hash, RFC 7518 asks. A shorter one can be guessed from a single token, without asking us."""


class SharedSecret:
    """Whoever has the secret may sign.

    Args:
        read: returns the secret, which may change.
    """

    def __init__(self, read: Callable[[], Awaitable[str]]) -> None:
        self._read = read

    async def check(self, token: str, header: Header) -> bytes:
        """Return the payload of a token that is signed with the secret.

        Raises:
            Unauthenticated: it is not, or says that it is signed in another way.
            ConfigurationError: the secret is too short.
        """
        check_algorithm(header, ("HS256",))
        secret = (await self._read()).encode()
        if len(secret) < SHORTEST:
            raise ConfigurationError(f"The secret of the tokens must have {SHORTEST} bytes or more.")
        return verified_payload(token, secret, "HS256")

    async def close(self) -> None:
        """There is nothing to fetch."""
