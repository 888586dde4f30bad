"""What is measured: how each is started, what it is asked, and how it tells a chunk."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from tailrace.backend import Backend
from tailrace.broadcast.channels import conversation_channel
from tailrace.conversation.conversation import Conversation
from tailrace.settings import Settings

from benchmarks import measure
from benchmarks.peers.asked import Asked

MODEL: Final = "gpt-5-mini"
LITELLM_KEY: Final = f"sk-{secrets.token_hex(32)}"
TOOLS: Final = measure.ROOT / ".tools" / "peers"


class Places(msgspec.Struct, frozen=True):
    """Where the others are: roots of URLs."""

    provider: str
    services: str


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is started.

    Attributes:
        port: where it serves; None when it prints that.
        health: the path that is answered with 200 once it is ready.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    cwd: str = str(measure.ROOT)
    port: int | None = None
    health: str = "/health"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One of them.

    Attributes:
        title: its name for readers.
        start: how it is started.
        ask: makes requests for a reply each, from the port, the places, how many, and what is asked.
        text: the text of an event's JSON.
        is_slow: whether its replies in bursts are shorter, since it would take too long.
    """

    title: str
    start: Callable[[Places], Start]
    ask: Callable[[int, Places, int, Asked], list[str]]
    text: Callable[[Any], str]
    is_slow: bool = False


def post(path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> str:
    """Return a request."""
    content = msgspec.json.encode(body).decode()
    further = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"{further}Content-Length: {len(content)}\r\n\r\n{content}"
    )


# ---- those that speak OpenAI's wire ----------------------------------------------------------------


def completion(asked: Asked) -> dict[str, Any]:
    """Return the body that the SDKs send."""
    return {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": str(asked)}]}


def asking(path: str, key: str = "none") -> Callable[[int, Places, int, Asked], list[str]]:
    """Return what asks with that body."""

    def ask(port: int, places: Places, count: int, asked: Asked) -> list[str]:
        return [post(path, completion(asked), {"Authorization": f"Bearer {key}"})] * count

    return ask


def delta_text(data: Any) -> str:
    """Return a chunk's text on OpenAI's wire."""
    choices = data.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


def chunk_text(data: Any) -> str:
    """Return a chunk's text on the simple protocol."""
    return str(data.get("chunk", ""))


def floor(module: str) -> Callable[[Places], Start]:
    """Return what starts a floor relay."""
    name = f"benchmarks.peers.{module}"
    return lambda places: Start(command=[sys.executable, "-m", name, f"{places.provider}/v1"])


def sdk(places: Places) -> Start:
    """An application of one's own."""
    port = measure.free_port()
    return Start(
        command=[tool("sdk", "bin/python"), "-m", "uvicorn", "benchmarks.peers.sdk:app", "--port", str(port)],
        port=port,
        environment=vendor(places),
    )


def litellm(places: Places) -> Start:
    """LiteLLM's proxy, in one process."""
    port = measure.free_port()
    config = str(measure.ROOT / "benchmarks" / "peers" / "litellm.yaml")
    return Start(
        command=[tool("litellm", "bin/litellm"), "--config", config, "--host", "127.0.0.1", "--port", str(port)],
        cwd=str(TOOLS),  # it reads a .env file where it is started
        port=port,
        health="/health/liveliness",
        environment={
            **vendor(places),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it fetches the prices from GitHub
            "LITELLM_TELEMETRY": "False",
            "LITELLM_MASTER_KEY": LITELLM_KEY,  # it refuses to start without one
            "NUM_WORKERS": "1",
        },
    )


def portkey(places: Places) -> Start:
    """Portkey's gateway."""
    port = measure.free_port()
    packages = "node_modules"
    processor = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "")
    return Start(
        command=[
            tool("portkey", f"{packages}/node-{sys.platform}-{processor}/bin/node"),
            tool("portkey", f"{packages}/@portkey-ai/gateway/build/start-server.js"),
            "--headless",
            f"--port={port}",
        ],
        port=port,
        health="/",
        environment={"NODE_ENV": "production"},
    )


def ask_portkey(port: int, places: Places, count: int, asked: Asked) -> list[str]:
    """Ask Portkey, and say in the headers where the provider is."""
    headers = {
        "Authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{places.provider}/v1",
    }
    return [post("/v1/chat/completions", completion(asked), headers)] * count


def vendor(places: Places) -> dict[str, str]:
    """Return the variables of OpenAI's SDK."""
    return {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"{places.provider}/v1"}


def tool(peer: str, path: str) -> str:
    """Return a file of a peer's environment.

    Raises:
        SystemExit: it is not there.
    """
    found = TOOLS / peer / path
    if not found.exists():
        raise SystemExit(f"{found.relative_to(measure.ROOT)} is not there: make bench-peers sets it up.")
    return str(found)


# ---- ours ----------------------------------------------------------------------------------------------


def ours(
    places: Places, *, command: Sequence[str] = ("-s", "app.py"), cwd: str = "functions/stream", broadcast: bool
) -> Start:
    """The stream function, as ``run.sh`` starts it behind the Web Adapter."""
    port = measure.free_port()
    return Start(
        command=[sys.executable, *command],
        cwd=str(measure.ROOT / cwd),
        port=port,
        environment={
            "PORT": str(port),
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_DYNAMODB": places.services,
            "TAILRACE_TABLE": "t",
            "TAILRACE_PROVIDER": "openai",
            "TAILRACE_MODEL": MODEL,
            "TAILRACE_WEBSOCKET_URL": f"{places.services}/ws",
            "TAILRACE_BROADCAST": "on" if broadcast else "off",
            **vendor(places),
            "POWERTOOLS_METRICS_NAMESPACE": "tailrace",
            "POWERTOOLS_SERVICE_NAME": "tailrace-stream",
        },
    )


def ask_ours(port: int, places: Places, count: int, asked: Asked, *, subscribed: bool = False) -> list[str]:
    """Ask in a new conversation each; with a subscriber to each if that is wanted."""
    return [start(each, asked) for each in asyncio.run(conversations(places, count, subscribed=subscribed))]


def start(conversation: str, asked: Asked) -> str:
    """Return the request that starts a reply."""
    return post(f"/conversations/{conversation}/stream", {"input": str(asked)})


async def conversations(places: Places, count: int, *, subscribed: bool) -> list[str]:
    """Make conversations in the table."""
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
    backend = Backend(Settings(table="t", dynamodb_endpoint=places.services))

    async def make(number: int) -> str:
        made = await Conversation.create(backend=backend)
        if subscribed:
            await backend.store.subscriptions.put(conversation_channel(made.id), f"L0SM9cOF{number:07d}=")
        return made.id

    try:
        return [
            each
            for first in range(0, count, 50)
            for each in await asyncio.gather(*map(make, range(first, min(first + 50, count))))
        ]
    finally:
        await backend.close()


def ask_in_memory(port: int, places: Places, count: int, asked: Asked) -> list[str]:
    """The same where the table is the subject's own."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/conversations?{count}", method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [start(each, asked) for each in msgspec.json.decode(answer.read(), type=list[str])]


SUBJECTS: Final[Mapping[str, Subject]] = {
    "floor": Subject(title="floor relay, aiohttp", start=floor("floor"), ask=asking("/stream"), text=chunk_text),
    "floor-bare": Subject(
        title="floor relay, asyncio alone", start=floor("floor_bare"), ask=asking("/stream"), text=chunk_text
    ),
    "tailrace": Subject(
        title="Tailrace, storing, one subscriber",
        start=lambda places: ours(places, broadcast=True),
        ask=lambda port, places, count, asked: ask_ours(port, places, count, asked, subscribed=True),
        text=chunk_text,
    ),
    "tailrace-unheard": Subject(
        title="Tailrace, storing, nobody listens",
        start=lambda places: ours(places, broadcast=True),
        ask=ask_ours,
        text=chunk_text,
    ),
    "tailrace-quiet": Subject(
        title="Tailrace, storing, broadcasting off",
        start=lambda places: ours(places, broadcast=False),
        ask=ask_ours,
        text=chunk_text,
    ),
    "tailrace-in-memory": Subject(
        title="Tailrace, table in its own memory",
        start=lambda places: ours(places, command=("-m", "benchmarks.peers.in_memory"), cwd=".", broadcast=False),
        ask=ask_in_memory,
        text=chunk_text,
    ),
    "sdk": Subject(
        title="FastAPI, OpenAI SDK, StreamingResponse",
        start=sdk,
        ask=asking("/response"),
        text=chunk_text,
        is_slow=True,
    ),
    "sdk-generator": Subject(
        title="FastAPI, OpenAI SDK, its own SSE",
        start=sdk,
        ask=asking("/generator"),
        text=chunk_text,
        is_slow=True,
    ),
    "litellm": Subject(
        title="LiteLLM's proxy",
        start=litellm,
        ask=asking("/v1/chat/completions", LITELLM_KEY),
        text=delta_text,
        is_slow=True,
    ),
    "portkey": Subject(title="Portkey's gateway", start=portkey, ask=ask_portkey, text=delta_text),
}


def chosen(names: str | None) -> list[str]:
    """Return the names of subjects; a name stands for those that begin with it too.

    Raises:
        SystemExit: there is none of that name.
    """
    found: list[str] = []
    for name in (names or ",".join(SUBJECTS)).split(","):
        matching = [each for each in SUBJECTS if each == name or each.startswith(f"{name}-")]
        if not matching:
            raise SystemExit(f"There is no {name}; there are {', '.join(SUBJECTS)}.")
        found += [each for each in matching if each not in found]
    return found
