"""Settings, keys and who is asking: what a deployment says, and clear words where it says nonsense."""

from __future__ import annotations

import json
import os
import traceback
import uuid
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from tailrace.aws.sessions import Sessions
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.errors import ConfigurationError, Unauthenticated
from tailrace.identity.auth import Auth
from tailrace.identity.grants import Grants
from tailrace.providers import names
from tailrace.providers.presets import PRESETS
from tailrace.settings import Settings
from tailrace.store import Store

from tests.memory_calls import MemoryCalls


def test_the_defaults_are_one_machine() -> None:
    """With nothing set, the scripted provider and no authentication."""
    settings = Settings.from_environment({})
    assert (settings.provider, settings.auth, settings.in_lambda) == ("scripted", "none", False)
    assert settings.flush_interval is None


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TAILRACE_FLUSH_MS": "soon"}, r"^TAILRACE_FLUSH_MS must be a whole number from 10 to 10000\.$"),
        ({"TAILRACE_FLUSH_MS": "0"}, r"^TAILRACE_FLUSH_MS must be"),
        ({"TAILRACE_AUTH": "oauth"}, r"^TAILRACE_AUTH must be none, iam or jwt\.$"),
        ({"TAILRACE_AUTH": "none", "AWS_LAMBDA_FUNCTION_NAME": "f"}, r"would be an open relay\.$"),
        ({"TAILRACE_BROADCAST": "no"}, r"^TAILRACE_BROADCAST must be on or off\.$"),
        ({"TAILRACE_WEBSOCKET_URL": "live"}, r"^TAILRACE_WEBSOCKET_URL must be a URL\.$"),
        ({"AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": "ftp://x"}, r"^AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI must be"),
        ({"TAILRACE_FAN_OUT_LIMIT": "0"}, r"^TAILRACE_FAN_OUT_LIMIT must be a whole number from 1 to 10000\.$"),
        ({"TAILRACE_PROVIDER": "nobody"}, r"^TAILRACE_PROVIDER must be one of anthropic, azure, bedrock, .*, xai\.$"),
    ],
)
def test_nonsense_is_refused_with_the_variable_s_name(environment: dict[str, str], said: str) -> None:
    """A wrong setting stops the start, not the first request."""
    with pytest.raises(ConfigurationError, match=said):
        Settings.from_environment(environment)


ISSUER = {"TAILRACE_JWT_ISSUER": "https://issuer.example", "TAILRACE_JWT_AUDIENCE": "app, other"}


def test_inside_lambda_somebody_must_be_asking() -> None:
    """Nobody deploys an open relay by accident: where nothing is said, tokens are asked for, and it is said of whom."""
    with pytest.raises(
        ConfigurationError, match=r"^TAILRACE_AUTH=jwt, the default in Lambda, needs TAILRACE_JWT_ISSUER"
    ):
        Settings.from_environment({"AWS_LAMBDA_FUNCTION_NAME": "f"})
    settings = Settings.from_environment({"AWS_LAMBDA_FUNCTION_NAME": "f", **ISSUER})
    assert (settings.auth, settings.jwt_issuers) == ("jwt", ("https://issuer.example",))
    assert (settings.jwt_owner_claim, settings.jwt_scopes) == ("sub", ())
    more = {"TAILRACE_JWT_OWNER_CLAIM": "email", "TAILRACE_JWT_SCOPES": "GET *=chat:read, * /conversations/*=write"}
    settings = Settings.from_environment({**ISSUER, "AWS_LAMBDA_FUNCTION_NAME": "f", **more})
    assert settings.jwt_owner_claim == "email"
    assert settings.jwt_scopes == (("GET *", "chat:read"), ("* /conversations/*", "write"))
    assert settings.jwt_audience == ("app", "other")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {},
            r"needs TAILRACE_JWT_ISSUER and \S+_AUDIENCE, or TAILRACE_JWT_SECRET_ID, or TAILRACE_JWT_SECRET\.$",
        ),
        ({"TAILRACE_JWT_ISSUER": "https://issuer.example"}, r"TAILRACE_JWT_AUDIENCE"),
        ({"TAILRACE_JWT_AUDIENCE": "app"}, r"TAILRACE_JWT_ISSUER"),
        ({**ISSUER, "TAILRACE_JWT_AUDIENCE": " , "}, r"TAILRACE_JWT_AUDIENCE"),
        (
            {**ISSUER, "TAILRACE_JWT_ISSUER": "http://issuer.example"},
            r"^TAILRACE_JWT_ISSUER must be a URL with https, or several with commas\.$",
        ),
        ({**ISSUER, "TAILRACE_JWT_ISSUER": "issuer.example"}, r"must be a URL with https, or several"),
        ({**ISSUER, "TAILRACE_JWT_ISSUER": "https://a.example, b.example"}, r"must be a URL with https, or several"),
        (
            {**ISSUER, "TAILRACE_JWT_ISSUER": "https://a.example,https://b.example", "TAILRACE_JWT_SECRET": "x" * 32},
            r"^TAILRACE_JWT_ISSUER must name one issuer where tokens are signed with a secret\.$",
        ),
        ({**ISSUER, "TAILRACE_JWT_SCOPES": "chat:read"}, r"^TAILRACE_JWT_SCOPES must list requests and scopes"),
        ({**ISSUER, "TAILRACE_JWT_SCOPES": "get /x=a"}, r"^TAILRACE_JWT_SCOPES must list requests and scopes"),
        ({**ISSUER, "TAILRACE_JWT_SCOPES": "GET /[a]=b"}, r"^TAILRACE_JWT_SCOPES must list requests and scopes"),
        ({"TAILRACE_JWT_SECRET": "too short"}, r"^TAILRACE_JWT_SECRET must have 32 bytes or more\.$"),
    ],
)
def test_tokens_need_somebody_who_signs_them(environment: dict[str, str], said: str) -> None:
    """Half a setting stops the start: without an audience, tokens that the issuer gave to others would do."""
    with pytest.raises(ConfigurationError, match=said):
        Settings.from_environment({"TAILRACE_AUTH": "jwt", **environment})


def test_where_subscribers_are_reached() -> None:
    """By the address that clients connect to, or boto3's own variable, which wins; without one nothing is broadcast."""
    url = "wss://id.execute-api.eu-central-1.amazonaws.com/live/"
    settings = Settings.from_environment({"TAILRACE_WEBSOCKET_URL": url})
    assert settings.websocket_url == "https://id.execute-api.eu-central-1.amazonaws.com/live"
    assert settings.broadcasting
    local = {"AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": "http://127.0.0.1:8787/ws"}
    assert Settings.from_environment({"TAILRACE_WEBSOCKET_URL": url, **local}).websocket_url == local.popitem()[1]
    assert Settings.from_environment({"TAILRACE_WEBSOCKET_URL": "ws://x/ws"}).websocket_url == "http://x/ws"
    assert not Settings.from_environment({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}).broadcasting
    assert not Settings.from_environment({"TAILRACE_WEBSOCKET_URL": url, "TAILRACE_BROADCAST": "off"}).broadcasting


def test_the_namespace_of_events() -> None:
    """Laravel's own when nothing is said; an empty one is one that was said."""
    assert Settings.from_environment({}).event_namespace == "App\\Events\\"
    assert Settings.from_environment({"TAILRACE_EVENT_NAMESPACE": ""}).event_namespace == ""


@pytest.mark.anyio
async def test_the_secret_of_channels(dynamodb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, or from Secrets Manager by its name; without either it is said what to set."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", dynamodb_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("secretsmanager").create_secret(Name="tailrace/channels", SecretString="from-aws")
    for environment, secret in (
        ({"TAILRACE_CHANNEL_SECRET": "given", "TAILRACE_CHANNEL_SECRET_ID": "tailrace/channels"}, "given"),
        ({"TAILRACE_CHANNEL_SECRET_ID": "tailrace/channels"}, "from-aws"),
    ):
        backend = Backend(Settings.from_environment(environment))
        assert await backend.broadcast.secret() == secret
        await backend.close()
    backend = Backend(Settings())
    with pytest.raises(ConfigurationError, match=r"^TAILRACE_CHANNEL_SECRET is not set\.$"):
        await backend.broadcast.secret()
    await backend.close()


def test_the_vendors_own_variables() -> None:
    """Keys and base URLs as the SDKs read them; the default model belongs to the default provider."""
    settings = Settings.from_environment(
        {"TAILRACE_PROVIDER": "openai", "TAILRACE_MODEL": "m", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://x/v1"}
    )
    config = settings.provider_config("openai")
    assert (config.api_key, config.base_url, config.default_model) == ("k", "http://x/v1", "m")
    assert settings.provider_config("anthropic").default_model is None


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["secret", "parameter"])
async def test_a_key_from_aws(emulator_url: str, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Secrets Manager and Parameter Store are read through Powertools, against the emulator's real APIs."""
    for service in ("SECRETS_MANAGER", "SSM"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", emulator_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"/tailrace/{kind}"
    if kind == "secret":
        boto3.client("secretsmanager").create_secret(Name=name, SecretString="from-aws")
    else:
        boto3.client("ssm").put_parameter(Name=name, Value="from-aws", Type="SecureString")
    backend = Backend(Settings.from_environment({f"TAILRACE_ANTHROPIC_API_KEY_{kind.upper()}": name}))
    provider: Any = await backend.provider("anthropic")
    assert provider._config.api_key == "from-aws"
    await backend.close()


SHARED = "tailrace/keys"


@pytest.fixture
def keep_keys(emulator_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Settings]:
    """Puts a text into the secret with the keys of many, and returns the settings that name it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", emulator_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def keep(text: str) -> Settings:
        name = f"{SHARED}-{uuid.uuid4()}"  # Powertools keeps what it has read of a name
        boto3.client("secretsmanager").create_secret(Name=name, SecretString=text)
        return Settings.from_environment({"TAILRACE_KEYS_SECRET": name, "ANTHROPIC_API_KEY": "from-environment"})

    return keep


@pytest.mark.anyio
async def test_the_keys_of_many_providers_in_one_secret(keep_keys: Callable[[str], Settings]) -> None:
    """Each is found by the name of its variable, by any of them; the environment's own key wins."""
    backend = Backend(keep_keys('{"GROQ_API_KEY": "g", "GOOGLE_API_KEY": "second", "ANTHROPIC_API_KEY": "not this"}'))
    found = {name: (await backend.provider(name))._config.api_key for name in ("groq", "gemini", "anthropic")}  # type: ignore[attr-defined]
    assert found == {"groq": "g", "gemini": "second", "anthropic": "from-environment"}
    assert (await backend.provider("ollama"))._config.api_key is None  # type: ignore[attr-defined]  # needs none
    await backend.close()


@pytest.mark.anyio
async def test_a_provider_s_own_secret_comes_before_that_of_many() -> None:
    """More special wins; what needs no key looks nowhere."""
    settings = Settings.from_environment(
        {"TAILRACE_KEYS_SECRET": SHARED, "TAILRACE_OPENAI_API_KEY_PARAMETER": "/p", "TAILRACE_XAI_API_KEY_SECRET": "s"}
    )
    assert settings.key_source("openai") == ("parameter", "/p")
    assert settings.key_source("xai") == ("secret", "s")
    assert settings.key_source("groq") == ("keys", SHARED)
    assert settings.key_source("bedrock") is None
    assert settings.key_source("scripted") is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sk-not-json", r"^The secret \S+ must be a JSON object of keys, such as {\"GEMINI_API_KEY\": \"\.\.\.\"}\.$"),
        ('["sk-in-a-list"]', r"must be a JSON object of keys"),
        ('{"GROQ_API_KEY": {"key": "sk-nested"}}', r"must be a JSON object of keys"),
        (
            '{"XAI_API_KEY": "sk-of-another"}',
            r"^No API key for groq: set GROQ_API_KEY\. It is not in the secret \S+ either\.$",
        ),
        ('{"GROQ_API_KEY": ""}', r"^No API key for groq"),
    ],
)
async def test_a_secret_of_many_keys_that_does_not_help(
    keep_keys: Callable[[str], Settings], text: str, said: str
) -> None:
    """The deployment is told what is wrong with it, and nothing of what is in it, in no link of the chain."""
    backend = Backend(keep_keys(text))
    with pytest.raises(ConfigurationError, match=said) as raised:
        await backend.provider("groq")
    chain = "".join(traceback.format_exception(raised.value))
    assert "sk-" not in chain
    await backend.close()


@pytest.mark.anyio
async def test_a_secret_of_many_keys_that_is_not_there(keep_keys: Callable[[str], Settings]) -> None:
    """Or may not be read: the message has its name."""
    settings = keep_keys("{}")
    environment = {**settings.environment, "TAILRACE_KEYS_SECRET": "nowhere"}
    backend = Backend(Settings.from_environment(environment))
    with pytest.raises(ConfigurationError, match=r"^The secret nowhere cannot be read\.$"):
        await backend.provider("groq")
    await backend.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "variable"),
    [("anthropic", "ANTHROPIC_API_KEY"), ("openai-responses", "OPENAI_API_KEY"), ("gemini", "GEMINI_API_KEY")]
    + [(name, preset.key_variable) for name, preset in PRESETS.items() if preset.key_variable],
)
async def test_a_missing_key_names_its_variable(name: str, variable: str) -> None:
    """The deployment is told what to set."""
    backend = Backend(Settings())
    with pytest.raises(ConfigurationError, match=f"^No API key for {name}: set {variable}"):
        await backend.provider(name)
    await backend.close()


def test_the_variables_of_every_provider() -> None:
    """Each has its key and its address where its vendor's SDK looks for them; one vendor's two wires share them."""
    environment = {
        "OPENAI_API_KEY": "o",
        "GOOGLE_API_KEY": "g",
        "GOOGLE_GEMINI_BASE_URL": "http://g",
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://b",
        "XAI_API_KEY": "x",
        "OLLAMA_BASE_URL": "http://o/v1",
        "TAILRACE_GROQ_API_KEY_SECRET": "s",
        "TAILRACE_OPENAI_API_KEY_PARAMETER": "/p",
    }
    settings = Settings.from_environment(environment)
    found = {name: settings.provider_config(name) for name in names()}
    assert {name: (config.api_key, config.base_url) for name, config in found.items()} == {
        **dict.fromkeys(names(), (None, None)),
        "openai": ("o", None),
        "openai-responses": ("o", None),
        "gemini": ("g", "http://g"),
        "bedrock": (None, "http://b"),
        "xai": ("x", None),
        "ollama": (None, "http://o/v1"),
    }
    assert settings.key_source("groq") == ("secret", "s")
    assert settings.key_source("openai-responses") == ("parameter", "/p")
    assert settings.key_source("bedrock") is None


@pytest.mark.anyio
async def test_a_server_by_its_name() -> None:
    """It has its own name and address, and the address can be another."""
    backend = Backend(Settings(environment={"GROQ_API_KEY": "k"}))
    provider: Any = await backend.provider("groq")
    assert provider.name == "groq"
    assert provider._config.base_url == "https://api.groq.com/openai/v1"
    assert (await backend.provider("ollama")).name == "ollama"
    await backend.close()


CALLER = {"authorizer": {"iam": {"userArn": "arn:aws:iam::123456789012:user/me"}}}
IAM = Settings(auth="iam", in_lambda=True)


def scope(headers: dict[str, str] | None = None, event: object = None) -> dict[str, Any]:
    """Return an ASGI scope."""
    found: dict[str, Any] = {"headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()]}
    return {**found, "aws.event": event} if event else found


def auth(settings: Settings) -> Auth:
    """Return what identifies callers, without a network."""

    async def no_secret(name: str) -> str:
        raise AssertionError(name)

    clock = SystemClock()
    grants = Grants(Store(MemoryCalls(), "table").grants, clock=clock, random_bytes=os.urandom)
    return Auth(settings, grants=grants, clock=clock, sessions=Sessions(limit=1), read_secret=no_secret)


@pytest.mark.anyio
async def test_the_caller_of_a_function_url() -> None:
    """Through Mangum's event, and through the adapter's header."""
    mangum = scope(event={"requestContext": CALLER})
    adapter = scope({"x-amzn-request-context": json.dumps(CALLER)})
    for asked in (mangum, adapter):
        assert await auth(IAM).identify(asked) == "arn:aws:iam::123456789012:user/me"


@pytest.mark.anyio
async def test_the_caller_of_a_rest_api() -> None:
    """The same ARN as at a function URL, so the same owner; what an authorizer of the API says does not count."""
    me = "arn:aws:iam::123456789012:user/me"
    identity: dict[str, str | None] = {"userArn": me, "user": "AIDA"}
    context = {"authorizer": {"principalId": "somebody", "iam": "else"}, "identity": identity}
    for asked in (scope(event={"requestContext": context}), scope({"x-amzn-request-context": json.dumps(context)})):
        assert await auth(IAM).identify(asked) == me
    identity["userArn"] = None  # as a method without AWS_IAM has it
    for asked in (scope(event={"requestContext": context}), scope({"x-amzn-request-context": json.dumps(context)})):
        with pytest.raises(Unauthenticated, match="not signed"):
            await auth(IAM).identify(asked)


NOBODY = [
    "{",
    "null",
    "[]",
    "{}",
    '{"authorizer":null}',
    '{"authorizer":{"iam":{}}}',
    '{"identity":null}',
    '{"identity":{"userArn":null}}',
    '{"identity":{"userArn":["me"]}}',
    '{"authorizer":{"principalId":"me"},"identity":{"userArn":""}}',
]


@pytest.mark.anyio
@pytest.mark.parametrize("context", NOBODY)
async def test_no_caller_is_refused(context: str) -> None:
    """Whatever the context looks like without one."""
    for asked in (scope({"x-amzn-request-context": context}), scope(event={"requestContext": {}}), scope()):
        with pytest.raises(Unauthenticated, match="not signed"):
            await auth(IAM).identify(asked)


@pytest.mark.anyio
async def test_the_adapter_s_header_is_believed_only_in_lambda() -> None:
    """Elsewhere anybody could send it."""
    asked = scope({"x-amzn-request-context": json.dumps(CALLER)})
    with pytest.raises(Unauthenticated):
        await auth(Settings(auth="iam", in_lambda=False)).identify(asked)
