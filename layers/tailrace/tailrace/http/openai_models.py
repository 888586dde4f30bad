"""The models that OpenAI's SDKs may ask: ``GET /v1/models`` and ``GET /v1/models/{model}``."""

from __future__ import annotations

from typing import Any

from tailrace.backend import Backend
from tailrace.errors import ConfigurationError, NotFound
from tailrace.http.allowed import is_allowed, is_any_allowed
from tailrace.http.openai_errors import respond_error
from tailrace.http.requests import Receive, Scope, Send
from tailrace.http.responses import respond_json
from tailrace.providers import variables
from tailrace.providers.presets import PRESETS

__all__ = ["choose", "get_model", "get_models", "respond_error"]


async def get_models(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Return what may be asked: the default, providers with a key, and servers without one whose address is set."""
    await backend.identify(scope)
    settings = backend.settings
    found = [f"{settings.provider}/{settings.model}" if settings.model else settings.provider]
    for name in backend.provider_names():
        if name in backend.own_providers and name != settings.provider:
            found.append(name)
            continue
        needs_none = name in PRESETS and PRESETS[name].key_variable is None
        is_named = bool(settings.provider_config(name).base_url) if needs_none else bool(variables(name).keys)
        if name != settings.provider and is_named and await _is_set_up(backend, name):
            found.append(name)
    found = [name for name in found if is_any_allowed(settings.allow, name.partition("/")[0])]
    await respond_json(send, 200, {"object": "list", "data": [_model(backend, each) for each in found]})


async def get_model(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Return one that may be asked, under the name that it was asked for. Which models a provider has is not known
    here: any of one that is set up is passed on to it.

    Raises:
        NotFound: its provider is not set up, or it may not be asked here.
    """
    await backend.identify(scope)
    name = scope["path_params"]["model"]
    provider, model = choose(backend, name)
    allow = backend.settings.allow
    if allow is not None and model is not None and not is_allowed(allow, provider, model):
        raise NotFound("No such model: it may not be asked here.")
    if not is_any_allowed(allow, provider) or not await _is_set_up(backend, provider):
        raise NotFound("No such model: its provider is not set up.")
    await respond_json(send, 200, _model(backend, name))


def choose(backend: Backend, model: str) -> tuple[str, str | None]:
    """Return the provider and its model that a name means: ``provider/model``, a provider alone, or a model of the
    default provider's."""
    provider, slash, rest = model.partition("/")
    if provider in backend.provider_names() and (slash or provider == model):
        return provider, rest or None
    return backend.settings.provider, model


async def _is_set_up(backend: Backend, provider: str) -> bool:
    """Whether a provider has all that it needs, wherever its key lies."""
    try:
        await backend.provider(provider)
    except ConfigurationError:
        return False
    return True


def _model(backend: Backend, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": choose(backend, name)[0]}
