"""What lies between a reply's text, as JSON: for server-sent events and for subscribers alike."""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.delivery.pieces import PartEvent
from tailrace.events import Approval, ApprovalRequest, Reasoning, StepEnd, ToolCall, ToolResult, ToolRun

NAMES: dict[type, str] = {
    ToolCall: "tool_call",
    ToolRun: "tool_run",
    ToolResult: "tool_result",
    ApprovalRequest: "approval_request",
    Approval: "approval",
}


def part_data(event: PartEvent) -> dict[str, Any]:
    """Return one part under its name (docs/http.md)."""
    if isinstance(event, Reasoning):
        return {"reasoning": event.text}
    if isinstance(event, StepEnd):
        return {"step_end": True}
    told = {name: value for name, value in msgspec.to_builtins(event).items() if value is not None}
    return {NAMES[type(event)]: told}


def shortened(data: dict[str, Any]) -> dict[str, Any]:
    """Return a part without what is long in it, where there is no room for that."""
    return {
        name: {
            **{key: told for key, told in value.items() if key not in ("arguments", "result")},
            "omitted": "too long",
        }
        if isinstance(value, dict)
        else ""
        for name, value in data.items()
    }
