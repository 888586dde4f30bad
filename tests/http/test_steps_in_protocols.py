"""Steps, tools that run here and approvals as the clients of each protocol see them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from tailrace.settings import Settings

from tests import own_tools
from tests.http.conftest import Client, Json, Serve
from tests.http.test_ag_ui import verify
from tests.http.test_steps import call, calling

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def count_anew() -> None:
    """Forget what the tools did."""
    own_tools.effects.clear()
    own_tools.contexts.clear()


@pytest.fixture
async def client(settings: Settings, serve: Serve) -> AsyncIterator[Client]:
    """A client of a stack with tools of its own."""
    async with serve(msgspec.structs.replace(settings, own_tools=("tests.own_tools:everything",))) as client:
        yield client


async def stream(client: Client, method: str, path: str, body: Json | None = None) -> list[Json]:
    """Return the objects of a stream."""
    async with asyncio.timeout(30), client.session.request(method, path, json=body) as response:
        text = await response.read()
        assert response.status == 200, text
    lines = [line[6:] for line in text.split(b"\n") if line.startswith(b"data: ")]
    return [msgspec.json.decode(line) for line in lines if line != b"[DONE]"]


def types(events: list[Json]) -> list[str]:
    """Return what they are."""
    return [each["type"] for each in events]


def asking(*calls: Json, **more: Any) -> Json:
    """Return what a page adds to its post."""
    body = calling(*calls, **more)
    return {"model": body["model"], "options": body["options"]}


WEATHER = call("c1", "weather", '{"city":"Ulm"}')
MAIL = call("c1", "send_mail", '{"to":"Ann"}')


# ---- the AI SDK ----


def user(text: str) -> Json:
    """Return a UI message of the user's."""
    return {"id": uuid.uuid4().hex, "role": "user", "parts": [{"type": "text", "text": text}]}


async def test_ai_sdk_steps(client: Client) -> None:
    """Each step is one of the UI message; the tool's output is not the provider's, and the page runs nothing."""
    chat = uuid.uuid4().hex
    body = {"id": chat, "messages": [user("Well?")], **asking(WEATHER, before="Let me see. ", then="It is warm.")}
    found = await stream(client, "POST", "/api/chat", body)
    assert types(found) == [
        *("start", "start-step", "text-start", "text-delta", "text-end"),
        *("tool-input-start", *["tool-input-delta"] * 3, "tool-input-available"),
        *("tool-output-available", "finish-step"),
        *("start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"),
    ]
    output = found[10]
    assert output == {
        "type": "tool-output-available",
        "toolCallId": "c1",
        "output": {"city": "Ulm", "degrees": 21, "unit": "celsius"},
    }
    _, stored = await client.json("GET", f"/api/chat/{chat}/messages")
    assert [part["type"] for part in stored["messages"][1]["parts"]] == [
        *("step-start", "text", "tool-weather", "step-start", "text"),
    ]
    assert stored["messages"][1]["parts"][2]["state"] == "output-available"
    assert "providerExecuted" not in stored["messages"][1]["parts"][2]


@pytest.mark.parametrize("approved", [True, False])
async def test_ai_sdk_approval(client: Client, approved: bool) -> None:
    """The page is asked, and answers in the parts of its message; the reply goes on in the same message, once."""
    chat = uuid.uuid4().hex
    question = user("Write to her.")
    more = asking(MAIL)
    first = await stream(client, "POST", "/api/chat", {"id": chat, "messages": [question], **more})
    assert types(first)[-3:] == ["tool-approval-request", "finish-step", "finish"]
    assert first[-3] == {"type": "tool-approval-request", "approvalId": "c1", "toolCallId": "c1"}
    _, stored = await client.json("GET", f"/api/chat/{chat}/messages")
    assert stored["messages"][1]["parts"][1]["state"] == "approval-requested"
    part = {
        "type": "tool-send_mail",
        "toolCallId": "c1",
        "state": "approval-responded",
        "input": {"to": "Ann"},
        "approval": {"id": "c1", "approved": approved, "reason": "So."},
    }
    answer = {"id": first[0]["messageId"], "role": "assistant", "parts": [{"type": "step-start"}, part]}
    body = {"id": chat, "messages": [question, answer], **more}
    again = [await stream(client, "POST", "/api/chat", body) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0][0] == first[0]
    told = "tool-output-available" if approved else "tool-output-denied"
    assert types(again[0]) == [
        *("start", told),
        *("start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"),
    ]
    assert own_tools.effects == ({"send_mail": 1} if approved else {})
    _, stored = await client.json("GET", f"/api/chat/{chat}/messages")
    assert len(stored["messages"]) == 2
    parts = stored["messages"][1]["parts"]
    assert [part["type"] for part in parts] == ["step-start", "tool-send_mail", "step-start", "text"]
    assert parts[1]["state"] == ("output-available" if approved else "output-denied")


async def test_ai_sdk_failed_tool(client: Client) -> None:
    """What a tool says of its failure is the output's error."""
    body = {"id": uuid.uuid4().hex, "messages": [user("?")], **asking(call("c1", "refuse"))}
    found = await stream(client, "POST", "/api/chat", body)
    assert {"type": "tool-output-error", "toolCallId": "c1", "errorText": "The library is closed."} in found


# ---- AG-UI ----


async def test_ag_ui_steps(client: Client) -> None:
    """Calls with results, then the next step, in pairs."""
    run = {"threadId": uuid.uuid4().hex, "runId": uuid.uuid4().hex}
    message = {"id": "1", "role": "user", "content": "Well?"}
    body = {**run, "messages": [message], "forwardedProps": asking(WEATHER, then="It is warm.")}
    found = await stream(client, "POST", "/api/ag-ui", body)
    verify(found)
    assert types(found) == [
        *("RUN_STARTED", "TOOL_CALL_START", *["TOOL_CALL_ARGS"] * 3, "TOOL_CALL_END", "TOOL_CALL_RESULT"),
        *("STEP_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "STEP_FINISHED"),
        "RUN_FINISHED",
    ]
    snapshot = (await stream(client, "GET", f"/api/ag-ui/{run['threadId']}"))[1]
    assert [each["role"] for each in snapshot["messages"]] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("answer", "approved"),
    [
        ({"status": "resolved", "payload": {"approved": True}}, True),
        ({"status": "resolved", "payload": False}, False),
        ({"status": "cancelled"}, False),
    ],
)
async def test_ag_ui_approval(client: Client, answer: Json, approved: bool) -> None:
    """A run that waits is interrupted, and the next one resumes it with the answers."""
    thread = uuid.uuid4().hex
    messages = [{"id": "1", "role": "user", "content": "Write to her."}]
    body = {"threadId": thread, "runId": "r1", "messages": messages, "forwardedProps": asking(MAIL)}
    found = await stream(client, "POST", "/api/ag-ui", body)
    verify(found)
    (interrupt,) = found[-1]["outcome"]["interrupts"]
    assert (found[-1]["outcome"]["type"], interrupt["toolCallId"]) == ("interrupt", "c1")
    resume = [{"interruptId": interrupt["id"], **answer}]
    found = await stream(client, "POST", "/api/ag-ui", {**body, "runId": "r2", "resume": resume})
    verify(found)
    assert types(found)[1:3] == ["TOOL_CALL_RESULT", "STEP_STARTED"]
    assert found[-1]["type"] == "RUN_FINISHED"
    assert "outcome" not in found[-1]
    assert own_tools.effects == ({"send_mail": 1} if approved else {})
    bad = [{"interruptId": "c1", "status": "resolved", "payload": "sure"}]
    status, content = await client.json("POST", "/api/ag-ui", {**body, "runId": "r3", "resume": bad})
    assert status == 422
    assert "payload of a resume" in content["error"]["message"]


# ---- OpenAI's ----


async def test_openai_clients_see_no_calls_that_are_not_theirs(client: Client) -> None:
    """They would run them. A tool of theirs is shown, and ends the answer."""
    sdk = openai.AsyncOpenAI(base_url=str(client.session._build_url("/v1")), api_key="none", max_retries=0)
    page = {"type": "function", "function": {"name": "local_time", "parameters": {"type": "object"}}}
    async with sdk:
        said: list[Any] = [{"role": "user", "content": "Well?"}]
        options = asking(WEATHER, before="Let me see. ", then="It is warm.")["options"]
        answer = await sdk.chat.completions.create(model="fast", messages=said, extra_body={"options": options})
        assert answer.choices[0].message.content == "Let me see. It is warm."
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].finish_reason == "stop"
        chunks = await sdk.chat.completions.create(
            model="fast", messages=said, stream=True, extra_body={"options": options}
        )
        deltas = [chunk.choices[0] async for chunk in chunks]
        assert not any(delta.delta.tool_calls for delta in deltas)
        assert deltas[-1].finish_reason == "stop"
        options = asking(WEATHER, call("c2", "local_time"))["options"]
        body = {"tools": [page], "options": {**options, "tools": [*options["tools"], page]}}
        chunks = await sdk.chat.completions.create(
            model="fast", messages=said, stream=True, extra_body={"options": body["options"]}
        )
        deltas = [chunk.choices[0] async for chunk in chunks]
        names = [call.function.name for delta in deltas for call in delta.delta.tool_calls or () if call.function]
        assert [name for name in names if name] == ["local_time"]
        assert deltas[-1].finish_reason == "tool_calls"
        assert own_tools.effects == {"weather": 3}
        options = asking(WEATHER, then="It is warm.")["options"]
        response = await sdk.responses.create(model="fast", input="Well?", extra_body={"options": options})
        assert [item.type for item in response.output] == ["message"]
        again = await sdk.responses.retrieve(response.id)
        assert [item.type for item in again.output] == ["message"]
