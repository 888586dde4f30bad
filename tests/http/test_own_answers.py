"""Answers from code of one's own, named by a setting: logged and served like a vendor's, and closed when they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
import openai
import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.providers import ProviderRequest
from tailrace.settings import Settings

from tests import own_answers
from tests.http.conftest import Client, Serve, events

pytestmark = pytest.mark.anyio

NAMES = ("text", "everything", "later", "raising", "refusing", "unprocessable", "odd", "endless", "stubborn")


@pytest.fixture
async def client(settings: Settings, serve: Serve) -> AsyncIterator[Client]:
    """A client of a stack with answers of its own."""
    given = ",".join(f"{name} = tests.own_answers:{name}" for name in NAMES)
    more = "class=tests.own_answers:Provider, not-one=tests.own_answers:NOT_ONE, gone=tests.nowhere:answer"
    own = Settings.from_environment({"TAILRACE_PROVIDERS": f"{given}, {more}, none=tests.own_answers:none"})
    async with serve(msgspec.structs.replace(settings, own_providers=own.own_providers)) as client:
        yield client


@pytest.mark.parametrize(
    ("provider", "said"), [("text", "What is it? "), ("later", "What is it? "), ("class", "I am huge.")]
)
async def test_a_generator_of_text_is_a_provider(client: Client, provider: str, said: str) -> None:
    """So is a coroutine that returns one, and a class with the method of a provider."""
    _, body = await client.start({"input": "What is it?", "provider": provider, "model": "huge"})
    *_, end = events(body)
    message = end["message"]
    assert (message["status"], message["content"], message["provider"]) == ("completed", said, provider)
    assert message["metadata"]["finish"] == "stop"
    assert message["usage"]["source"] == "estimate"


async def test_events_are_kept_like_a_vendor_s(client: Client) -> None:
    """Reasoning, calls with results, sources and tokens."""
    _, body = await client.start({"input": "?", "provider": "everything"})
    message = events(body)[-1]["message"]
    assert message["content"] == "It is a channel."
    metadata = message["metadata"]
    assert metadata["reasoning"] == "Hm. "
    assert [each["name"] for each in metadata["tool_results"]] == ["search"]
    assert metadata["citations"] == [{"url": "https://example.com", "title": "Wheels"}]
    assert (message["usage"]["prompt_tokens"], message["usage"]["completion_tokens"]) == (7, 3)


@pytest.mark.parametrize(
    ("provider", "content", "error"),
    [
        ("raising", "Well, ", "The provider raising failed."),
        ("odd", "", "The provider odd failed."),
        ("refusing", "", "The library is closed on Sundays."),
        ("unprocessable", "Well, ", "Only questions about mills are answered."),
    ],
)
async def test_what_it_raises_ends_the_reply(
    client: Client, caplog: pytest.LogCaptureFixture, provider: str, content: str, error: str
) -> None:
    """As failed, without the words of any exception but ours, here and in the log."""
    with caplog.at_level(logging.INFO):
        _, body = await client.start({"input": "?", "provider": provider, "options": {"retries": 0}})
    end = events(body)[-1]
    assert (end["error"], end["message"]) == (True, error)
    message = await client.backend.store.messages.get(end["message_id"])
    assert (message.status, message.content) == ("failed", content)
    assert b"secret" not in body
    assert "secret" not in caplog.text


@pytest.mark.parametrize("provider", ["endless", "stubborn"])
async def test_a_cancel_closes_it(client: Client, provider: str) -> None:
    """Within a second; one that does not let itself be closed keeps nobody waiting for longer."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    async with asyncio.timeout(20), client.session.post(path, json={"input": "?", "provider": provider}) as response:
        await response.content.readline()
        await client.json("POST", f"/messages/{response.headers['x-message-id']}/cancel")
        rest = await response.read()
    assert b"cancelled" in rest
    assert own_answers.closed.is_set() or provider == "stubborn"
    own_answers.let_go.set()


async def test_a_silent_one_is_ended(client: Client) -> None:
    """By the same time-outs as a vendor."""
    options = {"timeouts": {"idle": 0.05}}
    _, body = await client.start({"input": "?", "provider": "endless", "options": options})
    assert events(body)[-1]["error_type"] == "timeout_idle"
    assert own_answers.closed.is_set()


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("not-one", "The provider not-one must be a function that takes a ProviderRequest"),
        ("gone", "TAILRACE_PROVIDERS: tests.nowhere cannot be imported (ModuleNotFoundError)."),
        ("none", "TAILRACE_PROVIDERS: there is no none in tests.own_answers."),
    ],
)
async def test_what_is_none_is_said_before_anything_is_stored(
    client: Client, caplog: pytest.LogCaptureFixture, provider: str, said: str
) -> None:
    """To the operator, in the log, with the setting's name; to the client, that something is missing."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    status, content = await client.json("POST", path, {"input": "?", "provider": provider})
    assert status == 503
    assert "tests" not in content["error"]["message"]
    assert any(str(getattr(each, "missing", "")).startswith(said) for each in caplog.records)
    _, listed = await client.json("GET", f"/conversations/{conversation}/messages")
    assert listed["messages"] == []


async def test_it_is_named_wherever_a_provider_is(client: Client) -> None:
    """As a fallback, in OpenAI's models, and in an error that lists those there are."""
    body = {"input": "Hi", "provider": "refusing", "fallbacks": [{"provider": "text"}], "options": {"retries": 0}}
    _, stream = await client.start(body)
    assert events(stream)[-1]["message"]["content"] == "Hi "
    sdk = openai.AsyncOpenAI(base_url=str(client.session._build_url("/v1")), api_key="none", max_retries=0)
    async with sdk:
        assert "text" in {model.id async for model in await sdk.models.list()}
        answer = await sdk.chat.completions.create(model="text", messages=[{"role": "user", "content": "Hello"}])
        assert answer.choices[0].message.content == "Hello "
    status, content = await client.json(
        "POST", f"/conversations/{await client.conversation()}/stream", {"input": "?", "provider": "nobody"}
    )
    assert status == 422
    assert "everything" in content["error"]["message"]


async def test_a_ceiling_for_tokens_is_the_vendors(settings: Settings, serve: Serve) -> None:
    """Code of the operator's own, which may not know of such an option, is not given one that nobody asked for."""
    own = Settings.from_environment({"TAILRACE_PROVIDERS": "options=tests.own_answers:options"})
    limited = msgspec.structs.replace(settings, own_providers=own.own_providers, max_tokens=100)
    async with serve(limited) as client:
        _, body = await client.start({"input": "?", "provider": "options"})
        assert events(body)[-1]["message"]["content"] == "[]"
        _, body = await client.start({"input": "?", "provider": "options", "options": {"max_tokens": 7}})
        assert events(body)[-1]["message"]["content"] == "['max_tokens']"


async def test_in_the_library(settings: Settings) -> None:
    """Handed to the backend as it is."""

    async def shout(request: ProviderRequest) -> AsyncIterator[str]:
        yield request.messages[-1].content.upper()

    backend = Backend(settings, providers={"shout": shout})
    try:
        conversation = await Conversation.create(owner="u", backend=backend)
        await conversation.add_user_message("hey")
        reply = await conversation.to_request().using("shout").text()
        assert (reply.content, reply.finish) == ("HEY", "stop")
    finally:
        await backend.close()
