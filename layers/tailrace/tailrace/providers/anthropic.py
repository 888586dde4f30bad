"""Anthropic's Messages API, streamed (https://docs.anthropic.com/en/api/messages-streaming).

Token counts are the vendor's own: ``prompt_tokens`` is ``input_tokens``, without what came from the cache.
``max_tokens`` is required by this wire; where nobody gave one it is 4,096, which every model allows.
Thinking becomes ``Reasoning``; signatures, citations and the results of server tools are not passed on.
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

NAME = "anthropic"
BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
"""The vendor keeps a version as it is (https://platform.claude.com/docs/en/api/versioning). The newer one, 2026-10-21,
which its SDK 2.x speaks, refuses ``temperature``, ``top_p`` and ``top_k``; our callers may give them."""
MAX_TOKENS = 4096

STATUS_OF_ERROR: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that an error inside the stream would have had before it (https://docs.anthropic.com/en/api/errors)."""


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``. ``stop`` is sent as ``stop_sequences``, the rest by its name
    and as it is; tools have the vendor's own shape."""

    max_tokens: int = MAX_TOKENS
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    timeouts: Timeouts = Timeouts()


# ---- the wire: only what we read of it, one struct for all events, so that each is decoded once -----------------


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Message(msgspec.Struct, gc=False):
    model: str | None = None
    usage: _Usage | None = None


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str | None = None
    thinking: str | None = None
    input: Any = None


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    message: _Message | None = None
    content_block: _Block | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.encode


class MessagesParser:
    """One answer. Implements ``http.Parser``.

    Args:
        request_id: what the response's ``request-id`` header said.
    """

    def __init__(self, request_id: str | None = None) -> None:
        self.done = self.whole = False
        self._request_id = request_id
        self._tools: dict[int, tuple[_Block, list[str]]] = {}

    def feed(self, events: Sequence[ServerSentEvent], out: list[ProviderEvent]) -> bool:
        """See ``http.Parser``. Events of a type not known here are ignored, as the vendor asks of its clients."""
        pings = 0
        for sse in events:
            event = _decode(sse.data)
            kind = event.type
            if kind == "content_block_delta":
                if (delta := event.delta) is None:
                    continue
                if delta.text:
                    out.append(Text(delta.text))
                elif delta.thinking:
                    out.append(Reasoning(delta.thinking))
                elif delta.partial_json and event.index in self._tools:
                    self._tools[event.index][1].append(delta.partial_json)
            elif kind == "ping":
                pings += 1
            elif kind == "message_stop":
                self.done = self.whole = True
                return True
            else:
                self._rare(event, kind, out)
        return len(events) > pings

    def _rare(self, event: _Event, kind: str, out: list[ProviderEvent]) -> None:
        if kind == "content_block_start" and (block := event.content_block) is not None:
            if block.type == "tool_use":
                self._tools[event.index] = (block, [])
            elif block.text:
                out.append(Text(block.text))
            elif block.thinking:
                out.append(Reasoning(block.thinking))
        elif kind == "content_block_stop" and event.index in self._tools:
            block, pieces = self._tools.pop(event.index)
            # A tool without arguments may send no delta; what it has is then in the block's beginning.
            out.append(ToolCall(block.id, block.name, "".join(pieces) or _encode(block.input or {}).decode()))
        elif kind == "message_start" and (message := event.message) is not None:
            out.append(ResponseInfo(model=message.model, provider_request_id=self._request_id))
            if message.usage is not None and message.usage.input_tokens is not None:
                # Its output_tokens are left alone: a count of 1 or so, wrong for whoever is cut off after it.
                out.append(Usage(prompt_tokens=message.usage.input_tokens))
        elif kind == "message_delta":
            if event.usage is not None:
                out.append(Usage(event.usage.input_tokens, event.usage.output_tokens))
            if event.delta is not None and event.delta.stop_reason is not None:
                out.append(ResponseInfo(finish_reason=event.delta.stop_reason))
        elif kind == "error":
            status = STATUS_OF_ERROR.get(str(event.error.get("type"))) if isinstance(event.error, dict) else None
            detail = _encode(event.error)[: failures.DETAIL_BYTES].decode("utf-8", "replace")
            raise failures.midway(NAME, status, detail)


class Anthropic:
    """The provider ``anthropic``. Made by ``create``."""

    name = NAME

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession, key: str) -> None:
        self._config = config
        self._session = session
        self._key = key
        self._url = http.root_of(config, BASE_URL, NAME) + "/v1/messages"

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``.

        Raises:
            Unprocessable: at the call, before anything is sent: an unknown option, or no model.
        """
        options = http.read_options(request.options, Options, NAME)
        body: dict[str, Any] = {
            "model": http.choose_model(request, self._config, NAME),
            "max_tokens": options.max_tokens,
            "messages": http.prompt_of(request),
            "stream": True,
            **msgspec.to_builtins(options),
        }
        body.pop("timeouts", None)
        if (stop := body.pop("stop", None)) is not None:
            body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if request.system:
            body["system"] = [{"type": "text", "text": text} for text in request.system]
        call = http.Call(
            provider=NAME,
            url=self._url,
            headers={"x-api-key": self._key, "anthropic-version": VERSION},
            body=_encode(body),
            timeouts=options.timeouts,
            secret=self._key,
        )
        return http.answer(self._session, call, lambda headers: MessagesParser(headers.get("request-id")))


def create(config: ProviderConfig, session: aiohttp.ClientSession) -> Anthropic:
    """Make the provider. ``config.base_url`` is what ``ANTHROPIC_BASE_URL`` means to the vendor's SDK: without ``/v1``.

    Raises:
        ConfigurationError: there is no key.
    """
    key = (config.api_key or "").strip()
    if not key:
        raise ConfigurationError("No API key for anthropic: set ANTHROPIC_API_KEY.")
    return Anthropic(config, session, key)
