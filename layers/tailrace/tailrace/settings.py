"""The settings, read from the environment once."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from tailrace.aws.secrets import KeyKind
from tailrace.errors import ConfigurationError
from tailrace.providers import ProviderConfig, names, variables
from tailrace.providers.own_code import PLACE

Auth = Literal["none", "iam", "jwt"]


OWN_NAME: Final = r"[a-z0-9][a-z0-9_.-]{0,63}"
"""Of a provider of one's own; none has a slash, which parts provider and model."""

LOOPBACK: Final = "loopback"
"""Among the origins: pages that this machine itself serves, on any port."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set (see docs/settings.md for the variables).

    Attributes:
        table: the DynamoDB table's name.
        region: the AWS region.
        dynamodb_endpoint: another DynamoDB than the region's, or None.
        provider, model: what a start uses that names none.
        own_providers: names of providers of your own, and where their code is: ``package.module:attribute``.
        own_tools: where the code of your own tools is, likewise.
        limit_open: replies of one identity that may be written at once, or None.
        limit_starts: replies that it may start a minute, or None.
        limit_tokens: tokens that it may use a day, or None.
        limit_conversations: conversations that it may make a day, or None.
        limit_channels: channels that one WebSocket connection may be subscribed to, or None.
        limit_whispers: whispers of one connection a second, or None.
        limit_sockets: WebSocket connections that one identity may have open, or None.
        allow: which providers and models a client may ask, as patterns ``provider/model``, or None for any.
        max_tokens: what a client may ask for at most, and what is asked for where it says nothing, or None.
        allow_options: the options that a client may set, or None for any.
        flush_interval: seconds between two flushes of a stream's log; when None 0.1 while somebody reads along,
            otherwise 0.5.
        lease: seconds of silence after which a reply's writer counts as dead; it writes at least six times as often.
        retention: seconds a log is kept after its end, and an idempotency key after its start.
        prune_after: seconds after which a deleted conversation is deleted for good.
        body_limit: the largest request body, in bytes.
        history_tokens: how much of what was said before goes into a prompt that says nothing else, in tokens.
        keep_reasoning: whether a message keeps the text of its reasoning.
        keep_alive: seconds without an event after which an SSE connection gets a comment.
        auth: ``none`` lets everybody in as one owner and is refused inside Lambda; ``iam`` takes the
            caller that the function URL or the REST API authenticated; ``jwt`` the subject of a signed token.
        jwt_issuers: who may issue the tokens: what they have as ``iss``, and below which their keys are found.
        jwt_audience: whom they are for; empty if that does not matter.
        jwt_owner_claim: the claim of a token that says whose it is.
        jwt_scopes: which scope a token must have for which requests: patterns such as ``GET /messages/*``, of which
            the first that fits counts, and the scope.
        jwt_secret: what they are signed with, if not with the issuer's keys.
        jwt_secret_id: the secret of Secrets Manager that it lies in, used when it is not given itself.
        cors_origins: whose pages may call, ``loopback`` among them for any port of this machine.
        in_lambda: whether this is a Lambda environment, whose request context can be trusted.
        websocket_url: the management endpoint of the WebSocket API with its stage, ``https://...``, or None.
        broadcast: whether replies are sent to subscribers, given that there is such an endpoint.
        event_namespace: what stands before the name of an event of ours.
        channel_secret: what private and presence channels are signed with.
        channel_secret_id: the secret of Secrets Manager that it lies in, used when it is not given itself.
        fan_out_limit: subscribers above which the relay hands over to the broadcast function.
        broadcast_function: that function's name, or None: then the relay posts to all of them.
        chat_function: the name of the function that answers the chats of a WebSocket, or None: then nobody does.
        lambda_endpoint: another Lambda than the region's, or None.
        environment: the rest of what was read: the providers' own variables.
    """

    table: str = "tailrace"
    region: str = "us-east-1"
    dynamodb_endpoint: str | None = None
    provider: str = "scripted"
    model: str | None = None
    own_providers: Mapping[str, str] = msgspec.field(default_factory=dict)
    own_tools: tuple[str, ...] = ()
    limit_open: int | None = None
    limit_starts: int | None = None
    limit_tokens: int | None = None
    limit_conversations: int | None = None
    limit_channels: int | None = None
    limit_whispers: int | None = None
    limit_sockets: int | None = None
    allow: tuple[str, ...] | None = None
    max_tokens: int | None = None
    allow_options: tuple[str, ...] | None = None
    flush_interval: float | None = None
    lease: float = 30.0
    retention: int = 24 * 3600
    prune_after: int = 30 * 24 * 3600
    body_limit: int = 256 * 1024
    history_tokens: int = 100_000
    keep_reasoning: bool = True
    keep_alive: float = 12.0
    auth: Auth = "none"
    jwt_issuers: tuple[str, ...] = ()
    jwt_audience: tuple[str, ...] = ()
    jwt_owner_claim: str = "sub"
    jwt_scopes: tuple[tuple[str, str], ...] = ()
    jwt_secret: str | None = None
    jwt_secret_id: str | None = None
    cors_origins: tuple[str, ...] = ()
    in_lambda: bool = False
    websocket_url: str | None = None
    broadcast: bool = True
    event_namespace: str = "App\\Events\\"
    channel_secret: str | None = None
    channel_secret_id: str | None = None
    fan_out_limit: int = 100
    broadcast_function: str | None = None
    chat_function: str | None = None
    lambda_endpoint: str | None = None
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises:
            ConfigurationError: a variable has a value that cannot be; the message names it.
        """
        in_lambda = "AWS_LAMBDA_FUNCTION_NAME" in environment
        auth = environment.get("TAILRACE_AUTH") or ("jwt" if in_lambda else "none")
        if auth not in ("none", "iam", "jwt"):
            raise ConfigurationError("TAILRACE_AUTH must be none, iam or jwt.")
        if auth == "none" and in_lambda:
            raise ConfigurationError("TAILRACE_AUTH=none is for one machine only: in Lambda it would be an open relay.")
        provider = environment.get("TAILRACE_PROVIDER") or "scripted"
        own_providers = _own_providers(environment)
        known = names(own_providers)
        if provider not in known:
            raise ConfigurationError(f"TAILRACE_PROVIDER must be one of {', '.join(known)}.")
        return cls(
            table=environment.get("TAILRACE_TABLE") or "tailrace",
            region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
            dynamodb_endpoint=environment.get("AWS_ENDPOINT_URL_DYNAMODB") or environment.get("AWS_ENDPOINT_URL"),
            provider=provider,
            model=environment.get("TAILRACE_MODEL") or None,
            own_providers=own_providers,
            own_tools=_places(environment, "TAILRACE_TOOLS"),
            limit_open=_limit(environment, "TAILRACE_LIMIT_OPEN", 1000),
            limit_starts=_limit(environment, "TAILRACE_LIMIT_STARTS", 60_000),
            limit_tokens=_limit(environment, "TAILRACE_LIMIT_TOKENS", 10**12),
            limit_conversations=_limit(environment, "TAILRACE_LIMIT_CONVERSATIONS", 10**9),
            limit_channels=_limit(environment, "TAILRACE_LIMIT_CHANNELS", 1000),
            limit_whispers=_limit(environment, "TAILRACE_LIMIT_WHISPERS", 1000),
            limit_sockets=_limit(environment, "TAILRACE_LIMIT_SOCKETS", 1000),
            allow=_allow(environment, provider, own_providers, in_lambda=in_lambda),
            max_tokens=_limit(environment, "TAILRACE_MAX_TOKENS", 10_000_000),
            allow_options=_words(environment, "TAILRACE_ALLOW_OPTIONS"),
            flush_interval=_flush_interval(environment),
            lease=_number(environment, "TAILRACE_LEASE_S", 30, 2, 900),
            retention=_number(environment, "TAILRACE_RETENTION_H", 24, 1, 24 * 365) * 3600,
            prune_after=_number(environment, "TAILRACE_PRUNE_DAYS", 30, 0, 3650) * 24 * 3600,
            body_limit=_number(environment, "TAILRACE_BODY_LIMIT", 256 * 1024, 1024, 6 * 1024 * 1024),
            history_tokens=_number(environment, "TAILRACE_HISTORY_TOKENS", 100_000, 0, 10_000_000),
            keep_reasoning=_switch(environment, "TAILRACE_KEEP_REASONING"),
            keep_alive=_number(environment, "TAILRACE_KEEP_ALIVE_MS", 12_000, 100, 60_000) / 1000,
            auth=auth,  # type: ignore[arg-type]  # checked above; mypy does not narrow str by "in"
            **(_jwt(environment) if auth == "jwt" else {}),
            in_lambda=in_lambda,
            websocket_url=_websocket_url(environment),
            broadcast=_switch(environment, "TAILRACE_BROADCAST"),
            cors_origins=_origins(environment, "" if in_lambda else LOOPBACK),
            event_namespace=environment.get("TAILRACE_EVENT_NAMESPACE", "App\\Events\\"),
            channel_secret=environment.get("TAILRACE_CHANNEL_SECRET") or None,
            channel_secret_id=environment.get("TAILRACE_CHANNEL_SECRET_ID") or None,
            fan_out_limit=_number(environment, "TAILRACE_FAN_OUT_LIMIT", 100, 1, 10_000),
            broadcast_function=environment.get("TAILRACE_BROADCAST_FUNCTION") or None,
            chat_function=environment.get("TAILRACE_CHAT_FUNCTION") or None,
            lambda_endpoint=environment.get("AWS_ENDPOINT_URL_LAMBDA") or environment.get("AWS_ENDPOINT_URL"),
            environment=dict(environment),
        )

    @property
    def in_snapshot(self) -> bool:
        """Whether what is made before the first request goes into a snapshot, from which Lambda starts environments
        (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime)."""
        return self.environment.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"

    @property
    def broadcasting(self) -> bool:
        """Whether replies are sent to subscribers."""
        return self.broadcast and self.websocket_url is not None

    def provider_config(self, name: str) -> ProviderConfig:
        """Return what the vendor's own SDK would take from the environment."""
        read = variables(name)
        return ProviderConfig(
            api_key=next(filter(None, map(self.environment.get, read.keys)), None),
            base_url=self.environment.get(read.base_url) or None,
            default_model=self.model if name == self.provider else None,
            region=self.region,
        )

    def key_source(self, name: str) -> tuple[KeyKind, str] | None:
        """Return where a provider's key lies: its own secret or parameter, else the secret with the keys of many."""
        keys = variables(name).keys
        for key in keys[:1]:
            for kind in ("secret", "parameter"):
                where = self.environment.get(f"TAILRACE_{key}_{kind.upper()}")
                if where:
                    return kind, where
        shared = self.environment.get("TAILRACE_KEYS_SECRET")
        return ("keys", shared) if keys and shared else None


def _websocket_url(environment: Mapping[str, str]) -> str | None:
    """Return the management endpoint. AWS_ENDPOINT_URL does not count: whoever points DynamoDB elsewhere with it
    has no WebSocket API yet."""
    name = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"
    if not environment.get(name):
        name = "TAILRACE_WEBSOCKET_URL"
    url = environment.get(name)
    if not url:
        return None
    # The address that clients connect to is the same one but for its scheme.
    for scheme, spoken in (("wss://", "https://"), ("ws://", "http://")):
        if url.startswith(scheme):
            url = spoken + url.removeprefix(scheme)
    if not url.startswith(("https://", "http://")):
        raise ConfigurationError(f"{name} must be a URL.")
    return url.rstrip("/")


def _jwt(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of the tokens."""
    issuers = _words(environment, "TAILRACE_JWT_ISSUER") or ()
    audience = _words(environment, "TAILRACE_JWT_AUDIENCE") or ()
    secret = environment.get("TAILRACE_JWT_SECRET") or None
    secret_id = environment.get("TAILRACE_JWT_SECRET_ID") or None
    if secret is None and secret_id is None:
        if not issuers or not audience:
            raise ConfigurationError(
                "TAILRACE_AUTH=jwt, the default in Lambda, needs TAILRACE_JWT_ISSUER and TAILRACE_JWT_AUDIENCE, "
                "or TAILRACE_JWT_SECRET_ID, or TAILRACE_JWT_SECRET."
            )
        for issuer in issuers:
            url = urlsplit(issuer)
            if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname))):
                raise ConfigurationError("TAILRACE_JWT_ISSUER must be a URL with https, or several with commas.")
    elif len(issuers) > 1:
        raise ConfigurationError("TAILRACE_JWT_ISSUER must name one issuer where tokens are signed with a secret.")
    if secret is not None and len(secret.encode()) < 32:
        raise ConfigurationError("TAILRACE_JWT_SECRET must have 32 bytes or more.")
    return {
        "jwt_issuers": issuers,
        "jwt_audience": audience,
        "jwt_owner_claim": environment.get("TAILRACE_JWT_OWNER_CLAIM") or "sub",
        "jwt_scopes": _scopes(environment),
        "jwt_secret": secret,
        "jwt_secret_id": secret_id,
    }


_SCOPE: Final = r"(\*|[A-Z]+) (/[^ =\[\]?]*|\*) *= *([\x21\x23-\x5b\x5d-\x7e]+)"
"""A pattern of requests, and a scope (https://www.rfc-editor.org/rfc/rfc6749#section-3.3)."""


def _scopes(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return which requests need which scope."""
    name = "TAILRACE_JWT_SCOPES"
    found = []
    for text in _words(environment, name) or ():
        match = re.fullmatch(_SCOPE, text)
        if match is None:
            raise ConfigurationError(f"{name} must list requests and scopes, such as GET /messages/*=chat:read.")
        found.append((f"{match[1]} {match[2]}", match[3]))
    return tuple(found)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _switch(environment: Mapping[str, str], name: str) -> bool:
    """Return a setting that is on unless it is off."""
    value = environment.get(name) or "on"
    if value not in ("on", "off"):
        raise ConfigurationError(f"{name} must be on or off.")
    return value == "on"


def _number(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise ConfigurationError(f"{name} must be a whole number from {least} to {most}.")
    return value


def _flush_interval(environment: Mapping[str, str]) -> float | None:
    milliseconds = _number(environment, "TAILRACE_FLUSH_MS", 0, 10, 10_000)
    return milliseconds / 1000 if milliseconds else None


def _places(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return a list of ``package.module:attribute``."""
    places = tuple(place for part in environment.get(name, "").split(",") if (place := part.strip()))
    for place in places:
        if not re.fullmatch(PLACE, place):
            raise ConfigurationError(f"{name} must list package.module:attribute, separated by commas.")
    return places


def _own_providers(environment: Mapping[str, str]) -> dict[str, str]:
    """Return providers of one's own with where they are."""
    name = "TAILRACE_PROVIDERS"
    found: dict[str, str] = {}
    for each in environment.get(name, "").split(","):
        own, equals, place = (part.strip() for part in each.partition("="))
        if not own and not equals:
            continue
        if not re.fullmatch(OWN_NAME, own) or not re.fullmatch(PLACE, place):
            raise ConfigurationError(f"{name} must list name=package.module:attribute, separated by commas.")
        if own in names() or own in found:
            raise ConfigurationError(f"{name} has {own}, and there is such a provider already.")
        found[own] = place
    return found


def _limit(environment: Mapping[str, str], name: str, most: int) -> int | None:
    """Return a limit; unset and 0 are none."""
    return _number(environment, name, 0, 0, most) or None


def _words(environment: Mapping[str, str], name: str) -> tuple[str, ...] | None:
    """Return a list; None when it is unset."""
    if name not in environment:
        return None
    return tuple(word for part in environment[name].split(",") if (word := part.strip()))


def _allow(
    environment: Mapping[str, str], provider: str, own: Iterable[str], *, in_lambda: bool
) -> tuple[str, ...] | None:
    """Return what may be asked. In Lambda, where others pay attention to nothing, that is what the stack has."""
    given = _words(environment, "TAILRACE_ALLOW")
    if given or not in_lambda:
        return given or None
    model = environment.get("TAILRACE_MODEL")
    return (f"{provider}/{model}" if model else provider, *(name for name in own if name != provider))


def _origins(environment: Mapping[str, str], default: str) -> tuple[str, ...]:
    name = "TAILRACE_CORS_ORIGINS"
    given = environment.get(name, default).split(",")
    origins = tuple(origin for part in given if (origin := part.strip()))
    for origin in origins:
        if origin not in (LOOPBACK, "*") and not re.fullmatch(r"https?://[^/?#\s]+", origin):
            raise ConfigurationError(f"{name} must list origins such as https://app.example.com, loopback, or *.")
    return origins
