"""Providers by name. A new provider is one file beside this one and one line in ``MODULES``.

A provider's module is imported when it is first asked for, so nobody pays for a wire they do not use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tailrace.errors import UnknownProvider
from tailrace.events import Json, ProviderEvent, Role

if TYPE_CHECKING:
    import aiohttp

MODULES: Mapping[str, str] = {
    "anthropic": "tailrace.providers.anthropic",
    "openai": "tailrace.providers.openai",
    "scripted": "tailrace.providers.scripted",
}


class PromptMessage(msgspec.Struct, frozen=True):
    """One message of the prompt."""

    role: Role
    content: str


class ProviderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is asked.

    Attributes:
        model: the provider's name for the model, or None for the provider's default.
        system: system prompts, in order.
        messages: the history, oldest first, without system prompts.
        options: ``max_tokens``, ``temperature`` and what else the caller gave.
    """

    model: str | None
    messages: Sequence[PromptMessage]
    system: Sequence[str] = ()
    options: Json = msgspec.field(default_factory=dict)


class Provider(Protocol):
    """A source of replies."""

    name: str

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """Yield what arrives, everything that one read of the socket brought in one sequence.

        Closing the generator closes the connection to the provider. It ends normally only when the
        provider said that its answer is whole.

        Raises:
            ProviderError: the provider refused, ended early, or sent what cannot be read.
            ProviderTimeout: it was silent for too long.
        """
        ...


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is opened with.

    Attributes:
        api_key: the key, or None where the provider needs none.
        base_url: the API's root as the vendor's own SDK takes it, or None for the vendor's default.
        default_model: used when a request names none.
    """

    api_key: str | None = None
    base_url: str | None = None
    default_model: str | None = None


def check_name(name: str) -> str:
    """Return ``name`` if it is a provider's.

    Raises:
        UnknownProvider: it is not; the message names those that are.
    """
    if name not in MODULES:
        raise UnknownProvider(f"Unknown provider {name[:64]!r}. Known providers: {', '.join(sorted(MODULES))}.")
    return name


def open_provider(name: str, config: ProviderConfig, session: aiohttp.ClientSession) -> Provider:
    """Import the provider's module and make the provider. Every provider module has ``create(config, session)``.

    Raises:
        UnknownProvider: no such name.
        ConfigurationError: the provider needs a key and there is none.
    """
    module: Any = import_module(MODULES[check_name(name)])
    provider: Provider = module.create(config, session)
    return provider
