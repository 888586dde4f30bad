"""What the stack watches: alarms that can go off, and a dashboard of metrics that there are."""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Final

import msgspec
import pytest
from tailrace.telemetry import reply_ended, swept

from tests import permissions
from tests.resolved_template import Resolved, read_template
from tests.test_telemetry import MESSAGE as REPLY

FUNCTIONS: Final = {
    "StreamFunction",
    "ApiFunction",
    "SweepFunction",
    "WebSocketFunction",
    "ChatFunction",
    "BroadcastFunction",
}
TOPIC: Final = "arn:aws:sns:eu-central-1:123456789012:alarms"

# As AWS publishes them:
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-logging.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
PUBLISHED: Final = {
    ("AWS/Lambda", frozenset({"FunctionName"})): {
        *("Invocations", "Errors", "Throttles", "Duration", "ConcurrentExecutions", "IteratorAge"),
    },
    ("AWS/DynamoDB", frozenset({"TableName"})): {
        *("ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits", "ReadThrottleEvents", "WriteThrottleEvents"),
    },
    ("AWS/DynamoDB", frozenset({"TableName", "Operation"})): {"SystemErrors", "ThrottledRequests"},
    ("AWS/ApiGateway", frozenset({"ApiId", "Stage"})): {"ConnectCount", "MessageCount", "IntegrationError"},
    ("AWS/SQS", frozenset({"QueueName"})): {"ApproximateNumberOfMessagesVisible"},
}

MESSAGE = msgspec.structs.replace(REPLY, metadata={**REPLY.metadata, "completion_tokens": 4})
"""One that sends every metric there is."""

Metrics = dict[tuple[str, frozenset[str]], set[str]]


@pytest.fixture
def published(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Metrics:
    """AWS's metrics, and those of ours that code really sends: by namespace and dimensions."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    caplog.set_level(logging.INFO, "tailrace")
    reply_ended(MESSAGE, "correlation")
    swept(looked_at=0, ended=0, failed=0)
    found: Metrics = {key: set(each) for key, each in PUBLISHED.items()}
    for line in capsys.readouterr().out.splitlines():
        for sent in json.loads(line).get("_aws", {}).get("CloudWatchMetrics", ()):
            for dimensions in sent["Dimensions"]:
                key = (sent["Namespace"], frozenset(dimensions))
                found.setdefault(key, set()).update(each["Name"] for each in sent["Metrics"])
    return found


# ---- alarms ----


def alarms(stack: Resolved) -> dict[str, dict[str, Any]]:
    """Return the alarms' properties by their names."""
    return {
        name: each["Properties"] for name, each in stack.resources.items() if each["Type"] == "AWS::CloudWatch::Alarm"
    }


def watched(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics of an alarm, of which it may have several and a sum."""
    if "MetricName" in alarm:
        return [alarm]
    return [each["MetricStat"]["Metric"] for each in alarm["Metrics"] if "MetricStat" in each]


def dimensions(metric: dict[str, Any]) -> dict[str, str]:
    """Return a metric's dimensions and their values."""
    return {each["Name"]: each["Value"] for each in metric["Dimensions"]}


def test_every_alarm_watches_a_metric_that_there_is(published: Metrics) -> None:
    """With a misspelt name or one dimension too few an alarm is silent for ever."""
    for name, alarm in alarms(Resolved()).items():
        for metric in watched(alarm):
            key = (metric["Namespace"], frozenset(dimensions(metric)))
            assert metric["MetricName"] in published[key], name


@pytest.mark.parametrize(
    "options", [{}, {"CapacityProviderArn": "arn:aws:lambda:eu-central-1:123456789012:capacity-provider:mine"}]
)
def test_errors_and_throttles_of_each_function(options: dict[str, str]) -> None:
    """Whichever of the two stream functions is made."""
    stack = Resolved(**options)
    functions = {f"<{name}>" for name, each in stack.resources.items() if each["Type"] == "AWS::Serverless::Function"}
    assert len(functions) == len(FUNCTIONS)
    for wanted in ("Errors", "Throttles"):
        found = {
            dimensions(alarm)["FunctionName"] for alarm in alarms(stack).values() if alarm.get("MetricName") == wanted
        }
        assert found == functions


def test_what_else_is_watched() -> None:
    """Stuck replies of this stack, the delay of announcements, what could not be announced, the table."""
    found = alarms(Resolved())
    assert found["StuckReplies"]["MetricName"] == "StuckReplies"
    assert dimensions(found["StuckReplies"]) == {"service": "tailrace-test"}
    assert dimensions(found["IteratorAge"]) == {"FunctionName": "<BroadcastFunction>"}
    assert dimensions(found["FailedBroadcasts"]) == {"QueueName": "<BroadcastFailures.QueueName>"}
    assert {each["MetricName"] for each in watched(found["TableThrottles"])} == {
        "ReadThrottleEvents",
        "WriteThrottleEvents",
    }


def test_the_service_of_the_metrics_is_the_stack() -> None:
    """What the functions send is what the alarm looks for."""
    variables = read_template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


def test_errors_of_the_table_are_of_all_that_is_asked_of_it() -> None:
    """DynamoDB counts them by operation: those that the functions may call, and transactions of them."""
    asked = {permission for function in permissions.FUNCTIONS for permission in permissions.allowed(function)}
    operations = {action.removeprefix("dynamodb:") for action, on in asked if on == "the table"}
    metrics = watched(alarms(Resolved())["TableSystemErrors"])
    assert {dimensions(each)["Operation"] for each in metrics} == operations - {"ConditionCheckItem"} | {
        "TransactWriteItems"
    }


@pytest.mark.parametrize("name", ["TableThrottles", "TableSystemErrors"])
def test_a_sum_has_all_its_parts(name: str) -> None:
    """Each metric is in the expression, and one without data counts as none."""
    alarm = alarms(Resolved())[name]
    (total,) = (each for each in alarm["Metrics"] if "Expression" in each)
    ids = [each["Id"] for each in alarm["Metrics"] if "MetricStat" in each]
    assert total["Expression"].split(" + ") == [f"FILL({each}, 0)" for each in ids]
    assert total.get("ReturnData", True)
    assert not any(each["ReturnData"] for each in alarm["Metrics"] if "MetricStat" in each)
    assert (
        len(alarm["Metrics"]) <= 10
    )  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html


def test_the_alarms_tell_a_topic_if_there_is_one() -> None:
    """They are there without one. No data is no alarm: at night nobody calls."""
    silent, told = alarms(Resolved()), alarms(Resolved(AlarmTopicArn=TOPIC))
    assert silent.keys() == told.keys()
    for name in silent:
        assert "AlarmActions" not in silent[name]
        assert told[name]["AlarmActions"] == told[name]["OKActions"] == [TOPIC]
        assert told[name]["TreatMissingData"] == "notBreaching"
        assert told[name]["AlarmDescription"]


# ---- the dashboard ----


def drawn(stack: Resolved) -> list[tuple[str, frozenset[str], str, str]]:
    """Return the dashboard's metrics: namespace, names of dimensions, name, and the values or the search."""
    body = json.loads(stack.properties("Dashboard")["DashboardBody"])
    found = []
    for widget in body["widgets"]:
        assert widget["properties"]["region"] == "eu-central-1"
        for metric in widget["properties"]["metrics"]:
            if isinstance(metric[0], dict):
                pattern = r"SEARCH\('\{(\S+?),(\S+)\} MetricName=\"(\w+)\" (.*)', '\w+', 300\)"
                parts = re.fullmatch(pattern, metric[0]["expression"])
                assert parts is not None, metric
                found.append((parts[1], frozenset(parts[2].split(",")), parts[3], parts[4]))
                assert metric[0]["label"].endswith("${PROP('Dim.provider')}")
            else:
                namespace, name, *pairs = (each for each in metric if isinstance(each, str))
                found.append((namespace, frozenset(pairs[::2]), name, " ".join(pairs[1::2])))
    return found


def test_the_dashboard_is_of_metrics_that_there_are(published: Metrics) -> None:
    """It is JSON, and every metric on it is one that our code sends or AWS publishes, with those dimensions."""
    for namespace, names, metric, _ in drawn(Resolved()):
        assert metric in published[namespace, names]


def test_all_that_the_code_sends_is_on_the_dashboard(published: Metrics) -> None:
    """And nothing of another stack."""
    ours = [(names, metric, where) for namespace, names, metric, where in drawn(Resolved()) if namespace == "Tailrace"]
    assert {(names, metric) for names, metric, _ in ours} == {
        (names, metric) for (namespace, names), each in published.items() if namespace == "Tailrace" for metric in each
    }
    assert {where for _, _, where in ours} == {'service="tailrace-test"', "tailrace-test"}


def test_what_matters_is_on_the_dashboard() -> None:
    """Each function's calls, what the table consumes, how far announcements are behind, WebSocket."""
    found = {(metric, where) for _, _, metric, where in drawn(Resolved())}
    for metric in ("Invocations", "Errors", "Throttles", "ConcurrentExecutions"):
        assert {where for name, where in found if name == metric} == {f"<{name}>" for name in FUNCTIONS}
    for name in (
        "ConsumedReadCapacityUnits",
        "ConsumedWriteCapacityUnits",
        "ReadThrottleEvents",
        "WriteThrottleEvents",
    ):
        assert (name, "<Table>") in found
    assert ("IteratorAge", "<BroadcastFunction>") in found
    assert {("ConnectCount", "<WebSocketApi> live"), ("MessageCount", "<WebSocketApi> live")} <= found
    body = Resolved().properties("Dashboard")["DashboardBody"]
    assert "'p50'" in body
    assert "'p95'" in body
