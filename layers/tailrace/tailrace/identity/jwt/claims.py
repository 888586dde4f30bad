"""What a token says, once its signature is known to be good (https://www.rfc-editor.org/rfc/rfc7519#section-4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tailrace.errors import Unauthenticated
from tailrace.identity.jwt.signed import MALFORMED

LEEWAY_SECONDS: Final = 60
"""How far the issuer's clock and ours may differ."""

LONGEST_SUBJECT: Final = 255
"""Characters (https://openid.net/specs/openid-connect-core-1_0.html#IDToken)."""


class Subject(msgspec.Struct, frozen=True):
    """Whom a token speaks for.

    Attributes:
        owner: who it is.
        scopes: what the token may be used for (https://www.rfc-editor.org/rfc/rfc8693#section-4.2).
    """

    owner: str
    scopes: frozenset[str] = frozenset()


class Claims(msgspec.Struct):
    """The claims that have a meaning here. Scopes are a text in most tokens; Okta's are a list under ``scp``, and Entra
    ID's a text there."""

    iss: str | None = None
    aud: str | list[str] | None = None
    client_id: str | None = None
    exp: int | float | None = None
    nbf: int | float | None = None
    scope: str | list[str] | None = None
    scp: str | list[str] | None = None


def read_claims(
    payload: bytes, *, issuer: str | None, audience: Sequence[str], owner_claim: str = "sub", now: float
) -> Subject:
    """Return whom the token speaks for.

    Args:
        issuer: what ``iss`` must be, or None.
        audience: of which ``aud`` must name one, or nothing. An access token of Cognito's has none, and its
            ``client_id`` counts, as it does for API Gateway
            (https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html).
        owner_claim: the claim that says who it is: a text, or a whole number.
        now: seconds since 1970.

    Raises:
        Unauthenticated: it is not for us, not for now, or says too little.
    """
    try:
        said = msgspec.json.decode(payload, type=dict[str, Any])
        claims = msgspec.convert(said, Claims)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(MALFORMED) from error
    if claims.exp is None:
        raise _refused("The token has no expiry.")
    if now >= claims.exp + LEEWAY_SECONDS:
        raise _refused("The token has expired.")
    if claims.nbf is not None and now < claims.nbf - LEEWAY_SECONDS:
        raise _refused("The token is not valid yet.")
    if issuer is not None and claims.iss != issuer:
        raise _refused("The token is from another issuer.")
    named = claims.client_id if claims.aud is None else claims.aud
    if audience and {*audience}.isdisjoint(named if isinstance(named, list) else (named,)):
        raise _refused("The token is for another audience.")
    return Subject(_owner(said.get(owner_claim), owner_claim), frozenset([*_words(claims.scope), *_words(claims.scp)]))


def _owner(value: Any, claim: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_SUBJECT or not value.isprintable():
        what = "a subject" if claim == "sub" else f"the claim {claim}, a text"
        raise _refused(f"The token must have {what} of 1 to {LONGEST_SUBJECT} characters.")
    return value


def _words(scopes: str | list[str] | None) -> list[str]:
    return scopes.split() if isinstance(scopes, str) else scopes or []


def _refused(message: str) -> Unauthenticated:
    return Unauthenticated(message, "invalid_token")
