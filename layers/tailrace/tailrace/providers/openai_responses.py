"""OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses/create).

Nothing is kept at the vendor's (``store`` is false): the conversation is ours. So the model's reasoning does not
reach its next answer; what it said does.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import aiohttp
import msgspec

from tailrace.aws.sessions import open_connection
from tailrace.errors import ConfigurationError
from tailrace.events import ProviderEvent
from tailrace.providers import ProviderConfig, ProviderRequest, http, question
from tailrace.providers.responses_parser import ResponsesParser
from tailrace.providers.responses_prompt import input_of, tool_choice_of, tools_of
from tailrace.providers.timeouts import Timeouts
from tailrace.providers.tolerant import header

NAME = "openai-responses"
BASE_URL = "https://api.openai.com/v1"

ENCRYPTED = "reasoning.encrypted_content"
THINKING = re.compile(r"(?:o\d|codex|gpt-(?:[5-9]|\d\d)(?!-chat))")
"""The names of models that think."""

_encode = msgspec.json.encode


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``.

    Attributes:
        reasoning_effort: such as ``low``.
        reasoning_summary: such as ``auto``; without it the model's reasoning is not told.
        include: what else the vendor is to tell, such as ``web_search_call.action.sources``.
        server_tools: tools of the vendor's own, such as ``{"type": "web_search"}``.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    reasoning_summary: str | None = None
    parallel_tool_calls: bool | None = None
    include: list[str] = []
    server_tools: list[dict[str, Any]] = []
    timeouts: Timeouts = Timeouts()


class Responses:
    """The provider ``openai-responses``. Made by ``create``."""

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession, root: str, key: str | None) -> None:
        self.name = config.name or NAME
        self._config = config
        self._session = session
        self._key = key
        self._url = root + "/responses"

    async def connect(self) -> None:
        """See ``providers.connect``."""
        await open_connection(self._session, self._url)

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``.

        Raises:
            Unprocessable: at the call, before anything is sent: an unknown option, or no model.
        """
        options = question.read_options(request.options, Options, self.name)
        call = http.Call(
            provider=self.name,
            url=self._url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            body=_encode(self._body(request, options)),
            timeouts=options.timeouts,
            secret=self._key,
            streamed=request.streamed,
        )
        return http.answer(
            self._session, call, lambda headers: ResponsesParser(header(headers, "x-request-id"), self.name)
        )

    def _body(self, request: ProviderRequest, options: Options) -> dict[str, Any]:
        model = question.choose_model(request, self._config, self.name)
        reasoning = {"effort": options.reasoning_effort, "summary": options.reasoning_summary}
        given: dict[str, Any] = {
            "instructions": "\n\n".join(request.system) or None,
            "max_output_tokens": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "reasoning": {name: value for name, value in reasoning.items() if value is not None} or None,
            "parallel_tool_calls": options.parallel_tool_calls,
            "prompt_cache_key": request.conversation if request.cache else None,
            "include": _include(options, model) or None,
        }
        if tools := [*tools_of(request), *options.server_tools]:
            given["tools"] = tools
            if request.tool_choice is not None:
                given["tool_choice"] = tool_choice_of(request.tool_choice)
        if (schema := request.schema) is not None:
            shape = {"type": "json_schema", "name": schema.name, "schema": schema.schema, "strict": schema.strict}
            given["text"] = {"format": shape}
        return {
            "model": model,
            "input": input_of(request, self.name),
            "stream": request.streamed,
            "store": False,
            **{name: value for name, value in given.items() if value is not None},
        }


def _include(options: Options, model: str) -> list[str]:
    """What the vendor is to tell beside the answer: a thinking model its thoughts, encrypted, since it does not store
    them (https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items). Others refuse that."""
    thinks = options.reasoning_effort or options.reasoning_summary or THINKING.match(model)
    return [*options.include, *([ENCRYPTED] if thinks and ENCRYPTED not in options.include else [])]


def create(config: ProviderConfig, session: aiohttp.ClientSession) -> Responses:
    """Make the provider. ``config.base_url`` is what ``OPENAI_BASE_URL`` means to the vendor's SDK: with ``/v1``.

    Raises:
        ConfigurationError: there is no key, and the base URL is the vendor's own.
    """
    name = config.name or NAME
    key = (config.api_key or "").strip() or None
    root = question.root_of(config, BASE_URL, name)
    if key is None and root == BASE_URL:
        raise ConfigurationError(f"No API key for {name}: set OPENAI_API_KEY.")
    return Responses(config, session, root, key)
