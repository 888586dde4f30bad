"""The routes of clients that speak a protocol of their own: a line for each.

Their modules are imported with the first request that needs them: who serves no such client does not pay for it. A
module may have a ``respond_error`` of its own, for errors in the shape that its clients read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Final

import msgspec

from tailrace.backend import Backend
from tailrace.errors import TailraceError
from tailrace.http.requests import ClientGone, Receive, Scope, Send
from tailrace.http.responses import bare_type, respond_error


class ClientRoute(msgspec.Struct, frozen=True):
    """A route.

    Attributes:
        path: as Starlette has it: ``{model:path}`` takes slashes too.
        endpoint: module and function, which speaks ASGI.
        said: what it does, for the OpenAPI document.
        streams: whether it answers with server-sent events.
    """

    method: str
    path: str
    endpoint: str
    said: str
    streams: bool = False


_AI_SDK: Final = "tailrace.http.ai_sdk"
_CHAT: Final = "tailrace.http.openai_chat"
_MODELS: Final = "tailrace.http.openai_models"
_RESPONSES: Final = "tailrace.http.openai_responses"

CLIENT_ROUTES: Final[tuple[ClientRoute, ...]] = (
    ClientRoute("POST", "/api/chat", f"{_AI_SDK}:post_chat", "Start a reply for the AI SDK's useChat.", streams=True),
    ClientRoute("GET", "/api/chat/{id}/stream", f"{_AI_SDK}:get_stream", "Resume the answer of a chat.", streams=True),
    ClientRoute(
        "GET", "/api/chat/{id}/messages", f"{_AI_SDK}:get_messages", "A chat's messages, for a page that opens."
    ),
    ClientRoute("POST", "/api/chat/{id}/stop", f"{_AI_SDK}:post_stop", "Stop the answer of a chat."),
    ClientRoute(
        "POST", "/v1/chat/completions", f"{_CHAT}:post_completions", "OpenAI's chat completions.", streams=True
    ),
    ClientRoute("GET", "/v1/models", f"{_MODELS}:get_models", "The models that may be asked."),
    ClientRoute("GET", "/v1/models/{model:path}", f"{_MODELS}:get_model", "One of them; its name may have slashes."),
    ClientRoute("POST", "/api/ag-ui", "tailrace.http.ag_ui:run", "Run as an AG-UI agent.", streams=True),
    ClientRoute(
        "GET",
        "/api/ag-ui/{thread_id}",
        "tailrace.http.ag_ui:connect",
        "Give an AG-UI client a thread's messages, and follow its active run.",
        streams=True,
    ),
    ClientRoute("POST", "/api/ag-ui/{thread_id}/stop", "tailrace.http.ag_ui:stop", "Stop a thread's active run."),
    ClientRoute("POST", "/v1/responses", f"{_RESPONSES}:post_response", "Start a response, as OpenAI's.", streams=True),
    ClientRoute("GET", "/v1/responses/{id}", f"{_RESPONSES}:get_response", "Read a response, or resume its events."),
    ClientRoute(
        "GET", "/v1/responses/{id}/input_items", f"{_RESPONSES}:get_input_items", "What it was generated from."
    ),
    ClientRoute("DELETE", "/v1/responses/{id}", f"{_RESPONSES}:delete_response", "Delete a response."),
    ClientRoute("POST", "/v1/responses/{id}/cancel", f"{_RESPONSES}:cancel_response", "Cancel a response."),
)

APART: Final = ("/api/chat", "/api/ag-ui")
"""Where routes stand that are not those of ours under ``/api``."""


Endpoint = Callable[[Backend, Scope, Receive, Send], Awaitable[None]]
RespondError = Callable[[Send, TailraceError], Awaitable[None]]


class Hot:
    """Answers what can be refused before the response has started; whatever comes later is the endpoint's."""

    def __init__(self, backend: Backend, find: Callable[[], tuple[Endpoint, RespondError]]) -> None:
        self._backend = backend
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint, refuse = self._find()
        try:
            await endpoint(self._backend, scope, receive, bare_type(scope, send))
        except TailraceError as error:
            await refuse(send, error)
        except ClientGone:
            pass


def find(endpoint: str) -> tuple[Endpoint, RespondError]:
    """Return a route's endpoint, imported when it is first asked for, and what says its errors."""
    name, _, function = endpoint.partition(":")
    module = import_module(name)
    return getattr(module, function), getattr(module, "respond_error", respond_error)
