"""The wire formats of readers, one file each, and server-sent events themselves.

Another one is a file with a ``ReaderProtocol`` and its line in ``PROTOCOLS``; live, replay and poll then have it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from tailrace.errors import RequestError

if TYPE_CHECKING:
    from tailrace.protocols.reader import ReaderProtocol

PROTOCOLS: Final[dict[str, str]] = {
    "simple": "tailrace.protocols.simple:SimpleProtocol",
    "ai_sdk": "tailrace.protocols.ai_sdk:AiSdkProtocol",
    "openai_chat": "tailrace.protocols.openai_chat:OpenAIChatProtocol",
    "ag_ui": "tailrace.protocols.ag_ui:AgUiProtocol",
    "openai_responses": "tailrace.protocols.openai_responses:OpenAIResponsesProtocol",
}
"""Where the class of each is; it is imported when a reader asks for it."""

DEFAULT: Final = "simple"


def find_protocol(name: str) -> type[ReaderProtocol]:
    """Return what encodes a reply in the wire format of this name.

    Raises:
        RequestError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise RequestError(f"protocol must be one of: {', '.join(PROTOCOLS)}.")
    module, _, attribute = PROTOCOLS[name].partition(":")
    return cast("type[ReaderProtocol]", getattr(import_module(module), attribute))
