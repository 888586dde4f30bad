"""Providers by name. A new provider is one file beside this one and one line in ``MODULES``; a server that speaks
the wire of one that is there is one line in ``presets.py``.

A provider's module is imported when it is first asked for, so nobody pays for a wire they do not use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tailrace.errors import ConfigurationError, UnknownProvider
from tailrace.events import Json, ProviderEvent, ProviderState, Role, ToolCall, ToolResult
from tailrace.providers.presets import PRESETS

if TYPE_CHECKING:
    import aiohttp

MODULES: Mapping[str, str] = {
    "anthropic": "tailrace.providers.anthropic",
    "bedrock": "tailrace.providers.bedrock",
    "gemini": "tailrace.providers.gemini",
    "openai": "tailrace.providers.openai",
    "openai-responses": "tailrace.providers.openai_responses",
    "scripted": "tailrace.providers.scripted",
}


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image. Exactly one of ``data`` (base64 text) and ``url`` is given.

    Attributes:
        media_type: such as ``image/png``; may be empty with ``url``, where only some wires need it.
    """

    media_type: str = ""
    data: str | None = None
    url: str | None = None


class FilePart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """A file, such as a PDF. Exactly one of ``data`` (base64 text) and ``url`` is given."""

    media_type: str = ""
    data: str | None = None
    url: str | None = None
    name: str | None = None


InputPart = ImagePart | FilePart
"""What a user's message may have besides its text."""


class PromptMessage(msgspec.Struct, frozen=True):
    """One message of the prompt.

    The roles are ``user``, ``assistant`` and ``tool_result``. Each result has its call in the assistant's message
    right before, and each call has its result in the message right after.

    Attributes:
        content: its text; may be empty where there are parts, calls or results.
        parts: a user's images and files, in order.
        tool_calls: the calls that an assistant made, after its text.
        tool_results: what a ``tool_result`` message says, in the order of the calls.
        state: what the provider that answered wants back with the answer.
    """

    role: Role
    content: str
    parts: Sequence[InputPart] = ()
    tool_calls: Sequence[ToolCall] = ()
    tool_results: Sequence[ToolResult] = ()
    state: ProviderState | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function of the application that the model may call.

    Attributes:
        parameters: the JSON schema of its arguments, an object.
        strict: whether the provider is to hold the model to it; None leaves that to the provider.
    """

    name: str
    description: str | None = None
    parameters: Json = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None


class OutputSchema(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON schema that the answer's text is to match."""

    name: str
    schema: Json
    strict: bool = True


class ProviderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is asked. No form of it is a vendor's: each wire makes its own, so that another vendor can be
    asked the same.

    Attributes:
        model: the provider's name for the model, or None for the provider's default.
        system: system prompts, in order.
        messages: the history, oldest first, without system prompts.
        tools: what the model may call.
        tool_choice: ``auto``, ``none``, ``required`` or the name of a tool; None leaves it to the provider.
        schema: what the answer's text is to match.
        streamed: False asks for the answer in one body, without streaming; it is yielded as the same events, in one
            sequence. The last resort where a provider's streaming fails. A wire that cannot raises Unprocessable at
            the call.
        cache: whether the provider is to keep the prompt for the next turn, where it has to be asked for that. A
            conversation's first turn is not kept: many have no other.
        conversation: the same text for all turns of one, by which a provider may find what it has kept.
        options: ``max_tokens``, ``temperature``, ``timeouts`` and what else the caller gave, but for what is above.
            ``server_tools`` are tools that the provider itself runs, in the vendor's own shape, to be sent together
            with ``tools``; a wire that has none does not know this option.
    """

    model: str | None
    messages: Sequence[PromptMessage]
    system: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    tool_choice: str | None = None
    schema: OutputSchema | None = None
    streamed: bool = True
    cache: bool = True
    conversation: str | None = None
    options: Json = msgspec.field(default_factory=dict)


class Provider(Protocol):
    """A source of replies."""

    name: str

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """Yield what arrives, everything that one read of the socket brought in one sequence.

        Closing the generator closes the connection to the provider. It ends normally only when the
        provider said that its answer is whole.

        Raises:
            Unprocessable: at the call, before anything is sent: an option that it does not know, or no model.
            ProviderError: the provider refused, ended early, or sent what cannot be read.
            ContentFiltered: its filter refused or stopped the answer.
            ProviderTimeout: it was silent for too long; which limit that was, its subclass says.
        """
        ...


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is opened with.

    Attributes:
        name: the provider's name where it is not the wire's own, as a preset's; for errors, and ``Provider.name``.
        api_key: the key, or None where the provider needs none or there is none.
        base_url: the API's root as the vendor's own SDK takes it, or None for the vendor's default.
        default_model: used when a request names none.
        region: the AWS region, for a provider that is in one; None leaves it to the vendor's SDK.
    """

    name: str | None = None
    api_key: str | None = None
    base_url: str | None = None
    default_model: str | None = None
    region: str | None = None


async def connect(provider: Provider) -> None:
    """Open a provider's connection ahead of the first request, if it has a ``connect`` that does so."""
    opening = getattr(provider, "connect", None)
    if opening is not None:
        await opening()


def has_turns(request: ProviderRequest) -> bool:
    """Return whether it is a conversation's second turn or a later one."""
    return any(message.role == "assistant" for message in request.messages)


def names(own: Iterable[str] = ()) -> list[str]:
    """Return the names of all providers, with those of one's own."""
    return sorted({*MODULES, *PRESETS, *own})


def check_name(name: str, own: Iterable[str] = ()) -> str:
    """Return ``name`` if it is a provider's.

    Raises:
        UnknownProvider: it is not; the message names those that are.
    """
    known = names(own)
    if name not in known:
        raise UnknownProvider(f"Unknown provider {name[:64]!r}. Known providers: {', '.join(known)}.")
    return name


class Variables(msgspec.Struct, frozen=True):
    """Where the environment has what a provider needs, as its vendor's own SDK looks for it.

    Attributes:
        keys: the names its key may have; the first is the usual one.
        base_url: the name of another root than the default.
    """

    keys: tuple[str, ...]
    base_url: str


VARIABLES: Mapping[str, Variables] = {
    "azure": Variables(("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"), "AZURE_OPENAI_BASE_URL"),
    "bedrock": Variables((), "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),  # and the credentials of the function's own role
    "gemini": Variables(("GEMINI_API_KEY", "GOOGLE_API_KEY"), "GOOGLE_GEMINI_BASE_URL"),
    "openai-responses": Variables(("OPENAI_API_KEY",), "OPENAI_BASE_URL"),
    "scripted": Variables((), ""),
}
"""Those that are not ``<NAME>_API_KEY`` and ``<NAME>_BASE_URL``."""


def variables(name: str) -> Variables:
    """Return the environment variables of the provider of this name."""
    usual = Variables((f"{name.upper()}_API_KEY",), f"{name.upper()}_BASE_URL")
    return VARIABLES.get(name, usual)


def open_provider(name: str, config: ProviderConfig, session: aiohttp.ClientSession) -> Provider:
    """Import the provider's module and make the provider. Every provider module has ``create(config, session)``.

    Raises:
        UnknownProvider: no such name.
        ConfigurationError: the provider needs a key and there is none.
    """
    check_name(name)
    if (preset := PRESETS.get(name)) is not None:
        config = msgspec.structs.replace(config, name=name, base_url=config.base_url or preset.base_url)
        if preset.key_variable is not None and not config.api_key:
            raise ConfigurationError(f"No API key for {name}: set {preset.key_variable}.")
        if not config.base_url:
            raise ConfigurationError(f"There is no address for {name}: set {variables(name).base_url}.")
    provider: Provider = import_provider(name).create(config, session)
    return provider


def import_provider(name: str) -> Any:
    """Return the module of a provider, imported when it is first asked for."""
    return import_module(MODULES[PRESETS[name].wire if name in PRESETS else name])
