"""The example in examples/ is a whole function: it runs, and its policy allows what it calls and nothing else."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tailrace.aws.event_loop import run
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store
from tailrace.store.dynamodb import Payload

from local.lambda_function import LambdaContext
from tests.test_template import Loader

EXAMPLE = Path(__file__).parent.parent / "examples" / "summary"
TEMPLATE: dict[str, Any] = yaml.load((EXAMPLE / "template.yaml").read_text(), Loader)
FUNCTION: dict[str, Any] = TEMPLATE["Resources"]["SummaryFunction"]["Properties"]

Call = Callable[[dict[str, str]], dict[str, Any]]


class Operations:
    """DynamoDB, and the names of what was asked of it as IAM knows them."""

    def __init__(self, dynamodb: DynamoDB) -> None:
        self._dynamodb = dynamodb
        self.seen: set[str] = set()

    async def call(self, operation: str, payload: Payload) -> Payload:
        if operation == "TransactWriteItems":  # IAM asks for what the transaction consists of
            self.seen |= {f"dynamodb:{kind}Item" for write in payload["TransactItems"] for kind in write}
        else:
            self.seen.add(f"dynamodb:{operation}")
        return await self._dynamodb.call(operation, payload)


@pytest.fixture
def module(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's app.py as Lambda would import it, with its template's environment but for what AWS answers."""
    variables = FUNCTION["Environment"]["Variables"]
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "summary")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", settings.dynamodb_endpoint or "")
    monkeypatch.setenv("TAILRACE_TABLE", settings.table)
    monkeypatch.setenv("TAILRACE_AUTH", variables["TAILRACE_AUTH"])
    monkeypatch.setenv("TAILRACE_PROVIDER", variables["TAILRACE_PROVIDER"][-1])  # there is no secret
    spec = importlib.util.spec_from_file_location("summary_example", EXAMPLE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with asyncio.Runner() as runner:
        asyncio.set_event_loop(runner.get_loop())  # the one that the handler finds
        spec.loader.exec_module(module)
        yield module
        run(module.backend.close())
        asyncio.set_event_loop(None)


@pytest.fixture
def call(module: ModuleType) -> Call:
    """Calls the handler; the answer goes through JSON as Lambda's does."""

    def call(event: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(json.dumps(module.handler(event, LambdaContext("summary"))))
        return answer

    return call


def test_it_writes_a_summary_and_reads_it_back(call: Call) -> None:
    """What it answers is what is stored, for the owner; to anybody else it is not there."""
    written = call({"owner": "user-1", "text": "Once upon a time."})
    assert written["status"] == "completed"
    assert written["content"].startswith("Once upon a time")
    assert call({"owner": "user-1", "message_id": written["message_id"]}) == written
    assert call({"owner": "user-2", "message_id": written["message_id"]}) == {"error": "No such conversation."}
    assert call({"owner": "user-1", "message_id": "nothing"}) == {"error": "No such message."}


def test_a_failure_is_an_end_as_well(
    module: ModuleType, call: Call, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the provider breaks off, the partial text and a sentence that is safe to show are stored and returned."""
    failing = Settings(table=settings.table, dynamodb_endpoint=settings.dynamodb_endpoint, model="break")
    backend = Backend(failing)
    monkeypatch.setattr(module, "backend", backend)
    message = call({"owner": "user-1", "text": "Once upon a time."})
    assert (message["status"], message["content"]) == ("failed", "Once upon a")
    assert message["error"] == {"type": "api_error", "message": "The provider ended its answer early."}


def test_it_may_do_what_it_does_and_nothing_else(
    module: ModuleType, call: Call, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long summary, written and read, needs each permission on the table."""
    (statement, _) = FUNCTION["Policies"][0]["Statement"]
    clock = SystemClock()
    dynamodb = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=clock)
    operations = Operations(dynamodb)
    backend = Backend(
        Settings(table=settings.table, model="echo"), store=Store(operations, settings.table, clock=clock), clock=clock
    )
    monkeypatch.setattr(module, "backend", backend)
    text = "long " * 20_000
    message = call({"owner": "user-1", "text": text})
    assert message["content"] == text
    assert call({"owner": "user-1", "message_id": message["message_id"]}) == message
    run(dynamodb.close())
    assert operations.seen == set(statement["Action"])


def test_it_runs_what_the_layer_was_made_for() -> None:
    """Its Python and its parameters are those of the stack whose outputs it takes."""
    stack = yaml.load((EXAMPLE.parent.parent / "template.yaml").read_text(), Loader)
    assert FUNCTION["Runtime"] == stack["Globals"]["Function"]["Runtime"]
    assert {"TableName", "LayerArn"} <= TEMPLATE["Parameters"].keys() & stack["Outputs"].keys()
    assert TEMPLATE["Parameters"]["Architecture"]["Default"] == stack["Parameters"]["Architecture"]["Default"]
