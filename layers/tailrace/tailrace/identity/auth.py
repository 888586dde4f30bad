"""Who is asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec

from tailrace.aws.sessions import Sessions
from tailrace.clock import Clock
from tailrace.errors import InsufficientScope, IssuerUnavailable, Unauthenticated
from tailrace.identity.grants import Grants, check_request, is_grant
from tailrace.identity.scopes import CHATTING, CONNECTING, check_scope
from tailrace.settings import Settings
from tailrace.store import Caller

if TYPE_CHECKING:
    from tailrace.identity.jwt import Tokens

ANYBODY: Final = "anonymous"
"""The one owner of everything when auth is ``none``."""

Scope = Mapping[str, Any]


class Auth:
    """Tells whom a request acts for, as the settings say. A grant's token is one everywhere.

    Args:
        grants: what owners let others do.
        sessions: for the issuer's keys.
        read_secret: returns a secret of Secrets Manager by its name.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        grants: Grants,
        clock: Clock,
        sessions: Sessions,
        read_secret: Callable[[str], Awaitable[str]],
    ) -> None:
        self._settings = settings
        self._grants = grants
        self._tokens = _tokens(settings, clock, sessions, read_secret) if settings.auth == "jwt" else None

    async def identify(self, scope: Scope) -> str:
        """Return the owner that a request of this ASGI scope acts for.

        Raises:
            Unauthenticated: there is no such caller; the message says what is missing or wrong.
            Forbidden: the caller's token has not the scope for this request, or its grant is not for it.
            NotFound: the grant that came with it is for something else.
            IssuerUnavailable: who it is cannot be known now.
            ConfigurationError: the secret of the tokens cannot be used.
            StoreError: a grant cannot be read.
        """
        token = _token(scope)
        if token is not None and is_grant(token):
            grant = await self._grants.of_token(token)
            check_request(grant, scope)
            return grant.owner
        if self._settings.auth == "none":
            return ANYBODY
        if self._tokens is None:
            return _signer(scope, self._settings)
        if token is None:
            raise Unauthenticated(*_no_token(scope))
        speaker = await self._tokens.speaker(token)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        check_scope(self._settings.jwt_scopes, speaker.scopes, scope["method"], path)
        return speaker.owner

    async def owner(self, token: str) -> str:
        """Return the owner that a token speaks for, wherever it came from; only with ``jwt``.

        Raises:
            Unauthenticated, IssuerUnavailable, ConfigurationError: as above.
        """
        if self._tokens is None:
            raise Unauthenticated("Tokens are not accepted here.")
        return (await self._tokens.speaker(token)).owner

    async def close(self) -> None:
        """Fetch nothing more in the running event loop."""
        if self._tokens is not None:
            await self._tokens.close()

    async def connecting(self, event: Mapping[str, Any]) -> Caller | None:
        """Return for whom a WebSocket connection acts, or None if nobody can be seen behind it: it may have what is
        public or signed for it, and refused it would come back at once, and not alone.

        A token is in the header ``Authorization``, or, since a browser's WebSocket can send none, in the query as
        ``access_token``.

        Args:
            event: the API Gateway event of its ``$connect``.

        Raises:
            ConfigurationError: the secret of the tokens cannot be used.
            StoreError: a grant cannot be read.
        """
        if self._settings.auth == "none":
            return None  # all is open to everybody
        headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
        scheme, _, token = str(headers.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer":
            token = (event.get("queryStringParameters") or {}).get("access_token", "")
        token = token.strip()
        try:
            if is_grant(token):
                grant = await self._grants.of_token(token)
                return Caller(owner=grant.owner, grant=grant.id, conversation=grant.conversation, may_chat=False)
            if self._tokens is None:
                owner = _connection_signer(event)
                return None if owner is None else Caller(owner=owner)
            return await self._connecting_by(self._tokens, token) if token else None
        except (Unauthenticated, IssuerUnavailable, InsufficientScope):
            return None

    async def _connecting_by(self, tokens: Tokens, token: str) -> Caller:
        speaker = await tokens.speaker(token)
        rules = self._settings.jwt_scopes
        check_scope(rules, speaker.scopes, *CONNECTING)
        try:
            check_scope(rules, speaker.scopes, *CHATTING)
        except InsufficientScope:
            return Caller(owner=speaker.owner, may_chat=False)
        return Caller(owner=speaker.owner)


def _tokens(
    settings: Settings, clock: Clock, sessions: Sessions, read_secret: Callable[[str], Awaitable[str]]
) -> Tokens:
    from tailrace.identity.jwt import Issuer, SharedSecret, Tokens  # only who asks for tokens pays for them

    secret, secret_id = settings.jwt_secret, settings.jwt_secret_id
    signers: dict[str, SharedSecret | Issuer]
    if secret is not None or secret_id is not None:

        async def read() -> str:
            return secret if secret is not None else await read_secret(secret_id or "")

        signers = {next(iter(settings.jwt_issuers), ""): SharedSecret(read)}
    else:
        signers = {url: Issuer(url, sessions=sessions, clock=clock) for url in settings.jwt_issuers}
    return Tokens(signers, clock=clock, audience=settings.jwt_audience, owner_claim=settings.jwt_owner_claim)


def _token(scope: Scope) -> str | None:
    """Return the token of a request (https://www.rfc-editor.org/rfc/rfc6750#section-2), or None if there is none.

    A browser's EventSource can send no header, so where it reads streams, and nowhere else, the token may be in the
    query. Whoever keeps addresses keeps that token: docs/settings.md says what to make of it.
    """
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = str(value.decode("latin-1")).partition(" ")
            return token.strip() or None if scheme.lower() == "bearer" else None
    query = scope.get("query_string", b"")
    if scope.get("method") == "GET" and scope["path"].endswith("/stream") and b"access_token=" in query:
        tokens: list[str] = parse_qs(query.decode("latin-1")).get("access_token", [])
        if len(tokens) == 1:
            return tokens[0]
    return None


def _no_token(scope: Scope) -> tuple[str, str]:
    if any(name == b"authorization" for name, _ in scope["headers"]):
        return "The Authorization header must be a Bearer token.", ""
    return "There is no token: send it in the header Authorization: Bearer.", ""


def _signer(scope: Scope, settings: Settings) -> str:
    """Return the caller that a function URL or a REST API authenticated with ``AWS_IAM``: the same ARN, in one of two
    places of the request context (https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads,
    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html). Mangum hands
    the event over in the scope, the Lambda Web Adapter its request context in a header, which is believed only inside
    Lambda, where the adapter sets it whatever a client sent
    (https://github.com/awslabs/aws-lambda-web-adapter#request-context)."""
    event = scope.get("aws.event")
    context = event.get("requestContext", {}) if event is not None else _adapter_context(scope, settings)
    for place in (("authorizer", "iam"), ("identity",)):
        caller: Any = context
        for name in (*place, "userArn"):
            caller = caller.get(name) if isinstance(caller, Mapping) else None
        if isinstance(caller, str) and caller:
            return caller
    raise Unauthenticated("The request is not signed by an AWS identity.")


def _connection_signer(event: Mapping[str, Any]) -> str | None:
    """Return the caller that the route's own authorization has found: with ``AWS_IAM`` the caller's ARN, with a Lambda
    authorizer the principal that this named
    (https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html)."""
    context = event.get("requestContext", {})
    for place, name in (("authorizer", "principalId"), ("identity", "userArn")):
        caller = (context.get(place) or {}).get(name)
        if isinstance(caller, str) and caller:
            return caller
    return None


def _adapter_context(scope: Scope, settings: Settings) -> Any:
    if not settings.in_lambda:
        return {}
    for name, value in scope["headers"]:
        if name == b"x-amzn-request-context":
            try:
                return msgspec.json.decode(value)
            except msgspec.DecodeError:
                return {}
    return {}
