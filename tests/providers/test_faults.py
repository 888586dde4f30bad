"""What goes wrong between a provider and us, over a real socket."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from tailrace.errors import ContentFiltered, ProviderError, ProviderTimeout
from tailrace.events import Usage
from tailrace.providers import lean_reader
from tailrace.providers.failures import retry_after

from .fake_server import FakeServer, Reply
from .helpers import KEY, WIRES, Answer, collect, fixture, opened, prompt, run

SHORT = {"first_chunk": 0.15, "idle": 0.15}
PING = {
    "anthropic": b'event: ping\ndata: {"type":"ping"}\n\n',
    "gemini": b": ping\n\n",
    "openai": b": ping\n\n",
    "openai-responses": b'event: keepalive\ndata: {"type":"keepalive","sequence_number":7}\n\n',
}

pytestmark = pytest.mark.parametrize("wire", WIRES)


def ask(wire: str, reply: Reply, **options: Any) -> tuple[Answer, FakeServer]:
    """Ask a server that answers so."""

    async def test() -> tuple[Answer, FakeServer]:
        server = FakeServer(reply)
        async with server.serving(), opened(wire, server.url) as provider:
            answer = await collect(provider.stream(prompt(**options)))
            if reply.ending == "stall":
                await server.left.wait()  # whatever ended the answer has closed the connection
            return answer, server

    return run(test())


def failed(answer: Answer) -> ProviderError:
    """Its error, whose message says nothing that the provider said."""
    assert answer.error is not None
    assert "Secret" not in answer.error.message
    assert KEY not in answer.error.message + (answer.error.detail or "")
    return answer.error


@pytest.mark.parametrize(
    ("status", "retryable", "words"),
    [
        (302, False, "refused the request"),
        (400, False, "refused the request"),
        (401, False, "refused the request"),
        (403, False, "refused the request"),
        (404, False, "refused the request"),
        (422, False, "refused the request"),
        (408, True, "is not available"),
        (409, True, "is not available"),
        (429, True, "is limiting requests"),
        (500, True, "is not available"),
        (529, True, "is not available"),
    ],
)
def test_a_refusal(wire: str, status: int, retryable: bool, words: str) -> None:
    """The status, whether to try again and when, and the provider's words only in private, without our key."""
    body = b'{"error":{"message":"Secret words about %b"}}' % KEY.encode() + b"x" * 5000
    headers = {"Content-Type": "application/json", "Retry-After": "7", "Location": "http://127.0.0.1:1/"}
    answer, server = ask(wire, Reply(status=status, headers=headers, pieces=[body]))
    error = failed(answer)
    assert error.message == f"The provider {words} (status {status})."
    assert (error.provider, error.status_code, error.retryable) == (wire, status, retryable)
    assert error.retry_after == 7
    assert error.detail is not None
    assert error.detail.startswith('{"error":{"message":"Secret words about ***"}}xxx')
    assert len(error.detail) <= 2048
    assert len(server.requests) == 1


def test_a_key_that_lies_on_the_cut(wire: str) -> None:
    """Not even its beginning is kept."""
    error = failed(ask(wire, Reply(status=401, headers={}, pieces=[b"x" * 2040 + KEY.encode() + b"x" * 100]))[0])
    assert error.detail is not None
    assert KEY[:6] not in error.detail


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation", "bio_policy"])
def test_a_prompt_that_is_filtered(wire: str, code: str) -> None:
    """Azure's and OpenAI's way: a refusal with status 400."""
    body = b'{"error": {"message": "Secret", "type": null, "param": "prompt", "code": "%b"}}' % code.encode()
    error = failed(ask(wire, Reply(status=400, headers={"Content-Type": "application/json"}, pieces=[body]))[0])
    assert isinstance(error, ContentFiltered)
    assert (error.status_code, error.retryable) == (400, False)
    assert error.message == "The provider's content filter stopped the answer."


def test_the_provider_may_overrule_its_status(wire: str) -> None:
    """As the vendors' SDKs do: x-should-retry wins."""
    answer, _ = ask(wire, Reply(status=429, headers={"x-should-retry": "false"}))
    assert failed(answer).retryable is False


def test_a_refusal_whose_body_stalls(wire: str) -> None:
    """The status is enough."""
    answer, _ = ask(wire, Reply(status=500, pieces=[b"Secret"], ending="stall"), timeouts=SHORT)
    assert failed(answer).status_code == 500


def test_connection_refused(wire: str) -> None:
    """Nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        async def test() -> Answer:
            async with opened(wire, f"http://127.0.0.1:{unused.getsockname()[1]}") as provider:
                return await collect(provider.stream(prompt()))

        error = failed(run(test()))
    assert error.message == "The provider could not be reached."
    assert (error.status_code, error.retryable) == (None, True)


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("reset", ""),
        ("cut", "The provider broke off the connection."),
        ("bad_chunk", ""),
        ("whole", "The provider ended its answer early."),
    ],
)
@pytest.mark.parametrize("sent", ["nothing", "half"])
def test_a_body_that_ends_too_soon(wire: str, ending: Any, message: str, sent: str) -> None:
    """However it ends, what came is kept and the end is an error that may be retried."""
    answer, _ = ask(wire, Reply(pieces=[fixture(f"{wire}_half")] if sent == "half" else [], ending=ending))
    error = failed(answer)
    if ending in ("cut", "whole"):  # a reset, and what aiohttp cannot read, may overtake what was sent before it
        assert error.message == message
        assert answer.text == ("Half 水" if sent == "half" else "")
    assert (error.status_code, error.retryable) == (None, True)
    assert type(error) is ProviderError


def test_a_content_type_that_is_no_stream(wire: str) -> None:
    """A captive portal's page, with status 200."""
    headers = {"Content-Type": "text/html"}
    error = failed(ask(wire, Reply(headers=headers, pieces=[b"<h1>Secret</h1>", fixture(wire)]))[0])
    assert error.message == "The provider sent what cannot be read."
    assert error.detail is not None
    assert error.detail.startswith("content type text/html: <h1>Secret")


def test_a_stream_without_content_type(wire: str) -> None:
    """Some local servers name none."""
    assert ask(wire, Reply(headers={}, pieces=[fixture(wire)]))[0].error is None


@pytest.mark.parametrize("garbage", [b"data: {Secret\n\n", b"data: " + b"[" * 100_000 + b"\n\n"])
def test_garbage(wire: str, garbage: bytes) -> None:
    """What came before it is kept."""
    answer, _ = ask(wire, Reply(pieces=[fixture(f"{wire}_half"), garbage, fixture(wire)]))
    error = failed(answer)
    assert error.message == "The provider sent what cannot be read."
    assert (answer.text, error.status_code, error.retryable) == ("Half 水", None, True)


def test_an_error_in_the_middle(wire: str) -> None:
    """It comes after status 200 and still has a status."""
    kind = "overloaded_error" if wire == "anthropic" else "server_error"
    said = f'"type":"{kind}","message":"Secret {KEY}"' + (',"code":500' if wire == "gemini" else "")
    event = f'event: error\ndata: {{"type":"error","error":{{{said}}}}}\n\n'
    answer, _ = ask(wire, Reply(pieces=[fixture(f"{wire}_half"), event.encode()]))
    error = failed(answer)
    assert answer.text == "Half 水"
    assert (error.status_code, error.retryable) == (529 if wire == "anthropic" else 500, True)


@pytest.mark.parametrize("sent", ["nothing", "half", "pings", "half and pings"])
def test_silence(wire: str, sent: str) -> None:
    """A provider that stalls, before its first event or after, ends as a time-out; pings do not help it."""
    pieces = [fixture(f"{wire}_half")] if "half" in sent else []
    pieces += [PING[wire]] * 5 if "pings" in sent else []
    answer, _ = ask(wire, Reply(pieces=pieces, ending="stall"), timeouts=SHORT)
    error = failed(answer)
    assert isinstance(error, ProviderTimeout)
    assert error.message == "The provider was silent for too long."
    assert error.retryable
    assert answer.text == ("Half 水" if "half" in sent else "")


def test_the_whole_answer_has_a_deadline(wire: str) -> None:
    """However lively it is."""
    reply = Reply(pieces=[fixture(f"{wire}_half")], ending="stall")
    error = failed(ask(wire, reply, timeouts={"total": 0.15})[0])
    assert isinstance(error, ProviderTimeout)
    assert error.message == "The provider took too long."


def test_no_headers(wire: str) -> None:
    """A server that accepts the connection and says nothing at all."""

    async def test() -> Answer:
        with socket.create_server(("127.0.0.1", 0)) as server:
            async with opened(wire, f"http://127.0.0.1:{server.getsockname()[1]}") as provider:
                return await collect(provider.stream(prompt(timeouts=SHORT)))

    assert isinstance(failed(run(test())), ProviderTimeout)


def test_a_slow_reader_is_not_the_providers_fault(wire: str) -> None:
    """While the reader is busy, the provider's silence does not count."""

    async def test() -> None:
        server = FakeServer(Reply(pieces=[fixture(f"{wire}_half")], ending="stall"))
        async with server.serving(), opened(wire, server.url) as provider:
            stream = provider.stream(prompt(timeouts={"idle": 0.05}))
            await anext(stream)
            waited = asyncio.Event()
            asyncio.get_running_loop().call_later(0.2, waited.set)
            await waited.wait()
            assert not server.left.is_set()
            with pytest.raises(ProviderTimeout):
                await anext(stream)

    run(test())


def test_closing_the_generator_closes_the_connection(wire: str) -> None:
    """At once: the server sees its client leave."""

    async def test() -> None:
        server = FakeServer(Reply(pieces=[fixture(f"{wire}_half")], ending="stall"))
        async with server.serving(), opened(wire, server.url) as provider:
            stream = provider.stream(prompt())
            await anext(stream)
            await server.answering.wait()
            assert not server.left.is_set()
            await stream.aclose()
            await server.left.wait()

    run(test())


def test_a_whole_answer_leaves_its_connection_for_the_next(wire: str) -> None:
    """A TLS handshake less. An answer that is not whole does not."""

    async def test() -> None:
        server = FakeServer(Reply(pieces=[fixture(wire)]))
        async with server.serving(), opened(wire, server.url) as provider:
            for _ in range(3):
                assert (await collect(provider.stream(prompt()))).error is None
            assert server.connections == 1
            server.reply = Reply(pieces=[fixture(wire)], ending="stall")  # the body does not end after its last event
            assert (await collect(provider.stream(prompt()))).error is None
            await server.left.wait()

    run(test())


def test_a_body_that_does_not_end(wire: str) -> None:
    """Where the provider has no word for the end, or a compatible server leaves it out, the reason for the end is
    enough, should the body's end be long in coming."""
    if wire in ("anthropic", "openai-responses"):
        return  # their last event is the end
    stream = fixture(wire).replace(b"data: [DONE]\n\n", b"")
    answer, _ = ask(wire, Reply(pieces=[stream], ending="stall"))
    assert answer.error is None
    assert answer.usage == Usage(25, 89)


def test_the_lean_reader_is_used(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This aiohttp has what it leans on; should another one not, the answer is the same."""
    reads: list[bytes] = []
    readany = lean_reader.LeanReader.readany

    async def noted(self: lean_reader.LeanReader) -> bytes:
        reads.append(await readany(self))
        return reads[-1]

    monkeypatch.setattr(lean_reader.LeanReader, "readany", noted)
    pieces = [fixture(wire)[at : at + 5] for at in range(0, len(fixture(wire)), 5)]
    with_it, _ = ask(wire, Reply(pieces=pieces))
    assert b"".join(reads).startswith(fixture(wire))
    reads.clear()
    monkeypatch.setattr(lean_reader, "_NEEDED", ("gone",))
    without_it, _ = ask(wire, Reply(pieces=pieces))
    assert reads == []
    assert with_it == without_it
    assert with_it.error is None


def test_more_than_the_buffers_hold(wire: str) -> None:
    """A reader slower than the provider: the connection is paused and goes on, and nothing is lost."""
    stream = fixture(wire)
    half = fixture(f"{wire}_half")
    event = half[half.rindex(b"event:" if wire == "anthropic" else b"data:") :]

    async def test() -> None:
        server = FakeServer(Reply(pieces=[half, *[event * 50] * 400, stream]))
        async with server.serving(), opened(wire, server.url) as provider:
            answer = await collect(provider.stream(prompt()))
            assert answer.error is None
            assert answer.text.startswith("Half 水" * 20_001 + "Once")

    run(test())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
    ],
)
def test_retry_after(wire: str, headers: dict[str, str], seconds: float | None) -> None:
    """In seconds, in milliseconds, as a date, or nonsense."""
    assert retry_after(headers) == seconds
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (retry_after({"retry-after": later}) or 0) <= 60
