"""The stream function's application: Starlette and the hot routes, nothing else.

FastAPI would cost three times Starlette's import at every cold start (benchmarks/cold_start.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route

from tailrace.backend import Backend
from tailrace.errors import TailraceError
from tailrace.http.client_routes import CLIENT_ROUTES, Endpoint, Hot, find
from tailrace.http.cors import cors
from tailrace.http.head import Head
from tailrace.http.mask_errors import MaskErrors
from tailrace.http.replay import message_cancel, message_events, message_stream
from tailrace.http.responses import error_content, respond_error
from tailrace.http.start import get_stream, post_stream
from tailrace.http.under_api import UnderApi


def hot_routes(backend: Backend) -> list[BaseRoute]:
    """Return the routes that stream; the FastAPI application mounts them too."""
    _ = backend.auth  # what checks tokens is imported here, and not in the first request
    return [
        Route("/health", health),
        _route(backend, "POST", "/conversations/{conversation_id}/stream", post_stream),
        _route(backend, "GET", "/conversations/{conversation_id}/stream", get_stream),
        _route(backend, "GET", "/messages/{message_id}/stream", message_stream),
        _route(backend, "GET", "/messages/{message_id}/events", message_events),
        _route(backend, "POST", "/messages/{message_id}/cancel", message_cancel),
        *(
            Route(each.path, Hot(backend, partial(find, each.endpoint)), methods=[each.method], name=each.endpoint)
            for each in CLIENT_ROUTES
        ),
    ]


def _route(backend: Backend, method: str, path: str, endpoint: Endpoint) -> Route:
    """Return a route whose endpoint speaks ASGI: nothing is between it and the server."""
    return Route(path, Hot(backend, lambda: (endpoint, respond_error)), methods=[method], name=endpoint.__name__)


async def health(request: Request) -> Response:
    """Say that requests are served."""
    return JSONResponse({"status": "ok"})


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Give the framework's own errors (no such route, wrong method) the shape of ours."""
    assert isinstance(error, HTTPException)
    error_type = {404: "not_found", 405: "invalid_request"}.get(error.status_code, "invalid_request")
    content = {"error": {"type": error_type, "message": f"{error.detail}."}}
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # Starlette names those of the first route with this path; each method of ours is a route of its own.
        here = [each for each in request.app.routes if each.matches(request.scope)[0] is not Match.NONE]
        headers["Allow"] = ", ".join(sorted({method for each in here for method in getattr(each, "methods", ())}))
    return JSONResponse(content, error.status_code, headers=headers)


async def on_tailrace_error(request: Request, error: Exception) -> Response:
    """Answer with what our errors say."""
    status, content, headers = error_content(error)
    return JSONResponse(content, status, headers=headers)


def create_stream_app(backend: Backend) -> Starlette:
    """Return the application of the stream function."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with backend.open():
            if backend.own_tools:
                from tailrace.conversation.tools import load_tools  # and with them pydantic

                await load_tools(backend)
            yield

    return Starlette(
        routes=hot_routes(backend),
        middleware=[*cors(backend.settings), Middleware(MaskErrors), Middleware(Head), Middleware(UnderApi)],
        exception_handlers={HTTPException: on_http_exception, TailraceError: on_tailrace_error},
        lifespan=lifespan,
    )
