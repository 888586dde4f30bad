"""JSON Web Tokens: whom a signed token speaks for. Imported only where ``TAILRACE_AUTH`` is ``jwt``.

Why no library: what checks RS256 in the Python libraries is ``cryptography``, 14 MB of a layer that may have 40, and
with PyJWT it costs eleven times this package's import (300 ms and 27 ms, in the same minutes on one busy machine;
PyJWT alone, which then knows HS256 only, 80 ms). All that a reader of tokens needs of it is one comparison of public
numbers (``rsa.py``). This package knows what API Gateway's own JWT authorizer knows, which is RSA, and HS256 for a
shared secret.

What it refuses follows RFC 8725, the best practices for tokens: the algorithm is fixed by the settings and never chosen
by the token; a key serves one algorithm; issuer, audience and expiry are looked at in every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tailrace.clock import Clock
from tailrace.identity.jwt.claims import subject
from tailrace.identity.jwt.issuer import Issuer
from tailrace.identity.jwt.secret import SharedSecret
from tailrace.identity.jwt.token import Token, parse


class Signers(Protocol):
    """Who may sign: an issuer with its published keys, or whoever has the shared secret."""

    async def check(self, token: Token) -> None:
        """Return if one of them signed the token.

        Raises:
            Unauthenticated: none did.
            IssuerUnavailable: it cannot be known now.
        """
        ...

    async def close(self) -> None:
        """Fetch nothing more in the running event loop."""
        ...


class Tokens:
    """The tokens of one deployment.

    Args:
        signers: who may sign.
        issuer: what ``iss`` must be; None if it does not matter.
        audience: of which ``aud``, or in its absence ``client_id``, must name one; empty if it does not matter.
    """

    def __init__(self, signers: Signers, *, clock: Clock, issuer: str | None, audience: Sequence[str]) -> None:
        self._signers = signers
        self._clock = clock
        self._issuer = issuer
        self._audience = audience

    async def owner(self, text: str) -> str:
        """Return the subject of a token. There is one issuer, so the subject alone is the owner.

        Raises:
            Unauthenticated: the token is not to be believed; the message says why.
            IssuerUnavailable: the issuer's keys cannot be had now.
        """
        token = parse(text)
        await self._signers.check(token)
        # What is in it is read only now: of a forged token nobody learns what would have been wrong with it.
        return subject(token.payload, issuer=self._issuer, audience=self._audience, now=self._clock.now() / 1_000_000)

    async def close(self) -> None:
        """Fetch nothing more in the running event loop."""
        await self._signers.close()


__all__ = ["Issuer", "SharedSecret", "Tokens"]
