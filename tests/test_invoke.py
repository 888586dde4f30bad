"""Calling the broadcast function: the request is boto3's, and every way to fail is one error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import boto3
import pytest
from aiohttp import web
from tailrace.aws.credentials import Credentials
from tailrace.aws.invoke import Invoke, InvokeError, NotCalled, StillRuns

pytestmark = pytest.mark.anyio

SECRET = Credentials("AKID", "secret", None)


class FakeLambda:
    """Lambda's API, which answers as a test says. ``requests`` has path, signed headers and body."""

    def __init__(self) -> None:
        self.answer = web.Response(text='{"subscribers":1}')
        self.requests: list[tuple[str, str, bytes]] = []
        self.kinds: list[str] = []
        self.silent = False
        self.url = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[FakeLambda]:
        """Serve on a free port."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        scope = request.headers["Authorization"].partition("Credential=")[2].partition(",")[0]
        self.requests.append((request.raw_path, scope.partition("/")[2].partition("/")[2], body))
        self.kinds.append(request.headers.get("X-Amz-Invocation-Type", "RequestResponse"))
        if self.silent:
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
async def lambda_api() -> AsyncIterator[FakeLambda]:
    """Lambda's API."""
    async with FakeLambda().serve() as served:
        yield served


@pytest.mark.parametrize("name", ["tailrace-broadcast", "arn:aws:lambda:us-east-1:123456789012:function:f:live"])
async def test_boto3_calls_the_same(lambda_api: FakeLambda, name: str) -> None:
    """Path, scope of the signature and body are those of boto3's ``invoke``."""
    client = boto3.client(
        "lambda",
        region_name="us-east-1",
        endpoint_url=lambda_api.url,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
    )
    await asyncio.to_thread(client.invoke, FunctionName=name, Payload=b'{"fan_out":{}}')
    lambda_api.answer = web.Response(text='{"subscribers":1}')
    invoke = Invoke(name, region="us-east-1", endpoint_url=lambda_api.url, credentials=lambda: SECRET)
    assert await invoke.call({"fan_out": {}}) == {"subscribers": 1}
    await invoke.close()
    theirs, ours = lambda_api.requests
    assert ours == theirs


async def test_boto3_hands_over_the_same(lambda_api: FakeLambda) -> None:
    """A call that nobody waits for, too: 202 is the only answer that means it will be made."""
    client = boto3.client(
        "lambda",
        region_name="us-east-1",
        endpoint_url=lambda_api.url,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
    )
    lambda_api.answer = web.Response(status=202)
    await asyncio.to_thread(client.invoke, FunctionName="f", InvocationType="Event", Payload=b'{"chat":{}}')
    invoke = Invoke("f", region="us-east-1", endpoint_url=lambda_api.url, credentials=lambda: SECRET)
    lambda_api.answer = web.Response(status=202)
    await invoke.hand_over({"chat": {}})
    theirs, ours = lambda_api.requests
    assert ours == theirs
    assert lambda_api.kinds == ["Event", "Event"]
    lambda_api.answer = web.Response(text="{}")
    with pytest.raises(InvokeError, match="status 200"):
        await invoke.hand_over({})
    await invoke.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=413, text="{}"), "status 413"),
        (web.Response(headers={"X-Amz-Function-Error": "Unhandled"}, text='{"errorMessage":"secret"}'), "Unhandled"),
        (web.Response(text="null"), "no object"),
        (web.Response(text="<"), "no object"),
    ],
)
async def test_every_failure_is_one_error(lambda_api: FakeLambda, answer: web.Response, said: str) -> None:
    """It says what, and nothing of what the function said."""
    lambda_api.answer = answer
    invoke = Invoke("f", region="us-east-1", endpoint_url=lambda_api.url, credentials=lambda: SECRET)
    with pytest.raises(InvokeError, match=said) as raised:
        await invoke.call({})
    assert "secret" not in str(raised.value)
    await invoke.close()


async def test_no_answer_in_time(lambda_api: FakeLambda, unused_port: int) -> None:
    """Nor a function that is not there: one error."""
    lambda_api.silent = True
    for url in (lambda_api.url, f"http://127.0.0.1:{unused_port}"):
        invoke = Invoke("f", region="us-east-1", endpoint_url=url, credentials=lambda: SECRET, timeout=0.05)
        for call in (invoke.call, invoke.hand_over):
            with pytest.raises(InvokeError):
                await call({})
        await invoke.close()


async def test_whether_it_was_called_is_told(lambda_api: FakeLambda) -> None:
    """Without a free environment it was not. Without an answer it was, as far as anybody knows."""
    lambda_api.answer = web.Response(status=429, text="{}")
    invoke = Invoke("f", region="us-east-1", endpoint_url=lambda_api.url, credentials=lambda: SECRET, timeout=0.5)
    with pytest.raises(NotCalled, match="status 429"):
        await invoke.call({})
    lambda_api.silent = True
    with pytest.raises(StillRuns):
        await invoke.call({})
    await invoke.close()
