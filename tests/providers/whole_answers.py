"""What each provider answers that is asked not to stream: reasoning, a text, a tool call, a citation, usage."""

from __future__ import annotations

MESSAGE = {
    "content": "Yes.",
    "reasoning_content": "Hm.",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}],
}
WHOLE: dict[str, dict[str, object]] = {
    "anthropic": {
        "type": "message",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
            {"type": "text", "text": "Yes.", "citations": [{"type": "char_location", "document_title": "T"}]},
            {"type": "tool_use", "id": "c", "name": "now", "input": {}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 9},
    },
    "gemini": {
        "modelVersion": "m",
        "responseId": "req_1",
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Hm.", "thought": True},
                        {"text": "Yes."},
                        {"functionCall": {"id": "c", "name": "now", "args": {}}},
                    ]
                },
                "finishReason": "STOP",
                "groundingMetadata": {"groundingChunks": [{"web": {"title": "T"}}]},
            }
        ],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 9},
    },
    "openai": {
        "model": "m",
        "choices": [
            {
                "message": {**MESSAGE, "annotations": [{"type": "url_citation", "url_citation": {"title": "T"}}]},
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 9},
    },
    "openai-responses": {
        "model": "m",
        "status": "completed",
        "output": [
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {
                "type": "message",
                "content": [
                    {"type": "output_text", "text": "Yes.", "annotations": [{"type": "url_citation", "title": "T"}]}
                ],
            },
            {"type": "function_call", "id": "f", "call_id": "c", "name": "now", "arguments": "{}"},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 9},
    },
}

BEDROCK: dict[str, object] = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "x"}}},
                {"citationsContent": {"content": [{"text": "Yes."}], "citations": [{"title": "T"}]}},
                {"toolUse": {"toolUseId": "c", "name": "now", "input": {}}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": {"inputTokens": 3, "outputTokens": 9, "totalTokens": 12},
    "metrics": {"latencyMs": 1},
}
