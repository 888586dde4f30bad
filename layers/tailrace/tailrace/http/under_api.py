"""Every route is there under ``/api`` too: where a page and the API share one origin, a proxy or a CDN tells them apart
by that prefix, and most hand it on. Pages that were written for another backend ask for ``/api/...`` already.

The prefix becomes the request's ``root_path``, as ASGI has it for an application that is mounted somewhere
(https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope).
"""

from __future__ import annotations

from typing import Final

from tailrace.http.client_routes import APART
from tailrace.http.requests import App, Receive, Scope, Send

PREFIX: Final = "/api"


class UnderApi:
    """Pure ASGI middleware: takes the prefix for where the application is mounted."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_under_api(scope["path"]):
            scope = {**scope, "root_path": PREFIX}
        await self._app(scope, receive, send)


def is_under_api(path: str) -> bool:
    """Return whether a path is that of one of the routes with the prefix before it."""
    return path.startswith(f"{PREFIX}/") and not any(path == each or path.startswith(f"{each}/") for each in APART)
