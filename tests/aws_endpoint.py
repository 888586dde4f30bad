"""AWS's endpoints, all on one port: what reaches them is noted as IAM would ask for it, whoever sent it.

DynamoDB, Secrets Manager and Parameter Store are the emulator's; API Gateway's management API, Lambda and Bedrock are
answered here. The service is in the signature of each request (its credential scope:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html), so it makes no difference
whether boto3 has sent it or one of our own clients.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import aiohttp
import msgspec
from aiohttp import web

from tests.providers.helpers import fixture

SCOPE: Final = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([^/]+)/aws4_request")

BEDROCK: Final = {"converse": "InvokeModel", "converse-stream": "InvokeModelWithResponseStream"}
"""https://docs.aws.amazon.com/bedrock/latest/userguide/inference-prereq.html says what each call asks for."""


CONVERSED: Final = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Yes."}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
    "metrics": {"latencyMs": 1},
}
"""https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax"""


class Permission(NamedTuple):
    """What IAM is asked for.

    Attributes:
        action: such as ``dynamodb:GetItem``.
        resource: a table, ``<table>/index/<index>``, a secret's or a parameter's name, a function, a model, or
            ``POST/@connections``.
    """

    action: str
    resource: str


class AwsEndpoint:
    """Serves one function, and sees what it calls.

    Attributes:
        url: for ``AWS_ENDPOINT_URL``.
        seen: what was asked for so far.
        gone: WebSocket connections that are not there any more.
        denied: actions that are refused, as they are to a role that has not got them.
    """

    def __init__(self, dynamodb: str, emulator: str) -> None:
        self.url = ""
        self.seen: set[Permission] = set()
        self.gone: set[str] = set()
        self.denied: set[str] = set()
        self._emulators = {"dynamodb": dynamodb, "secretsmanager": emulator, "ssm": emulator}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[AwsEndpoint]:
        """Serve on a free port."""
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as self._session:
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        signed = SCOPE.search(request.headers.get("Authorization", ""))
        if signed is None:  # a provider that knows nothing of AWS
            return web.Response(body=fixture("anthropic"), content_type="text/event-stream")
        asked = permissions(signed[1], request, body)
        self.seen |= asked
        if denied := {each.action for each in asked} & self.denied:
            message = f"User is not authorized to perform: {', '.join(sorted(denied))}"
            return web.json_response({"__type": "AccessDeniedException", "message": message}, status=400)
        match signed[1]:
            case "dynamodb" | "secretsmanager" | "ssm" as service:
                return await self._emulated(service, request, body)
            case "execute-api":
                gone = unquote(request.raw_path.rpartition("/")[2]) in self.gone
                return web.json_response({}, status=410 if gone else 200)
            case "lambda" if request.headers.get("X-Amz-Invocation-Type") == "Event":
                return web.Response(status=202)
            case "lambda":
                return web.json_response({"subscribers": 2, "dropped": []})
            case _ if request.path.endswith("/converse"):
                return web.json_response(CONVERSED)
        # A stream that ends before it has begun: the reply is then asked for again, in one piece.
        return web.Response(body=b"", content_type="application/vnd.amazon.eventstream")

    async def _emulated(self, service: str, request: web.Request, body: bytes) -> web.Response:
        kept = ("Authorization", "Content-Type", "X-Amz-Date", "X-Amz-Target")
        headers = {name: request.headers[name] for name in kept if name in request.headers}
        async with self._session.post(self._emulators[service] + "/", data=body, headers=headers) as response:
            return web.Response(
                body=await response.read(), status=response.status, content_type="application/x-amz-json-1.0"
            )


def permissions(service: str, request: web.Request, body: bytes) -> set[Permission]:
    """Return what a request asks for.

    Args:
        service: as its signature names it.
    """
    operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
    match service:
        case "dynamodb":
            return set(_dynamodb(operation, msgspec.json.decode(body)))
        case "secretsmanager":
            return {Permission(f"secretsmanager:{operation}", msgspec.json.decode(body)["SecretId"])}
        case "ssm":
            return {Permission(f"ssm:{operation}", msgspec.json.decode(body)["Name"])}
        case "execute-api":
            return {Permission("execute-api:ManageConnections", f"{request.method}/@connections")}
        case "lambda":
            return {Permission("lambda:InvokeFunction", request.path.split("/")[-2])}
        case "bedrock":
            _, model, call = request.path.rsplit("/", 2)
            return {Permission(f"bedrock:{BEDROCK[call]}", model)}
    raise AssertionError(f"a call to {service}, which nobody here is known to make")


def _dynamodb(operation: str, payload: Any) -> list[Permission]:
    if operation == "TransactWriteItems":  # it has no permission of its own, but those of its parts
        return [
            Permission(f"dynamodb:{kind}Item", each["TableName"])
            for write in payload["TransactItems"]
            for kind, each in write.items()
        ]
    if "RequestItems" in payload:
        return [Permission(f"dynamodb:{operation}", table) for table in payload["RequestItems"]]
    index = f"/index/{payload['IndexName']}" if "IndexName" in payload else ""
    return [Permission(f"dynamodb:{operation}", payload["TableName"] + index)]
