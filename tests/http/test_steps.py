"""Replies in several steps over HTTP: tools that run here, what waits for a yes, and going on after a crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.prompt import prompt_messages
from tailrace.events import Event, Message, StepEnd, ToolResult, ToolRun
from tailrace.reply.ending import INTERRUPTED
from tailrace.settings import Settings

from tests import own_tools
from tests.http.conftest import Client, Json, Serve, events

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def count_anew() -> None:
    """Forget what the tools did."""
    own_tools.effects.clear()
    own_tools.contexts.clear()
    own_tools.begun = asyncio.Event()


@pytest.fixture
async def client(settings: Settings, serve: Serve) -> AsyncIterator[Client]:
    """A client of a stack with tools of its own."""
    async with serve(msgspec.structs.replace(settings, own_tools=("tests.own_tools:everything",))) as client:
        yield client


def call(call_id: str, name: str, arguments: str = "{}") -> Json:
    """Return a call that the scripted model makes."""
    return {"id": call_id, "name": name, "arguments": arguments}


def calling(*calls: Json, then: str = "Done.", before: str = "", **more: Any) -> Json:
    """Return the body of a start whose model calls tools, and then says something."""
    steps = [{"chunks": [before], "tool_calls": list(calls), "finish_reason": "tool_use"}, {"chunks": [then]}]
    names = sorted(
        {each["name"] for each in calls if each["name"] in {tool_name(tool) for tool in own_tools.everything}}
    )
    return {
        "input": "Well?",
        "model": "fast",
        **more,
        "options": {"script": {"steps": steps}, "tools": names, **more.get("options", {})},
    }


def tool_name(tool: Any) -> str:
    """Return a tool's name."""
    return str(getattr(tool, "name", None) or tool.__name__)


async def log_of(client: Client, message_id: str) -> list[Event]:
    """Return all events of a reply's log."""
    return [event async for segment in client.backend.store.log.read(message_id) for event in segment.events]


async def ask(client: Client, body: Json, conversation: str | None = None) -> Message:
    """Make a reply and return its message."""
    response, stream = await client.start(body, conversation)
    assert response.status == 200, stream
    return await client.backend.store.messages.get(response.headers["x-message-id"])


async def test_a_reply_in_two_steps(client: Client) -> None:
    """One stream and one log; calls and results in it, and the end counts."""
    body = calling(call("c1", "weather", '{"city":"Bern"}'), before="Let me see. ", then="It is warm.")
    response, stream = await client.start(body)
    assert "".join(each.get("chunk", "") for each in events(stream)) == "Let me see. It is warm."
    message = events(stream)[-1]["message"]
    assert (message["status"], message["content"]) == ("completed", "Let me see. It is warm.")
    assert message["metadata"]["steps"] == 2
    assert message["metadata"]["finish"] == "stop"
    (result,) = message["metadata"]["tool_results"]
    assert msgspec.json.decode(result["result"]) == {"city": "Bern", "degrees": 21, "unit": "celsius"}
    assert len(message["metadata"]["step_usage"]) == 2
    assert message["usage"]["completion_tokens"] == 2
    log = await log_of(client, response.headers["x-message-id"])
    kinds = [type(each).__name__ for each in log if isinstance(each, ToolRun | ToolResult | StepEnd)]
    assert kinds == ["ToolRun", "ToolResult", "StepEnd"]
    assert own_tools.effects == {"weather": 1}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("weather", "{", "The arguments are not JSON."),
        ("weather", "{}", "The arguments are not right: city: Field required."),
        ("weather", '{"city":"x","unit":"feet"}', "unit: Input should be 'celsius' or 'kelvin'"),
        ("weather", '{"city":"x","colour":"red"}', "colour: Extra inputs are not permitted"),
        ("refuse", "{}", "The library is closed."),
        ("fail", "{}", "The tool failed."),
        ("give_up", "{}", "The tool failed."),
        ("hang", "{}", "The tool took longer than 0.05 s and was stopped."),
        ("sleepy", "", "The tool took longer than 0.05 s and was stopped."),
        ("odd", "{}", "The tool failed."),
        ("long", "{}", "The tool's result is longer than 250000 bytes."),
    ],
)
async def test_what_goes_wrong_is_told_to_the_model(
    client: Client, caplog: pytest.LogCaptureFixture, name: str, arguments: str, said: str
) -> None:
    """In a sentence, and the reply goes on. What an exception says is said to nobody."""
    with caplog.at_level(logging.INFO):
        message = await ask(client, calling(call("c1", name, arguments)))
    (result,) = message.metadata["tool_results"]
    assert said in result["result"]
    assert result["is_error"] is True
    assert (message.status, message.content) == ("completed", "Done.")
    assert "secret" not in caplog.text + str(message)


async def test_several_calls_run_at_once_and_keep_their_order(client: Client) -> None:
    """One that fails keeps no other from its result; the next prompt has them in the order of the calls."""
    calls = [call("c1", "hang"), call("c2", "weather", '{"city":"Ulm"}'), call("c3", "fail")]
    conversation = await client.conversation()
    message = await ask(client, calling(*calls), conversation)
    assert {each["id"] for each in message.metadata["tool_results"]} == {"c1", "c2", "c3"}
    loaded = await Conversation.load(conversation, backend=client.backend)
    past = await loaded._past(None, include_unfinished=False)
    asked, called, returned, answered = prompt_messages(past.messages, past.steps)
    assert [each.id for each in called.tool_calls] == ["c1", "c2", "c3"]
    assert [each.id for each in returned.tool_results] == ["c1", "c2", "c3"]
    assert (asked.content, answered.content) == ("Well?", "Done.")


async def test_steps_end(client: Client) -> None:
    """A model that calls for ever is stopped; its last calls have results, and the end says why."""
    body = calling(call("c1", "weather", '{"city":"Ulm"}'))
    body["options"]["script"]["steps"].pop()
    message = await ask(client, {**body, "options": {**body["options"], "max_steps": 3}})
    assert (message.status, message.metadata["steps"], message.metadata["finish"]) == ("completed", 3, "tool_calls")
    assert own_tools.effects == {"weather": 3}
    status, content = await client.json(
        "POST", f"/conversations/{await client.conversation()}/stream", {"input": "?", "options": {"max_steps": 0}}
    )
    assert status == 422
    assert "max_steps" in content["error"]["message"]


async def test_a_tool_of_the_client_ends_the_reply(client: Client) -> None:
    """With the results of those that run here; it goes on with the client's output."""
    conversation = await client.conversation()
    page = {"type": "function", "function": {"name": "local_time", "parameters": {"type": "object"}}}
    body = calling(call("c1", "weather", '{"city":"Ulm"}'), call("c2", "local_time"))
    body["options"]["tools"].append(page)
    message = await ask(client, body, conversation)
    assert (message.content, message.metadata["finish"]) == ("", "tool_calls")
    assert [each["id"] for each in message.metadata["tool_results"]] == ["c1"]
    output = {"role": "tool_result", "content": '[{"id":"c2","result":"noon"}]'}
    status, _ = await client.json("POST", f"/conversations/{conversation}/messages", output)
    assert status == 201
    message = await ask(client, {**body, "input": None}, conversation)
    assert message.content == "Done."


async def test_unknown_and_twice(client: Client) -> None:
    """Refused in words before anything is stored."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    for tools, said in (
        (["nothing"], "There is no tool 'nothing' here. Tools here: distance, fail,"),
        (["weather", "weather"], "two tools have the same name"),
        (["weather", {"name": "weather", "input_schema": {"type": "object"}}], "two tools have the same name"),
    ):
        status, content = await client.json("POST", path, {"input": "?", "options": {"tools": tools}})
        assert status == 422
        assert said in content["error"]["message"]
    assert (await client.json("GET", f"/conversations/{conversation}/messages"))[1]["messages"] == []


async def test_a_cancel_stops_a_tool(client: Client) -> None:
    """And says which call was under way."""
    path = f"/conversations/{await client.conversation()}/stream"
    body = calling(call("c1", "wait_for_it"), before="Wait. ")
    async with asyncio.timeout(20), client.session.post(path, json=body) as response:
        message_id = response.headers["x-message-id"]
        await response.content.readline()
        await own_tools.begun.wait()
        await client.json("POST", f"/messages/{message_id}/cancel")
        await response.read()
    message = await client.backend.store.messages.get(message_id)
    assert message.status == "cancelled"
    assert message.metadata["unfinished_tools"] == [{"id": "c1", "name": "wait_for_it"}]


# ---- approval ----


async def test_a_call_waits_for_a_yes(client: Client) -> None:
    """The reply ends; a yes from anywhere lets it go on, once."""
    conversation = await client.conversation()
    body = calling(call("c1", "send_mail", '{"to":"Ann"}'), call("c2", "weather", '{"city":"Ulm"}'), metadata={"k": 1})
    waiting = await ask(client, body, conversation)
    assert (waiting.status, waiting.metadata["approvals"]) == ("completed", ["c1"])
    assert own_tools.effects == {"weather": 1}
    path = f"/conversations/{conversation}/stream"
    for approvals, said in (
        ({"c9": True}, "No such call waits for a yes: c9."),
        ({}, "Each call that waits needs a yes or a no: c1."),
    ):
        status, content = await client.json(
            "POST", path, {**body, "input": None, "approvals": approvals, "continue": True}
        )
        assert (status, content["error"]["message"]) == (422, said)
    body |= {"input": None, "approvals": {"c1": True}}
    starts = await asyncio.gather(*(client.start(body, conversation) for _ in range(5)))
    statuses = sorted(response.status for response, _ in starts)
    assert statuses[0] == 200
    assert {*statuses[1:]} <= {409, 422}  # while it is made, and after
    assert own_tools.effects == {"weather": 1, "send_mail": 1}
    (message_id,) = [response.headers["x-message-id"] for response, _ in starts if response.status == 200]
    message = await client.backend.store.messages.get(message_id)
    assert message.content == "Done."
    assert message.metadata["continues"] == waiting.id
    assert [each["result"] for each in message.metadata["tool_results"]] == ["sent to Ann"]
    (context,) = own_tools.contexts
    assert (context.owner, context.message_id, context.metadata, context.call_id) == (
        "anonymous",
        message_id,
        {"k": 1},
        "c1",
    )
    waiting = await client.backend.store.messages.get(waiting.id)
    assert waiting.metadata["continued_by"] == message_id


async def test_a_no_is_told_to_the_model(client: Client) -> None:
    """With its reason; nothing is called."""
    conversation = await client.conversation()
    body = calling(call("c1", "send_mail", '{"to":"Ann"}'))
    await ask(client, body, conversation)
    said = {"c1": {"approved": False, "reason": "Not to her."}}
    message = await ask(client, {**body, "input": None, "approvals": said}, conversation)
    (result,) = message.metadata["tool_results"]
    assert result["result"] == "The user did not allow this call. They said: Not to her."
    assert message.content == "Done."
    assert not own_tools.effects


async def test_a_rule_says_what_must_wait(client: Client) -> None:
    """By the arguments."""
    small = await ask(client, calling(call("c1", "pay", '{"amount":5}')))
    assert small.content == "Done."
    large = await ask(client, calling(call("c1", "pay", '{"amount":500}')))
    assert large.metadata["approvals"] == ["c1"]
    assert own_tools.effects == {"pay": 1}


async def test_the_same_yes_twice_attaches(client: Client) -> None:
    """Under one key, as any start."""
    conversation = await client.conversation()
    body = calling(call("c1", "send_mail", '{"to":"Ann"}'))
    await ask(client, body, conversation)
    body |= {"input": None, "approvals": {"c1": True}}
    path = f"/conversations/{conversation}/stream"
    found = set()
    for _ in range(3):
        async with client.session.post(path, json=body, headers={"Idempotency-Key": "k"}) as response:
            assert response.status == 200, await response.read()
            found.add(response.headers["x-message-id"])
            await response.read()
    assert len(found) == 1
    assert own_tools.effects == {"send_mail": 1}


async def test_something_else_was_said(client: Client) -> None:
    """Then nothing waits any more, and the call that had no yes is in no prompt."""
    conversation = await client.conversation()
    body = calling(call("c1", "send_mail", '{"to":"Ann"}'))
    await ask(client, body, conversation)
    message = await ask(client, {"input": "Never mind", "model": "echo"}, conversation)
    assert message.content == "Never mind"
    path = f"/conversations/{conversation}/stream"
    status, content = await client.json("POST", path, {**body, "input": None, "approvals": {"c1": True}})
    assert (status, content["error"]["message"]) == (422, "No such call waits for a yes: c1.")


# ---- going on ----


async def crash_in_a_tool(client: Client, conversation: str, *calls: Json) -> Message:
    """Start a reply whose tools do not come back, and let its writer die."""
    body = calling(*calls, before="Let me see. ")
    path = f"/conversations/{conversation}/stream"
    async with asyncio.timeout(20), client.session.post(path, json=body) as response:
        message_id = response.headers["x-message-id"]
        await own_tools.begun.wait()
        await client.backend.open_replies._end(message_id, INTERRUPTED, silence=0.0)
        await response.read()
    return await client.backend.store.messages.get(message_id)


async def test_after_a_crash_nothing_is_called_again_by_itself(client: Client) -> None:
    """Who goes on is told what is not known; what is safe to repeat is made again."""
    conversation = await client.conversation()
    calls = [call("c1", "wait_for_it"), call("c2", "look_up", '{"word":"race"}')]
    broken = await crash_in_a_tool(client, conversation, *calls)
    assert broken.status == "interrupted"
    assert {"id": "c1", "name": "wait_for_it"} in broken.metadata["unfinished_tools"]
    body = {**calling(*calls), "input": None, "continue": True}
    message = await ask(client, body, conversation)
    assert message.content == "Done."
    results = {each["id"]: each["result"] for each in message.metadata["tool_results"]}
    assert results["c1"].startswith("It is not known whether this call was made")
    assert own_tools.effects["wait_for_it"] == 1
    status, content = await client.json("POST", f"/conversations/{conversation}/stream", body)
    assert (status, content["error"]["message"]) == (
        422,
        "There is nothing to go on with: the reply has ended by itself.",
    )


async def test_the_next_prompt_has_all_of_it(client: Client) -> None:
    """The steps of the reply that broke off, the results that came later, and the text without what was said twice."""
    conversation = await client.conversation()
    await crash_in_a_tool(client, conversation, call("c1", "wait_for_it"))
    await ask(client, {**calling(call("c1", "wait_for_it")), "input": None, "continue": True}, conversation)
    loaded = await Conversation.load(conversation, backend=client.backend)
    past = await loaded._past(None, include_unfinished=False)
    prompt = prompt_messages(past.messages, past.steps)
    assert [(each.role, each.content) for each in prompt] == [
        ("user", "Well?"),
        ("assistant", ""),
        ("tool_result", ""),
        ("assistant", "Done."),
    ]
    assert [each.id for each in prompt[1].tool_calls] == ["c1"]


async def test_there_is_nothing_to_go_on_with(client: Client) -> None:
    """Said before anything is stored."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    status, content = await client.json("POST", path, {"continue": True})
    assert (status, content["error"]["message"]) == (422, "There is no reply to go on with.")
    status, content = await client.json("POST", path, {"continue": True, "input": "?"})
    assert status == 422
    await client.json("POST", f"/conversations/{conversation}/messages", {"role": "user", "content": "x"})
    status, content = await client.json("POST", path, {"continue": True})
    assert status == 422
    assert "something else was said" in content["error"]["message"]


# ---- watching ----


@pytest.mark.parametrize("delivery", [{}, {"by": "sentence"}, {"interval_ms": 10}])
async def test_parts_over_server_sent_events(client: Client, delivery: Json) -> None:
    """Reasoning, calls, results and the ends of steps between the text, live and read again, from any cursor."""
    body = calling(call("c1", "weather", '{"city":"Ulm"}'), before="Let me see")
    body["options"]["script"]["reasoning"] = ["Hm."]
    _, stream = await client.start({**body, "delivery": {**delivery, "parts": True}})
    live = events(stream)
    kinds = [next(iter(each)) for each in live]
    assert kinds == [
        *("reasoning", "sentence" if "by" in delivery else "chunk", "tool_call", "tool_run", "tool_result", "step_end"),
        *("reasoning", "sentence" if "by" in delivery else "chunk", "done"),
    ]
    assert live[2]["tool_call"] == {"id": "c1", "name": "weather", "arguments": '{"city":"Ulm"}'}
    assert live[4]["tool_result"]["name"] == "weather"
    message_id = live[0]["message_id"]
    query = {"parts": "true", **{name: str(value) for name, value in delivery.items()}}
    for place in range(len(live)):
        headers = {"Last-Event-ID": live[place - 1]["id"]} if place else {}
        async with client.session.get(f"/messages/{message_id}/stream", params=query, headers=headers) as response:
            if response.status == 204:
                assert place == len(live)
                break
            assert events(await response.read()) == live[place:]


async def test_who_does_not_ask_gets_text_alone(client: Client) -> None:
    """The simple protocol is what it was."""
    _, stream = await client.start(calling(call("c1", "weather", '{"city":"Ulm"}'), before="Let me see. "))
    assert [next(iter(each)) for each in events(stream)] == ["chunk", "chunk", "done"]
