"""OpenAI's chat completions and models, with its own Python client on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tailrace.http.client_routes import Hot, find

from tests.http.conftest import Client, Json, Serve
from tests.http.test_owner import asking, by_token, token

pytestmark = pytest.mark.anyio

NAMED = "X-Conversation-Id"

CALL: Any = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
CALLED: Any = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT: Any = {"role": "tool", "tool_call_id": "c1", "content": "Rain."}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def sdk_of(client: Client, **more: Any) -> AsyncOpenAI:
    """Return the client, unmodified."""
    root = str(client.session._base_url).rstrip("/")
    return AsyncOpenAI(**{"base_url": f"{root}/v1", "api_key": "none", "max_retries": 0, **more})


@pytest.fixture
async def sdk(client: Client) -> AsyncIterator[AsyncOpenAI]:
    """The client, which does not ask again."""
    async with sdk_of(client) as sdk:
        yield sdk


def scripted(*chunks: str, **more: Any) -> Json:
    """Return what a page adds for the built-in provider."""
    return {"options": {"script": {"chunks": list(chunks), **more}}}


def user(text: str) -> Any:
    """Return a message of the user's."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Any:
    """Return an answer."""
    return {"role": "assistant", "content": text}


async def ask(sdk: AsyncOpenAI, *messages: Any, name: str | None = None, **more: Any) -> tuple[ChatCompletion, str]:
    """Ask, and return the answer and the id of the conversation that has it."""
    headers = {**more.pop("extra_headers", {}), **({NAMED: name} if name else {})}
    raw = await sdk.chat.completions.with_raw_response.create(
        messages=list(messages), extra_headers=headers, **{"model": "echo", **more}
    )
    return raw.parse(), raw.headers[NAMED]


async def stored(client: Client, conversation: str) -> list[tuple[str, str]]:
    """Return the roles and texts of a conversation."""
    status, content = await client.json("GET", f"/conversations/{conversation}/messages?limit=100")
    assert status == 200
    return [(message["role"], message["content"]) for message in content["messages"]]


async def conversations(client: Client) -> list[str]:
    """Return the ids of all."""
    return [each["id"] for each in (await client.json("GET", "/conversations"))[1]["conversations"]]


# ---- answers ----


async def test_streamed(client: Client) -> None:
    """A role, the text, why it ended and, if that is asked for, the usage; each chunk is what OpenAI's types say."""
    body = {
        "model": "scripted/fast",
        "messages": [user("Hi")],
        "stream": True,
        "stream_options": {"include_usage": True},
        **scripted("Hello ", "you.", reasoning=["Hm."]),
    }
    async with client.session.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200
        message, conversation = response.headers["X-Message-Id"], response.headers[NAMED]
        blocks = (await response.read()).replace(b":\n", b"").split(b"\n\n")
    assert blocks[-2:] == [b"data: [DONE]", b""]
    found = [msgspec.json.decode(block.removeprefix(b"data: ")) for block in blocks[:-2]]
    for chunk in found:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        assert (chunk["id"], chunk["model"]) == (f"chatcmpl-{message}", "scripted/fast")
    assert [each["choices"][0]["delta"] for each in found[:-1]] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm."},
        {"content": "Hello "},
        {"content": "you."},
        {},
    ]
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert (found[-1]["choices"], found[-1]["usage"]["completion_tokens"]) == ([], 2)
    assert await stored(client, conversation) == [("user", "Hi"), ("assistant", "Hello you.")]


async def test_whole(sdk: AsyncOpenAI, client: Client) -> None:
    """What the stream comes to, with the sources that it names."""
    answer, conversation = await ask(
        sdk,
        {"role": "system", "content": "Be kind."},
        user("Hi"),
        {"role": "developer", "content": "Be brief."},
        extra_body=scripted("Hello.", citations=[{"url": "https://a.example", "title": "A"}]),
        model="fast",
        temperature=0.5,
        max_completion_tokens=50,
        store=False,
        user="u",
    )
    assert answer.model_dump(warnings="error")
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("Hello.", "stop")
    assert choice.message.annotations is not None
    assert choice.message.annotations[0].url_citation.url == "https://a.example"
    assert answer.usage is not None
    assert await stored(client, conversation) == [("user", "Hi"), ("assistant", "Hello.")]
    record = await client.backend.store.conversations.get(conversation)
    assert record.system == "Be kind.\n\nBe brief."


async def test_a_round_with_a_tool(sdk: AsyncOpenAI, client: Client) -> None:
    """Streamed as the client's helper adds it up; the result goes on in a conversation of its own, or in the same."""
    call = {"id": "c1", "name": "weather", "arguments": '{"city":"Oslo"}'}
    async with sdk.chat.completions.stream(
        model="fast",
        messages=[user("Oslo?")],
        tools=[TOOL],
        extra_headers={NAMED: "round"},
        extra_body=scripted("Well.", tool_calls=[call], finish_reason="tool_calls"),
    ) as stream:
        (choice,) = (await stream.get_final_completion()).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert [each.function.arguments for each in choice.message.tool_calls] == [call["arguments"]]
    said = {"role": "assistant", "content": "Well.", "tool_calls": [CALL]}
    answer, own = await ask(sdk, user("Oslo?"), said, RESULT, tools=[TOOL], model="fast", extra_body=scripted("Wet."))
    assert answer.choices[0].message.content == "Wet."
    assert [role for role, _ in await stored(client, own)] == [
        "user", "assistant", "tool_call", "tool_result", "assistant",
    ]  # fmt: skip
    _, same = await ask(sdk, user("Oslo?"), said, RESULT, name="round", model="fast", extra_body=scripted("Wet."))
    assert [role for role, _ in await stored(client, same)] == ["user", "assistant", "tool_result", "assistant"]


async def test_everybody_sees_the_same(sdk: AsyncOpenAI, client: Client) -> None:
    """Other readers of the reply have its text, while it is written and after it."""
    raw = await sdk.chat.completions.with_raw_response.create(
        model="fast", messages=[user("Hi")], stream=True, extra_body=scripted(*"abcdef", every=0.02)
    )
    message = raw.headers["X-Message-Id"]

    async def simply() -> str:
        async with client.session.get(f"/messages/{message}/stream") as response:
            lines = (await response.read()).decode().splitlines()
        found = [msgspec.json.decode(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert found[-1]["done"] is True
        return "".join(event.get("chunk", "") for event in found)

    watching = asyncio.ensure_future(simply())
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in raw.parse()])
    assert text == await watching == (await client.ended(message)).content == "abcdef"


# ---- what is stored ----


async def test_a_long_history(sdk: AsyncOpenAI, client: Client) -> None:
    """An agent's: it is stored and sent whole, in a conversation that is there with its reply only."""
    rounds = [[user(f"q{n}"), CALLED, RESULT, assistant(f"a{n} " + "x" * 1100)] for n in range(50)]
    messages = [message for each in rounds for message in each]
    _, conversation = await ask(sdk, *messages, user("end"))
    history = [message async for message in client.backend.store.messages.history(conversation)]
    roles = ["user", "tool_call", "tool_result", "assistant"] * 50 + ["user", "assistant"]
    assert [message.role for message in history] == roles
    assert [message.content for message in history if message.role == "user"] == [*(f"q{n}" for n in range(50)), "end"]
    answer, same = await ask(sdk, user("And now?"), name=conversation)
    assert same == conversation
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 50
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(sdk, *[user("x")] * 1001)
    assert refused.value.param == "messages"


async def test_a_long_history_is_posted_twice(sdk: AsyncOpenAI, client: Client) -> None:
    """At once, under one key: it is stored once, and asked once."""
    messages = [each for n in range(60) for each in (user(str(n)), assistant(str(n)))]
    headers = {"Idempotency-Key": "k"}
    found = await asyncio.gather(*(ask(sdk, *messages, user("end"), extra_headers=headers) for _ in range(3)))
    assert len({answer.id for answer, _ in found}) == 1
    assert len([each async for each in client.backend.store.messages.history(found[0][1])]) == 122
    with pytest.raises(openai.ConflictError):
        await ask(sdk, *messages, user("else"), extra_headers=headers)


@pytest.mark.parametrize("name", ["ours", "a name"])
async def test_what_is_named_takes_no_more_than_a_transaction(sdk: AsyncOpenAI, client: Client, name: str) -> None:
    """Or a start that broke off would leave a part of it there; nothing is stored, and the error says how many."""
    name = await client.conversation() if name == "ours" else name
    with pytest.raises(openai.BadRequestError, match="takes 95 new messages at a time") as refused:
        await ask(sdk, *[user(str(n)) for n in range(96)], name=name)
    assert refused.value.param == "messages"
    _, listed = await client.json("GET", "/conversations")
    assert [each["id"] for each in listed["conversations"]] == ([name] if name != "a name" else [])
    _, conversation = await ask(sdk, *[user(str(n)) for n in range(95)], name=name)
    assert len(await stored(client, conversation)) == 96
    answer, _ = await ask(sdk, *[user(str(n)) for n in range(95)], assistant("94"), user("And now?"), name=name)
    assert answer.choices[0].message.content


async def test_a_call_of_the_old_kind_is_refused(sdk: AsyncOpenAI) -> None:
    """Left out in silence, it would cost a turn; null, as some clients send it, says nothing."""
    old = {**assistant("x"), "function_call": {"name": "f", "arguments": "{}"}}
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(sdk, user("a"), old, user("b"))
    assert refused.value.param == "messages[1].function_call"
    await ask(sdk, user("a"), {**assistant("x"), "function_call": None}, user("b"))


@pytest.mark.parametrize("place", ["header", "metadata"])
async def test_a_conversation_goes_on(sdk: AsyncOpenAI, client: Client, place: str) -> None:
    """By an id of ours or a name of the client's; what is stored of it counts, and what is new is added."""
    ours = await client.conversation(system="Stored.")

    async def again(name: str, *messages: Any) -> str:
        if place == "header":
            return (await ask(sdk, *messages, name=name))[1]
        return (await ask(sdk, *messages, metadata={"conversation_id": name}))[1]

    assert await again(ours, {"role": "system", "content": "Sent."}, user("One")) == ours
    assert await again(ours, user("One"), assistant("One"), user("Two")) == ours
    assert await again(ours, user("Never said"), assistant("Nor this"), user("Three")) == ours
    assert await again(ours, user("Four")) == ours
    texts = [text for _, text in await stored(client, ours)]
    assert texts == [each for each in ("One", "Two", "Three", "Four") for _ in range(2)]
    assert (await client.backend.store.conversations.get(ours)).system == "Stored."
    assert await again("mine", user("One")) == await again("mine", user("Two"))


async def test_a_stored_conversation_without_messages(sdk: AsyncOpenAI, client: Client) -> None:
    """Nothing that is stored speaks against the history of the request: all of it is new."""
    ours = await client.conversation()
    await ask(sdk, user("One"), assistant("Two"), user("Three"), name=ours)
    assert [text for _, text in await stored(client, ours)] == ["One", "Two", "Three", "Three"]


async def test_asking_again_after_a_failure(sdk: AsyncOpenAI, client: Client) -> None:
    """The question that is stored is answered and not stored again; what is said after it is added."""
    with pytest.raises(openai.InternalServerError):
        await ask(sdk, user("A"), name="n", model="error")
    _, conversation = await ask(sdk, user("A"), name="n")
    assert await stored(client, conversation) == [("user", "A"), ("assistant", ""), ("assistant", "A")]
    with pytest.raises(openai.InternalServerError):
        await ask(sdk, user("B"), name="n", model="error")
    await ask(sdk, user("A"), assistant("A"), user("B"), user("C"), name="n")
    assert [text for role, text in await stored(client, conversation) if role == "user"] == ["A", "B", "C"]


async def test_the_same_request_while_it_is_answered(sdk: AsyncOpenAI, client: Client) -> None:
    """A client that lost its connection and asks again in a conversation gets the same reply; after it, a new one."""
    more: Any = {"name": "n", "extra_body": scripted(*"abc", every=0.1), "model": "fast"}
    found = await asyncio.gather(*(ask(sdk, user("Go on"), **more) for _ in range(3)))
    assert len({answer.id for answer, _ in found}) == 1
    assert [role for role, _ in await stored(client, found[0][1])] == ["user", "assistant"]
    answer, _ = await ask(sdk, user("Go on"), **more)
    assert answer.id != found[0][0].id
    assert [role for role, _ in await stored(client, found[0][1])] == ["user", "assistant"] * 2


async def test_somebody_else_s(serve: Serve, settings: Any) -> None:
    """A name is its owner's: another owner's conversation of that id is unknown, and stays as it is."""
    async with serve(asking(settings, "jwt")) as client:
        async with sdk_of(client, api_key=token("me")) as me, sdk_of(client, api_key=token("you")) as you:
            _, mine = await ask(me, user("Secret"))
            answer, other = await ask(you, user("What was said?"), name=mine)
            assert other != mine
            assert answer.choices[0].message.content == "What was said?"
        status, content = await client.json("GET", f"/conversations/{mine}/messages", headers=by_token("me"))
        assert (status, len(content["messages"])) == (200, 2)
        async with sdk_of(client, api_key="nonsense") as nobody:
            with pytest.raises(openai.AuthenticationError):
                await ask(nobody, user("Hi"))


# ---- what goes wrong ----


async def test_a_failure_is_asked_once(client: Client) -> None:
    """The client's own retries do not start it again: whoever answers was asked often enough."""
    async with sdk_of(client, max_retries=2) as sdk:
        with pytest.raises(openai.InternalServerError) as failed:
            await ask(sdk, user("Hi"), model="error", extra_body={"options": {"retries": 0}})
    assert failed.value.status_code == 502
    assert (failed.value.type, failed.value.code) == ("server_error", "api_error")
    (conversation,) = await conversations(client)
    assert failed.value.response.headers[NAMED] == conversation
    assert [role for role, _ in await stored(client, conversation)] == ["user", "assistant"]
    status, message = await client.json("GET", f"/messages/{failed.value.response.headers['X-Message-Id']}")
    assert (status, message["status"]) == (200, "failed")


async def test_a_failure_in_mid_answer(sdk: AsyncOpenAI) -> None:
    """The text until then, and the client's own error from the iteration."""
    text: list[str] = []

    async def reading() -> None:
        async for chunk in await sdk.chat.completions.create(model="break", messages=[user("Hi")], stream=True):
            text.append(chunk.choices[0].delta.content or "")  # noqa: PERF401  # what came before the error stays

    with pytest.raises(openai.APIError, match="ended its answer early") as failed:
        await reading()
    assert "".join(text)
    assert failed.value.code == "api_error"


@pytest.mark.parametrize("streamed", [True, False])
async def test_cancelled(client: Client, streamed: bool) -> None:
    """From anywhere. It is an error, after which nothing is asked again."""
    more: Any = {"model": "fast", "extra_body": scripted("a", stall_after=1)}
    async with sdk_of(client, max_retries=2) as sdk:

        async def asking() -> None:
            if streamed:
                async for _ in await sdk.chat.completions.create(messages=[user("Hi")], stream=True, **more):
                    pass
            else:
                await ask(sdk, user("Hi"), **more)

        asked = asyncio.ensure_future(asking())
        async with asyncio.timeout(20):
            while not (found := await conversations(client)):
                pass
        newest = await client.backend.store.messages.newest_reply(found[0])
        await client.until(newest, lambda message: message.content == "a")
        assert (await client.json("POST", f"/messages/{newest}/cancel"))[0] == 200
        with pytest.raises(openai.APIError) as failed:
            await asked
    assert failed.value.code == "cancelled"
    assert len(await conversations(client)) == 1


async def test_a_key_starts_once(sdk: AsyncOpenAI) -> None:
    """Whether at once or later, streamed or not; with another body it is refused, and not tried again."""
    headers = {"Idempotency-Key": "a"}
    found = await asyncio.gather(*(ask(sdk, user("Hi"), extra_headers=headers) for _ in range(3)))
    found.append(await ask(sdk, user("Hi"), extra_headers=headers))
    assert len({(answer.id, conversation) for answer, conversation in found}) == 1
    assert found[0][0] == found[-1][0]
    with pytest.raises(openai.ConflictError) as refused:
        await ask(sdk, user("Else"), extra_headers=headers)
    assert refused.value.response.headers["x-should-retry"] == "false"


def part(**part: Any) -> Json:
    """Return a body with a part of content."""
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"colour": "red"}, "colour"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"temperature": "warm"}, "temperature"),
        ({"fallback": "reset"}, "fallback"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL], "tool_choice": "perhaps"}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"messages": [user("a"), assistant("b")]}, "messages"),
        ({"messages": [user(" ")]}, "messages"),
        ({"messages": [{"role": "function", "name": "f", "content": "a"}]}, "messages[0].role"),
        ({"messages": [user("a"), RESULT]}, "messages[1].tool_call_id"),
        ({"messages": [user("a"), CALLED, {"role": "tool", "content": "1"}]}, "messages[2].tool_call_id"),
        (part(type="input_audio", input_audio={}), "messages[0].content[0].type"),
        (part(type="file", file={"file_id": "f"}), "messages[0].content[0].file"),
        (part(type="file", file={"file_data": "aGk="}), "messages[0].content[0].file.file_data"),
        (part(type="image_url", image_url={"url": "data:image/png,xx"}), "messages[0].content"),
        ({"metadata": {"conversation_id": "a"}, "headers": {NAMED: "b"}}, "metadata.conversation_id"),
    ],
)
async def test_refused(sdk: AsyncOpenAI, client: Client, body: Json, param: str) -> None:
    """With the field's name, before anything is stored."""
    given = {name: value for name, value in body.items() if name != "headers"}
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.chat.completions.create(
            model="fast", messages=[user("Hi")], extra_headers=body.get("headers"), extra_body=given
        )
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert await conversations(client) == []


async def test_a_result_that_nobody_asked_for(sdk: AsyncOpenAI, client: Client) -> None:
    """In a conversation only calls that are stored count, whatever the request says of them."""
    _, conversation = await ask(sdk, user("One"), name="n")
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(sdk, user("One"), CALLED, RESULT, name="n")
    assert refused.value.param == "messages[2].tool_call_id"
    assert len(await stored(client, conversation)) == 2


async def test_streamed_where_answers_are_buffered(client: Client) -> None:
    """The function that answers when it ends gives the whole stream then."""
    sent: list[Any] = []

    async def receive() -> Json:
        body = {"model": "echo", "messages": [user("Hi")], "stream": True}
        return {"type": "http.request", "body": msgspec.json.encode(body)}

    async def send(message: Any) -> None:
        sent.append(message)

    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return 30_000

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "headers": headers, "path_params": {}, "aws.context": Context(), "query_string": b""}
    await Hot(client.backend, lambda: find("tailrace.http.openai_chat:post_completions"))(scope, receive, send)
    assert sent[0]["status"] == 200
    assert b"".join(each.get("body", b"") for each in sent[1:]).endswith(b"data: [DONE]\n\n")


# ---- models ----


async def test_models(serve: Serve, settings: Any) -> None:
    """The default, and whatever has its key, wherever that lies; any model of theirs may be asked for."""
    environment = {"OPENAI_API_KEY": "k", "VLLM_BASE_URL": "http://127.0.0.1:1/v1"}
    some = msgspec.structs.replace(settings, environment=environment)
    async with serve(some) as client, sdk_of(client) as sdk:
        listed = [model async for model in sdk.models.list()]
        assert [model.id for model in listed] == ["scripted", "openai", "openai-responses", "vllm"]
        for name in ("scripted", "scripted/fast", "fast", "openai/gpt-5", "meta-llama/Llama-3", "vllm/a/b"):
            model = await sdk.models.retrieve(name)
            assert (model.id, model.object) == (name, "model")
        assert (await sdk.models.retrieve("openai/gpt-5")).owned_by == "openai"
        assert (await sdk.models.retrieve("meta-llama/Llama-3")).owned_by == "scripted"
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("groq/llama")


async def test_models_with_their_keys_in_a_secret(serve: Serve, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have one there are listed, and no others."""

    def read_key(kind: str, where: str, names: Any = ()) -> str | None:
        return "k" if "GROQ_API_KEY" in names else None

    monkeypatch.setattr("tailrace.backend.read_key", read_key)
    some = msgspec.structs.replace(settings, environment={"TAILRACE_KEYS_SECRET": "s"})
    async with serve(some) as client, sdk_of(client) as sdk:
        assert [model.id async for model in sdk.models.list()] == ["scripted", "groq"]
