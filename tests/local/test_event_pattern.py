"""Lambda's filters, rule by rule, and those of template.yaml on the records they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local.event_pattern import matches
from local.event_source import TEMPLATE, EventSource, event_source, read_event_source


@pytest.mark.parametrize(
    ("rule", "fits", "does_not"),
    [
        ("a", ["a", ["b", "a"]], ["A", 1, None, {}, {"a": 1}, []]),
        (None, [None], ["", 0, False]),
        ("", [""], [None, "a"]),
        (1, [1, 1.0], ["1", True]),
        (True, [True], [1, "true"]),
        ({"prefix": "M#"}, ["M#1", "M#"], ["m#1", "XM#", 1, None]),
        ({"suffix": "#1"}, ["M#1"], ["M#12", 1]),
        ({"equals-ignore-case": "Ab"}, ["aB"], ["abc", 1]),
        ({"anything-but": ["a", "b"]}, ["c", 1, ["a", "c"]], ["a", "b", ["a", "b"]]),
        ({"anything-but": "a"}, ["b"], ["a"]),
        ({"numeric": [">", 1, "<=", 3]}, [2, 3, 1.5], [1, 4, "2", True]),
        ({"numeric": ["=", 0]}, [0], [1]),
        ({"exists": True}, ["a", None, {}, []], []),
    ],
)
def test_a_rule(rule: Any, fits: list[Any], does_not: list[Any]) -> None:
    """What a rule takes and what not; a field that is not there fits none but `exists: false`."""
    for value in fits:
        assert matches({"field": [rule]}, {"field": value}), value
    for value in does_not:
        assert not matches({"field": [rule]}, {"field": value}), value
    assert not matches({"field": [rule]}, {})


def test_what_is_not_there() -> None:
    """`exists: false` is true of a field whose parent is missing, too."""
    pattern = {"a": {"b": [{"exists": False}]}}
    assert matches(pattern, {})
    assert matches(pattern, {"a": {}})
    assert matches(pattern, {"a": "text"})
    assert not matches(pattern, {"a": {"b": None}})


def test_fields_are_and_and_rules_are_or() -> None:
    """Each field has to fit, by any of its rules; `$or` is any of several patterns."""
    pattern = {"a": ["x", {"prefix": "y"}], "b": [1]}
    assert matches(pattern, {"a": "yes", "b": 1})
    assert not matches(pattern, {"a": "yes", "b": 2})
    either = {"$or": [{"a": ["x"]}, {"b": [1]}], "c": [0]}
    assert matches(either, {"b": 1, "c": 0})
    assert not matches(either, {"b": 2, "c": 0})
    assert not matches(either, {"a": "x"})


@pytest.mark.parametrize(("pattern", "sentence"), [({"a": [{"like": "b"}]}, "no rule 'like'"), ({"a": "b"}, "'a'")])
def test_what_lambda_does_not_have(pattern: dict[str, Any], sentence: str) -> None:
    """A rule that Lambda would refuse is refused here."""
    with pytest.raises(ValueError, match=sentence):
        matches(pattern, {"a": "b"})


def test_no_limit() -> None:
    """What a template leaves out is as Lambda has it: no filter, no limit of retries or age."""
    assert event_source({}) == EventSource()
    assert event_source({"MaximumRetryAttempts": -1, "MaximumRecordAgeInSeconds": -1}) == EventSource()
    assert event_source({"MaximumRetryAttempts": 0}).retries == 0


def test_a_resource_that_is_not_there(tmp_path: Path) -> None:
    """A name that the template does not have is an error and no event source without filters."""
    with pytest.raises(KeyError, match="Nothing"):
        read_event_source("Nothing")


def record(name: str, pk: str, sk: str, **image: dict[str, str]) -> dict[str, Any]:
    keys = {"pk": {"S": pk}, "sk": {"S": sk}}
    return {"eventName": name, "dynamodb": {"Keys": keys, "NewImage": {**keys, **image}}}


def test_the_template() -> None:
    """The broadcast function's own: it is called for what it announces, and not for segments or subscriptions."""
    source = read_event_source("BroadcastOnChanges", TEMPLATE)
    assert source.reports
    assert source.bisects
    assert source.batch_size == 100
    pending, completed = {"S": "pending"}, {"S": "completed"}
    user, assistant, one = {"S": "user"}, {"S": "assistant"}, {"N": "1"}
    assert source.takes(record("INSERT", "C#1", "C"))
    assert source.takes(record("INSERT", "C#1", "M#1", role=user, status=completed))
    assert not source.takes(record("INSERT", "C#1", "M#1", role=assistant, status=pending, feeding=one))
    assert not source.takes(record("INSERT", "C#1", "M#1", role={"S": "system"}, status=completed))
    assert source.takes(record("MODIFY", "C#1", "M#1", role=assistant, status=completed))
    assert not source.takes(record("MODIFY", "C#1", "M#1", role=assistant, status=completed, feeding=one))
    assert not source.takes(record("INSERT", "S#1", "L#0"))
    assert not source.takes(record("INSERT", "N#conversation.1", "socket"))
    assert not source.takes(record("MODIFY", "C#1", "C"))
