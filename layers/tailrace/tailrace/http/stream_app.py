"""The stream function's application: Starlette and the hot routes, nothing else.

FastAPI would cost three times Starlette's import at every cold start (benchmarks/cold_start.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tailrace.backend import Backend
from tailrace.errors import TailraceError
from tailrace.http.mask_errors import MaskErrors
from tailrace.http.responses import error_content
from tailrace.http.start import StartReply


def hot_routes(backend: Backend) -> list[BaseRoute]:
    """Return the routes that stream; the FastAPI application mounts them too."""
    return [
        Route("/health", health),
        Route("/conversations/{conversation_id}/stream", StartReply(backend), methods=["POST"]),
    ]


async def health(request: Request) -> Response:
    """Say that requests are served."""
    return JSONResponse({"status": "ok"})


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Give the framework's own errors (no such route, wrong method) the shape of ours."""
    assert isinstance(error, HTTPException)
    error_type = {404: "not_found", 405: "invalid_request"}.get(error.status_code, "invalid_request")
    content = {"error": {"type": error_type, "message": f"{error.detail}."}}
    return JSONResponse(content, error.status_code, headers=error.headers)


async def on_tailrace_error(request: Request, error: Exception) -> Response:
    """Answer with what our errors say."""
    status, content, headers = error_content(error)
    return JSONResponse(content, status, headers=headers)


def create_stream_app(backend: Backend) -> Starlette:
    """Return the application of the stream function."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await backend.close()

    return Starlette(
        routes=hot_routes(backend),
        middleware=[Middleware(MaskErrors)],
        exception_handlers={HTTPException: on_http_exception, TailraceError: on_tailrace_error},
        lifespan=lifespan,
    )
