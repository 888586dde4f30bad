"""What a token says, once its signature is known to be good (https://www.rfc-editor.org/rfc/rfc7519#section-4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tailrace.errors import Unauthenticated
from tailrace.identity.jwt.token import MALFORMED

LEEWAY_SECONDS: Final = 60
"""How far the issuer's clock and ours may differ."""

LONGEST_SUBJECT: Final = 255
"""Characters (https://openid.net/specs/openid-connect-core-1_0.html#IDToken)."""


class _Claims(msgspec.Struct):
    iss: str | None = None
    sub: str | None = None
    aud: str | list[str] | None = None
    client_id: str | None = None
    exp: int | float | None = None
    nbf: int | float | None = None


def subject(payload: bytes, *, issuer: str | None, audience: Sequence[str], now: float) -> str:
    """Return whom the token speaks for.

    Args:
        issuer: what ``iss`` must be, or None.
        audience: of which ``aud`` must name one, or nothing. An access token of Cognito's has none, and its
            ``client_id`` counts, as it does for API Gateway
            (https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html).
        now: seconds since 1970.

    Raises:
        Unauthenticated: it is not for us, not for now, or says too little.
    """
    try:
        claims = msgspec.json.decode(payload, type=_Claims)
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
    if not claims.sub or len(claims.sub) > LONGEST_SUBJECT:
        raise _refused(f"The token must have a subject of 1 to {LONGEST_SUBJECT} characters.")
    return claims.sub


def _refused(message: str) -> Unauthenticated:
    return Unauthenticated(message, "invalid_token")
