"""Each sample in events/ is what the function gets, and the function answers it as docs/http.md says."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.http.stream_app import hot_routes
from tailrace.settings import Settings
from tailrace.store import create_table
from tailrace.testing import ManualClock

from local.lambda_event import http_response
from local.lambda_function import Handler, LambdaContext, LambdaFunction, load_function
from local.schedule import scheduled_event
from tests.conftest import REGION
from tests.rest_event import STAGE, rest_event
from tests.test_template_rest import integration, rest, serving

EVENTS = Path(__file__).parent.parent / "events"

STATUS = {
    "api-conversation-create": 201,
    "api-conversation-delete": 204,
    "api-grant-create": 201,
    "api-grant-revoke": 204,
    "api-invalid": 422,
    "api-message-add": 201,
    "api-message-delete": 204,
    "api-not-found": 404,
    "api-rest-conversation-create": 201,
}
"""Every other sample is answered with 200."""


OF_A_THREAD = ("stream-ag-ui-connect", "stream-ag-ui-stop")
"""Those that need a reply in the conversation and do not name it."""


ASKED = "Hallo & guten Tag, 100 % + ä 🤖 = ?"
"""In the query of stream-rest-conversation-get, of which API Gateway gives the decoded text."""


class Function:
    """A function's handler called in a thread, as Lambda's runtime calls it: with an event loop of its own."""

    def __init__(self, module: Any) -> None:
        handler: Handler = module.handler
        self._function = LambdaFunction("api", handler, lambda: module.app.router.lifespan_context(module.app))

    async def call(self, event: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = http_response(await self._function.call(event, LambdaContext("api")))
        return status, {name.decode(): value.decode() for name, value in headers}, body

    async def close(self) -> None:
        await self._function.close()


@pytest.fixture(scope="module")
def module(dynamodb_url: str) -> Iterator[Any]:
    """functions/api/app.py, imported with the environment that template.yaml gives it."""
    create_table("events", REGION, dynamodb_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_url)
        patch.setenv("TAILRACE_TABLE", "events")
        patch.setenv("TAILRACE_AUTH", "iam")
        patch.setenv("TAILRACE_WEBSOCKET_URL", "wss://127.0.0.1:1/live")  # nobody subscribes, so nothing is posted
        patch.setenv("TAILRACE_CHANNEL_SECRET", "secret")
        yield load_function("api")


def sample(name: str, **ids: str) -> dict[str, Any]:
    """Return a sample with real ids in the places of its placeholders."""
    text = (EVENTS / f"{name}.json").read_text()
    for placeholder, value in ids.items():
        text = text.replace(placeholder, value)
    event: dict[str, Any] = json.loads(text)
    return event


REQUESTS = sorted(path.stem for path in EVENTS.glob("*.json") if path.stem.startswith(("api-", "stream-")))
"""Those of the other functions have tests of their own."""

REST = [name for name in REQUESTS if "-rest-" in name]
"""Those that came through the REST API; all others came through function URLs."""


def through_rest(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event of the same request through the REST API."""
    return rest_event(event, serving(rest(), event["requestContext"]["http"]["method"], event["rawPath"])[0])


@pytest.mark.anyio
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_sample(name: str, module: Any) -> None:
    """The sample is answered, in JSON or as a whole stream."""
    await check_sample(name, module)


@pytest.mark.anyio
@pytest.mark.parametrize("name", [name for name in REQUESTS if name not in REST])
async def test_a_sample_through_the_rest_api(name: str, module: Any) -> None:
    """What a function URL can be asked, the REST API can, with the same answer, for the same owner."""
    await check_sample(name, module, through_rest)


def as_it_is(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event that came through no other door."""
    return event


async def check_sample(name: str, module: Any, through: Callable[[dict[str, Any]], dict[str, Any]] = as_it_is) -> None:
    """Check what the API function answers to a sample.

    Args:
        through: makes of its event what another door would give.
    """
    function = Function(module)
    try:
        _, _, created = await function.call(sample("api-conversation-create"))
        ids = {"CONVERSATION_ID": json.loads(created)["id"]}
        _, _, added = await function.call(sample("api-message-add", **ids))
        ids["MESSAGE_ID"] = json.loads(added)["id"]
        if "GRANT_ID" in (EVENTS / f"{name}.json").read_text():
            _, _, granted = await function.call(sample("api-grant-create", **ids))
            ids["GRANT_ID"] = json.loads(granted)["id"]
        if name in OF_A_THREAD or "REPLY_ID" in (EVENTS / f"{name}.json").read_text():
            _, started, _ = await function.call(sample("stream-start", **ids))
            ids["REPLY_ID"] = started["x-message-id"]
        status, headers, body = await function.call(through(sample(name, **ids)))
    finally:
        await function.close()
    assert status == STATUS.get(name, 200), body
    if status == 204:
        assert body == b""
    elif headers["content-type"] == "text/event-stream; charset=utf-8":
        (check_ag_ui if "ag-ui" in name else check_stream)(name, headers["x-message-id"], body.decode())
    else:
        assert headers["content-type"] == "application/json"
        answer = json.loads(body)
        assert (isinstance(answer, dict) and isinstance(answer.get("error"), dict)) is (status >= 400)
        if name.endswith("-message-events"):
            assert answer[0]["id"] == f"{ids['REPLY_ID']}:3"
            assert answer[-1]["done"] is True


def check_stream(name: str, message_id: str, body: str) -> None:
    """Check a stream that the API function gives whole: its blocks and its end."""
    name = name.replace("-rest-", "-")
    if not name.startswith(("stream-conversation", "stream-message", "stream-start")):
        assert re.match("(event|data): ", body)  # of another protocol, which has tests of its own
        assert body.endswith("\n\n")
        return
    *blocks, rest = body.split("\n\n")
    assert rest == ""
    assert all(re.fullmatch(rf"data: \{{.*\}}\nid: {message_id}:\d+", block) for block in blocks)
    assert '"done":true' in blocks[-1]
    first = json.loads(blocks[0].split("\n")[0].removeprefix("data: "))
    if name.startswith("stream-start"):
        assert first["progress"]["chunks"] == 1
    if name == "stream-conversation-get":
        (asked,) = {"Hello", ASKED} & {json.loads(blocks[-1].split("\n")[0][6:])["message"]["content"]}
        assert asked
    if name == "stream-message-stream":
        assert blocks[0].endswith(f"id: {message_id}:3")


def check_ag_ui(name: str, message_id: str, body: str) -> None:
    """Check a run, or the messages of a thread."""
    *blocks, rest = body.split("\n\n")
    assert rest == ""
    types = [json.loads(block.removeprefix("data: "))["type"] for block in blocks]
    assert (types[0], types[-1]) == ("RUN_STARTED", "RUN_FINISHED")
    assert ("MESSAGES_SNAPSHOT" in types) is (name == "stream-ag-ui-connect")
    assert message_id in body


@pytest.mark.anyio
async def test_there_is_a_sample_for_each_route(module: Any) -> None:
    """No route is without one."""
    samples = [sample(name) for name in REQUESTS if name not in REST]
    called = {(event["requestContext"]["http"]["method"], event["rawPath"]) for event in samples}
    schema = module.app.openapi()["paths"]
    routes = {(method.upper(), path) for path, methods in schema.items() for method in methods}
    assert routes, "FastAPI knows its routes"
    for route in hot_routes(Backend(Settings())):
        assert isinstance(route, Route)
        routes |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    for method, path in routes:
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", path)
        assert any(method == m and re.fullmatch(pattern, p) for m, p in called), f"{method} {path}"


@pytest.mark.parametrize("name", REST)
def test_a_sample_of_the_rest_api_is_what_it_sends(name: str) -> None:
    """It has the fields of the format, the path without the stage, and comes to the function that it is named for."""
    event = sample(name)
    made = through_rest(sample("stream-start"))
    assert event.keys() == made.keys()
    context = event["requestContext"]
    assert context.keys() == made["requestContext"].keys()
    assert context["identity"].keys() == made["requestContext"]["identity"].keys()
    assert context["path"] == f"/{STAGE}{event['path']}"
    assert event["resource"] == serving(rest(), event["httpMethod"], event["path"])[0]
    streamed = integration(rest(), event["httpMethod"], event["path"]).get("responseTransferMode") == "STREAM"
    assert streamed is name.startswith("stream-")
    # In headers and queryStringParameters is the last value of each.
    for one, many in (("headers", "multiValueHeaders"), ("queryStringParameters", "multiValueQueryStringParameters")):
        assert event[one] == (event[many] and {key: values[-1] for key, values in event[many].items()})


# ---- the sweep function, which a schedule calls ----


@pytest.fixture
def sweep(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """functions/sweep/app.py, on a table of the test's own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", settings.dynamodb_endpoint or "")
    monkeypatch.setenv("TAILRACE_TABLE", settings.table)
    monkeypatch.setenv("TAILRACE_LEASE_S", "30")
    monkeypatch.setenv("TAILRACE_PRUNE_DAYS", "7")
    return load_function("sweep")


def ago(settings: Settings, **delta: float) -> Backend:
    """Return a backend that lives in the past."""
    seconds = delta.get("days", 0) * 24 * 3600 + delta.get("seconds", 0)
    return Backend(settings, clock=ManualClock(SystemClock().now() - int(seconds * 1_000_000)))


def test_the_sweep_s_sample_is_what_the_schedule_sends() -> None:
    """Here it comes from local/schedule.py, with the same fields."""
    assert sample("sweep-schedule").keys() == scheduled_event(0).keys()


def test_the_sweep_s_sample(sweep: Any, settings: Settings) -> None:
    """A reply whose writer has been silent for longer than the lease ends as interrupted; a younger one goes on."""

    async def open_reply(seconds: float) -> str:
        backend = ago(settings, seconds=seconds)
        conversation = await Conversation.create(backend=backend)
        stream = await conversation.stream_response("hello")
        await backend.close()
        return stream.id

    async def status(message_id: str) -> str:
        backend = Backend(settings)
        message = await backend.store.messages.get(message_id)
        await backend.close()
        return message.status

    old, young = asyncio.run(open_reply(31)), asyncio.run(open_reply(1))
    context = LambdaContext("sweep")
    assert sweep.handler(sample("sweep-schedule"), context) == {"looked_at": 1, "ended": 1, "failed": 0}
    assert sweep.handler(sample("sweep-schedule"), context) == {"looked_at": 0, "ended": 0, "failed": 0}
    assert (asyncio.run(status(old)), asyncio.run(status(young))) == ("interrupted", "pending")


def test_the_prune_s_sample(sweep: Any, settings: Settings) -> None:
    """What was deleted longer ago than the setting says goes for good; what was deleted since, stays a while."""

    async def deleted(days: float) -> None:
        backend = ago(settings, days=days)
        conversation = await Conversation.create(backend=backend)
        await conversation.add_user_message("hello")
        await backend.store.conversations.delete(conversation.id, now=backend.clock.now())
        await backend.close()

    asyncio.run(deleted(8))
    asyncio.run(deleted(6))
    context = LambdaContext("sweep")
    assert sweep.handler(sample("sweep-prune"), context) == {"pruned": 1}
    assert sweep.handler(sample("sweep-prune"), context) == {"pruned": 0}
