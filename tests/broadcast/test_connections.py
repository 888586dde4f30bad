"""The lean management client beside boto3's: the same requests, and every answer sorted by what to do about it."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tailrace.aws.credentials import Credentials
from tailrace.broadcast.connections import Connections, Refused, SocketBusy, SocketGone

from tests.broadcast.fake_management import STUCK, FakeManagement, Received

pytestmark = pytest.mark.anyio

SECRET = Credentials("AKID", "secret", "token")
SOCKET = "L0SM9cOFvHcCIhw="


def connections(management: FakeManagement, attempt_timeout: float = 5.0) -> Connections:
    """Return a client of the fake."""
    return Connections(
        management.url, region="eu-central-1", credentials=lambda: SECRET, attempt_timeout=attempt_timeout
    )


def signature_of(request: Received, url: str) -> str:
    """Return what botocore's signer makes of a request as it arrived, at the time that it says."""
    signer = SigV4Auth(ReadOnlyCredentials(*SECRET), "execute-api", "eu-central-1")
    signed = request.headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: value for name, value in request.headers.items() if name.lower() in signed}
    again = AWSRequest(method=request.method, url=url, data=request.body, headers=headers)
    again.context["timestamp"] = request.headers["X-Amz-Date"]
    string = signer.string_to_sign(again, signer.canonical_request(again))
    return str(signer.signature(string, again))


async def test_boto3_sends_the_same(management: FakeManagement) -> None:
    """Path, host, body and signature are those of boto3's ``post_to_connection``."""
    client = boto3.client(
        "apigatewaymanagementapi",
        region_name="eu-central-1",
        endpoint_url=management.url,
        aws_access_key_id=SECRET.access_key,
        aws_secret_access_key=SECRET.secret_key,
        aws_session_token=SECRET.token,
    )
    ours = connections(management)
    frame = '{"event":"ünï"}'.encode()
    await asyncio.to_thread(client.post_to_connection, ConnectionId=SOCKET, Data=frame)
    await ours.post(SOCKET, frame)
    await ours.close()
    their, my = management.requests
    assert (my.method, my.path, my.body) == (their.method, their.path, their.body)
    assert my.path == "/live/@connections/L0SM9cOFvHcCIhw%3D"
    for name in ("Host", "X-Amz-Security-Token"):
        assert my.headers[name] == their.headers[name]
    for request in management.requests:
        url = management.url + "/@connections/L0SM9cOFvHcCIhw%3D"
        assert urlsplit(url).path == request.path
        assert request.headers["Authorization"].endswith("Signature=" + signature_of(request, url))


@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.text("AZaz09-_=", min_size=1, max_size=20))
async def test_every_request_is_signed(management: FakeManagement, body: bytes, socket: str) -> None:
    """Whatever the frame and the socket, the signature is the one botocore makes of what arrived."""
    ours = connections(management)
    await ours.post(socket, body)
    await ours.close()
    request = management.requests[-1]
    url = management.url.removesuffix("/live") + request.path
    assert request.body == body
    assert request.headers["Authorization"].endswith("Signature=" + signature_of(request, url))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, SocketGone),
        (410, SocketGone),
        (429, SocketBusy),
        (500, SocketBusy),
        (503, SocketBusy),
        (403, Refused),
        (404, Refused),
        (413, Refused),
    ],
)
async def test_each_answer_means_one_thing(management: FakeManagement, status: int, error: type[Exception]) -> None:
    """Gone, busy or refused; the connection is used again in any case."""
    management.answers["s"].append(status)
    ours = connections(management)
    with pytest.raises(error, match=f"^status {status}$"):
        await ours.post("s", b"x")
    await ours.post("s", b"y")
    assert management.frames["s"] == [b"y"]
    await ours.close()


async def test_no_answer_in_time_is_busy(management: FakeManagement) -> None:
    """Nobody waits longer than the time-out."""
    management.always["s"] = STUCK
    ours = connections(management, attempt_timeout=0.05)
    with pytest.raises(SocketBusy, match="Timeout"):
        await ours.post("s", b"x")
    await ours.close()


async def test_nobody_there_is_busy(unused_port: int) -> None:
    """The service may be back in a moment."""
    ours = Connections(f"http://127.0.0.1:{unused_port}", region="eu-central-1", credentials=lambda: SECRET)
    with pytest.raises(SocketBusy):
        await ours.post("s", b"x")
    await ours.close()
