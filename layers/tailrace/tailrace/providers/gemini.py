"""Google's Gemini API (https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from tailrace.aws.sessions import open_connection
from tailrace.errors import ConfigurationError
from tailrace.events import ProviderEvent
from tailrace.providers import ProviderConfig, ProviderRequest, http, question
from tailrace.providers.gemini_parser import GeminiParser
from tailrace.providers.gemini_prompt import contents_of, tool_config_of, tools_of
from tailrace.providers.timeouts import Timeouts

NAME = "gemini"
BASE_URL = "https://generativelanguage.googleapis.com"
VERSION = "v1"
"""What the vendor's own SDK asks since its version 3. A base URL may end in another, such as ``/v1beta``."""

_encode = msgspec.json.encode


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``.

    Attributes:
        thinking_config: such as ``{"includeThoughts": true}``, without which the thoughts are not told.
        safety_settings: the vendor's.
        server_tools: tools of the vendor's own, such as ``{"googleSearch": {}}``.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    thinking_config: dict[str, Any] | None = None
    safety_settings: list[dict[str, Any]] = []
    server_tools: list[dict[str, Any]] = []
    timeouts: Timeouts = Timeouts()


class Gemini:
    """The provider ``gemini``. Made by ``create``."""

    def __init__(self, config: ProviderConfig, session: aiohttp.ClientSession, key: str) -> None:
        self.name = config.name or NAME
        self._config = config
        self._session = session
        self._key = key
        root = question.root_of(config, BASE_URL, self.name)
        self._root = root if re.search(r"/v\d\w*$", root) else f"{root}/{VERSION}"

    async def connect(self) -> None:
        """See ``providers.connect``."""
        await open_connection(self._session, self._root)

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``.

        Raises:
            Unprocessable: at the call, before anything is sent: an unknown option, or no model.
        """
        options = question.read_options(request.options, Options, self.name)
        model = question.choose_model(request, self._config, self.name)
        method = "streamGenerateContent?alt=sse" if request.streamed else "generateContent"
        call = http.Call(
            provider=self.name,
            url=f"{self._root}/{_path_of(model)}:{method}",
            headers={"x-goog-api-key": self._key},
            body=_encode(_body(request, options, model, self.name)),
            timeouts=options.timeouts,
            secret=self._key,
            streamed=request.streamed,
        )
        return http.answer(self._session, call, lambda _: GeminiParser(self.name))


def _path_of(model: str) -> str:
    """The model's place: names like ``models/x`` and ``tunedModels/x`` have theirs in them. A caller chooses the model,
    and shall not choose another method by it."""
    kind, _, name = model.partition("/")
    if kind not in ("models", "tunedModels"):
        kind, name = "models", model
    return f"{kind}/{quote(name, safe='')}"


def _body(request: ProviderRequest, options: Options, model: str, provider: str) -> dict[str, Any]:
    generation: dict[str, Any] = {
        "maxOutputTokens": options.max_tokens,
        "temperature": options.temperature,
        "topP": options.top_p,
        "topK": options.top_k,
        "stopSequences": [options.stop] if isinstance(options.stop, str) else options.stop,
        "seed": options.seed,
        "frequencyPenalty": options.frequency_penalty,
        "presencePenalty": options.presence_penalty,
        "thinkingConfig": options.thinking_config,
    }
    if request.schema is not None:
        generation |= {"responseMimeType": "application/json", "responseJsonSchema": request.schema.schema}
    generation = {name: value for name, value in generation.items() if value is not None}
    body: dict[str, Any] = {"contents": contents_of(request, model, provider)}
    if request.system:
        body["systemInstruction"] = {"parts": [{"text": text} for text in request.system]}
    if generation:
        body["generationConfig"] = generation
    if tools := [*tools_of(request), *options.server_tools]:
        body["tools"] = tools
        if request.tools and request.tool_choice is not None:
            body["toolConfig"] = tool_config_of(request.tool_choice)
    if options.safety_settings:
        body["safetySettings"] = options.safety_settings
    return body


def create(config: ProviderConfig, session: aiohttp.ClientSession) -> Gemini:
    """Make the provider. ``config.base_url`` is what ``GOOGLE_GEMINI_BASE_URL`` means to the vendor's SDK, which is
    without a version; but see ``VERSION``.

    Raises:
        ConfigurationError: there is no key.
    """
    name = config.name or NAME
    key = (config.api_key or "").strip()
    if not key:
        raise ConfigurationError(f"No API key for {name}: set GEMINI_API_KEY.")
    return Gemini(config, session, key)
