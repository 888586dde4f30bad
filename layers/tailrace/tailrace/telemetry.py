"""Structured logs and metrics, through Powertools. No prompt and no reply is ever written here."""

from __future__ import annotations

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from tailrace.events import Message

# Named like the package, so that every module's own logger comes out through it, structured.
logger = Logger(service="tailrace", name="tailrace")


def reply_ended(message: Message, correlation_id: str) -> None:
    """Log the end of a reply and send its metrics."""
    metadata = message.metadata
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
    )
    # Ephemeral: many replies end in one process at a time, and each writes its own.
    metrics = EphemeralMetrics(namespace="Tailrace", service="tailrace")
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
    metrics.add_metadata(key="message_id", value=message.id)
    metrics.flush_metrics()
