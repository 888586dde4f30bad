"""OpenAI's Responses API, with its own Python client on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from tailrace.conversation.conversation import Conversation
from tailrace.http.client_routes import Hot, find

from tests.http.conftest import Client, Json

pytestmark = pytest.mark.anyio

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def scripted(*chunks: str, **more: Any) -> Json:
    """Return what a page adds for the built-in provider."""
    return {"options": {"script": {"chunks": list(chunks), **more}}}


CALL = {"id": "c1", "name": "weather", "arguments": '{"city":"Oslo"}'}
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


@pytest.fixture
async def sdk(client: Client) -> AsyncIterator[AsyncOpenAI]:
    """The client, unmodified."""
    async with AsyncOpenAI(
        base_url=str(client.session._base_url).rstrip("/") + "/v1", api_key="none", max_retries=0
    ) as sdk:
        yield sdk


async def told(client: Client, method: str, path: str, body: Any = None) -> list[Json]:
    """Return the events of a stream, each of which is what OpenAI's types say."""
    async with asyncio.timeout(20), client.session.request(method, path, json=body) as response:
        assert response.status == 200, await response.read()
        found = []
        for block in (await response.read()).replace(b":\n", b"").decode().split("\n\n")[:-1]:
            name, data = block.split("\n")
            event = msgspec.json.decode(data.removeprefix("data: ").encode())
            assert name == f"event: {event['type']}"
            EVENT.validate_python(event, strict=True)
            found.append(event)
    numbers = [event["sequence_number"] for event in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return found


async def test_a_stream(sdk: AsyncOpenAI, client: Client) -> None:
    """In OpenAI's order, with one terminal event, and the same again."""
    body = {"model": "fast", "input": "Hi", "stream": True, **scripted("Hello ", "you.")}
    events = await told(client, "POST", "/v1/responses", body)
    assert [event["type"] for event in events] == ORDER
    response = events[-1]["response"]
    path = f"/v1/responses/{response['id']}"
    assert await told(client, "GET", f"{path}?stream=true") == events
    for after in range(len(events) - 1):
        assert await told(client, "GET", f"{path}?stream=true&starting_after={after}") == events[after + 1 :]
    status, read = await client.json("GET", path)
    assert (status, read) == (200, response)
    assert (await sdk.responses.retrieve(response["id"])).output_text == "Hello you."


async def test_through_the_clients_helpers(sdk: AsyncOpenAI) -> None:
    """``responses.stream`` starts, and goes on where a reader had left."""
    async with sdk.responses.stream(model="fast", input="Hi", extra_body=scripted("Hello ", "you.")) as stream:
        seen = [event async for event in stream]
        response = await stream.get_final_response()
    assert (response.status, response.output_text) == ("completed", "Hello you.")
    for after in (0, 4, 6):
        async with sdk.responses.stream(response_id=response.id, starting_after=after) as stream:
            rest = [event async for event in stream]
        assert [event.sequence_number for event in rest] == [event.sequence_number for event in seen[after + 1 :]]
        raw = await sdk.responses.retrieve(response.id, stream=True, starting_after=after)
        assert [event.sequence_number async for event in raw] == [event.sequence_number for event in rest]


async def test_not_streamed(sdk: AsyncOpenAI) -> None:
    """The whole object, which is what a later look gives too."""
    response = await sdk.responses.create(
        model="scripted/fast",
        input=[{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        instructions="Answer in one word.",
        metadata={"page": "7"},
        temperature=0.5,
        max_output_tokens=50,
        reasoning={"effort": "low", "summary": "auto"},
        tools=[TOOL],
        user="u",
        extra_body=scripted("Hello.", reasoning=["Think ", "well."], citations=[{"url": "https://a.example"}]),
    )
    assert response.status == "completed"
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert (response.instructions, response.metadata) == ("Answer in one word.", {"page": "7"})
    assert (response.temperature, response.max_output_tokens, response.user) == (0.5, 50, "u")
    assert response.usage is not None
    assert response.usage.output_tokens
    assert response.model_dump(warnings="error")
    assert await sdk.responses.retrieve(response.id) == response


async def test_a_round_with_a_tool(sdk: AsyncOpenAI, client: Client) -> None:
    """The call comes as an item, and its output goes on from that response."""
    body = {"model": "fast", "input": "Oslo?", "stream": True, "tools": [TOOL], **scripted("Well.", tool_calls=[CALL])}
    events = await told(client, "POST", "/v1/responses", body)
    response = events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]
    pieces = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert len(pieces) > 1
    assert "".join(pieces) == CALL["arguments"]
    call = response["output"][1]
    assert (call["call_id"], call["name"], call["status"]) == ("c1", "weather", "completed")
    outputs: Any = [{"type": "function_call_output", "call_id": "c1", "output": '{"rain":true}'}]
    after = await sdk.responses.create(
        model="fast", previous_response_id=response["id"], input=outputs, extra_body=scripted("It rains.")
    )
    assert after.output_text == "It rains."
    assert after.previous_response_id == response["id"]
    assert after.conversation is not None
    assert after.conversation.id == response["conversation"]["id"]
    with pytest.raises(openai.BadRequestError, match="No tool call found"):
        await sdk.responses.create(
            model="fast",
            previous_response_id=after.id,
            input=[{"type": "function_call_output", "call_id": "other", "output": "1"}],
        )


async def test_a_history_of_the_client_s_own(sdk: AsyncOpenAI, client: Client) -> None:
    """A client that keeps the state itself sends all items; they are a conversation of its own."""
    response = await sdk.responses.create(
        model="echo",
        input=[
            {"role": "user", "content": "Oslo?"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"role": "assistant", "content": "It rains."},
            {"role": "user", "content": [{"type": "input_text", "text": "Bergen?"}]},
        ],
    )
    assert response.output_text == "Bergen?"
    assert response.conversation is not None
    path = f"/conversations/{response.conversation.id.removeprefix('conv_')}/messages"
    _, content = await client.json("GET", path)
    assert [message["role"] for message in content["messages"]] == [
        "user",
        "tool_call",
        "tool_result",
        "assistant",
        "user",
        "assistant",
    ]


async def test_structured_output(sdk: AsyncOpenAI) -> None:
    """``responses.parse`` gets its model."""

    class Place(BaseModel):
        city: str

    response = await sdk.responses.parse(
        model="fast", input="Where?", text_format=Place, extra_body=scripted('{"city":', '"Oslo"}')
    )
    assert response.output_parsed == Place(city="Oslo")
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"


async def test_in_the_background(sdk: AsyncOpenAI, client: Client) -> None:
    """The answer comes at once, and the response goes on without its client until it has ended."""
    async with asyncio.timeout(20):
        response = await sdk.responses.create(
            model="fast", input="Hi", background=True, extra_body=scripted("a", "b", stall_after=2)
        )
        assert (response.status, response.background, response.output) == ("in_progress", True, [])
        message_id = response.id.removeprefix("resp_")
        await client.until(message_id, lambda message: message.content == "ab")
        read = await sdk.responses.retrieve(response.id)
        assert (read.status, read.output_text) == ("in_progress", "ab")
        for _ in range(2):
            cancelled = await sdk.responses.cancel(response.id)
            assert (cancelled.status, cancelled.output_text) == ("cancelled", "ab")
        quick = await sdk.responses.create(model="fast", input="Hi", background=True, extra_body=scripted("a", "b"))
        await client.ended(quick.id.removeprefix("resp_"))
        whole = await sdk.responses.retrieve(quick.id)
        assert (whole.status, whole.output_text, whole.background) == ("completed", "ab", True)


async def test_cancelled_while_it_is_read(sdk: AsyncOpenAI, client: Client) -> None:
    """The stream ends with what the client knows, and keeps the text."""
    stream = await sdk.responses.create(
        model="fast", input="Hi", stream=True, background=True, extra_body=scripted("a", "b", stall_after=2)
    )
    kinds = []
    async with asyncio.timeout(20):
        async for event in stream:
            kinds.append(event.type)
            if event.type == "response.created":
                response = event.response
            if event.type == "response.output_text.delta" and event.delta == "b":
                await client.until(response.id.removeprefix("resp_"), lambda message: message.content == "ab")
                await sdk.responses.cancel(response.id)
    assert event.type == "response.incomplete"
    assert (event.response.status, event.response.output_text) == ("cancelled", "ab")
    replayed = await told(client, "GET", f"/v1/responses/{response.id}?stream=true")
    assert [each["type"] for each in replayed] == kinds


@pytest.mark.parametrize(
    ("more", "status", "last"),
    [
        ({"finish_reason": "max_tokens"}, "incomplete", "response.incomplete"),
        ({"finish_reason": "content_filter"}, "incomplete", "response.incomplete"),
        ({"error_at": 1}, "failed", "response.failed"),
    ],
)
async def test_how_it_ends(sdk: AsyncOpenAI, client: Client, more: Json, status: str, last: str) -> None:
    """Streamed, read later, and not streamed."""
    body = {"model": "fast", "input": "Hi", **scripted("a", "b", **more)}
    events = await told(client, "POST", "/v1/responses", {**body, "stream": True})
    assert [event["type"] for event in events].count(last) == 1
    assert (events[-1]["type"], events[-1]["response"]["status"]) == (last, status)
    assert await told(client, "GET", f"/v1/responses/{events[-1]['response']['id']}?stream=true") == events
    assert (await client.json("GET", f"/v1/responses/{events[-1]['response']['id']}"))[1] == events[-1]["response"]
    response = await sdk.responses.create(model="fast", input="Hi", extra_body=scripted("a", "b", **more))
    assert response.status == status
    assert (response.error is not None) == (status == "failed")
    if status == "incomplete":
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason is not None


async def test_a_conversation_of_ours(sdk: AsyncOpenAI, client: Client) -> None:
    """It goes on, is read in both protocols, and may have an id of the page's own."""
    conversation = await client.conversation()
    for name in (conversation, f"conv_{conversation}"):
        response = await sdk.responses.create(model="echo", input=name, conversation=name)
        assert response.output_text == name
        assert response.conversation is not None
        assert response.conversation.id == f"conv_{conversation}"
        status, message = await client.json("GET", f"/messages/{response.id.removeprefix('resp_')}")
        assert (status, message["content"]) == (200, name)
        assert "private" not in message["metadata"]
        assert "openai" not in str(message)
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.create(model="echo", input="Hi", conversation="of nobody")


async def test_branches(sdk: AsyncOpenAI, client: Client) -> None:
    """Going on from an earlier response leaves what came after it as it is."""
    first = await sdk.responses.create(model="echo", input="one", instructions="Only once.")
    second = await sdk.responses.create(model="echo", input="two", previous_response_id=first.id)
    branch = await sdk.responses.create(model="echo", input="three", previous_response_id=first.id)
    assert first.conversation == second.conversation != branch.conversation
    assert branch.conversation is not None
    assert second.conversation is not None
    for response, said in ((second, ["one", "one", "two", "two"]), (branch, ["one", "one", "three", "three"])):
        assert response.conversation is not None
        _, content = await client.json(
            "GET", f"/conversations/{response.conversation.id.removeprefix('conv_')}/messages"
        )
        assert [message["content"] for message in content["messages"]] == said


async def test_two_at_once_after_the_same(sdk: AsyncOpenAI) -> None:
    """One goes on, the others branch."""
    first = await sdk.responses.create(model="echo", input="one")
    found = await asyncio.gather(
        *(sdk.responses.create(model="echo", input=str(n), previous_response_id=first.id) for n in range(4))
    )
    assert [response.output_text for response in found] == [str(n) for n in range(4)]
    conversations = [response.conversation.id for response in found if response.conversation is not None]
    assert len(set(conversations)) == 4
    assert first.conversation is not None
    assert first.conversation.id in conversations


async def test_a_key_starts_once(sdk: Any, client: Client) -> None:
    """Whether it is a new conversation or another's next response, at once or later, streamed or not."""
    first = await sdk.responses.create(model="echo", input="one")
    for key, more in (("a", {}), ("b", {"previous_response_id": first.id})):
        headers = {"Idempotency-Key": key}
        found = await asyncio.gather(
            *(sdk.responses.create(model="echo", input="Hi", extra_headers=headers, **more) for _ in range(3))
        )
        found.append(await sdk.responses.create(model="echo", input="Hi", extra_headers=headers, **more))
        assert len({response.id for response in found}) == 1
        assert found[0] == found[-1]
        stream = await sdk.responses.create(model="echo", input="Hi", extra_headers=headers, stream=True, **more)
        assert [event async for event in stream][-1].response.id == found[0].id
        with pytest.raises(openai.ConflictError):
            await sdk.responses.create(model="echo", input="Else", extra_headers=headers, **more)


ITEMS: TypeAdapter[Any] = TypeAdapter(ResponseItem)

IMAGE = "data:image/png;base64,iVBORw0KGgo="


async def long_chain(sdk: AsyncOpenAI) -> Any:
    """Return a response after some of every kind."""
    first = await sdk.responses.create(
        model="fast",
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, IMAGE_PART]},
        ],
        extra_body=scripted("Let me ", "see.", reasoning=["Hm."], tool_calls=[CALL, {**CALL, "id": "c2"}]),
    )
    outputs: Any = [{"type": "function_call_output", "call_id": each, "output": f"of {each}"} for each in ("c1", "c2")]
    second = await sdk.responses.create(
        model="fast", input=outputs, previous_response_id=first.id, extra_body=scripted("Lost", error_at=1)
    )
    assert second.status == "failed"
    assert first.conversation is not None
    return await sdk.responses.create(
        model="fast", input="And now?", conversation=first.conversation.id, extra_body=scripted("Rain.")
    )


IMAGE_PART: Any = {"type": "input_image", "image_url": IMAGE, "detail": "auto"}


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_input_items(sdk: AsyncOpenAI, client: Client, limit: int, order: Any) -> None:
    """All of what was sent on, page by page, in either order; each is one that the client's own types take."""
    response = await long_chain(sdk)
    found = [item async for item in sdk.responses.input_items.list(response.id, limit=limit, order=order)]
    for item in found:
        ITEMS.validate_python(item.model_dump(exclude_none=True), strict=True)
    items = [item.model_dump(exclude_none=True) for item in (found if order == "asc" else found[::-1])]
    assert [each["type"] for each in items] == [
        *("message", "reasoning", "message", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "message"),
    ]
    question, _, answer, call, _, result, other, last = items
    assert question["content"] == [{"type": "input_text", "text": "What is it?"}, IMAGE_PART]
    assert (answer["role"], answer["content"][0]["text"]) == ("assistant", "Let me see.")
    assert (call["call_id"], call["arguments"]) == ("c1", CALL["arguments"])
    assert [(each["call_id"], each["output"]) for each in (result, other)] == [("c1", "of c1"), ("c2", "of c2")]
    assert last["content"] == [{"type": "input_text", "text": "And now?"}]
    assert len({each["id"] for each in items}) == len(items)


async def test_input_items_of_a_first_response(sdk: AsyncOpenAI) -> None:
    """Are its input, and a list as OpenAI's is."""
    response = await sdk.responses.create(model="fast", input="Hi", extra_body=scripted("Ho"))
    page = await sdk.responses.input_items.list(response.id, include=["message.output_text.logprobs"])
    assert page.to_dict() == {
        "object": "list",
        "data": [page.data[0].to_dict()],
        "first_id": page.data[0].id,
        "last_id": page.data[0].id,
        "has_more": False,
    }


async def test_input_items_that_are_refused(sdk: AsyncOpenAI) -> None:
    """By the name of the parameter; and those of what is somebody else's, or not there, are not found."""
    response = await sdk.responses.create(model="fast", input="Hi", extra_body=scripted("Ho"))
    later = await sdk.responses.create(model="fast", input="And?", previous_response_id=response.id)
    (item,) = (await sdk.responses.input_items.list(response.id)).data
    newest = (await sdk.responses.input_items.list(later.id)).data[0].id
    for name, values in {
        "limit": ["0", "101", "x", "", "٣"],
        "order": ["up"],
        "after": ["", "x", "msg_x", f"{item.id}x", item.id.replace("msg_", "fc_"), newest],
    }.items():
        for value in values:
            with pytest.raises(openai.BadRequestError) as refused:
                await sdk.responses.input_items.list(response.id, extra_query={name: value})
            assert refused.value.param == name
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.input_items.list("resp_x")


async def test_deleted(sdk: AsyncOpenAI) -> None:
    """It is gone."""
    response = await sdk.responses.create(model="echo", input="one")
    await sdk.responses.delete(response.id)
    calls: Any = (sdk.responses.retrieve, sdk.responses.cancel, sdk.responses.delete)
    for call in calls:
        with pytest.raises(openai.NotFoundError):
            await call(response.id)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"temperature": "warm"}, "temperature"),
        ({"metadata": {"a" * 65: "b"}}, "metadata"),
        ({"conversation": "a", "previous_response_id": "b"}, "previous_response_id"),
        ({"input": [{"role": "user", "content": ""}]}, "input[0].content"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": [{"type": "computer_call_output"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "1"}]}, "input"),
    ],
)
async def test_refused(sdk: AsyncOpenAI, body: Json, param: str) -> None:
    """With the field's name, before anything is stored."""
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.responses.create(model="fast", input="Hi", extra_body=body)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


async def test_unknown(sdk: AsyncOpenAI, client: Client) -> None:
    """An id that is no response's, of whatever form."""
    conversation = await client.conversation()
    _, said = await client.json("POST", f"/conversations/{conversation}/messages", {"role": "user", "content": "a"})
    for wrong in ("resp_x", "x", said["id"], f"resp_{said['id']}"):
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(wrong)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.create(model="fast", input="Hi", previous_response_id=wrong)


async def test_a_long_request_is_repeated_in_part(sdk: AsyncOpenAI) -> None:
    """What is over the bound is left out, tools first; the reply's item must hold what the reply comes to."""
    long: Any = {**TOOL, "description": "x" * 70_000}
    response = await sdk.responses.create(model="echo", input="Hi", instructions="Short.", tools=[long])
    assert (response.tools, response.instructions) == ([], "Short.")
    assert await sdk.responses.retrieve(response.id) == response


async def test_in_the_background_where_answers_are_buffered(client: Client) -> None:
    """The function that answers when it ends cannot answer before: it says so, and stores nothing."""
    sent: list[Any] = []

    async def receive() -> Json:
        return {"type": "http.request", "body": b'{"model":"fast","input":"Hi","background":true}'}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "headers": headers, "path_params": {}, "aws.context": object(), "query_string": b""}
    await Hot(client.backend, lambda: find("tailrace.http.openai_responses:post_response"))(scope, receive, send)
    assert sent[0]["status"] == 400
    assert msgspec.json.decode(sent[1]["body"])["error"]["param"] == "background"
    _, content = await client.json("GET", "/conversations")
    assert content["conversations"] == []


async def test_a_branch_that_is_too_long(sdk: AsyncOpenAI, client: Client) -> None:
    """It is refused, and the error says how to go on."""
    conversation = await client.conversation()
    store = await Conversation.load(conversation, backend=client.backend)
    await store.add_messages(*(str(n) for n in range(91)))
    first = await sdk.responses.create(model="echo", input="one", conversation=conversation)
    await sdk.responses.create(model="echo", input="two", previous_response_id=first.id)
    with pytest.raises(openai.BadRequestError, match=f"conv_{conversation}"):
        await sdk.responses.create(model="echo", input="three", previous_response_id=first.id)


async def test_going_on_from_one_that_has_not_ended(sdk: AsyncOpenAI) -> None:
    """It is refused until that has an end."""
    first = await sdk.responses.create(
        model="fast", input="Hi", background=True, extra_body=scripted("a", "b", stall_after=2)
    )
    with pytest.raises(openai.BadRequestError, match="has not ended"):
        await sdk.responses.create(model="echo", input="two", previous_response_id=first.id)
    await sdk.responses.cancel(first.id)
    assert (await sdk.responses.create(model="echo", input="two", previous_response_id=first.id)).output_text == "two"
