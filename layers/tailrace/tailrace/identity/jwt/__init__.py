"""JSON Web Tokens: whom a signed token speaks for. Imported only where ``TAILRACE_AUTH`` is ``jwt``.

Signatures and keys are PyJWT's, with ``cryptography``, which lie in a layer of their own that only a stack with
``Auth=jwt`` has (benchmarks/README.md has what they weigh and cost). What a token must say is read here, since its time
is a clock that is passed in, and Cognito's access tokens name their audience in a claim of their own.

What is refused follows RFC 8725, the best practices for tokens: the algorithm is one of its key's and never chosen by
the token alone; a key is of one issuer; issuer, audience and expiry are looked at in every token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from tailrace.clock import Clock
from tailrace.errors import Unauthenticated
from tailrace.identity.jwt.claims import Claims, Subject, read_claims
from tailrace.identity.jwt.issuer import Issuer
from tailrace.identity.jwt.secret import SharedSecret
from tailrace.identity.jwt.signed import Header, read_header, unverified_payload


class Signer(Protocol):
    """Who may sign: an issuer with its published keys, or whoever has the shared secret."""

    async def check(self, token: str, header: Header) -> bytes:
        """Return the payload of a token that it has signed.

        Raises:
            Unauthenticated: it has not.
            IssuerUnavailable: it cannot be known now.
        """
        ...

    async def close(self) -> None:
        """Fetch nothing more in the running event loop."""
        ...


class Tokens:
    """The tokens of one deployment.

    Args:
        signers: who may sign the tokens of each issuer, in the order of the settings; under the empty text, of any.
        audience: of which ``aud``, or in its absence ``client_id``, must name one; empty if it does not matter.
        owner_claim: the claim that says who it is.
    """

    def __init__(
        self, signers: Mapping[str, Signer], *, clock: Clock, audience: Sequence[str], owner_claim: str
    ) -> None:
        self._signers = signers
        self._clock = clock
        self._audience = audience
        self._owner_claim = owner_claim

    async def speaker(self, text: str) -> Subject:
        """Return whom a token speaks for, and what its scopes are.

        Owners of the first issuer are called as its tokens call them; those of the others have their issuer and a space
        before that, and none of the first may be called so.

        Raises:
            Unauthenticated: the token is not to be believed; the message says why.
            IssuerUnavailable: the issuer's keys cannot be had now.
        """
        header = read_header(text)
        issuer, signer = self._signer(text)
        # The rest is read once it is known to be signed: of a forged token nobody learns what would have been wrong.
        payload = await signer.check(text, header)
        found = read_claims(
            payload,
            issuer=issuer or None,
            audience=self._audience,
            owner_claim=self._owner_claim,
            now=self._clock.now() / 1_000_000,
        )
        first, *others = self._signers
        if issuer != first:
            return msgspec.structs.replace(found, owner=f"{issuer} {found.owner}")
        if any(found.owner.startswith(f"{other} ") for other in others):
            raise Unauthenticated("The token's subject cannot be used here.", "invalid_token")
        return found

    def _signer(self, text: str) -> tuple[str, Signer]:
        if (signer := self._signers.get("")) is not None:
            return "", signer
        if len(self._signers) == 1:
            return next(iter(self._signers.items()))
        try:
            claimed = msgspec.json.decode(unverified_payload(text), type=Claims).iss
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            claimed = None
        if claimed is None or claimed not in self._signers:
            raise Unauthenticated("The token is from another issuer.", "invalid_token")
        return claimed, self._signers[claimed]

    async def close(self) -> None:
        """Fetch nothing more in the running event loop."""
        for signer in self._signers.values():
            await signer.close()


__all__ = ["Issuer", "SharedSecret", "Subject", "Tokens"]
