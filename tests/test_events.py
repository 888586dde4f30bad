"""Each sample in events/ is what the function gets, and the function answers it as docs/http.md says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tailrace.store import create_table

from local.lambda_event import http_response
from local.lambda_function import Handler, LambdaContext, LambdaFunction, load_function
from tests.conftest import REGION

EVENTS = Path(__file__).parent.parent / "events"

STATUS = {
    "api-conversation-create": 201,
    "api-conversation-delete": 204,
    "api-invalid": 422,
    "api-message-add": 201,
    "api-not-found": 404,
}
"""Every other sample is answered with 200."""


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
        yield load_function("api")


def sample(name: str, **ids: str) -> dict[str, Any]:
    """Return a sample with real ids in the places of its placeholders."""
    text = (EVENTS / f"{name}.json").read_text()
    for placeholder, value in ids.items():
        text = text.replace(placeholder, value)
    event: dict[str, Any] = json.loads(text)
    return event


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.glob("*.json")))
async def test_a_sample(name: str, module: Any) -> None:
    """The sample is answered, in JSON or as a whole stream."""
    function = Function(module)
    try:
        _, _, created = await function.call(sample("api-conversation-create"))
        conversation = json.loads(created)
        add = sample("api-message-add", CONVERSATION_ID=conversation["id"])
        _, _, added = await function.call(add)
        message = json.loads(added)
        event = sample(name, CONVERSATION_ID=conversation["id"], MESSAGE_ID=message["id"])
        status, headers, body = await function.call(event)
    finally:
        await function.close()
    assert status == STATUS.get(name, 200), body
    if status == 204:
        assert body == b""
    elif name == "stream-start":
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        blocks = body.decode().split("\n\n")
        assert all(re.fullmatch(r"data: \{.*\}\nid: \S+:\d+", block) for block in blocks[:-1])
        assert blocks[-1] == ""
        assert json.loads(blocks[0].split("\n")[0].removeprefix("data: "))["progress"]["chunks"] == 1
        assert '"done":true' in blocks[-2]
    else:
        assert headers["content-type"] == "application/json"
        assert isinstance(json.loads(body).get("error"), dict) is (status >= 400)


@pytest.mark.anyio
async def test_there_is_a_sample_for_each_route(module: Any) -> None:
    """No route of the API function is without one."""
    samples = [sample(path.stem) for path in EVENTS.glob("*.json")]
    called = {(event["requestContext"]["http"]["method"], event["rawPath"]) for event in samples}
    schema = module.app.openapi()["paths"]
    routes = {(method.upper(), path) for path, methods in schema.items() for method in methods}
    assert routes, "FastAPI knows its routes"
    for method, path in routes:
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", path)
        assert any(method == m and re.fullmatch(pattern, p) for m, p in called), f"{method} {path}"
