"""Google's Gemini API (https://ai.google.dev/api/generate-content), read. A whole answer has the shape of an event.

- The reason for the end and those for a blocked prompt are told in lower case.
- ``completion_tokens`` counts the thoughts too, as the other vendors' counts do; the vendor tells the two apart.
- Function calls come whole, and mostly without an id; they then get one that is made up.
- The body ends without a word after the reason for the end, and an error in its middle may come as plain JSON
  without ``data:`` (https://github.com/vercel/ai/issues/5217).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace.events import (
    Citation,
    ProviderEvent,
    Reasoning,
    ResponseInfo,
    Text,
    ToolCall,
    ToolCallStart,
    ToolResult,
    Usage,
)
from tailrace.protocols.sse import ServerSentEvent
from tailrace.providers import failures
from tailrace.providers.state import Kept
from tailrace.providers.tolerant import REFUSED, Count, made_up_id, odd_event, text_of_raw

FILTERED = frozenset(
    {
        "blocklist",
        "image_prohibited_content",
        "image_recitation",
        "image_safety",
        "model_armor",
        "prohibited_content",
        "recitation",
        "safety",
        "spii",
    }
)
"""The reasons for an end that are a filter's (https://ai.google.dev/api/generate-content#FinishReason)."""

NO_REASON = frozenset({"", "finish_reason_unspecified", "null", "none"})
"""What stands for no reason."""

MALFORMED = frozenset({"malformed_function_call", "malformed_response", "unexpected_tool_call"})
"""Those that say that the model wrote what cannot be used."""


# ---- the wire: only what we read of it ---------------------------------------------------------------------------


class _FunctionCall(msgspec.Struct, gc=False):
    name: str = ""
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Code(msgspec.Struct, gc=False):
    id: str | None = None
    language: str | None = None
    code: str | None = None
    outcome: str | None = None
    output: str | None = None


class _ToolResponse(msgspec.Struct, rename="camel", gc=False):
    id: str | None = None
    tool_type: str = ""
    response: msgspec.Raw = msgspec.Raw(b"{}")


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    executable_code: _Code | None = None
    code_execution_result: _Code | None = None
    tool_response: _ToolResponse | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Source(msgspec.Struct, gc=False):
    uri: str | None = None
    title: str | None = None
    text: str | None = None


class _GroundingChunk(msgspec.Struct, rename="camel"):
    web: _Source | None = None
    retrieved_context: _Source | None = None
    maps: _Source | None = None


class _Grounding(msgspec.Struct, rename="camel"):
    grounding_chunks: list[_GroundingChunk] | None = None


class _Citations(msgspec.Struct, rename="camel"):
    citation_sources: list[_Source] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    grounding_metadata: _Grounding | None = None
    citation_metadata: _Citations | None = None


class _Usage(msgspec.Struct, rename="camel", gc=False):
    prompt_token_count: Count | None = None
    tool_use_prompt_token_count: Count | None = None
    candidates_token_count: Count | None = None
    thoughts_token_count: Count | None = None
    cached_content_token_count: Count | None = None


class _Feedback(msgspec.Struct, rename="camel", gc=False):
    block_reason: str | None = None


class _Chunk(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class GeminiParser:
    """One answer. Implements ``http.Parser``."""

    def __init__(self, provider: str = "gemini") -> None:
        self.done = self.whole = self.settled = self.is_odd = False
        self._provider = provider
        self._introduced = False
        self._index: int | None = None
        self._kept = Kept()
        self._code: _Code | None = None
        self._cited: set[Citation] = set()

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """See ``http.Parser``. This wire has no pings, but for what cannot be read at all."""
        progress = False
        for sse in events:
            try:
                chunk = _decode(sse.data)
            except REFUSED:
                self.is_odd = True
                odd = odd_event(sse, _Chunk, self._provider)
                if odd is None:
                    continue
                chunk = odd
            progress = True
            if chunk.error or sse.event == b"error":
                raise failures.reported(self._provider, sse.data)
            if not self._introduced and (chunk.model_version or chunk.response_id):
                self._introduce(chunk, out)
            if chunk.candidates:
                for candidate in chunk.candidates:
                    self._candidate(candidate, chunk.usage_metadata, out)
            elif chunk.usage_metadata is not None:
                self._account(chunk.usage_metadata, out)
            else:
                failures.raise_bare(self._provider, sse.data)
            if chunk.prompt_feedback is not None and (reason := chunk.prompt_feedback.block_reason):
                out.append(ResponseInfo(finish_reason=reason.lower()))
                raise failures.filtered(self._provider, f"prompt: {reason}")
        return progress

    def _candidate(self, candidate: _Candidate, usage: _Usage | None, out: list[ProviderEvent]) -> None:
        if candidate.index != self._index and candidate.index is not None:
            if self._index is not None:
                return  # one was asked for: what has another number than the first is another answer
            self._index = candidate.index
        said = len(out)
        if candidate.content is not None:
            for part in candidate.content.parts or ():
                if part.text:
                    if part.thought:
                        out.append(Reasoning(part.text))
                    else:
                        self._kept.characters += len(part.text)
                        out.append(Text(part.text))
                        if part.thought_signature:
                            self._kept.text(len(part.text), part.thought_signature)
                else:
                    self._rare(part, out)
        if candidate.grounding_metadata is not None or candidate.citation_metadata is not None:
            self._cite(candidate, out)
        if (candidate.finish_reason or "").lower() not in NO_REASON:
            self._finish(candidate, usage, out)
        elif len(out) > said:
            self.whole = self.settled = False  # the reason came early: this is still the answer

    def end(self, rest: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``."""
        failures.raise_bare(self._provider, rest)
        if self.whole:
            out += self._kept.state(self._provider)

    def read(self, body: bytes, out: list[ProviderEvent]) -> None:
        """See ``http.Parser``. A list is a stream in one body."""
        try:
            chunks = msgspec.json.decode(body, type=list[msgspec.Raw])
        except REFUSED:
            chunks = [msgspec.Raw(body)]
        self.feed([ServerSentEvent(bytes(chunk)) for chunk in chunks], out)
        self.end(b"", out)

    def _introduce(self, chunk: _Chunk, out: list[ProviderEvent]) -> None:
        self._introduced = True
        out.append(ResponseInfo(model=chunk.model_version, provider_request_id=chunk.response_id))
        if (usage := chunk.usage_metadata) is not None:
            # Every event has the counts so far; the last ones count. The prompt's are known now.
            out.append(Usage(prompt_tokens=_prompt_tokens(usage)))

    def _rare(self, part: _Part, out: list[ProviderEvent]) -> None:
        if (call := part.function_call) is not None:
            call_id = call.id or made_up_id()
            self._kept.call(call_id, part.thought_signature)
            out += [ToolCallStart(call_id, call.name), ToolCall(call_id, call.name, text_of_raw(call.args))]
        elif part.executable_code is not None:
            self._code = part.executable_code
        elif (ran := part.code_execution_result) is not None:
            code = self._code or _Code()
            said = {"language": code.language, "code": code.code, "outcome": ran.outcome, "output": ran.output}
            out.append(ToolResult(ran.id or code.id or "", "code_execution", msgspec.json.encode(said).decode()))
        elif part.thought_signature:
            self._kept.text(0, part.thought_signature)
        elif (answer := part.tool_response) is not None:
            out.append(ToolResult(answer.id or "", answer.tool_type.lower(), bytes(answer.response).decode()))

    def _cite(self, candidate: _Candidate, out: list[ProviderEvent]) -> None:
        """What the answer rests on. Later events may repeat it."""
        grounding, citations = candidate.grounding_metadata, candidate.citation_metadata
        chunks = (grounding.grounding_chunks if grounding is not None else None) or ()
        sources = [chunk.web or chunk.retrieved_context or chunk.maps for chunk in chunks]
        sources += (citations.citation_sources if citations is not None else None) or ()
        for source in sources:
            if source is None:
                continue
            citation = Citation(url=source.uri, title=source.title, quote=source.text)
            if citation not in self._cited:
                self._cited.add(citation)
                out.append(citation)

    def _finish(self, candidate: _Candidate, usage: _Usage | None, out: list[ProviderEvent]) -> None:
        reason = (candidate.finish_reason or "").lower()
        if usage is not None:
            self._account(usage, out)
        out.append(ResponseInfo(finish_reason=reason))
        detail = f"{reason}: {candidate.finish_message or ''}"
        if reason in FILTERED:
            raise failures.filtered(self._provider, detail)
        if reason in MALFORMED:
            raise failures.malformed(self._provider, detail)
        self.whole = True
        self.settled = usage is not None

    def _account(self, usage: _Usage, out: list[ProviderEvent]) -> None:
        counts = [count for count in (usage.candidates_token_count, usage.thoughts_token_count) if count is not None]
        out.append(
            Usage(
                _prompt_tokens(usage),
                sum(counts) if counts else None,
                cache_read=usage.cached_content_token_count,
                reasoning=usage.thoughts_token_count,
            )
        )


def _prompt_tokens(usage: _Usage) -> int | None:
    if usage.prompt_token_count is None:
        return None
    return usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0)
