"""Anthropic's Messages API, streamed (https://platform.claude.com/docs/en/build-with-claude/streaming).

``max_tokens`` is required by this wire; where nobody gave one it is 4,096, which every model allows.
The model's signed thinking is sent back where it stood, which the vendor insists on in the midst of a turn with tools.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import aiohttp
import msgspec

from tailrace.aws.sessions import open_connection
from tailrace.errors import ConfigurationError
from tailrace.events import ProviderEvent
from tailrace.providers import ProviderConfig, ProviderRequest, failures, has_turns, http, question
from tailrace.providers.anthropic_parser import MessagesParser, SoFar
from tailrace.providers.anthropic_prompt import messages_of, tool_choice_of, tools_of
from tailrace.providers.timeouts import Timeouts
from tailrace.providers.tolerant import header

NAME = "anthropic"
_encode = msgspec.json.encode

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
"""The vendor keeps a version as it is (https://platform.claude.com/docs/en/api/versioning). The newer one, 2026-10-21,
which its SDK 2.x speaks, refuses ``temperature``, ``top_p`` and ``top_k``; our callers may give them."""
MAX_TOKENS = 4096
MOST_PAUSES = 20
"""How often an answer may be paused; the vendor's own tools are called ten times in each part of it."""


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``.

    Attributes:
        citations: whether the model is to cite the files of the input.
        server_tools: tools of the vendor's own, such as ``{"type": "web_search_20250305", "name": "web_search"}``.
    """

    max_tokens: int = MAX_TOKENS
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    thinking: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    citations: bool = False
    server_tools: list[dict[str, Any]] = []
    timeouts: Timeouts = Timeouts()


PLAIN = ("temperature", "top_p", "top_k", "thinking")
"""The options that are sent by their own name and as they are."""


class Anthropic:
    """The provider ``anthropic``. Made by ``create``."""

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession, key: str) -> None:
        self.name = config.name or NAME
        self._config = config
        self._session = session
        self._key = key
        self._url = question.root_of(config, BASE_URL, self.name) + "/v1/messages"

    async def connect(self) -> None:
        """See ``providers.connect``."""
        await open_connection(self._session, self._url)

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``.

        Raises:
            Unprocessable: at the call, before anything is sent: an unknown option, no model, or a part of the input
                that this wire has no form for.
        """
        options = question.read_options(request.options, Options, self.name)
        return self._answer(self._body(request, options), options)

    async def _answer(self, body: dict[str, Any], options: Options) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """Yield an answer; one that the vendor pauses, since its own tools take long, goes on by itself
        (https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons#pause-turn)."""
        so_far = SoFar(pauses=bool(options.server_tools))
        messages = body["messages"]
        for _ in range(MOST_PAUSES):
            call = http.Call(
                provider=self.name,
                url=self._url,
                headers={"x-api-key": self._key, "anthropic-version": VERSION},
                body=_encode(body),
                timeouts=options.timeouts,
                secret=self._key,
                streamed=body["stream"],
            )
            so_far.begin()
            answer = http.answer(
                self._session, call, lambda headers: MessagesParser(header(headers, "request-id"), self.name, so_far)
            )
            async with aclosing(answer) as source:
                async for events in source:
                    yield events
            if not so_far.is_paused:
                return
            body = {**body, "messages": [*messages, {"role": "assistant", "content": so_far.blocks}]}
        raise failures.ended_early(self.name, f"paused {MOST_PAUSES} times")

    def _body(self, request: ProviderRequest, options: Options) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": question.choose_model(request, self._config, self.name),
            "max_tokens": options.max_tokens,
            "messages": messages_of(request, self.name, citations=options.citations),
            "stream": request.streamed,
        }
        body |= {name: value for name in PLAIN if (value := getattr(options, name)) is not None}
        if options.stop is not None:
            body["stop_sequences"] = [options.stop] if isinstance(options.stop, str) else options.stop
        if request.system:
            body["system"] = [{"type": "text", "text": text} for text in request.system]
        if tools := [*tools_of(request), *options.server_tools]:
            body["tools"] = tools
            if (choice := tool_choice_of(request.tool_choice, options.parallel_tool_calls)) is not None:
                body["tool_choice"] = choice
        if request.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": request.schema.schema}}
        if request.cache and has_turns(request):
            _keep(body)
        return body


def _keep(body: dict[str, Any]) -> None:
    """Ask the vendor to keep the prompt up to its end, and up to the system prompt's, for five minutes
    (https://platform.claude.com/docs/en/build-with-claude/prompt-caching). What is too short for that it ignores."""
    last = body["messages"][-1]
    if isinstance(last["content"], str):
        last["content"] = [{"type": "text", "text": last["content"]}]
    for blocks in (last["content"], body.get("system")):
        if blocks:
            blocks[-1] = {**blocks[-1], "cache_control": {"type": "ephemeral"}}


def create(config: ProviderConfig, session: aiohttp.ClientSession) -> Anthropic:
    """Make the provider. ``config.base_url`` is what ``ANTHROPIC_BASE_URL`` means to the vendor's SDK: without ``/v1``.

    Raises:
        ConfigurationError: there is no key.
    """
    key = (config.api_key or "").strip()
    if not key:
        raise ConfigurationError("No API key for anthropic: set ANTHROPIC_API_KEY.")
    return Anthropic(config, session, key)
