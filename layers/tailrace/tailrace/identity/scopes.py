"""Which scope a token must have for a request (https://www.rfc-editor.org/rfc/rfc6750#section-3.1). Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from tailrace.errors import InsufficientScope

CONNECTING = ("GET", "/ws")
CHATTING = ("POST", "/api/chat")
"""As what a WebSocket's connection and its chats count: method and path."""


def check_scope(rules: Sequence[tuple[str, str]], scopes: Collection[str], method: str, path: str) -> None:
    """Let a token through that has the scope which its request needs, or needs none.

    Args:
        rules: patterns of requests, such as ``GET /messages/*``, and a scope each; the first that fits counts.
        scopes: of the token.

    Raises:
        InsufficientScope: it has not; the error names it.
    """
    request = f"{method} {path}"
    needed = next((scope for pattern, scope in rules if fnmatchcase(request, pattern)), None)
    if needed is not None and needed not in scopes:
        raise InsufficientScope(f"The token needs the scope {needed} for this.", needed)
