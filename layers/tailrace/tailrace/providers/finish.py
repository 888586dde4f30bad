"""Why an answer ended, in one vocabulary for all vendors."""

from __future__ import annotations

from typing import Final, Literal

Finish = Literal["stop", "length", "tool_calls", "content_filter", "error", "other"]

_WORDS: Final[dict[Finish, str]] = {
    "stop": "stop end_turn stop_sequence completed complete end eos eos_token",
    "length": "length max_tokens max_output_tokens max_length model_length model_context_window_exceeded",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "content_filter": "content_filter content_filtered guardrail_intervened refusal blocklist image_prohibited_content "
    "image_recitation image_safety model_armor prohibited_content recitation safety spii",
    "error": "error failed insufficient_system_resource malformed_function_call malformed_model_output "
    "malformed_response malformed_tool_use unexpected_tool_call",
}
_FINISHES: Final[dict[str, Finish]] = {word: finish for finish, words in _WORDS.items() for word in words.split()}


def finish_of(reason: str | None, *, calls: bool) -> Finish:
    """Return what a vendor's finish reason means.

    Args:
        reason: the vendor's own word, or None where it said none.
        calls: whether the answer has tool calls. Gemini and the Responses API say that such an answer has just ended.
    """
    finish = _FINISHES.get((reason or "").lower().replace("-", "_"), "other")
    return "tool_calls" if calls and finish in ("stop", "other") else finish
