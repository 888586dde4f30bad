"""The wire to DynamoDB: what is tried again, what is not, and that nothing waits for ever.

The other side is a real HTTP server on a free port that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from tailrace.aws.credentials import Credentials
from tailrace.clock import SystemClock
from tailrace.errors import StoreError
from tailrace.store.dynamodb import ConditionFailed, DynamoDB, Payload, TransactionCancelled

pytestmark = pytest.mark.anyio

Answer = tuple[int, dict[str, Any]] | str


class Script:
    """Answers calls one after the other; a string is a fault of the connection."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if answer == "silence":
            await asyncio.Event().wait()
        if answer == "garbage":
            return web.Response(text="<html>bad gateway</html>", status=502)
        assert not isinstance(answer, str)
        return web.json_response(answer[1], status=answer[0])


def fault(code: str, status: int = 400, **more: Any) -> Answer:
    """Return an error as DynamoDB words it."""
    return status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "in DynamoDB's words", **more}


OK: Answer = (200, {"Item": {}})


@pytest.fixture
async def script() -> AsyncIterator[tuple[Script, str]]:
    """A server that follows a script."""
    answers = Script()
    app = web.Application()
    app.router.add_post("/", answers.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield answers, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def client(url: str, **options: Any) -> DynamoDB:
    """Return a client with short waits."""
    return DynamoDB(
        region="eu-west-1",
        endpoint_url=url,
        credentials=lambda: Credentials("key", "secret", "session"),
        **{"clock": SystemClock(), "jitter": lambda: 0.0, "attempt_timeout": 0.2, "deadline": 0.5, **options},
    )


@pytest.mark.parametrize(
    "first",
    [
        "reset",
        "silence",
        "garbage",
        fault("InternalServerError", 500),
        fault("ProvisionedThroughputExceededException"),
        fault("ThrottlingException"),
        fault("TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}, {"Code": "None"}]),
    ],
    ids=str,
)
async def test_what_may_succeed_later_is_tried_again(script: tuple[Script, str], first: Answer) -> None:
    """One fault that passes is not seen by the caller."""
    script[0].answers = [first, OK]
    dynamodb = client(script[1], deadline=3.0)
    assert await dynamodb.call("GetItem", {"TableName": "t"}) == {"Item": {}}
    assert len(script[0].requests) == 2
    await dynamodb.close()


@pytest.mark.parametrize("always", ["reset", "silence", "garbage", fault("InternalServerError", 500)], ids=str)
async def test_a_fault_that_stays_ends_at_the_deadline(script: tuple[Script, str], always: Answer) -> None:
    """The caller learns that the store is not available, in words that may be shown."""
    script[0].answers = [always]
    dynamodb = client(script[1])
    async with asyncio.timeout(5):
        with pytest.raises(StoreError, match=r"^The store is not available\. Please try again\.$"):
            await dynamodb.call("PutItem", {"TableName": "t"})
    await dynamodb.close()


class Sleepless(SystemClock):
    """Waits in no time, and remembers for how long it would have been."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def monotonic(self) -> float:
        return sum(self.waited)

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


PUT = {"TableName": "t", "Item": {}}


async def waits(url: str, operation: str = "PutItem", payload: Payload = PUT) -> list[float]:
    """Return how long a call waits between its tries until it gives up, in seconds."""
    clock = Sleepless()
    calls = client(url, clock=clock, jitter=lambda: 0.5, attempt_timeout=2.0, deadline=6.0)
    try:
        with pytest.raises(StoreError, match="not available"):
            await calls.call(operation, payload)
    finally:
        await calls.close()
    return clock.waited


async def test_nobody_waits_so_long_that_others_always_come_first(script: tuple[Script, str]) -> None:
    """On a table that throttles, who waits a second after each refusal is overtaken by those who write at once: the
    pauses grow to a quarter of a second, so that there are some 25 tries before the deadline."""
    answers, url = script
    answers.answers = [fault("ThrottlingException")]
    found = await waits(url)
    assert found[:5] == [0.025, 0.05, 0.1, 0.2, 0.25]
    assert set(found[4:]) == {0.25}
    assert 5.5 < sum(found) < 6


async def test_a_write_that_meets_a_transaction_comes_again_soon(script: tuple[Script, str]) -> None:
    """A transaction holds its items for milliseconds: of many that check where a log's next segment will be, each after
    the other, its writer has to find the moment between two."""
    answers, url = script
    answers.answers = [fault("TransactionConflictException")]
    assert set(await waits(url)) == {0.01}


async def test_a_transaction_that_only_looks_steps_back(script: tuple[Script, str]) -> None:
    """For the one that writes the item, and for the many others that look too; one that writes all of its items does
    not."""
    answers, url = script
    answers.answers = [fault("TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}])]
    writes = [{"Put": PUT}, {"Update": {}}]
    assert max(await waits(url, "TransactWriteItems", {"TransactItems": writes})) == 0.25
    found = await waits(url, "TransactWriteItems", {"TransactItems": [{"ConditionCheck": {}}, *writes]})
    assert found == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]


async def test_nobody_listening_is_a_store_error(unused_port: int) -> None:
    """A connection refused is the same to the caller."""
    dynamodb = client(f"http://127.0.0.1:{unused_port}")
    with pytest.raises(StoreError, match="not available"):
        await dynamodb.call("PutItem", {"TableName": "t"})
    await dynamodb.close()


async def test_a_refusal_is_not_tried_again_and_keeps_its_words_to_itself(script: tuple[Script, str]) -> None:
    """What another attempt cannot mend fails at once; DynamoDB's own message stays inside."""
    script[0].answers = [fault("ResourceNotFoundException")]
    dynamodb = client(script[1])
    with pytest.raises(StoreError, match=r"^The store refused the request\.$") as caught:
        await dynamodb.call("PutItem", {"TableName": "t"})
    assert "ResourceNotFoundException" in str(caught.value.__cause__)
    assert len(script[0].requests) == 1
    await dynamodb.close()


async def test_a_failed_condition_says_what_stands_there(script: tuple[Script, str]) -> None:
    """A writer can see whose item it is."""
    script[0].answers = [fault("ConditionalCheckFailedException", Item={"n": {"B": "AA=="}})]
    dynamodb = client(script[1])
    with pytest.raises(ConditionFailed) as caught:
        await dynamodb.call("PutItem", {"TableName": "t"})
    assert caught.value.item == {"n": {"B": "AA=="}}
    await dynamodb.close()


async def test_a_cancelled_transaction_says_why(script: tuple[Script, str]) -> None:
    """A condition that failed is final even beside a conflict."""
    reasons = [{"Code": "ConditionalCheckFailed"}, {"Code": "TransactionConflict"}]
    script[0].answers = [fault("TransactionCanceledException", CancellationReasons=reasons)]
    dynamodb = client(script[1])
    with pytest.raises(TransactionCancelled) as caught:
        await dynamodb.call("TransactWriteItems", {})
    assert caught.value.reasons == reasons
    await dynamodb.close()


async def test_requests_are_signed_for_the_region(script: tuple[Script, str]) -> None:
    """The headers are those that DynamoDB asks for."""
    script[0].answers = [OK]
    dynamodb = client(script[1])
    await dynamodb.call("GetItem", {"TableName": "t", "Key": {"e": {"B": b"\x00"}}})
    request = script[0].requests[0]
    assert request.headers["X-Amz-Target"] == "DynamoDB_20120810.GetItem"
    assert request.headers["X-Amz-Security-Token"] == "session"
    assert "/eu-west-1/dynamodb/aws4_request" in request.headers["Authorization"]
    assert json.loads(script[0].bodies[0]) == {"TableName": "t", "Key": {"e": {"B": "AA=="}}}
    await dynamodb.close()


def test_one_client_serves_several_event_loops(dynamodb_url: str) -> None:
    """The buffered function may run each request in a loop of its own."""
    dynamodb = client(dynamodb_url, attempt_timeout=5, deadline=10)

    async def once() -> Any:
        answer = await dynamodb.call("ListTables", {})
        await dynamodb.close()
        return answer["TableNames"]

    assert asyncio.run(once()) == asyncio.run(once())


async def test_a_transaction_that_can_never_be_is_no_condition(script: tuple[Script, str]) -> None:
    """An item that is too large, say: nobody must take that for having lost to somebody."""
    reasons = [{"Code": "None"}, {"Code": "ValidationError", "Message": "Item size has exceeded"}]
    script[0].answers = [fault("TransactionCanceledException", CancellationReasons=reasons)]
    dynamodb = client(script[1])
    with pytest.raises(StoreError, match=r"^The store refused the request\.$"):
        await dynamodb.call("TransactWriteItems", {})
    await dynamodb.close()
