"""OpenAI's chat completions, streamed (https://platform.openai.com/docs/api-reference/chat-streaming), and the many
servers that speak the same wire: vLLM, Ollama, OpenRouter, LM Studio.

What differs among them, and is accepted:
- no ``[DONE]``: an answer that gave its finish reason is whole;
- reasoning as ``reasoning_content`` (vLLM, DeepSeek) or ``reasoning`` (OpenRouter, Ollama);
- no key, where ``base_url`` is not the vendor's own;
- ``max_tokens`` is sent as ``max_completion_tokens`` to the vendor, whose newer models refuse the old name, and as
  ``max_tokens`` to everybody else, who may not know the new one;
- errors inside the stream with a status as ``code``, a word as ``code`` or ``type``, or a bare string.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from tailrace.errors import ConfigurationError
from tailrace.events import ProviderEvent, Reasoning, ResponseInfo, Text, ToolCall, Usage
from tailrace.providers import ProviderConfig, ProviderRequest, failures, http
from tailrace.providers.timeouts import Timeouts
from tailrace.sse import ServerSentEvent

NAME = "openai"
BASE_URL = "https://api.openai.com/v1"

STATUS_OF_ERROR: Mapping[str, int] = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "api_error": 500,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "timeout": 504,
}
"""The status that an error inside the stream would have had before it."""


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``; sent by its name and as it is, in the vendor's own shapes."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    timeouts: Timeouts = Timeouts()


# ---- the wire: only what we read of it ---------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_encode = msgspec.json.encode


class _Call:
    """A tool call that is being written."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class ChatParser:
    """One answer. Implements ``http.Parser``.

    Args:
        request_id: what the response's ``x-request-id`` header said.
    """

    def __init__(self, request_id: str | None = None) -> None:
        self.done = self.whole = False
        self._request_id = request_id
        self._introduced = False
        self._calls: dict[int, _Call] = {}

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """See ``http.Parser``. This wire's pings are comments, so whatever arrives here is more than one."""
        for sse in events:
            data = sse.data
            if data == b"[DONE]":
                self._finish_calls(out)
                self.done = self.whole = True
                return True
            chunk = _decode(data)
            if chunk.error is not None or sse.event == b"error":
                raise _reported(chunk.error, data)
            if not self._introduced:
                self._introduced = True
                out.append(ResponseInfo(model=chunk.model, provider_request_id=self._request_id))
            if chunk.choices:
                choice = chunk.choices[0]  # one was asked for
                if (delta := choice.delta) is not None:
                    if reasoning := delta.reasoning_content or delta.reasoning:
                        out.append(Reasoning(reasoning))
                    if delta.content:
                        out.append(Text(delta.content))
                    if delta.tool_calls:
                        self._gather(delta.tool_calls)
                if choice.finish_reason is not None:
                    self._finish_calls(out)
                    out.append(ResponseInfo(finish_reason=choice.finish_reason))
                    self.whole = True
            if (usage := chunk.usage) is not None:
                out.append(Usage(usage.prompt_tokens, usage.completion_tokens))
        return bool(events)

    def _gather(self, pieces: Sequence[_ToolCall]) -> None:
        for piece in pieces:
            index = piece.index
            if index is None:  # some servers send each call whole and unnumbered
                index = len(self._calls) if piece.id or not self._calls else len(self._calls) - 1
            call = self._calls.setdefault(index, _Call())
            call.id = call.id or piece.id or ""
            if piece.function is not None:
                call.name = call.name or piece.function.name or ""
                call.arguments.append(piece.function.arguments or "")

    def _finish_calls(self, out: list[ProviderEvent]) -> None:
        for _, call in sorted(self._calls.items()):
            out.append(ToolCall(call.id, call.name, "".join(call.arguments) or "{}"))
        self._calls.clear()


def _reported(error: Any, data: bytes) -> Exception:
    """The error for one that came inside the stream."""
    status: int | None = None
    code: Any = None
    if isinstance(error, dict):
        code = error.get("code")
        if isinstance(code, int) and 400 <= code < 600:
            status = code
        else:
            status = STATUS_OF_ERROR.get(str(code)) or STATUS_OF_ERROR.get(str(error.get("type")))
    failure = failures.midway(NAME, status, data[: failures.DETAIL_BYTES].decode("utf-8", "replace"))
    if code == "insufficient_quota":
        failure.retryable = False  # an empty account does not fill itself
    return failure


class OpenAI:
    """The provider ``openai``. Made by ``create``."""

    name = NAME

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession, root: str, key: str | None) -> None:
        self._config = config
        self._session = session
        self._key = key
        self._url = root + "/chat/completions"
        self._limit_name = "max_completion_tokens" if root == BASE_URL else "max_tokens"

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``.

        Raises:
            Unprocessable: at the call, before anything is sent: an unknown option, or no model.
        """
        options = http.read_options(request.options, Options, NAME)
        body: dict[str, Any] = {
            "model": http.choose_model(request, self._config, NAME),
            "messages": [{"role": "system", "content": text} for text in request.system] + http.prompt_of(request),
            "stream": True,
            "stream_options": {"include_usage": True},
            **msgspec.to_builtins(options),
        }
        body.pop("timeouts", None)
        if (limit := body.pop("max_tokens", None)) is not None:
            body[self._limit_name] = limit
        call = http.Call(
            provider=NAME,
            url=self._url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            body=_encode(body),
            timeouts=options.timeouts,
            secret=self._key,
        )
        return http.answer(self._session, call, lambda headers: ChatParser(headers.get("x-request-id")))


def create(config: ProviderConfig, session: aiohttp.ClientSession) -> OpenAI:
    """Make the provider. ``config.base_url`` is what ``OPENAI_BASE_URL`` means to the vendor's SDK: with ``/v1``.

    Raises:
        ConfigurationError: there is no key, and the base URL is the vendor's own.
    """
    key = (config.api_key or "").strip() or None
    root = http.root_of(config, BASE_URL, NAME)
    if key is None and root == BASE_URL:
        raise ConfigurationError("No API key for openai: set OPENAI_API_KEY.")
    return OpenAI(config, session, root, key)
