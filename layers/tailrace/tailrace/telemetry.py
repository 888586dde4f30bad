"""Structured logs and metrics, through Powertools. No prompt and no reply is ever written here."""

from __future__ import annotations

import os

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from tailrace.events import Message, Usage

# Powertools' own variable, which it does not look at when it is told a name. The stack sets its own name, so that the
# metrics of two stacks in one account stay apart.
SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME") or "tailrace"

# Named like the package, so that every module's own logger comes out through it, structured.
logger = Logger(service=SERVICE, name="tailrace")

NAMESPACE = "Tailrace"
"""Of all our metrics in CloudWatch. Each has the dimension ``service``, those of a reply ``provider`` as well."""


def reply_ended(message: Message, correlation_id: str) -> None:
    """Log the end of a reply and send its metrics."""
    metadata = message.metadata
    usage = message.usage or Usage()
    error_type = (message.error or {}).get("type")
    logger.info(
        "reply ended",
        correlation_id=correlation_id,
        message_id=message.id,
        conversation_id=message.conversation_id,
        provider=message.provider,
        model=message.model,
        status=message.status,
        error_type=error_type,
        status_code=metadata.get("status_code"),
        finish_reason=message.finish_reason,
        stream_chunks=metadata.get("stream_chunks"),
        stream_duration=metadata.get("stream_duration"),
        time_to_first_chunk=metadata.get("time_to_first_chunk"),
        prompt_tokens=metadata.get("prompt_tokens"),
        completion_tokens=metadata.get("completion_tokens"),
        cache_read=usage.cache_read,
        cache_write=usage.cache_write,
        reasoning_tokens=usage.reasoning,
    )
    # Ephemeral: many replies end in one process at a time, and each writes its own.
    metrics = EphemeralMetrics(namespace=NAMESPACE, service=SERVICE)
    metrics.add_dimension(name="provider", value=message.provider or "unknown")
    metrics.add_metric(name="Replies", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="Failures", unit=MetricUnit.Count, value=0 if message.status == "completed" else 1)
    for name, unit, key, factor in (
        ("TimeToFirstChunk", MetricUnit.Milliseconds, "time_to_first_chunk", 1000),
        ("Duration", MetricUnit.Milliseconds, "stream_duration", 1000),
        ("Chunks", MetricUnit.Count, "stream_chunks", 1),
        ("PromptTokens", MetricUnit.Count, "prompt_tokens", 1),
        ("CompletionTokens", MetricUnit.Count, "completion_tokens", 1),
    ):
        value = metadata.get(key)
        if isinstance(value, int | float):
            metrics.add_metric(name=name, unit=unit, value=value * factor)
    for name, count in (
        ("CacheReadTokens", usage.cache_read),
        ("CacheWriteTokens", usage.cache_write),
        ("ReasoningTokens", usage.reasoning),
    ):
        if count is not None:
            metrics.add_metric(name=name, unit=MetricUnit.Count, value=count)
    metrics.add_metadata(key="message_id", value=message.id)
    metrics.flush_metrics()


def swept(*, looked_at: int, ended: int, failed: int) -> None:
    """Send the metrics of a sweep, also of one that had nothing to do: no data would mean that it does not run.

    Args:
        looked_at: open replies older than the lease, most of which are being written.
        ended: those of them whose writer was gone.
        failed: those that could not be ended now.
    """
    metrics = EphemeralMetrics(namespace=NAMESPACE, service=SERVICE)
    for name, value in (("OldReplies", looked_at), ("InterruptedReplies", ended), ("StuckReplies", failed)):
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
    metrics.flush_metrics()
