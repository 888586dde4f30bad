"""The chat function: answers chats over WebSocket, each answer until its end. The WebSocket function calls it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tailrace.aws.event_loop import run
from tailrace.backend import Backend
from tailrace.http.chat_socket import ChatSocket

backend = Backend()


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Answer one request, ``{"chat": ...}``. Nobody waits for what this returns."""
    run(_chats().serve(event["chat"], context))
    return {}


@cache
def _chats() -> ChatSocket:
    return ChatSocket(backend)
