"""OpenAI's chat completions, and the many servers that speak the same wire: vLLM, Ollama, OpenRouter, and the others
of ``presets.py``.

A server needs no key, where ``base_url`` is not the vendor's own and no preset says so. What else differs in what
they take is in ``DIALECTS``; what differs in what they answer, ``openai_parser.py`` knows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from tailrace.aws.sessions import open_connection
from tailrace.errors import ConfigurationError
from tailrace.events import ProviderEvent
from tailrace.providers import ProviderConfig, ProviderRequest, http, question
from tailrace.providers.openai_parser import ChatParser
from tailrace.providers.openai_prompt import messages_of, response_format_of, tool_choice_of, tools_of
from tailrace.providers.presets import PRESETS
from tailrace.providers.timeouts import Timeouts
from tailrace.providers.tolerant import header

NAME = "openai"
BASE_URL = "https://api.openai.com/v1"

_encode = msgspec.json.encode


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``; sent by its name (but see ``Dialect``) and as it is."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    timeouts: Timeouts = Timeouts()


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What a server calls some options.

    Attributes:
        limit: ``max_tokens``. The vendor's newer models refuse this name, others may not know the new one.
        seed: ``seed``.
        asks_for_usage: whether usage must be asked for; otherwise it comes unasked.
    """

    limit: str = "max_tokens"
    seed: str = "seed"
    asks_for_usage: bool = True


DIALECTS: Mapping[str, Dialect] = {
    "azure": Dialect(limit="max_completion_tokens"),
    "groq": Dialect(limit="max_completion_tokens"),
    # It refuses what it does not know: https://github.com/avante-corp/avante.nvim/issues/2347
    "mistral": Dialect(seed="random_seed", asks_for_usage=False),
}
"""By the name of the preset, those that are not as most are."""


class OpenAI:
    """The provider ``openai`` and those of the presets. Made by ``create``."""

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession, root: str, key: str | None) -> None:
        self.name = config.name or NAME
        self._config = config
        self._session = session
        self._key = key
        self._url = root + "/chat/completions"
        self._is_vendor = root == BASE_URL or self.name == "azure"
        own = Dialect(limit="max_completion_tokens") if root == BASE_URL else Dialect()
        self._dialect = DIALECTS.get(self.name, own)

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
        call = http.Call(
            provider=self.name,
            url=self._url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            body=_encode(self._body(request, options)),
            timeouts=options.timeouts,
            secret=self._key,
            streamed=request.streamed,
        )
        return http.answer(self._session, call, lambda headers: ChatParser(header(headers, "x-request-id"), self.name))

    def _body(self, request: ProviderRequest, options: Options) -> dict[str, Any]:
        dialect = self._dialect
        body: dict[str, Any] = {
            "model": question.choose_model(request, self._config, self.name),
            "messages": messages_of(request, self.name),
            "stream": request.streamed,
            **msgspec.to_builtins(options),
        }
        body.pop("timeouts", None)
        for option, name in (("max_tokens", dialect.limit), ("seed", dialect.seed)):
            if option in body:
                body[name] = body.pop(option)
        if request.streamed and dialect.asks_for_usage:
            body["stream_options"] = {"include_usage": True}
        if self._is_vendor and request.cache and request.conversation is not None:
            body["prompt_cache_key"] = request.conversation
        if request.tools:
            body["tools"] = tools_of(request)
            if request.tool_choice is not None:
                body["tool_choice"] = tool_choice_of(request.tool_choice)
        if request.schema is not None:
            body["response_format"] = response_format_of(request.schema)
        return body


def create(config: ProviderConfig, session: aiohttp.ClientSession) -> OpenAI:
    """Make the provider. ``config.base_url`` is what ``OPENAI_BASE_URL`` means to the vendor's SDK: with ``/v1``.

    Raises:
        ConfigurationError: there is no key, and the base URL is the vendor's own or a preset that needs one.
    """
    name = config.name or NAME
    key = (config.api_key or "").strip() or None
    root = question.root_of(config, BASE_URL, name)
    preset = PRESETS.get(name)
    variable = "OPENAI_API_KEY" if preset is None else preset.key_variable
    if key is None and variable is not None and root == (BASE_URL if preset is None else preset.base_url):
        raise ConfigurationError(f"No API key for {name}: set {variable}.")
    return OpenAI(config, session, root, key)
