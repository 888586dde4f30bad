"""Our own HTTP for AWS: whatever way an answer comes in pieces it is the one that was sent, and nobody gets another's.

The other side is a real server on a free port, or a socket that does what no server should."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tailrace.aws.exchange import BrokenOff, Exchange, verified
from yarl import URL

pytestmark = pytest.mark.anyio

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
BODY = "{ü}".encode()
WHOLE = b"HTTP/1.1 200 OK\r\nX-Of: AWS\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nX-Of: AWS\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n3;x=y\r\n%b}\r\n0\r\n\r\n"
    % "ü".encode()
)
LAST = WHOLE.replace(b"X-Of", b"Connection: close\r\nX-Of")


class Other:
    """The other side: counts its connections, and does on each what it is told."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.connections = 0
        self.gone = asyncio.Event()
        self.url = URL()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen while the block runs."""
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            try:
                await self._behaviour(reader, writer)
                await reader.read()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                self.gone.set()
                writer.transport.abort()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(serve(reader, writer))
            tasks.add(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            yield
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def answering(*answers: bytes, pieces: int | None = None) -> Behaviour:
    """Return what answers a connection's requests one after the other, each cut into two at ``pieces``."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readexactly(len(REQUEST))
            for piece in [answer] if pieces is None else [answer[:pieces], answer[pieces:]]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    return behave


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED], ids=["with a length", "chunked"])
async def test_an_answer_cut_anywhere_is_whole(answer: bytes) -> None:
    """Also when the cut falls into a head, a length or a character."""
    for cut in range(1, len(answer)):
        other = Other(answering(answer, answer, pieces=cut))
        async with other.serving(), asyncio.timeout(10):
            exchange = Exchange(other.url, 1)
            for _ in range(2):
                assert await exchange.call(REQUEST) == (200, answered_headers(answer), BODY)
            assert other.connections == 1
            exchange.close()


def answered_headers(answer: bytes) -> dict[str, str]:
    more = {"transfer-encoding": "chunked"} if answer is CHUNKED else {"content-length": str(len(BODY))}
    return {"x-of": "AWS", **more}


@given(st.lists(st.binary(max_size=70_000), min_size=1, max_size=8), st.integers(1, 4))
async def test_calls_at_once_get_each_its_own_answer(bodies: list[bytes], limit: int) -> None:
    """Whoever finds no connection free waits, and there are never more than the limit."""
    other = Other(echo)
    async with other.serving(), asyncio.timeout(10):
        exchange = Exchange(other.url, limit)
        asked = [
            exchange.call(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) for body in bodies
        ]
        assert [answer.body for answer in await asyncio.gather(*asked)] == bodies
        assert other.connections <= limit
        exchange.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its body."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.partition(b"Length: ")[2]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        WHOLE[:-1],
        WHOLE[:20],
        CHUNKED[:-3],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_what_is_not_whole_is_no_answer(answer: bytes) -> None:
    """And its connection is not used again."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(answer)(reader, writer)
        writer.write_eof()

    other = Other(behave)
    async with other.serving(), asyncio.timeout(10):
        exchange = Exchange(other.url, 1)
        for _ in range(2):
            with pytest.raises(BrokenOff):
                await exchange.call(REQUEST)
        assert other.connections == 2


@pytest.mark.parametrize("more", [LAST, WHOLE + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], ids=["said", "odd"])
async def test_a_connection_that_cannot_be_trusted_with_the_next_request_is_not_used_for_it(more: bytes) -> None:
    """The service said that it closes it, or said more than it was asked: that would be the next one's answer."""
    other = Other(answering(more))
    async with other.serving(), asyncio.timeout(10):
        exchange = Exchange(other.url, 1)
        for _ in range(2):
            assert (await exchange.call(REQUEST)).body == BODY
        assert other.connections == 2
        exchange.close()


async def test_whoever_is_cancelled_leaves_no_answer_for_the_next() -> None:
    """The connection is closed, and its place is free."""
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(REQUEST))
        asked.set()

    other = Other(silent)
    async with other.serving(), asyncio.timeout(10):
        exchange = Exchange(other.url, 1)
        for _ in range(2):
            call = asyncio.create_task(exchange.call(REQUEST))
            await asked.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await other.gone.wait()
            asked.clear()
            other.gone.clear()
        assert other.connections == 2


async def test_a_connection_closed_while_nobody_used_it_is_not_used() -> None:
    """The next call opens another one, and does not fail."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(WHOLE)(reader, writer)
        writer.close()

    other = Other(once)
    async with other.serving(), asyncio.timeout(10):
        exchange = Exchange(other.url, 1)
        for _ in range(3):
            assert (await exchange.call(REQUEST)).body == BODY
            await other.gone.wait()
            other.gone.clear()
            await asyncio.sleep(0)
        assert other.connections == 3


async def test_one_that_is_opened_ahead_is_the_first_call_s() -> None:
    """Nothing is sent on it before."""
    other = Other(answering(WHOLE))
    async with other.serving(), asyncio.timeout(10):
        exchange = Exchange(other.url, 1)
        await exchange.connect()
        await exchange.connect()
        assert (await exchange.call(REQUEST)).body == BODY
        assert other.connections == 1
        exchange.close()


async def test_a_call_under_way_ends_before_its_connection_is_closed() -> None:
    """And that is not kept for anybody: the loop may end next."""
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(REQUEST))
        asked.set()
        await goes_on.wait()
        writer.write(WHOLE)

    other = Other(slow)
    async with other.serving(), asyncio.timeout(10):
        exchange = Exchange(other.url, 1)
        call = asyncio.create_task(exchange.call(REQUEST))
        await asked.wait()
        exchange.close()
        goes_on.set()
        assert (await call).body == BODY
        await other.gone.wait()


async def test_connections_that_nobody_used_for_a_minute_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a burst not all of them stay open."""
    monkeypatch.setattr("tailrace.aws.exchange.KEPT_SECONDS", -1.0)
    other = Other(answering(WHOLE))
    async with other.serving(), asyncio.timeout(10):
        exchange = Exchange(other.url, 1)
        await exchange.call(REQUEST)
        await other.gone.wait()


async def test_nobody_there_is_an_error_of_the_system(unused_port: int) -> None:
    """Also for a name that has no address."""
    for url in (f"http://127.0.0.1:{unused_port}", "http://nowhere.invalid"):
        with pytest.raises(OSError, match=r"^\[Errno -?\d+\] "):
            await Exchange(URL(url), 1).call(REQUEST)


async def test_a_certificate_must_be_vouched_for_and_of_that_host(tmp_path: Path) -> None:
    """Otherwise nothing is sent to who has it."""
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            got.append(await reader.read(len(REQUEST)))
            writer.write(WHOLE)
            await reader.read()
        finally:
            writer.transport.abort()

    context, certificate = certificate_of("localhost", tmp_path)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server, asyncio.timeout(10):
        port = server.sockets[0].getsockname()[1]
        localhost = Exchange(URL(f"https://localhost:{port}"), 1)
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
            await localhost.call(REQUEST)
        verified().load_verify_locations(cadata=certificate)
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            await Exchange(URL(f"https://127.0.0.1:{port}"), 1).call(REQUEST)
        assert b"".join(got) == b""
        assert (await localhost.call(REQUEST)).body == BODY
        localhost.close()


def certificate_of(host: str, folder: Path) -> tuple[ssl.SSLContext, str]:
    """Return what a server needs to be ``host``, signed by itself, and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "both.pem").write_bytes(private + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context, certificate.decode()
