"""The stream function's application with its table in the process's own memory: what the relay costs without a table to
call. ``POST /conversations?<how many>`` forgets everything and makes new ones.

    python -m benchmarks.peers.in_memory
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.http.server import serve
from tailrace.http.stream_app import create_stream_app
from tailrace.store import Store

from tests.memory_calls import MemoryCalls


def main() -> None:
    """Serve, as the function does."""
    calls = MemoryCalls()
    backend = Backend(store=Store(calls, "t"))
    app = create_stream_app(backend)

    async def create(request: Request) -> Response:
        calls.__init__()  # type: ignore[misc]  # as it was
        made = [await Conversation.create(backend=backend) for _ in range(int(request.url.query))]
        return JSONResponse([conversation.id for conversation in made])

    app.router.routes.append(Route("/conversations", create, methods=["POST"]))
    serve(app)


if __name__ == "__main__":
    main()
