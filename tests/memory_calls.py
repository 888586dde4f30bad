"""DynamoDB in memory, as far as the store needs it: for runs of thousands of calls in no time.

It knows the operations that the store makes and the expressions that pynamodb builds for it, and refuses all others;
what it does with them is compared with moto's in test_write_units.py. One table, whatever its name.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final

import msgspec
from tailrace.errors import StoreError
from tailrace.store.dynamodb import ConditionFailed, Payload, TransactionCancelled

Item = dict[str, dict[str, Any]]

INDEXES: Final = {"by_owner": None, "by_sweep": ("pk", "sk", "sweep", "created"), "by_socket": ("pk", "sk", "socket")}
"""What each index projects; None is everything. They are sorted by ``created``, and the last one not at all."""

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Items(dict[tuple[str, str], Item]):
    """The items by their keys, and those of each partition, so that a table of a million can be queried.

    It is changed by assignment and ``pop`` alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._partitions: dict[str, dict[tuple[str, str], Item]] = {}

    def __setitem__(self, key: tuple[str, str], item: Item) -> None:
        super().__setitem__(key, item)
        self._partitions.setdefault(key[0], {})[key] = item

    def pop(self, key: tuple[str, str], default: Any = None) -> Any:
        """Remove and return an item, or return the default."""
        self._partitions.get(key[0], {}).pop(key, None)
        return super().pop(key, default)

    def partition(self, key: str) -> Iterable[Item]:
        """Return a partition's items."""
        return self._partitions.get(key, {}).values()


class MemoryCalls:
    """Implements ``tailrace.store.Calls``."""

    def __init__(self) -> None:
        self.items = Items()
        self._transactions: dict[str, Any] = {}

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        # Over the wire and back: binary values become base64, and nothing is shared with the caller.
        request = msgspec.json.decode(msgspec.json.encode(payload))
        answer: Payload
        match operation:
            case "PutItem" | "UpdateItem":
                change = {"Put" if operation == "PutItem" else "Update": request}
                if not self._holds(change):
                    raise ConditionFailed(self._refusal(change).get("Item"))
                before = self.items.get(_key(_keys(change)))
                self._make(change)
                asked = request.get("ReturnValues", "NONE")
                item = {"ALL_OLD": before, "ALL_NEW": self.items[_key(_keys(change))]}.get(asked)
                answer = {} if item is None else {"Attributes": item}
            case "DeleteItem":
                gone = self.items.pop(_key(request["Key"]), None)
                answer = {} if gone is None else {"Attributes": gone}
            case "TransactWriteItems":
                self._transact(request)
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
            case "BatchWriteItem":
                for changes in request["RequestItems"].values():
                    for change in changes:
                        self.items.pop(_key(change["DeleteRequest"]["Key"]), None)
                answer = {}
            case "Query":
                answer = self._query(request)
            case _:
                raise NotImplementedError(operation)
        copy: Payload = msgspec.json.decode(msgspec.json.encode(answer))
        return copy

    def _transact(self, request: Mapping[str, Any]) -> None:
        token, changes = request["ClientRequestToken"], request["TransactItems"]
        before = self._transactions.get(token)
        if before is not None:
            if before != changes:
                raise StoreError("The store refused the request.")  # IdempotentParameterMismatchException
            return
        reasons = [{"Code": "None"} if self._holds(change) else self._refusal(change) for change in changes]
        if any(reason["Code"] != "None" for reason in reasons):
            raise TransactionCancelled(reasons)
        for change in changes:
            self._make(change)
        self._transactions[token] = changes

    def _holds(self, change: Mapping[str, Any]) -> bool:
        (request,) = change.values()
        condition = request.get("ConditionExpression")
        return condition is None or _true(condition, request, self.items.get(_key(_keys(change)), {}))

    def _refusal(self, change: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reason of a refused write, with the item that stands there if it was asked for."""
        (request,) = change.values()
        item = self.items.get(_key(_keys(change)))
        wanted = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and item is not None
        return {"Code": "ConditionalCheckFailed", **({"Item": item} if wanted else {})}

    def _make(self, change: Mapping[str, Any]) -> None:
        (request,) = change.values()
        key = _keys(change)
        if "Put" in change:
            self.items[_key(key)] = request["Item"]
            return
        if "ConditionCheck" in change:
            return
        item = self.items[_key(key)] = {**self.items.get(_key(key), key)}
        names, values = request["ExpressionAttributeNames"], request.get("ExpressionAttributeValues", {})
        changing, _, deleting = f" {request['UpdateExpression']}".partition(" DELETE ")
        changing, _, adding = changing.partition(" ADD ")
        setting, _, removing = changing.partition(" REMOVE ")
        for assignment in filter(None, setting.removeprefix(" SET ").split(", ")):
            path, operand = assignment.split(" = ")
            outer, _, inner = path.partition(".")
            value = item[names[operand]] if operand in names else values[operand]
            if inner:
                item[names[outer]] = {"M": {**item[names[outer]]["M"], names[inner]: value}}
            else:
                item[names[outer]] = value
        for name in filter(None, removing.split(", ")):
            item.pop(names[name], None)
        for addition in filter(None, adding.split(", ")):
            name, operand = addition.split(" ")
            item[names[name]] = _sum(item.get(names[name]), values[operand])
        for deletion in filter(None, deleting.split(", ")):
            name, operand = deletion.split(" ")
            left = {*item.pop(names[name], {"SS": []})["SS"]} - {*values[operand]["SS"]}
            if left:  # DynamoDB has no empty set
                item[names[name]] = {"SS": sorted(left)}

    def _may_find(self, condition: str, request: Mapping[str, Any]) -> Iterable[Item]:
        """Return the items with the value that the hash key must have; evaluating all of them takes too long."""
        name, operand = re.findall(r"(#\w+) = (:\w+)", condition)[0]
        key = request["ExpressionAttributeNames"][name]
        value = request["ExpressionAttributeValues"][operand]
        if key == "pk":
            return self.items.partition(value["S"])
        return [item for item in self.items.values() if item.get(key) == value]

    def _query(self, request: Mapping[str, Any]) -> Payload:
        if "FilterExpression" in request:
            raise NotImplementedError("FilterExpression")
        index = request.get("IndexName")
        order: Callable[[Item], Any] = {
            None: lambda item: item["sk"]["S"].encode(),
            "by_socket": lambda item: 0,
        }.get(index, lambda item: int(item["created"]["N"]))
        condition = request["KeyConditionExpression"]
        found = [item for item in self._may_find(condition, request) if _true(condition, request, item)]
        found.sort(key=lambda item: (order(item), *_key(item)), reverse=not request.get("ScanIndexForward", True))
        start = request.get("ExclusiveStartKey")
        if start is not None:  # the item of that key may be gone
            after, compare = (order(start), *_key(start)), operator.gt
            if not request.get("ScanIndexForward", True):
                compare = operator.lt
            found = [item for item in found if compare((order(item), *_key(item)), after)]
        limit = request.get("Limit", len(found))
        answer: dict[str, Any] = {"Items": found[:limit]}
        if index and (names := INDEXES[index]):
            answer["Items"] = [{name: item[name] for name in names} for item in answer["Items"]]
        if 0 < limit < len(found):
            keys = ("pk", "sk", "created", "owner", "sweep", "socket") if index else ("pk", "sk")
            answer["LastEvaluatedKey"] = {name: found[limit - 1][name] for name in keys if name in found[limit - 1]}
        return answer


def _true(expression: str, request: Mapping[str, Any], item: Item) -> bool:
    """Evaluate a condition, in the spelling that pynamodb gives it."""
    values = request.get("ExpressionAttributeValues", {})
    whole = expression[1:-1] if _is_enclosed(expression) else expression
    for word, both in ((" OR ", any), (" AND ", all)):
        parts = _split(whole, word)
        if len(parts) > 1:
            return both(_true(part, request, item) for part in parts)
    found = re.fullmatch(r"(\w*) ?\(?(#\w+)(?:\.(#\w+))?\)?(?:,? (=|<>|<=?|>=?|IN|BETWEEN)? ?\(?(:[^)]*))?\)?", whole)
    if found is None:
        raise NotImplementedError(expression)
    function, name, inner, comparison, operands = found.groups()
    names = request["ExpressionAttributeNames"]
    value = item.get(names[name])
    if inner is not None:
        value = (value or {}).get("M", {}).get(names[inner])
    if function == "size":
        function, value = "", None if value is None else {"N": str(len(value["SS"]))}
    wanted = [values[operand] for operand in re.findall(r":\w+", operands or "")]
    match function or comparison:
        case "attribute_exists":
            return value is not None
        case "attribute_not_exists":
            return value is None
        case "contains":
            return value is not None and wanted[0]["S"] in value["SS"]
        case "begins_with":
            return value is not None and str(value["S"]).startswith(wanted[0]["S"])
        case "IN":
            return value in wanted
        case "BETWEEN":
            return value is not None and _number(wanted[0]) <= _number(value) <= _number(wanted[1])
        case "<>":
            return bool(value != wanted[0])
        case "=" | "<" | "<=" | ">" | ">=":
            return value is not None and COMPARISONS[comparison](_number(value), _number(wanted[0]))
    raise NotImplementedError(expression)


def _sum(value: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ADD makes of a number or a set, or of nothing."""
    if "N" in more:
        return {"N": str(Decimal((value or {"N": 0})["N"]) + Decimal(more["N"]))}
    return {"SS": sorted({*(value or {"SS": []})["SS"], *more["SS"]})}


@cache
def _split(expression: str, word: str) -> list[str]:
    """Split at a word that is outside of brackets; the AND of a BETWEEN belongs to it."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if depth or not expression.startswith(word, at):
            continue
        if not (word == " AND " and re.search(r"BETWEEN :\d+$", expression[start:at])):
            parts.append(expression[start:at])
            start = at + len(word)
    return [*parts, expression[start:]]


@cache
def _is_enclosed(expression: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for at, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return at == len(expression) - 1 and character == ")"
    return False


def _number(value: Mapping[str, Any]) -> Any:
    """Return what a value is compared by. DynamoDB compares text by its UTF-8 bytes."""
    ((kind, content),) = value.items()
    return Decimal(content) if kind == "N" else str(content).encode()


def _keys(change: Mapping[str, Any]) -> Mapping[str, Any]:
    (request,) = change.values()
    source: Mapping[str, Any] = request["Item"] if "Put" in change else request["Key"]
    return {"pk": source["pk"], "sk": source["sk"]}


def _key(key: Mapping[str, Any]) -> tuple[str, str]:
    return key["pk"]["S"], key["sk"]["S"]
