"""What one identity may use, and what may be asked at all: refused before anything is stored, in every protocol."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import openai
import pytest
from multidict import CIMultiDict
from tailrace.conversation.admission import Admission
from tailrace.conversation.conversation import Conversation
from tailrace.errors import RateLimited
from tailrace.providers import ProviderRequest
from tailrace.reply.load import Load
from tailrace.settings import Settings

from tests.http.conftest import Client, Json, Serve, events
from tests.http.test_owner import asking, by_token
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio

STALLED: Json = {"input": "?", "model": "stall", "options": {"timeouts": {"idle": 60}}}
QUICK: Json = {"input": "?", "model": "fast", "options": {"script": {"chunks": ["x"], "prompt_tokens": 7}}}


@asynccontextmanager
async def limited(serve: Serve, settings: Settings, **limits: Any) -> AsyncIterator[Client]:
    """Serve with limits."""
    async with serve(msgspec.structs.replace(settings, **limits)) as client:
        yield client


async def start(
    client: Client, body: Json, conversation: str | None = None, **headers: str
) -> tuple[int, CIMultiDict[str], Any]:
    """Start a reply; return its status, its headers, and its error if it is one. A stream is left at once."""
    path = f"/conversations/{conversation or await client.conversation()}/stream"
    async with client.session.post(path, json=body, headers=headers) as response:
        content = None if response.status == 200 else await response.json()
        if response.status == 200 and body is not STALLED:
            await response.read()
        return response.status, CIMultiDict(response.headers), content and content["error"]


async def status_of(client: Client, path: str, body: Json) -> int:
    """Return the status of a request."""
    async with client.session.post(path, json=body) as response:
        await response.read()
        return response.status


async def test_replies_at_once(settings: Settings, serve: Serve) -> None:
    """Exact, however many come at the same time; one that ends makes room."""
    async with limited(serve, settings, limit_open=3) as client:
        conversations = [await client.conversation() for _ in range(12)]
        found = await asyncio.gather(*(start(client, STALLED, each) for each in conversations))
        opened = [headers["X-Message-Id"] for status, headers, _ in found if status == 200]
        assert len(opened) == 3
        for (status, headers, error), conversation in zip(found, conversations, strict=True):
            if status != 200:
                assert (status, error["type"]) == (429, "rate_limited")
                assert int(headers["Retry-After"]) > 0
                _, listed = await client.json("GET", f"/conversations/{conversation}/messages")
                assert listed["messages"] == []
        status, _, error = await start(client, STALLED)
        assert (status, error["message"]) == (429, "At most 3 replies may be written at once.")
        await client.json("POST", f"/messages/{opened[0]}/cancel")
        assert (await start(client, QUICK))[0] == 200
        assert (await start(client, QUICK))[0] == 200
        for each in opened:
            await client.json("POST", f"/messages/{each}/cancel")


async def test_starts_a_minute(settings: Settings, serve: Serve) -> None:
    """The next one may come when a part of the minute is over; what attaches to a start is none."""
    async with limited(serve, settings, limit_starts=3) as client:
        conversation = await client.conversation()
        key = {"Idempotency-Key": "k"}
        assert (await start(client, QUICK, conversation, **key))[0] == 200
        assert (await start(client, QUICK))[0] == 200
        assert (await start(client, QUICK))[0] == 200
        status, headers, error = await start(client, QUICK)
        assert (status, error["message"]) == (429, "At most 3 replies may be started a minute.")
        assert 1 <= int(headers["Retry-After"]) <= 20
        assert (await start(client, QUICK, conversation, **key))[0] == 200


async def test_tokens_a_day(settings: Settings, serve: Serve) -> None:
    """By what was counted when replies ended, whoever ended them."""
    async with limited(serve, settings, limit_tokens=20) as client:
        found = [(await start(client, QUICK))[0] for _ in range(4)]
        assert found == [200, 200, 200, 429]  # 8 each
        status, headers, error = await start(client, QUICK)
        assert (status, error["message"]) == (429, "At most 20 tokens may be used a day.")
        assert 0 < int(headers["Retry-After"]) <= 24 * 3600


async def test_conversations_a_day(settings: Settings, serve: Serve) -> None:
    """Those that are made, and those that a first reply makes."""
    async with limited(serve, settings, limit_conversations=2) as client:
        assert (await client.json("POST", "/conversations", {}))[0] == 201
        message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
        chat = {"id": uuid.uuid4().hex, "messages": [message], "model": "fast"}
        assert await status_of(client, "/api/chat", chat) == 200
        assert await status_of(client, "/api/chat", chat) == 200  # it is there
        status, content = await client.json("POST", "/conversations", {})
        assert (status, content["error"]["message"]) == (429, "At most 2 conversations may be made a day.")
        assert await status_of(client, "/api/chat", {**chat, "id": "other"}) == 429


async def test_each_protocol_says_so(settings: Settings, serve: Serve) -> None:
    """With its own status, shape and Retry-After."""
    async with limited(serve, settings, limit_starts=1) as client:
        assert (await start(client, QUICK))[0] == 200
        sdk = openai.AsyncOpenAI(base_url=str(client.session._build_url("/v1")), api_key="none", max_retries=0)
        async with sdk:
            with pytest.raises(openai.RateLimitError) as refused:
                await sdk.chat.completions.create(model="fast", messages=[{"role": "user", "content": "?"}])
            assert refused.value.code == "rate_limited"
            assert int(refused.value.response.headers["retry-after"]) > 0
            with pytest.raises(openai.RateLimitError):
                await sdk.responses.create(model="fast", input="?")
            long: Any = [{"role": "user", "content": str(n)} for n in range(150)]
            with pytest.raises(openai.RateLimitError):
                await sdk.chat.completions.create(model="fast", messages=long)
        run = {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "?"}]}
        async with client.session.post("/api/ag-ui", json=run) as response:
            assert response.status == 429
            assert "Retry-After" in response.headers
        chat = {"id": "c", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "?"}]}]}
        async with client.session.post("/api/chat", json=chat) as response:
            assert response.status == 429
        _, listed = await client.json("GET", "/conversations")
        assert len(listed["conversations"]) == 1


async def test_identities_do_not_count_for_each_other(settings: Settings, serve: Serve) -> None:
    """Each has its own."""
    async with limited(serve, settings, limit_open=1) as client:
        backend = client.backend
        other = await Conversation.create(owner="other", backend=backend)
        await (await other.stream_response("?", admission=Admission(backend, "other"))).complete()
        assert (await start(client, QUICK))[0] == 200


async def test_a_load_beyond_every_limit(settings: Settings, serve: Serve) -> None:
    """Starts without end of one identity, and posts of nobody's, while another works within its limits: of that one
    nothing is lost or changed. A start that is refused costs reads alone."""
    asked = asking(msgspec.structs.replace(settings, limit_open=4, limit_starts=10), "jwt")
    async with serve(asked) as client:
        client.calls.inner = MemoryCalls()  # whose time is not the point
        theirs, mine = by_token("flood"), by_token("calm")
        _, made = await client.json("POST", "/conversations", {}, headers=theirs)
        path = f"/conversations/{made['id']}/stream"

        async def flood() -> list[int]:
            found = []
            for _ in range(100):
                async with client.session.post(path, json=QUICK, headers=theirs) as response:
                    await response.read()
                    found.append(response.status)
            return found

        async def nobody() -> set[int]:
            return {(await client.json("POST", path, QUICK))[0] for _ in range(30)}

        async def calm() -> list[str]:
            _, made = await client.json("POST", "/conversations", {}, headers=mine)
            texts = []
            for number in range(8):
                body = {"input": "?", "model": "fast", "options": {"script": {"chunks": [f"{number} ", "of ", "8"]}}}
                there = f"/conversations/{made['id']}/stream"
                async with client.session.post(there, json=body, headers=mine) as response:
                    assert response.status == 200
                    texts.append("".join(each.get("chunk", "") for each in events(await response.read())))
            return texts

        *floods, refused, texts = await asyncio.gather(flood(), flood(), nobody(), calm())
        assert texts == [f"{number} of 8" for number in range(8)]
        assert refused == {401}
        statuses = [status for each in floods for status in each]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) <= 2 * 10  # a bucket, and what came back meanwhile
        # In a conversation whose history is one page, however many of the flood were taken.
        _, made = await client.json("POST", "/conversations", {}, headers=theirs)
        status = 200
        while status == 200:  # what came back since then
            before = len(client.calls.made)
            path = f"/conversations/{made['id']}/stream"
            async with client.session.post(path, json=QUICK, headers=theirs) as response:
                await response.read()
                status = response.status
        assert status == 429
        operations = [operation for operation, _ in client.calls.made[before:]]
        assert {*operations} <= {"GetItem", "Query", "BatchGetItem"}
        assert len(operations) <= 4


async def test_a_rule_of_one_s_own(settings: Settings, serve: Serve) -> None:
    """It is asked before anything is stored."""
    asked: list[tuple[str, str | None]] = []

    async def plan(owner: str, request: ProviderRequest) -> None:
        asked.append((owner, request.model))
        if request.model == "long":
            raise RateLimited("Your plan has no long answers.", retry_after=60)

    async with serve(settings) as client:
        client.backend.start_rules.append(plan)
        assert (await start(client, QUICK))[0] == 200
        status, headers, error = await start(client, {"input": "?", "model": "long"})
        assert (status, error["message"], headers["Retry-After"]) == (429, "Your plan has no long answers.", "60")
        assert asked == [("anonymous", "fast"), ("anonymous", "long")]


# ---- what may be asked ----


async def test_what_may_be_asked(settings: Settings, serve: Serve) -> None:
    """Providers and models by patterns; the error names them, and so does the list of models."""
    async with limited(serve, settings, allow=("scripted/fa*", "echo")) as client:
        assert (await start(client, QUICK))[0] == 200
        for body in (
            {"input": "?", "model": "long"},
            {"input": "?"},
            {"input": "?", "provider": "openai", "model": "gpt-5"},
            {**QUICK, "fallbacks": [{"provider": "anthropic"}]},
        ):
            status, _, error = await start(client, body)
            assert status == 422, body
            assert "may not be asked here. Allowed: scripted/fa*, echo." in error["message"]
        sdk = openai.AsyncOpenAI(base_url=str(client.session._build_url("/v1")), api_key="none", max_retries=0)
        async with sdk:
            assert [model.id async for model in await sdk.models.list()] == ["scripted"]
            assert (await sdk.models.retrieve("scripted/fast")).id == "scripted/fast"
            with pytest.raises(openai.NotFoundError):
                await sdk.models.retrieve("scripted/long")


def test_in_lambda_it_is_what_the_stack_has() -> None:
    """Its provider, and its model if it names one; answers of one's own too."""
    function = {"AWS_LAMBDA_FUNCTION_NAME": "f", "TAILRACE_AUTH": "iam"}
    assert Settings.from_environment(function).allow == ("scripted",)
    named = {**function, "TAILRACE_PROVIDER": "openai", "TAILRACE_MODEL": "gpt-5"}
    assert Settings.from_environment(named).allow == ("openai/gpt-5",)
    own = {**named, "TAILRACE_PROVIDERS": "mine=app:answer"}
    assert Settings.from_environment(own).allow == ("openai/gpt-5", "mine")
    assert Settings.from_environment({**own, "TAILRACE_ALLOW": "openai, gro*/x"}).allow == ("openai", "gro*/x")
    assert Settings.from_environment({}).allow is None


async def test_a_ceiling_for_tokens_and_a_list_of_options(settings: Settings, serve: Serve) -> None:
    """What is over it is refused, and what says nothing has it."""
    async with limited(serve, settings, max_tokens=100, allow_options=("max_tokens", "script")) as client:
        status, _, error = await start(client, {**QUICK, "options": {"max_tokens": 101}})
        assert (status, error["message"]) == (422, "max_tokens may be 100 at most here.")
        status, _, error = await start(client, {**QUICK, "options": {"temperature": 1}})
        assert (status, error["message"]) == (
            422,
            "The option temperature may not be set here. Allowed: max_tokens, script.",
        )
        seen: list[Any] = []
        client.backend.start_rules.append(lambda owner, request: seen.append(request.options["max_tokens"]))
        _, body = await client.start(QUICK)
        assert events(body)[-1]["done"]
        _, body = await client.start({**QUICK, "options": {"max_tokens": 5}})
        assert seen == [100, 5]


async def test_a_process_that_has_no_time_says_so_in_each_protocol(settings: Settings, serve: Serve) -> None:
    """429 with ``Retry-After``, before anything is stored; what does not start a reply is answered."""
    async with limited(serve, settings) as client:
        _, made = await client.json("POST", "/conversations", {})
        client.backend.load = Load(client.backend.clock, at_once=0, patience=0.01)
        before = len(client.calls.made)
        status, headers, error = await start(client, QUICK, made["id"])
        assert (status, headers["Retry-After"]) == (429, "1")
        assert error["message"] == "This server has as many replies as it can write. Please try again."
        message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "?"}]}
        run = {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "?"}]}
        bodies: dict[str, Json] = {
            "/api/chat": {"id": "c", "messages": [message]},
            "/api/ag-ui": run,
            "/v1/chat/completions": {"model": "fast", "messages": [{"role": "user", "content": "?"}]},
            "/v1/responses": {"model": "fast", "input": "?"},
        }
        for path, body in bodies.items():
            assert await status_of(client, path, body) == 429, path
        written = {operation for operation, _ in client.calls.made[before:]} - {"GetItem", "Query", "BatchGetItem"}
        assert not written
        status, content = await client.json("GET", f"/conversations/{made['id']}/messages")
        assert (status, content["messages"]) == (200, [])
