"""Settings, keys and who is asking: what a deployment says, and clear words where it says nonsense."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from tailrace.auth import Auth
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.errors import ConfigurationError, Unauthenticated
from tailrace.sessions import Sessions
from tailrace.settings import Settings


def test_the_defaults_are_one_machine() -> None:
    """With nothing set, the scripted provider and no authentication."""
    settings = Settings.from_environment({})
    assert (settings.provider, settings.auth, settings.in_lambda) == ("scripted", "none", False)
    assert settings.flush_interval == 0.1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TAILRACE_FLUSH_MS": "soon"}, r"^TAILRACE_FLUSH_MS must be a whole number from 10 to 10000\.$"),
        ({"TAILRACE_FLUSH_MS": "0"}, r"^TAILRACE_FLUSH_MS must be"),
        ({"TAILRACE_AUTH": "oauth"}, r"^TAILRACE_AUTH must be none, iam or jwt\.$"),
        ({"TAILRACE_AUTH": "none", "AWS_LAMBDA_FUNCTION_NAME": "f"}, r"would be an open relay\.$"),
        ({"TAILRACE_PROVIDER": "nobody"}, r"^TAILRACE_PROVIDER must be one of anthropic, openai, scripted\.$"),
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
    assert (settings.auth, settings.jwt_issuer) == ("jwt", "https://issuer.example")
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
            r"^TAILRACE_JWT_ISSUER must be a URL with https\.$",
        ),
        ({**ISSUER, "TAILRACE_JWT_ISSUER": "issuer.example"}, r"must be a URL with https\.$"),
        ({"TAILRACE_JWT_SECRET": "too short"}, r"^TAILRACE_JWT_SECRET must have 32 bytes or more\.$"),
    ],
)
def test_tokens_need_somebody_who_signs_them(environment: dict[str, str], said: str) -> None:
    """Half a setting stops the start: without an audience, tokens that the issuer gave to others would do."""
    with pytest.raises(ConfigurationError, match=said):
        Settings.from_environment({"TAILRACE_AUTH": "jwt", **environment})


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


@pytest.mark.anyio
async def test_a_missing_key_names_its_variable() -> None:
    """The deployment is told what to set."""
    backend = Backend(Settings())
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
        await backend.provider("anthropic")
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

    return Auth(settings, clock=SystemClock(), sessions=Sessions(limit=1), read_secret=no_secret)


@pytest.mark.anyio
async def test_the_caller_of_a_function_url() -> None:
    """Through Mangum's event, and through the adapter's header."""
    mangum = scope(event={"requestContext": CALLER})
    adapter = scope({"x-amzn-request-context": json.dumps(CALLER)})
    for asked in (mangum, adapter):
        assert await auth(IAM).identify(asked) == "arn:aws:iam::123456789012:user/me"


@pytest.mark.anyio
@pytest.mark.parametrize("context", ["{", "null", "[]", "{}", '{"authorizer":null}', '{"authorizer":{"iam":{}}}'])
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
