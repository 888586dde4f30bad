"""Which pages of other origins may call: on one machine those of a dev server there, elsewhere those that are listed.

In AWS the function URLs answer preflights themselves (``CorsOrigins`` in template.yaml), so in Lambda none are listed,
unless a REST API stands in front, which hands preflights on.
"""

from __future__ import annotations

from typing import Final

from starlette.middleware import Middleware

from tailrace.settings import LOOPBACK, Settings

_LOOPBACK: Final = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?"

EXPOSED: Final = (
    "X-Message-Id",
    "X-Conversation-Id",
    "X-Workflow-Run-Id",
    "X-Workflow-Stream-Tail-Index",
    "Retry-After",
    "WWW-Authenticate",
)
"""Headers of ours that a page may read, as in template.yaml."""


def cors(settings: Settings) -> list[Middleware]:
    """Return what answers preflights and marks responses; nothing where no origin is listed."""
    if not settings.cors_origins:
        return []
    from starlette.middleware.cors import CORSMiddleware  # in Lambda few need it

    listed = [origin for origin in settings.cors_origins if origin != LOOPBACK]
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=listed,
            allow_origin_regex=_LOOPBACK if LOOPBACK in settings.cors_origins else None,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    ]
