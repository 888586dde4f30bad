"""The built functions behind a REST API: its events through the real Web Adapter and Lambda's Python client, and what
the adapter sends back for it to stream; see built_functions.py.

API Gateway itself is not here. What it expects of a streamed answer is in
https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.issuer import SECRET, shared_token
from tests.real.built_functions import a_conversation, ids_for, start
from tests.real.lambda_emulator import BUILT, EmulatedFunction, free_port
from tests.real.recording import Recording
from tests.test_events import ASKED, REQUESTS, REST, STATUS, sample, through_rest
from tests.test_template_rest import integration, rest

pytestmark = pytest.mark.anyio

DELIMITER: Final = b"\x00" * 8
"""Between what an answer is and its bytes."""

TOKENS_LAYER: Final = BUILT / "TokensLayerX86" / "python"

ORIGIN: Final = "https://app.example.com"

MALLORY: Final = "arn:aws:iam::123456789012:user/mallory"


def prelude(answer: bytes) -> dict[str, Any]:
    """Return what a streamed answer begins with, which API Gateway reads before it sends a byte."""
    head, delimiter, _ = answer.partition(DELIMITER)
    assert delimiter, answer
    found: dict[str, Any] = json.loads(head)
    return found


def posted(sent: bytes) -> tuple[bytes, bytes]:
    """Return the head and the body so far of the answer that was last begun on the Runtime API, whose body comes in
    chunks (https://www.rfc-editor.org/rfc/rfc9112#section-7.1)."""
    head, _, framed = sent[sent.rindex(b"POST /2018-06-01/runtime/invocation/") :].partition(b"\r\n\r\n")
    body = b""
    while b"\r\n" in framed:
        size, _, framed = framed.partition(b"\r\n")
        length = int(size, 16)
        body += framed[:length]
        framed = framed[length + 2 :]
    return head, body


def with_header(event: dict[str, Any], name: str, value: str) -> None:
    """Give a request of the REST API a header."""
    event["headers"][name] = value
    event["multiValueHeaders"][name] = [value]


async def test_each_route_through_the_rest_api(api: EmulatedFunction, stream: EmulatedFunction) -> None:
    """Every request of events/ as the REST API hands it on, to the function that template.yaml names for its path: the
    status is the one at the function URL, and so is the owner, since what was made there is found here."""
    streamed = 0
    for name in (each for each in REQUESTS if each not in REST):
        event = through_rest(sample(name, **await ids_for(name, api, stream)))
        to_stream = integration(rest(), event["httpMethod"], event["path"]).get("responseTransferMode") == "STREAM"
        if not to_stream:
            status, _, body = await api.request(event)
            assert status == STATUS.get(name, 200), (name, body)
            continue
        answer = await stream.call(event)
        found = prelude(answer)
        assert found["statusCode"] == STATUS.get(name, 200), (name, answer)
        # A list would be a repeated header, which belongs into multiValueHeaders, and API Gateway refuses it here.
        assert all(isinstance(value, str) for value in found["headers"].values()), (name, found)
        assert found.keys() <= {"statusCode", "headers", "multiValueHeaders", "cookies"}, name
        assert isinstance(found["statusCode"], int)
        streamed += 1
    assert streamed >= 15


async def test_the_bytes_of_a_streamed_answer(api: EmulatedFunction, variables: dict[str, str], tmp_path: Path) -> None:
    """On the Runtime API: the mode that streams, the type of an HTTP answer, a JSON object, eight null bytes, then
    the chunks one by one while the provider is still sending."""
    (folder := tmp_path / "recorded").mkdir()
    port = free_port()
    event = through_rest(start(await a_conversation(api), 600))
    async with (
        Recording.between(f"127.0.0.1:{port}") as recording,
        EmulatedFunction.run(
            "stream", folder, variables, runtime_port=port, seen_through=recording.address
        ) as function,
    ):
        reading = asyncio.create_task(function.call(event))
        await recording.until(b'data: {"chunk":', 3)
        assert not reading.done()
        head, sent = posted(recording.sent)
        assert b"lambda-runtime-function-response-mode: streaming" in head.lower()
        assert b"content-type: application/vnd.awslambda.http-integration-response" in head.lower()
        message = prelude(sent)["headers"]["x-message-id"]
        assert 3 <= sent.partition(DELIMITER)[2].count(b'data: {"chunk":') < 100
        cancel = through_rest(sample("api-message-cancel", REPLY_ID=message, MESSAGE_ID=message))
        _, _, body = await api.request(cancel)
        assert json.loads(body)["status"] == "cancelled"
        answer = await reading
    assert answer.startswith(sent)
    found = prelude(answer)
    assert found["headers"]["content-type"] == "text/event-stream; charset=utf-8"
    assert found == {"statusCode": 200, "headers": found["headers"], "cookies": []}
    # Nothing but the eight bytes is between the two, and no ninth.
    assert answer.partition(DELIMITER)[2].startswith(b"data: {")


async def test_health_streams_resumes_and_long_polls(api: EmulatedFunction, stream: EmulatedFunction) -> None:
    """With a stage in the context and none in the path, a body in base64, two of one header, and queries that API
    Gateway has decoded."""
    assert (await api.request(sample("api-rest-health")))[2] == b'{"status":"ok"}'
    _, _, created = await api.request(sample("api-rest-conversation-create"))
    ids = {"CONVERSATION_ID": json.loads(created)["id"]}
    for name in ("stream-rest-start", "stream-rest-start-base64"):
        status, headers, body = await stream.request(sample(name, **ids))
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        ids["REPLY_ID"] = headers["x-message-id"]
        assert b'"done":true' in body
    _, _, listed = await api.request(sample("api-message-list", **ids))
    asked = [each["content"] for each in json.loads(listed)["messages"] if each["role"] == "user"]
    assert asked[-1] == "Erzähl von einem Röboter 🤖"

    status, _, resumed = await stream.request(sample("stream-rest-message-stream", **ids))
    assert status == 200
    assert resumed.split(b"\n\n")[0].endswith(f"id: {ids['REPLY_ID']}:3".encode())
    status, _, polled = await stream.request(sample("stream-rest-message-events", **ids))
    assert (status, json.loads(polled)[0]["id"]) == (200, f"{ids['REPLY_ID']}:3")

    status, _, echoed = await stream.request(sample("stream-rest-conversation-get", **ids))
    assert status == 200
    assert json.loads(echoed.split(b"\n\n")[-2].split(b"\n")[0][6:])["message"]["content"] == ASKED
    # The same request once more, by its key: the same reply.
    _, again, _ = await stream.request(sample("stream-rest-conversation-get", **ids))
    assert again["x-message-id"].encode() in echoed


async def test_who_signed_is_believed_of_api_gateway_alone(api: EmulatedFunction, stream: EmulatedFunction) -> None:
    """The adapter's header has the event's context, whatever a client sends by its name; unsigned is refused."""
    ids = await a_conversation(api)
    event = sample("stream-rest-start", **ids)
    forged = json.dumps({"identity": {"userArn": event["requestContext"]["identity"]["userArn"]}})
    event["requestContext"]["identity"]["userArn"] = None
    for name in ("X-Amzn-Request-Context", "x-amzn-request-context"):
        with_header(event, name, forged)
        status, headers, body = await stream.request(event)
        assert (status, json.loads(body)["error"]["type"]) == (401, "unauthenticated")
        assert "x-message-id" not in headers
    event["requestContext"]["identity"]["userArn"] = MALLORY
    assert (await stream.request(event))[0] == 404  # a conversation of somebody else's
    listing = sample("api-rest-conversation-list")
    listing["requestContext"]["identity"]["userArn"] = MALLORY
    assert json.loads((await api.request(listing))[2])["conversations"] == []


async def test_tokens_are_asked_for_behind_it_too(variables: dict[str, str], tmp_path: Path) -> None:
    """With Auth=jwt the functions look at the token themselves, in the header and, where a browser's EventSource reads,
    in the query; what an authorizer of the API says does not stand in for one."""
    given = {**variables, "TAILRACE_AUTH": "jwt", "TAILRACE_JWT_SECRET": SECRET}
    (tmp_path / "api").mkdir()
    (tmp_path / "stream").mkdir()
    token = shared_token({"sub": "ada", "exp": int(time.time()) + 600})
    async with (
        EmulatedFunction.run("api", tmp_path / "api", given, code_layer=TOKENS_LAYER) as api,
        EmulatedFunction.run("stream", tmp_path / "stream", given, code_layer=TOKENS_LAYER) as stream,
    ):
        create = sample("api-rest-conversation-create")
        assert (await api.request(create))[0] == 401  # signed, which counts for nothing here
        with_header(create, "Authorization", f"Bearer {token}")
        _, _, created = await api.request(create)
        ids = {"CONVERSATION_ID": json.loads(created)["id"]}
        event = sample("stream-rest-start", **ids)
        event["requestContext"]["authorizer"] = {
            "principalId": "ada",
            "claims": {"sub": "ada"},
            "integrationLatency": 5,
        }
        status, _, body = await stream.request(event)
        assert (status, json.loads(body)["error"]["type"]) == (401, "unauthenticated")
        with_header(event, "Authorization", f"Bearer {token}")
        assert (await stream.request(event))[0] == 200
        asked = sample("stream-rest-conversation-get", **ids)
        assert (await stream.request(asked))[0] == 401
        asked["queryStringParameters"]["access_token"] = token
        asked["multiValueQueryStringParameters"]["access_token"] = [token]
        status, _, echoed = await stream.request(asked)
        assert (status, echoed.count(b'"done":true')) == (200, 1)


async def test_pages_of_other_origins(variables: dict[str, str], tmp_path: Path) -> None:
    """With CorsOrigins the API function answers preflights, of streams too, and both mark their responses."""
    given = {**variables, "TAILRACE_CORS_ORIGINS": ORIGIN}
    (tmp_path / "api").mkdir()
    (tmp_path / "stream").mkdir()
    async with (
        EmulatedFunction.run("api", tmp_path / "api", given) as api,
        EmulatedFunction.run("stream", tmp_path / "stream", given) as stream,
    ):
        ids = await a_conversation(api)
        preflight = sample("stream-rest-start", **ids) | {"httpMethod": "OPTIONS", "body": None}
        preflight["requestContext"] |= {"httpMethod": "OPTIONS"}
        preflight["requestContext"]["identity"]["userArn"] = None
        for name, value in {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-api-key",
        }.items():
            with_header(preflight, name, value)
        answer = json.loads(await api.call(preflight))
        assert answer["statusCode"] == 200
        allowed = {name.lower(): value for name, value in answer["headers"].items()}
        assert allowed["access-control-allow-origin"] == ORIGIN
        assert "POST" in allowed["access-control-allow-methods"]
        assert "x-api-key" in allowed["access-control-allow-headers"]

        event = sample("stream-rest-start", **ids)
        with_header(event, "Origin", ORIGIN)
        found = prelude(await stream.call(event))["headers"]
        assert found["access-control-allow-origin"] == ORIGIN
        assert all(isinstance(value, str) for value in found.values())
