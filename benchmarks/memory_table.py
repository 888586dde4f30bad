"""The table in memory, behind a server of its own: it speaks DynamoDB's wire and answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from tailrace.store.dynamodb import ConditionFailed, Payload, TransactionCancelled

from benchmarks.server import Write
from tests.memory_calls import MemoryCalls

OPERATIONS: Final = {
    name.lower().encode(): name
    for name in (
        "BatchGetItem",
        "BatchWriteItem",
        "DeleteItem",
        "GetItem",
        "PutItem",
        "Query",
        "TransactWriteItems",
        "UpdateItem",
    )
}


class MemoryTable:
    """Answers as DynamoDB."""

    def __init__(self) -> None:
        self._calls = MemoryCalls()

    def answer(self, head: bytes, body: bytes, write: Write) -> None:
        """Answer one request."""
        operation = OPERATIONS[head.lower().partition(b"dynamodb_20120810.")[2].partition(b"\r\n")[0]]
        request = msgspec.json.decode(body)
        try:
            answer = self._call(operation, request)
        except ConditionFailed as error:
            write(400, msgspec.json.encode({"__type": "#ConditionalCheckFailedException", "Item": error.item}))
        except TransactionCancelled as error:
            refused = {"__type": "#TransactionCanceledException", "CancellationReasons": error.reasons}
            write(400, msgspec.json.encode(refused))
        else:
            self.made(operation, request)
            write(200, msgspec.json.encode(answer))

    def made(self, operation: str, request: Mapping[str, Any]) -> None:
        """Note a call that was made; a subclass's."""

    def forget(self) -> None:
        """Empty the table."""
        self._calls = MemoryCalls()

    def _call(self, operation: str, request: Mapping[str, Any]) -> Payload:
        try:
            self._calls.call(operation, request).send(None)  # it never waits
        except StopIteration as done:
            answer: Payload = done.value
            return answer
        raise AssertionError(operation)
