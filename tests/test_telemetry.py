"""Logs and metrics: one structured line and one metrics document for each reply, and no prompt in either."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from tailrace.errors import where
from tailrace.events import Message, Usage
from tailrace.telemetry import logger, reply_ended, swept

MESSAGE = Message(
    id="m",
    conversation_id="c",
    role="assistant",
    content="<the reply>",
    status="failed",
    seq=3,
    metadata={
        "stream_chunks": 2,
        "stream_duration": 1.5,
        "time_to_first_chunk": 0.25,
        "prompt_tokens": 3,
        "x": "<mine>",
    },
    provider="scripted",
    model="fast",
    usage=Usage(3, 2),
    error={"type": "api_error", "message": "It broke."},
    created_at="2026-01-01T00:00:00.000000Z",
)


@pytest.fixture
def emitted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> tuple[dict[str, Any], str]:
    """The metrics document and the log line of a reply's end."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    caplog.set_level(logging.INFO, "tailrace")
    reply_ended(MESSAGE, "correlation")
    (record,) = caplog.records
    line = logger.registered_formatter.format(record)
    (document,) = [text for text in capsys.readouterr().out.splitlines() if '"_aws"' in text]
    return json.loads(document), line


def test_the_metrics_of_a_reply(emitted: tuple[dict[str, Any], str]) -> None:
    """Time to first chunk, duration, chunks, tokens, failures, by provider."""
    document, _ = emitted
    metrics = document["_aws"]["CloudWatchMetrics"][0]
    assert metrics["Namespace"] == "Tailrace"
    assert [set(names) for names in metrics["Dimensions"]] == [{"service", "provider"}]
    values = {name: document[name] for name in (entry["Name"] for entry in metrics["Metrics"])}
    assert values == {
        "Replies": [1.0],
        "Failures": [1.0],
        "TimeToFirstChunk": [250.0],
        "Duration": [1500.0],
        "Chunks": [2.0],
        "PromptTokens": [3.0],
    }


def test_the_log_line_of_a_reply(emitted: tuple[dict[str, Any], str]) -> None:
    """Structured, tied to its request, without any text of the conversation."""
    _, text = emitted
    line = json.loads(text)
    assert line["correlation_id"] == "correlation"
    assert (line["message_id"], line["status"], line["error_type"]) == ("m", "failed", "api_error")
    for secret in ("<the reply>", "<mine>"):
        assert secret not in text


def test_an_error_is_logged_by_place() -> None:
    """Its type and where it was raised, not what it says."""
    try:
        raise RuntimeError("quotes <the prompt>")
    except RuntimeError as error:
        seen = where(error)
    assert seen["exception_type"] == "RuntimeError"
    assert seen["where"][-1].startswith("test_telemetry.py:")
    assert "<the prompt>" not in repr(seen)


def test_the_metrics_of_a_sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What it found, ended and could not end; without a provider, since it asks none."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    swept(looked_at=5, ended=2, failed=0)
    document = json.loads(capsys.readouterr().out)
    metrics = document["_aws"]["CloudWatchMetrics"][0]
    assert (metrics["Namespace"], metrics["Dimensions"]) == ("Tailrace", [["service"]])
    values = {name: document[name] for name in (entry["Name"] for entry in metrics["Metrics"])}
    assert values == {"OldReplies": [5.0], "InterruptedReplies": [2.0], "StuckReplies": [0.0]}


def test_two_stacks_in_one_account_stay_apart() -> None:
    """Logs and metrics have the name that the stack gives its functions."""
    code = "from tailrace.telemetry import logger, swept; swept(looked_at=0, ended=0, failed=0); logger.info('x')"
    environment = {"POWERTOOLS_SERVICE_NAME": "tailrace-dev", "POWERTOOLS_METRICS_DISABLED": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert [json.loads(line)["service"] for line in done.stdout.splitlines()] == ["tailrace-dev", "tailrace-dev"]
