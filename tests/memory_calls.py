"""DynamoDB in memory, as far as one reply needs it: for runs of thousands of writes in no time.

It knows the operations and the shapes of expressions that a reply's requests have, and refuses all
others; what it does with them is compared with moto's in test_write_units.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from tailrace.store.dynamodb import ConditionFailed, Payload, TransactionCancelled

Item = dict[str, dict[str, Any]]


class MemoryCalls:
    """Implements ``tailrace.store.Calls``."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        # Over the wire and back: binary values become base64, and nothing is shared with the caller.
        request = msgspec.json.decode(msgspec.json.encode(payload))
        answer: Payload
        match operation:
            case "PutItem" | "UpdateItem":
                change = {"Put" if operation == "PutItem" else "Update": request}
                if not self._holds(change):
                    raise ConditionFailed(self.items.get(_key(_keys(change))))
                self._make(change)
                answer = {"Attributes": self.items[_key(_keys(change))]}
            case "TransactWriteItems":
                changes = request["TransactItems"]
                reasons = [
                    {"Code": "None"}
                    if self._holds(change)
                    else {"Code": "ConditionalCheckFailed", "Item": self.items.get(_key(_keys(change)))}
                    for change in changes
                ]
                if any(reason["Code"] != "None" for reason in reasons):
                    raise TransactionCancelled(reasons)
                for change in changes:
                    self._make(change)
                answer = {}
            case "GetItem":
                item = self.items.get(_key(request["Key"]))
                answer = {} if item is None else {"Item": item}
            case "BatchGetItem":
                answer = {
                    "Responses": {
                        table: [self.items[_key(key)] for key in wanted["Keys"] if _key(key) in self.items]
                        for table, wanted in request["RequestItems"].items()
                    }
                }
            case "Query":
                answer = {"Items": self._query(request)}
            case _:
                raise NotImplementedError(operation)
        copy: Payload = msgspec.json.decode(msgspec.json.encode(answer))
        return copy

    def _holds(self, change: Mapping[str, Any]) -> bool:
        (request,) = change.values()
        condition = request.get("ConditionExpression")
        if condition is None:
            return True
        item = self.items.get(_key(_keys(change)), {})
        name, how, operands = _match(r"(?:(attribute_not_exists) \()?(#\d)(?:\)| (=|IN) \(?([^)]*)\)?)", condition)
        value = item.get(request["ExpressionAttributeNames"][name])
        if how == "attribute_not_exists":
            return value is None
        values = request["ExpressionAttributeValues"]
        return value in [values[operand] for operand in operands.split(", ")]

    def _make(self, change: Mapping[str, Any]) -> None:
        (request,) = change.values()
        key = _keys(change)
        if "Put" in change:
            self.items[_key(key)] = request["Item"]
            return
        item = self.items.setdefault(_key(key), dict(key))
        names, values = request["ExpressionAttributeNames"], request["ExpressionAttributeValues"]
        setting, _, removing = request["UpdateExpression"].removeprefix("SET ").partition(" REMOVE ")
        for assignment in setting.split(", "):
            name, operand = assignment.split(" = ")
            item[names[name]] = values[operand]
        for name in filter(None, removing.split(", ")):
            item.pop(names[name], None)

    def _query(self, request: Mapping[str, Any]) -> list[Item]:
        values = request["ExpressionAttributeValues"]
        if not re.fullmatch(r"\(#0 = :0 AND #1 BETWEEN :1 AND :2\)", request["KeyConditionExpression"]):
            raise NotImplementedError(request["KeyConditionExpression"])
        partition, first, last = (values[name]["S"] for name in (":0", ":1", ":2"))
        found = [key for key in self.items if key[0] == partition and first <= key[1] <= last]
        return [self.items[key] for key in sorted(found)]


def _match(pattern: str, condition: str) -> tuple[str, str, str]:
    found = re.fullmatch(pattern, condition)
    if found is None:
        raise NotImplementedError(condition)
    function, name, operator, operands = found.groups()
    return name, function or operator, operands or ""


def _keys(change: Mapping[str, Any]) -> Mapping[str, Any]:
    (request,) = change.values()
    source: Mapping[str, Any] = request["Item"] if "Put" in change else request["Key"]
    return {"pk": source["pk"], "sk": source["sk"]}


def _key(key: Mapping[str, Any]) -> tuple[str, str]:
    return key["pk"]["S"], key["sk"]["S"]
