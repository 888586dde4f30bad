"""Bedrock: boto3 in a thread, over a real socket, and what goes wrong between them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tailrace.errors import (
    ConnectTimeout,
    ContentFiltered,
    FirstChunkTimeout,
    IdleTimeout,
    ProviderError,
    ProviderTimeout,
)
from tailrace.events import Text, ToolResult, Usage
from tailrace.providers import ProviderConfig, bedrock, bedrock_connection, open_provider

from .event_stream import event, failure
from .fake_server import FakeServer, Reply
from .helpers import Answer, collect, cuts, fixture, opened, prompt, run

SHORT = {"first_chunk": 0.5, "idle": 0.2}
HALF = fixture("bedrock_half")
METADATA = event("metadata", {"usage": {"inputTokens": 3, "outputTokens": 9, "totalTokens": 12}})


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Every thread ends soon after its answer."""
    yield
    for thread in threading.enumerate():
        if thread.name == bedrock.NAME:
            thread.join(timeout=2)
            assert not thread.is_alive()


@pytest.fixture
def fresh_client() -> Iterator[None]:
    """A client made for this test, as the environment now is."""
    bedrock._client.cache_clear()
    yield
    bedrock._client.cache_clear()


def ask(reply: Reply, **options: Any) -> Answer:
    """Ask a server that answers so."""

    async def test() -> Answer:
        server = FakeServer(reply)
        async with server.serving(), opened("bedrock", server.url) as provider:
            # Made before the clock runs, since that takes a while.
            await asyncio.to_thread(bedrock._client, server.url, "us-east-1")
            answer = await collect(provider.stream(prompt(**options)))
            if reply.ending == "stall":
                await server.left.wait()  # whatever ended the answer has closed the connection
            return answer

    return run(test())


def stop(reason: str) -> bytes:
    """The end of an answer, with the usage."""
    return event("messageStop", {"stopReason": reason}) + METADATA


def test_what_bedrock_looked_up() -> None:
    """The result of a tool that it ran itself; its call is none of ours, and events not known here are ignored."""
    news = event("newsEvent", {"hm": 1})
    answer = ask(Reply(pieces=[news + fixture("bedrock_search")]))
    assert answer.error is None
    assert answer.results == [ToolResult("t_1", "nova_grounding", '[{"text":"found"},{"json":{"n":1}}]')]
    assert (answer.tools, answer.text, answer.usage) == ([], "A tailrace carries water away.", Usage(25, 89))


def test_every_prefix_is_told_from_the_whole() -> None:
    """A body that ends before the reason for the end is not whole, whether between two events or inside one."""
    stream = fixture("bedrock")

    async def test() -> None:
        server = FakeServer(Reply())
        async with server.serving(), opened("bedrock", server.url) as provider:
            for at in range(0, stream.index(b"messageStop"), 97):
                server.reply = Reply(pieces=[stream[:at]] if at else [])
                error = (await collect(provider.stream(prompt()))).error
                assert error is not None
                assert error.message == "The provider ended its answer early."
                assert (error.retryable, error.in_stream) == (True, True)

    run(test())


@pytest.mark.parametrize("ending", ["cut", "reset", "bad_chunk"])
def test_a_body_that_breaks_off(ending: Any) -> None:
    """What came before is kept, unless a reset overtook it."""
    answer = ask(Reply(pieces=[HALF], ending=ending))
    assert answer.error is not None
    assert answer.error.message == "The provider broke off the connection."
    assert answer.error.retryable
    if ending == "cut":
        assert answer.text == "Half 水"


@pytest.mark.parametrize(
    ("kind", "status", "retryable"),
    [
        ("throttlingException", 429, True),
        ("internalServerException", 500, True),
        ("serviceUnavailableException", 503, True),
        ("modelStreamErrorException", 424, True),
        ("validationException", 400, False),
        ("brandNewException", None, True),
    ],
)
def test_an_exception_in_the_middle(kind: str, status: int | None, retryable: bool) -> None:
    """It has the status that its name means, at every cut, and what came before is kept."""

    async def test() -> None:
        server = FakeServer(Reply())
        async with server.serving(), opened("bedrock", server.url) as provider:
            for pieces in cuts(HALF + failure(kind, {"message": "Secret words"})):
                server.reply = Reply(pieces=pieces)
                answer = await collect(provider.stream(prompt()))
                error = answer.error
                assert error is not None
                assert (error.status_code, error.retryable) == (status, retryable)
                assert "Secret" not in error.message
                assert error.detail is not None
                # Of one that it does not know botocore keeps nothing.
                assert ("Secret words" in error.detail) == (status is not None)
                assert answer.text == "Half 水"

    run(test())


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "ValidationException", False),
        (403, "AccessDeniedException", False),
        (404, "ResourceNotFoundException", False),
        (408, "ModelTimeoutException", True),
        (424, "ModelErrorException", True),
        (429, "ThrottlingException", True),
        (503, "ServiceUnavailableException", True),
    ],
)
def test_a_refusal(status: int, kind: str, retryable: bool) -> None:
    """The status, whether to try again and when, asked once, and the provider's words only in private."""
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": kind, "Retry-After": "7"}
    error = ask(Reply(status=status, headers=headers, pieces=[b'{"message":"Secret words"}'])).error
    assert error is not None
    assert (error.provider, error.status_code, error.retryable) == ("bedrock", status, retryable)
    assert error.retry_after == 7
    assert "Secret" not in error.message
    assert error.detail is not None
    assert "Secret words" in error.detail


@pytest.mark.parametrize("garbage", [b"data: {}\n\n" * 9, HALF[:-1] + b"?", b"\xff" * 64])
def test_garbage(garbage: bytes) -> None:
    """What is no event stream, or has a wrong checksum, is an error, and what came before it is kept."""
    answer = ask(Reply(pieces=[HALF, garbage, fixture("bedrock")]))
    assert answer.error is not None
    assert answer.error.message == "The provider sent what cannot be read."
    assert (answer.text, answer.error.retryable) == ("Half 水", True)


@pytest.mark.parametrize("reason", ["content_filtered", "guardrail_intervened"])
def test_a_content_filter(reason: str) -> None:
    """What came before it is kept, and so are the reason and the usage."""
    answer = ask(Reply(pieces=[HALF + stop(reason)]))
    assert isinstance(answer.error, ContentFiltered)
    assert not answer.error.retryable
    assert (answer.text, answer.finish_reason, answer.usage) == ("Half 水", reason, Usage(3, 9))


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_a_malformed_answer(reason: str) -> None:
    """Bedrock says itself that it is not to be used; another may."""
    error = ask(Reply(pieces=[HALF + stop(reason)])).error
    assert error is not None
    assert (error.message, error.retryable) == ("The model's answer was malformed.", True)


def test_a_limit_that_was_reached() -> None:
    """The answer is whole, as far as was asked for."""
    answer = ask(Reply(pieces=[HALF + stop("max_tokens")]))
    assert (answer.error, answer.finish_reason) == (None, "max_tokens")


@pytest.mark.parametrize("sent", ["nothing", "half"])
def test_silence(sent: str) -> None:
    """Each silence has its own time-out, and both close the connection."""
    answer = ask(Reply(pieces=[HALF] if sent == "half" else [], ending="stall"), timeouts=SHORT)
    assert type(answer.error) is (IdleTimeout if sent == "half" else FirstChunkTimeout)
    assert answer.error.message == "The provider was silent for too long."
    assert answer.text == ("Half 水" if sent == "half" else "")


def test_no_headers() -> None:
    """A server that accepts the connection and says nothing at all sees its client leave."""
    answer = ask(Reply(head=False, ending="stall"), timeouts=SHORT)
    assert type(answer.error) is FirstChunkTimeout


def test_nobody_accepts() -> None:
    """A server whose queue of connections is full leaves the next one waiting: the time-out is the call's own."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as first, socket.socket() as more:
        for waiting in (first, more):
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())

        async def test() -> Answer:
            async with opened("bedrock", f"http://127.0.0.1:{server.getsockname()[1]}") as provider:
                return await collect(provider.stream(prompt(timeouts={"connect": 0.2})))

        answer = run(test())
    assert type(answer.error) is ConnectTimeout
    assert answer.error.message == "The provider could not be reached in time."


def test_nobody_listens() -> None:
    """The provider cannot be reached, which may pass."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        async def test() -> Answer:
            async with opened("bedrock", f"http://127.0.0.1:{unused.getsockname()[1]}") as provider:
                return await collect(provider.stream(prompt()))

        error = run(test()).error
    assert error is not None
    assert (error.message, error.retryable) == ("The provider could not be reached.", True)


def test_the_whole_answer_has_a_deadline() -> None:
    """However lively it is."""
    error = ask(Reply(pieces=[HALF], ending="stall"), timeouts={"total": 1.0}).error
    assert type(error) is ProviderTimeout
    assert error.message == "The provider took too long."


def test_a_slow_reader_is_not_the_providers_fault() -> None:
    """While the reader is busy, the provider's silence does not count."""

    async def test() -> None:
        server = FakeServer(Reply(pieces=[HALF], ending="stall"))
        async with server.serving(), opened("bedrock", server.url) as provider:
            stream = provider.stream(prompt(timeouts={"idle": 0.1}))
            while not any(isinstance(each, Text) for each in await anext(stream)):
                pass
            waited = asyncio.Event()
            asyncio.get_running_loop().call_later(0.4, waited.set)
            await waited.wait()
            assert not server.left.is_set()
            with pytest.raises(IdleTimeout):
                await anext(stream)

    run(test())


@pytest.mark.parametrize("sent", ["no headers", "headers", "half"])
def test_closing_the_generator_closes_the_connection(sent: str) -> None:
    """Within a second, as the server sees it, in whatever the thread waits for."""

    async def test() -> None:
        reply = Reply(pieces=[HALF] if sent == "half" else [], ending="stall", head=sent != "no headers")
        server = FakeServer(reply)
        async with server.serving(), opened("bedrock", server.url) as provider:
            stream = provider.stream(prompt())
            reading = asyncio.ensure_future(collect(stream))
            await server.answering.wait()
            assert not server.left.is_set()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await stream.aclose()
            async with asyncio.timeout(1):
                await server.left.wait()

    run(test())


def test_a_whole_answer_leaves_its_connection_for_the_next() -> None:
    """A TLS handshake less."""

    async def test() -> None:
        server = FakeServer(Reply(pieces=[fixture("bedrock")]))
        async with server.serving(), opened("bedrock", server.url) as provider:
            for _ in range(3):
                assert (await collect(provider.stream(prompt()))).error is None
            assert server.connections == 1

    run(test())


def test_more_than_may_wait() -> None:
    """A reader slower than the provider: the thread waits, and nothing is lost."""
    words = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "word "}})

    async def test() -> None:
        server = FakeServer(Reply(pieces=[words * 4 * bedrock.WAITING, stop("end_turn")]))
        async with server.serving(), opened("bedrock", server.url) as provider:
            stream = provider.stream(prompt())
            answer = Answer()
            async for events in stream:
                assert len(events) <= bedrock.WAITING + 2
                answer.add(events)
            assert answer.text == "word " * 4 * bedrock.WAITING

    run(test())


def test_the_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch, fresh_client: None) -> None:
    """boto3 reads AWS_ENDPOINT_URL_BEDROCK_RUNTIME itself."""

    async def test() -> Answer:
        server = FakeServer(Reply(pieces=[fixture("bedrock")]))
        async with server.serving():
            monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", server.url)
            session: Any = None  # not used by this provider
            provider = open_provider("bedrock", ProviderConfig(default_model="m", region="eu-west-1"), session)
            return await collect(provider.stream(prompt()))

    answer = run(test())
    assert (answer.error, answer.model) == (None, "m")


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("AWS_ACCESS_KEY_ID", "There are no AWS credentials to ask with."),
        ("AWS_DEFAULT_REGION", "There is no AWS region to ask in."),
    ],
)
def test_what_boto3_lacks(
    lacking: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, fresh_client: None
) -> None:
    """It says so before anything is sent, and another try would not help."""
    monkeypatch.delenv(lacking, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "none"))
    region = None if lacking == "AWS_DEFAULT_REGION" else "us-east-1"

    async def test() -> Answer:
        session: Any = None  # not used by this provider
        config = ProviderConfig(default_model="m", region=region, base_url="http://127.0.0.1:1")
        return await collect(open_provider("bedrock", config, session).stream(prompt()))

    error = run(test()).error
    assert type(error) is ProviderError
    assert (error.message, error.retryable) == (message, False)


def test_the_connections_are_watched(monkeypatch: pytest.MonkeyPatch, fresh_client: None) -> None:
    """This botocore has what that leans on; should another one not, the answer is the same."""
    client = bedrock._client("http://127.0.0.1:1", "us-east-1")
    pools = client._endpoint.http_session._pool_classes_by_scheme
    assert {pool.__name__ for pool in pools.values()} == {"WatchedPool"}
    assert bedrock_connection.watch_client(object()) is False
    bedrock._client.cache_clear()
    monkeypatch.setattr(bedrock, "watch_client", lambda _: False)
    assert ask(Reply(pieces=[fixture("bedrock")])).error is None


def test_boto3_is_imported_by_the_first_call() -> None:
    """Making the provider costs nothing of it."""
    code = "import sys, tailrace.providers.bedrock; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
