"""The OpenAPI document: what FastAPI knows of its routes, and the streaming ones, which are not FastAPI's."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tailrace.http.client_routes import CLIENT_ROUTES, ClientRoute
from tailrace.http.schemas import ErrorBody
from tailrace.http.start import StartBody

STATUSES: Final = {
    400: "The body is not JSON, or a parameter or cursor is not one of ours.",
    401: "Nobody is known by what came with the request.",
    403: "Whoever asks may not do that.",
    404: "There is no such thing, or it is somebody else's.",
    405: "The route has other methods.",
    409: "It cannot be done now, or the idempotency key was used for another request.",
    413: "The body is over the limit.",
    415: "The body does not say that it is JSON.",
    422: "The body or a parameter does not validate; the message names what.",
    429: "Too much is asked at once.",
    500: "Something went wrong on our side.",
    502: "The provider failed, or the reply was interrupted.",
    503: "The store is not available, or something is not set up on the server.",
    504: "The provider took too long.",
}
"""What any route may answer with the error's shape."""

COMMON: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody, "description": said} for status, said in STATUSES.items()
}
"""The same as FastAPI wants it."""

_ERRORS: Final = {
    str(status): {
        "description": said,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    }
    for status, said in STATUSES.items()
}

# Each event by itself, as OpenAPI 3.2 has it (https://spec.openapis.org/oas/v3.2.0.html#media-type-object).
_EVENT: Final = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("data", "event", "id")},
    "required": ["data"],
}
_STREAM: Final[dict[str, Any]] = {"text/event-stream": {"itemSchema": _EVENT}}
_EVENTS: Final = {"description": "Server-sent events.", "content": _STREAM}
_NOTHING: Final = {"description": "The reader has everything."}
_MESSAGE: Final = {"$ref": "#/components/schemas/MessageOut"}
_WHOLE: Final = {
    "type": "object",
    "properties": {"message": _MESSAGE, "streamed": {"type": "boolean"}},
    "required": ["message", "streamed"],
}


def _parameter(name: str, said: str, kind: str = "string", place: str = "query") -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": said,
        "schema": {"type": kind},
    }


_CONVERSATION: Final = _parameter("conversation_id", "Of the conversation.", place="path")
_ID: Final = _parameter("message_id", "Of the message.", place="path")
_LAST: Final = _parameter("Last-Event-ID", "The cursor of a reader that resumes.", place="header")
_KEY: Final = _parameter("Idempotency-Key", "The same start again attaches to its reply.", place="header")
_SOCKET: Final = _parameter("X-Socket-ID", "The socket that does not hear of it.", place="header")
_AFTER: Final = _parameter("after", "The cursor, where there is no Last-Event-ID.")
_PROTOCOL: Final = _parameter("protocol", "The wire format.")
_DELIVERY: Final = [
    _parameter("by", "chunk or sentence."),
    _parameter("interval_ms", "At most one event in so many milliseconds.", "integer"),
    _parameter("progress", "Whether events tell the progress so far.", "boolean"),
    _PROTOCOL,
]


def _operation(said: str, name: str, parameters: list[dict[str, Any]], responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": said,
        "operationId": name,
        "parameters": parameters,
        "responses": {**responses, **_ERRORS},
    }


def _json(said: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": said, "content": {"application/json": {"schema": schema}}}


STREAMS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "/health": {"get": _operation("Say that requests are served.", "health", [], {"200": _json("Served.", {})})},
    "/conversations/{conversation_id}/stream": {
        "post": {
            **_operation(
                "Start a reply, streamed, or whole for Accept: application/json.",
                "post_stream",
                [_CONVERSATION, _KEY, _LAST, _SOCKET, _PROTOCOL],
                {
                    "200": {
                        "description": "The reply.",
                        "headers": {"X-Message-Id": {"description": "Of the reply.", "schema": {"type": "string"}}},
                        "content": {**_STREAM, "application/json": {"schema": _WHOLE}},
                    },
                    "204": _NOTHING,
                },
            ),
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/StartBody"}}}},
        },
        "get": _operation(
            "For EventSource: start with a message, resume, or follow the newest reply.",
            "get_stream",
            [
                _CONVERSATION,
                _LAST,
                _AFTER,
                _parameter("message", "What the user says; without it nothing is started."),
                _parameter("provider", "Who answers."),
                _parameter("model", "Its model."),
                _parameter("key", "The idempotency key."),
                *_DELIVERY,
            ],
            {"200": _EVENTS, "204": _NOTHING},
        ),
    },
    "/messages/{message_id}/stream": {
        "get": _operation(
            "Replay what comes after a cursor, then what comes live, until the end.",
            "message_stream",
            [_ID, _LAST, _AFTER, *_DELIVERY],
            {"200": _EVENTS, "204": _NOTHING},
        )
    },
    "/messages/{message_id}/events": {
        "get": _operation(
            "The same events as a JSON array, a page at a time.",
            "message_events",
            [
                _ID,
                _LAST,
                _AFTER,
                _parameter("wait", "Seconds to wait for the first, at most 25.", "integer"),
                *_DELIVERY,
            ],
            {"200": _json("Events.", {"type": "array", "items": {"type": "object"}})},
        )
    },
    "/messages/{message_id}/cancel": {
        "post": _operation(
            "End a reply; its text so far is kept.", "message_cancel", [_ID], {"200": _json("As it ended.", _MESSAGE)}
        )
    },
}
"""The routes of ``stream_app.hot_routes``."""


def _client_operation(route: ClientRoute) -> dict[str, Any]:
    """Return the description of a route whose bodies are another project's to describe."""
    parameters = [
        _parameter(name, "An id, as the client has it.", place="path") for name in re.findall(r"{(\w+)", route.path)
    ]
    answer = {"application/json": {"schema": {}}} | (_STREAM if route.streams else {})
    operation = _operation(
        route.said,
        route.endpoint.rpartition(".")[2].replace(":", "_"),
        parameters,
        {"200": {"description": "As the client's protocol has it.", "content": answer}, "204": _NOTHING},
    )
    if route.method == "POST":
        operation["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
    return operation


def _link(paths: dict[str, Any]) -> None:
    """Say of what is made which operations take its id, and from where in the answer."""
    conversation = {"conversation_id": "$response.body#/id"}
    grant = {"conversation_id": "$response.body#/conversation_id", "grant_id": "$response.body#/id"}
    for method, path, status, known in (
        ("post", "/conversations", "201", conversation),
        ("post", "/conversations/{conversation_id}/stream", "200", {"message_id": "$response.header.X-Message-Id"}),
        ("post", "/conversations/{conversation_id}/messages", "201", {"message_id": "$response.body#/id"}),
        ("post", "/conversations/{conversation_id}/grants", "201", grant),
    ):
        paths[path][method]["responses"][status]["links"] = {
            operation["operationId"]: {"operationId": operation["operationId"], "parameters": known}
            for taking, operations in paths.items()
            for operation in operations.values()
            if {*re.findall(r"{(\w+)}", taking)} == known.keys()
        }


_TOKEN: Final = {"type": "http", "scheme": "bearer", "description": "With TAILRACE_AUTH=jwt, and for grants."}


def describe(app: FastAPI) -> None:
    """Let an application tell all of its routes."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            made["paths"].update(STREAMS)
            for route in CLIENT_ROUTES:
                path = route.path.replace(":path}", "}")
                made["paths"].setdefault(path, {})[route.method.lower()] = _client_operation(route)
            _, components = msgspec.json.schema_components((StartBody,), ref_template="#/components/schemas/{name}")
            made["components"]["schemas"].update(components)
            made["components"]["securitySchemes"] = {"token": _TOKEN}
            made["security"] = [{"token": []}]
            made["paths"]["/health"]["get"]["security"] = []
            _link(made["paths"])
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's own guide has it
