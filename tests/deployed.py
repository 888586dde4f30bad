"""A function with all of AWS that it calls at one endpoint, and the options of the stack switched on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType
from typing import Any, Final

import boto3
import pytest
from aws_lambda_powertools.utilities import parameters
from mangum import Mangum
from tailrace.providers import bedrock
from tailrace.settings import Settings

from local.lambda_function import LambdaContext, LambdaFunction, load_function
from tests.aws_endpoint import AwsEndpoint
from tests.issuer import SECRET

KEYS: Final = {
    "TAILRACE_CHANNEL_SECRET_ID": "ChannelSecret",
    "TAILRACE_JWT_SECRET_ID": "JwtSecret",
    "TAILRACE_ANTHROPIC_API_KEY_SECRET": "AnthropicSecret",
    "TAILRACE_OPENAI_API_KEY_PARAMETER": "/OpenAIParameter",
    "TAILRACE_KEYS_SECRET": "KeysSecret",
}
"""Where keys lie: the variables, and the names by which the template knows them."""


def put_keys(emulator: str) -> None:
    """Put all keys where the variables say, unless they are there."""
    options: Any = {"region_name": "us-east-1", "endpoint_url": emulator}
    secrets, parameter_store = boto3.client("secretsmanager", **options), boto3.client("ssm", **options)
    there = {each["Name"] for each in secrets.list_secrets()["SecretList"]}
    for name in set(KEYS.values()) - there:
        if name.startswith("/"):
            parameter_store.put_parameter(Name=name, Value=SECRET, Type="SecureString", Overwrite=True)
        else:
            many = name == KEYS["TAILRACE_KEYS_SECRET"]
            secrets.create_secret(Name=name, SecretString=json.dumps({"GROQ_API_KEY": SECRET}) if many else SECRET)


FUNCTION_NAMES: Final = {"broadcast": "BroadcastFunction", "chat": "ChatFunction"}
"""What a function is called that is called by its name."""


class Deployed:
    """A function that is called as Lambda calls it.

    Attributes:
        answers: what it returned, in order.
    """

    def __init__(self, name: str, module: ModuleType) -> None:
        self.answers: list[dict[str, Any]] = []
        self._name = name
        if name == "stream":  # in AWS the Web Adapter calls it; the application is the same
            handler: Any = Mangum(module.app, lifespan="off")
        else:
            handler = module.handler
        self._function = LambdaFunction(name, handler, lambda: _closing(module))

    async def call(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return what a call returns."""
        self.answers.append(await self._function.call(event, LambdaContext(self._name)))
        return self.answers[-1]

    async def json(self, event: dict[str, Any]) -> Any:
        """Return the JSON of a request's answer."""
        return json.loads((await self.call(event))["body"])

    async def close(self) -> None:
        """Wait for what goes on, and close it."""
        await self._function.close()


@asynccontextmanager
async def deployed(name: str, aws: AwsEndpoint, settings: Settings, **environment: str) -> AsyncIterator[Deployed]:
    """A function as template.yaml deploys it.

    Args:
        environment: variables beside those of the template.
    """
    with pytest.MonkeyPatch.context() as patch:
        variables = {
            **KEYS,
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_DEFAULT_REGION": settings.region,
            "AWS_LAMBDA_FUNCTION_NAME": FUNCTION_NAMES.get(name, name),
            "ANTHROPIC_BASE_URL": aws.url,
            "GROQ_BASE_URL": aws.url,
            "OPENAI_BASE_URL": aws.url,
            "TAILRACE_ALLOW": "*",  # each provider is asked
            "TAILRACE_LIMIT_OPEN": "20",
            "TAILRACE_LIMIT_TOKENS": "100000000",
            "TAILRACE_LIMIT_CONVERSATIONS": "1000",
            "TAILRACE_AUTH": "iam",
            "TAILRACE_TABLE": settings.table,
            "TAILRACE_WEBSOCKET_URL": f"{aws.url}/live",
            "TAILRACE_BROADCAST_FUNCTION": FUNCTION_NAMES["broadcast"],
            "TAILRACE_CHAT_FUNCTION": FUNCTION_NAMES["chat"],
        }
        for variable, value in {**variables, **environment}.items():
            patch.setenv(variable, value)
        _forget()
        function = Deployed(name, await asyncio.to_thread(load_function, name))
        try:
            yield function
        finally:
            await function.close()
            _forget()


def _forget() -> None:
    """Drop keys that were read, and clients that were made: what is kept would not be asked for, or elsewhere."""
    parameters.clear_caches()  # type: ignore[no-untyped-call]  # Powertools has left its types out
    bedrock._client.cache_clear()


def _closing(module: ModuleType) -> AbstractAsyncContextManager[object]:
    if hasattr(module, "app"):
        context: AbstractAsyncContextManager[object] = module.app.router.lifespan_context(module.app)
        return context
    return _backend_of(module)


@asynccontextmanager
async def _backend_of(module: ModuleType) -> AsyncIterator[None]:
    yield
    await module.backend.close()
