"""The wire formats of readers, one file each, and server-sent events themselves.

Another one is a file with a ``ReaderProtocol`` and its line in ``PROTOCOLS``; live, replay and poll then have it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from tailrace.errors import RequestError

if TYPE_CHECKING:
    from tailrace.delivery import Progress
    from tailrace.protocols.reader import ReaderProtocol

PROTOCOLS: Final[dict[str, str]] = {
    "simple": "tailrace.protocols.simple:SimpleProtocol",
}
"""Where the class of each is; it is imported when a reader asks for it."""

DEFAULT: Final = "simple"


def open_protocol(
    name: str, message_id: str, progress: Progress | None, monotonic: Callable[[], float]
) -> ReaderProtocol:
    """Return what encodes one reply for one reader; the arguments after the name are ``ReaderProtocol``'s.

    Raises:
        RequestError: there is no protocol of that name.
    """
    check_protocol(name)
    module, _, attribute = PROTOCOLS[name].partition(":")
    made = cast("Callable[..., ReaderProtocol]", getattr(import_module(module), attribute))
    return made(message_id, progress, monotonic)


def check_protocol(name: str) -> None:
    """Pass if there is a protocol of that name.

    Raises:
        RequestError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise RequestError(f"protocol must be one of: {', '.join(PROTOCOLS)}.")
