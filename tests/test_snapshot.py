"""What a function has made before its first request is the same in every environment that Lambda restores from one
snapshot of it (https://docs.aws.amazon.com/lambda/latest/dg/snapstart-uniqueness.html)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from tailrace.backend import Backend
from tailrace.settings import Settings

from local.child import ROOT

FUNCTIONS = ("api", "broadcast", "chat", "stream", "sweep", "websocket")

# Notes who draws, who looks at a clock, and what is connected to; then starts a function as far as a snapshot has it.
# The stream function is ready once its server has started and answered the Web Adapter's first question.
START = """
import asyncio, json, os, random, sys, time

seen = []

def noting(what, call):
    def noted(*arguments, **named):
        frame = sys._getframe(1)
        while frame.f_globals.get("__name__") in ("random", "uuid"):
            frame = frame.f_back
        seen.append([what, frame.f_globals.get("__name__", "")])
        return call(*arguments, **named)
    return noted

for name in ("choice", "getrandbits", "randbytes", "randint", "random", "randrange", "uniform"):
    setattr(random, name, noting("random", getattr(random, name)))
os.urandom = noting("random", os.urandom)
for name in ("monotonic", "monotonic_ns", "time", "time_ns"):
    setattr(time, name, noting("clock", getattr(time, name)))

def audit(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        seen.append(["network", event])

sys.addaudithook(audit)

def tell():
    from tailrace.aws import credentials
    if credentials._find.cache_info().currsize:
        seen.append(["credentials", "found"])
    print(json.dumps([seen, sorted(sys.modules)]), flush=True)

async def ready(app):
    waiting, answers = asyncio.Queue(), asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan", "state": {}}, waiting.get, answers.put))
    waiting.put_nowait({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [], "query_string": b""}
    waiting.put_nowait({"type": "http.request"})
    await app(scope, waiting.get, answers.put)
    assert (await answers.get())["status"] == 200
    for _ in range(100):  # turns of the event loop, in which what was begun gets on
        await asyncio.sleep(0)
    tell()
    os._exit(0)

from functions.FUNCTION import app
if "FUNCTION" == "stream":
    asyncio.run(ready(app.app))
tell()
"""

ENVIRONMENT = {
    "AWS_LAMBDA_FUNCTION_NAME": "function",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
    # What such a function has in the place of keys, which would have expired when it is restored.
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "token",
    "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1",
    "AWS_REGION": "eu-central-1",
    "TAILRACE_TABLE": "table",
    "TAILRACE_WEBSOCKET_URL": "https://example.com/live",
}


def started(function: str, **more: str) -> tuple[list[list[str]], set[str]]:
    """Return what was seen while a function started, and the modules that it has then."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TAILRACE_"))}
    done = subprocess.run(
        [sys.executable, "-c", START.replace("FUNCTION", function)],
        env={**inherited, **ENVIRONMENT, **more},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    seen, loaded = json.loads(done.stdout)
    return seen, set(loaded)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("auth", ["iam", "jwt"])
def test_nothing_is_drawn_or_asked_before_the_first_request(function: str, auth: str) -> None:
    """No random number is drawn by anybody, nobody is connected to, no credentials are found that could expire, and
    nothing of ours looks at a clock."""
    issuer = {"TAILRACE_JWT_ISSUER": "https://issuer.example", "TAILRACE_JWT_AUDIENCE": "app"} if auth == "jwt" else {}
    seen, loaded = started(function, TAILRACE_AUTH=auth, **issuer)
    assert "tailrace.backend" in loaded
    # FastAPI imports OpenTelemetry, which makes up the names of its own variables; the same ones everywhere will do.
    # uvicorn's command line imports multiprocessing, which draws a key for processes that nobody here starts.
    harmless = (["random", "opentelemetry.context"], ["random", "multiprocessing.process"])
    assert [each for each in seen if each[0] != "clock" and each not in harmless] == []
    assert [each for each in seen if each[1].startswith(("tailrace", "functions"))] == []


def test_what_finds_credentials_is_in_the_snapshot() -> None:
    """Its import is a third of a start; the first request after a restore would wait for it."""
    _, loaded = started("stream", TAILRACE_AUTH="iam")
    assert {"botocore.session", "botocore.httpsession"} <= loaded
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    _, loaded = started("stream", TAILRACE_AUTH="iam", **keys)
    assert "botocore.session" not in loaded


def test_what_a_first_reply_imports_is_in_the_snapshot() -> None:
    """Its provider, its wire format, and what sends it to subscribers; elsewhere each is imported when it is needed."""
    needed = {"tailrace.broadcast.feed", "tailrace.protocols.simple", "tailrace.providers.openai"}
    _, loaded = started("stream", TAILRACE_AUTH="iam", TAILRACE_PROVIDER="groq")
    assert needed | {"encodings.idna"} <= loaded
    _, loaded = started(
        "stream", TAILRACE_AUTH="iam", TAILRACE_PROVIDER="groq", AWS_LAMBDA_INITIALIZATION_TYPE="on-demand"
    )
    assert not needed & loaded


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["on-demand", "provisioned-concurrency", "snap-start"])
async def test_no_connection_is_opened_for_a_snapshot(kind: str) -> None:
    """It would be dead when the snapshot is restored, and the first call would find out the slow way."""
    backend = Backend(Settings(environment={"AWS_LAMBDA_INITIALIZATION_TYPE": kind}))
    opened = []

    async def open_table() -> None:
        opened.append(kind)

    backend.open_table = open_table
    async with backend.open():
        await asyncio.sleep(0)  # one turn of the event loop, in which it would begin
    assert opened == ([] if kind == "snap-start" else [kind])
