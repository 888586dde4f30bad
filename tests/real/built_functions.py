"""The built functions as Lambda runs them: `make build` and `make test-real` first, on x86_64 with Python 3.13.

Real are the emulator of Lambda, the Web Adapter, Lambda's Python client, DynamoDB Local, the layer, and the functions.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.settings import Settings
from tailrace.testing import ManualClock

from tests.real.lambda_emulator import (
    AGENT_LAYER,
    CLIENT,
    LAYER,
    EmulatedFunction,
    descendants,
    free_port,
    python,
)
from tests.real.recording import Recording
from tests.test_events import EVENTS, OF_A_THREAD, REQUESTS, STATUS, check_ag_ui, check_stream, sample

pytestmark = pytest.mark.anyio


def mapped(pid: int) -> set[str]:
    """Return the shared objects of packages that a process and its children have loaded."""
    found: set[str] = set()
    for each in [pid, *descendants(pid)]:
        lines = Path(f"/proc/{each}/maps").read_text().splitlines()
        found |= {line.split(maxsplit=5)[5] for line in lines if ".cpython-" in line}
    return {path for path in found if "/lib-dynload/" not in path}


def test_there_is_no_other_tailrace() -> None:
    """The Python that runs the functions knows the library from the layer alone, so that is what is tested below."""
    command = [str(python()), "-s", "-c", "import tailrace"]
    alone = subprocess.run(command, capture_output=True, text=True, check=False, env={}, cwd="/")
    assert "No module named 'tailrace'" in alone.stderr
    with_layer = [*command[:-1], "import tailrace; print(tailrace.__file__)"]
    found = subprocess.run(with_layer, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(LAYER)})
    assert found.stdout.strip() == str(LAYER / "tailrace" / "__init__.py")


async def test_all_that_is_loaded_is_from_the_layer(stream: EmulatedFunction, api: EmulatedFunction) -> None:
    """Of compiled packages, the stream function maps the layer's only; the API function also those of the client."""
    for function, allowed in ((stream, {LAYER}), (api, {LAYER, CLIENT})):
        status, _, body = await function.request(sample("api-health"))
        assert (status, body) == (200, b'{"status":"ok"}')
        objects = mapped(function.pid)
        assert any(path.startswith(str(LAYER)) for path in objects)
        assert [path for path in objects if not path.startswith(tuple(str(folder) for folder in allowed))] == []


async def ids_for(name: str, api: EmulatedFunction, stream: EmulatedFunction) -> dict[str, str]:
    """Return what stands in for the placeholders of a sample."""
    ids = await a_conversation(api)
    _, _, added = await api.request(sample("api-message-add", **ids))
    ids["MESSAGE_ID"] = json.loads(added)["id"]
    text = (EVENTS / f"{name}.json").read_text()
    if "GRANT_ID" in text:
        _, _, granted = await api.request(sample("api-grant-create", **ids))
        ids["GRANT_ID"] = json.loads(granted)["id"]
    if name in OF_A_THREAD or "REPLY_ID" in text:
        _, started, _ = await stream.request(sample("stream-start", **ids))
        ids["REPLY_ID"] = started["x-message-id"]
    return ids


async def test_the_samples(api: EmulatedFunction, stream: EmulatedFunction) -> None:
    """Every event of events/ that is a request, given to the function it is named for."""
    functions = {"api": api, "stream": stream}
    for name in REQUESTS:
        ids = await ids_for(name, api, stream)
        status, headers, body = await functions[name.partition("-")[0]].request(sample(name, **ids))
        assert status == STATUS.get(name, 200), (name, body)
        if headers.get("content-type", "").startswith("text/event-stream"):
            (check_ag_ui if "ag-ui" in name else check_stream)(name, headers["x-message-id"], body.decode())
        elif status != 204:
            assert headers["content-type"] == "application/json", name
            answer = json.loads(body)
            is_error = isinstance(answer, dict) and isinstance(answer.get("error"), dict)
            assert is_error is (status >= 400), (name, answer)


def start(ids: dict[str, str], chunks: int) -> dict[str, Any]:
    """Return the event of a start whose provider sends a chunk every fifth of a second."""
    event = sample("stream-start", **ids)
    script = {"chunks": [f"chunk {number} " for number in range(chunks)], "every": 0.2}
    event["body"] = json.dumps({"input": "hello", "model": "fast", "options": {"script": script}})
    event["headers"] = {
        name: value for name, value in event["headers"].items() if name not in ("idempotency-key", "content-length")
    }
    return event


async def a_conversation(api: EmulatedFunction) -> dict[str, str]:
    """Return the id of a new conversation in the place of its placeholder."""
    _, _, created = await api.request(sample("api-conversation-create"))
    return {"CONVERSATION_ID": json.loads(created)["id"]}


async def test_chunks_leave_one_by_one(api: EmulatedFunction, variables: dict[str, str], tmp_path: Path) -> None:
    """On the Runtime API, chunks pass while the provider is still sending: the reply is stopped by another function
    after three of them were seen, long before it would have been whole, and ends as cancelled."""
    (folder := tmp_path / "recorded").mkdir()
    port = free_port()
    ids = await a_conversation(api)
    async with (
        Recording.between(f"127.0.0.1:{port}") as recording,
        EmulatedFunction.run(
            "stream", folder, variables, runtime_port=port, seen_through=recording.address
        ) as function,
    ):
        reading = asyncio.create_task(function.request(start(ids, 600)))
        await recording.until(b'data: {"chunk":', 3)
        assert not reading.done()
        sent = recording.sent
        assert b"Lambda-Runtime-Function-Response-Mode: streaming".lower() in sent.lower()
        message = sent.split(b'"message_id":"', 1)[1].split(b'"')[0].decode()
        seen = sent.count(b'data: {"chunk":')
        assert seen < 100
        status, _, body = await api.request(sample("api-message-cancel", MESSAGE_ID=message, REPLY_ID=message))
        assert (status, json.loads(body)["status"]) == (200, "cancelled")
        status, headers, streamed = await reading
    assert (status, headers["x-message-id"]) == (200, message)
    assert seen <= streamed.count(b'data: {"chunk":') < 600
    assert b'"error_type":"cancelled"' in streamed.split(b"\n\n")[-2]


async def test_an_agent_in_a_layer_of_its_own(api: EmulatedFunction, variables: dict[str, str], tmp_path: Path) -> None:
    """examples/agent as `sam build` makes it: the built stream function asks the agent, whose tool runs there."""
    (folder := tmp_path / "agent").mkdir()
    own = {"TAILRACE_PROVIDERS": "support=agent:support", "TAILRACE_PROVIDER": "support"}
    ids = await a_conversation(api)
    event = sample("stream-start", **ids)
    event["body"] = json.dumps({"input": "How does my order stand?", "delivery": {"parts": True}})
    event["headers"] = {
        name: value for name, value in event["headers"].items() if name not in ("idempotency-key", "content-length")
    }
    async with EmulatedFunction.run("stream", folder, {**variables, **own}, code_layer=AGENT_LAYER) as function:
        status, _, body = await function.request(event)
    assert status == 200
    blocks = [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")]
    (result,) = [block["tool_result"] for block in blocks if "tool_result" in block]
    assert result["name"] == "order_status"
    message = blocks[-1]["message"]
    assert (message["status"], message["provider"], message["metadata"]["steps"]) == ("completed", "support", 2)
    assert "order_status" in message["content"]


async def test_a_reply_ends_before_its_function_is_killed(
    api: EmulatedFunction, variables: dict[str, str], tmp_path: Path
) -> None:
    """Lambda kills a function at its time-out without a word. The reply knows the deadline from the adapter and ends
    five seconds earlier, as timed out, with a terminal event and the text so far."""
    (folder := tmp_path / "short").mkdir()
    ids = await a_conversation(api)
    async with EmulatedFunction.run("stream", folder, variables, timeout=9) as function:
        assert (await function.request(sample("api-health")))[0] == 200  # the emulator's first call pays for the start
        status, headers, body = await function.request(start(ids, 600))
        assert status == 200
        *chunks, last, rest = body.decode().split("\n\n")
        assert (len(chunks) >= 3, rest) == (True, "")
        assert json.loads(last.split("\n")[0].removeprefix("data: "))["error_type"] == "timeout"
        # It was not killed: the same environment answers the next call.
        assert (await function.request(sample("api-health")))[0] == 200
    reply = {"MESSAGE_ID": headers["x-message-id"]}
    _, _, stored = await api.request(sample("api-message-read", **reply))
    message = json.loads(stored)
    assert message["status"] == "timed_out"
    assert message["content"].startswith("chunk 0 chunk 1 ")


async def test_the_sweep(table: Settings, variables: dict[str, str], tmp_path: Path) -> None:
    """The schedule's two events: a reply whose writer is gone ends, and what was deleted long ago goes for good."""

    def ago(seconds: int) -> Backend:
        return Backend(table, clock=ManualClock(SystemClock().now() - seconds * 1_000_000))

    before = ago(31)
    conversation = await Conversation.create(backend=before)
    reply = await conversation.stream_response("hello")
    await before.close()
    before = ago(8 * 24 * 3600)
    deleted = await Conversation.create(backend=before)
    await before.store.conversations.delete(deleted.id, now=before.clock.now())
    await before.close()
    (folder := tmp_path / "sweep").mkdir()
    async with EmulatedFunction.run("sweep", folder, variables) as function:
        swept = json.loads(await function.call(sample("sweep-schedule")))
        assert (swept["ended"], swept["failed"]) == (1, 0)
        assert json.loads(await function.call(sample("sweep-prune"))) == {"pruned": 1}
    backend = Backend(table)
    assert (await backend.store.messages.get(reply.id)).status == "interrupted"
    await backend.close()
