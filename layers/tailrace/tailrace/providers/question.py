"""What all wires need to make a question: its options, its model, and the pieces each vendor spells its own way."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, TypeVar

import msgspec

from tailrace.errors import ConfigurationError, Unprocessable
from tailrace.events import Json, ToolCall
from tailrace.providers import InputPart, ProviderConfig, ProviderRequest

Options = TypeVar("Options", bound=msgspec.Struct)


def read_options(options: Json, shape: type[Options], provider: str) -> Options:
    """``options`` as the wire's own struct, before anything is sent.

    Raises:
        Unprocessable: an option that the provider does not have, or of the wrong type; the message names it.
    """
    try:
        return msgspec.convert(options, shape)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"Bad options for {provider}: {str(error)[:200]}.") from error


def choose_model(request: ProviderRequest, config: ProviderConfig, provider: str) -> str:
    """The request's model, or the configured one.

    Raises:
        Unprocessable: neither names one.
    """
    model = request.model or config.default_model
    if not model:
        raise Unprocessable(f"No model was named, and there is no default model for {provider}.")
    return model


def root_of(config: ProviderConfig, default: str, provider: str) -> str:
    """The API's root, without a slash at its end.

    Raises:
        ConfigurationError: it is no HTTP address.
    """
    root = (config.base_url or default).strip().rstrip("/")
    if not root.startswith(("https://", "http://")):
        raise ConfigurationError(f"The base URL for {provider} must begin with https:// or http://.")
    return root


def data_url(part: InputPart) -> str:
    """The part's address: its own, or its data as one (RFC 2397)."""
    return part.url or f"data:{part.media_type};base64,{part.data or ''}"


def data_of(part: InputPart, provider: str) -> bytes:
    """The part's data, decoded.

    Raises:
        Unprocessable: it is not base64.
    """
    try:
        return base64.b64decode(part.data or "", validate=True)
    except binascii.Error as error:
        raise Unprocessable(f"A part of the input for {provider} has data that is not base64.") from error


def text_of(part: InputPart, provider: str) -> str:
    """The text of a file that is text.

    Raises:
        Unprocessable: it is not base64 of UTF-8.
    """
    try:
        return data_of(part, provider).decode()
    except UnicodeDecodeError as error:
        raise Unprocessable(f"A text file in the input for {provider} is not UTF-8.") from error


def unable(provider: str, what: str) -> Unprocessable:
    """The refusal of what this provider has no form for: ``what`` is the object of "takes"."""
    return Unprocessable(f"The provider {provider} takes no {what}.")


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call in the history, for the wires that want an object. What a model once wrote may not be
    one; then it is the one member of an object, so that the model can see what it did."""
    try:
        value = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        value = call.arguments
    return value if isinstance(value, dict) else {"arguments": value}


def tool_id(given: str) -> str:
    """A tool call's id as Anthropic and Bedrock allow it (letters, digits, ``_`` and ``-``, 64 at most): another
    vendor's may have other characters, such as Kimi's ``functions.name:0``."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", given)[-64:]
