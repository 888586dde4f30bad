"""Who is asking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tailrace.errors import Unauthenticated
from tailrace.settings import Settings

ANYBODY: Final = "anonymous"
"""The one owner of everything when auth is ``none``."""

Scope = Mapping[str, Any]


def identify(scope: Scope, settings: Settings) -> str:
    """Return the owner that a request of this ASGI scope acts for.

    With ``iam`` it is the caller that the function URL authenticated: Mangum hands its event over in the
    scope, the Lambda Web Adapter its request context in a header, which is believed only inside Lambda,
    where the adapter sets it whatever a client sent
    (https://github.com/awslabs/aws-lambda-web-adapter#request-context).

    Raises:
        Unauthenticated: there is no such caller.
    """
    if settings.auth == "none":
        return ANYBODY
    event = scope.get("aws.event")
    context = event.get("requestContext", {}) if event is not None else _adapter_context(scope, settings)
    try:
        caller = context["authorizer"]["iam"]["userArn"]
    except (KeyError, TypeError):
        caller = None
    if not isinstance(caller, str) or not caller:
        raise Unauthenticated("The request is not signed by an AWS identity.")
    return caller


def connection_owner(event: Mapping[str, Any], settings: Settings) -> str | None:
    """Return the owner that a WebSocket connection acts for, or None if nobody can be seen behind it.

    Args:
        event: the API Gateway event of its ``$connect``. It names the caller that the route's own authorization
            has found: with ``AWS_IAM`` the caller's ARN, with a Lambda authorizer the principal that this named
            (https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html).
    """
    if settings.auth == "none":
        return None
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
