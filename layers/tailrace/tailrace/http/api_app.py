"""The buffered function's application: FastAPI with every route, the streaming ones mounted as they are.

Through Mangum it serves JSON; under uvicorn, in a container or on one machine, it is the whole server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tailrace.backend import Backend
from tailrace.broadcast.channels import conversation_channel
from tailrace.conversation.admission import Admission
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.owner import Owner
from tailrace.conversation.report import parse_day
from tailrace.errors import NotFound, TailraceError
from tailrace.events import Message
from tailrace.http.broadcasting import auth_request, channel_auth
from tailrace.http.check_body import CheckBody
from tailrace.http.cors import cors
from tailrace.http.head import Head
from tailrace.http.mask_errors import MaskErrors
from tailrace.http.openapi import COMMON, describe
from tailrace.http.replay import check_owner
from tailrace.http.requests import socket_id
from tailrace.http.responses import is_too_large, too_large
from tailrace.http.schemas import (
    ChannelAuth,
    ConversationChange,
    ConversationList,
    ConversationOut,
    GrantIn,
    GrantList,
    MessageIn,
    MessageList,
    MessageOut,
    NewConversation,
    NewGrantOut,
    ReportOut,
    channel_auth_request,
    conversation_out,
    grant_out,
)
from tailrace.http.stream_app import hot_routes, on_http_exception, on_tailrace_error
from tailrace.http.under_api import UnderApi
from tailrace.ids import conversation_tag, message_address
from tailrace.protocols.bounded import bounded

LARGEST_LISTED = 10_000
"""Bytes of each message's content on a page that would be too large with all of it."""

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=2048)]
Order = Annotated[Literal["asc", "desc"], Query(description="From the beginning, or from the end.")]
Before = Annotated[str | None, Query(max_length=2048, description="A message's id: only what comes before it.")]


async def on_invalid(request: Request, error: Exception) -> Response:
    """Say in our shape which field of the body or the query does not validate, or that it is not JSON."""
    assert isinstance(error, RequestValidationError)
    first: Mapping[str, Any] = error.errors()[0]
    if first["type"] == "json_invalid":
        content, status = {"type": "invalid_request", "message": "The body is not valid JSON."}, 400
    else:
        place = ".".join(str(part) for part in first["loc"])
        content, status = {"type": "unprocessable", "message": f"{first['msg']} - at {place}."}, 422
    return _json({"error": content}, status)


def create_api_app(backend: Backend) -> FastAPI:
    """Return the application of the buffered function."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with backend.open():
            yield

    app = FastAPI(
        title="Tailrace",
        description="Streamed LLM replies: conversations, messages and their durable logs.",
        lifespan=lifespan,
        responses=COMMON,
        exception_handlers={
            HTTPException: on_http_exception,
            RequestValidationError: on_invalid,
            TailraceError: on_tailrace_error,
        },
    )
    app.add_middleware(UnderApi)
    app.add_middleware(CheckBody, limit=backend.settings.body_limit)
    app.add_middleware(Head)
    app.add_middleware(MaskErrors)
    for each in cors(backend.settings):
        app.add_middleware(each.cls, *each.args, **each.kwargs)
    store = backend.store

    async def load(request: Request, conversation_id: str, *, may_be_shared: bool = False) -> Conversation:
        owner = await backend.identify(request.scope)
        return await Conversation.load(conversation_id, owner=owner, backend=backend, may_be_shared=may_be_shared)

    @app.post("/conversations", status_code=201, response_model=ConversationOut)
    async def create_conversation(request: Request, body: NewConversation) -> Response:
        """Create a conversation. Its system prompt goes to the provider and is never sent back."""
        owner = await backend.identify(request.scope)
        conversation = await Conversation.create(
            owner=owner,
            admission=Admission(backend, owner) if backend.limits.conversations is not None else None,
            title=body.title,
            system=body.system,
            metadata=body.metadata,
            backend=backend,
        )
        return _json(conversation_out(conversation.record), 201)

    @app.get("/conversations", response_model=ConversationList)
    async def list_conversations(request: Request, limit: Limit = 20, cursor: Cursor = None) -> Response:
        """List your conversations, newest first."""
        owner = await backend.identify(request.scope)
        records, following = await store.conversations.list(owner, limit, cursor)
        return _json({"conversations": [conversation_out(record) for record in records], "next_cursor": following})

    @app.get("/conversations/{conversation_id}", response_model=ConversationOut)
    async def read_conversation(request: Request, conversation_id: str) -> Response:
        """Read a conversation."""
        return _json(conversation_out((await load(request, conversation_id, may_be_shared=True)).record))

    @app.patch("/conversations/{conversation_id}", response_model=ConversationOut)
    async def change_conversation(request: Request, conversation_id: str, body: ConversationChange) -> Response:
        """Rename a conversation, or replace its metadata."""
        await load(request, conversation_id)
        record = await store.conversations.update(
            conversation_id, now=backend.clock.now(), title=body.title, metadata=body.metadata
        )
        return _json(conversation_out(record))

    @app.delete("/conversations/{conversation_id}", status_code=204)
    async def delete_conversation(request: Request, conversation_id: str) -> Response:
        """Delete a conversation and its messages from sight. Its open replies are cancelled."""
        await (await load(request, conversation_id)).delete()
        return Response(status_code=204)

    @app.post("/conversations/{conversation_id}/restore", response_model=ConversationOut)
    async def restore_conversation(request: Request, conversation_id: str) -> Response:
        """Take back the deletion of a conversation, if there was one. Messages deleted one by one stay deleted."""
        owner = await backend.identify(request.scope)
        try:
            conversation = await Conversation.restore(conversation_id, owner=owner, backend=backend)
        except NotFound:  # it may be there all the time: a second restore is answered as the first
            conversation = await Conversation.load(conversation_id, owner=owner, backend=backend)
        return _json(conversation_out(conversation.record))

    @app.get("/conversations/{conversation_id}/messages", response_model=MessageList)
    async def list_messages(
        request: Request,
        conversation_id: str,
        limit: Limit = 50,
        cursor: Cursor = None,
        order: Order = "asc",
        before: Before = None,
    ) -> Response:
        """List a conversation's messages in order, or newest first, without its system prompts."""
        await load(request, conversation_id, may_be_shared=True)
        if before is not None and message_address(before).tag != conversation_tag(conversation_id):
            raise NotFound("No such message.")
        messages, following = await store.messages.list(
            conversation_id, limit, cursor, newest_first=order == "desc", before=before
        )
        shown = [message for message in messages if message.role != "system"]
        page = msgspec.json.encode({"messages": shown, "next_cursor": following})
        if is_too_large(page):  # what JSON adds is more than anybody writes, or one message alone is as long as that
            short = [bounded(message, LARGEST_LISTED) for message in shown]
            page = msgspec.json.encode({"messages": short, "next_cursor": following})
        return Response(page, media_type="application/json")

    @app.post("/conversations/{conversation_id}/messages", status_code=201, response_model=MessageOut)
    async def add_message(request: Request, conversation_id: str, body: MessageIn) -> Response:
        """Add a whole message without starting a reply."""
        conversation = await load(request, conversation_id)
        return _json(
            await conversation.add_message(
                body.role, body.content, body.metadata, except_socket=socket_id(request.scope)
            ),
            201,
        )

    @app.get("/conversations/{conversation_id}/report", response_model=ReportOut)
    async def report_conversation(request: Request, conversation_id: str) -> Response:
        """Add up a conversation's replies: chunks, tokens, time to the first chunk, failures by type."""
        return _json(await (await load(request, conversation_id)).report())

    @app.post("/conversations/{conversation_id}/grants", status_code=201, response_model=NewGrantOut)
    async def make_grant(request: Request, conversation_id: str, body: GrantIn) -> Response:
        """Let somebody else into a conversation, or to one message of it: by a token, or as another owner."""
        record = (await load(request, conversation_id)).record
        grant, token = await backend.grants.make(
            record, body.right, message_id=body.message_id, reader=body.owner, seconds=body.expires_in
        )
        return _json(grant_out(grant) | ({} if token is None else {"token": token}), 201)

    @app.get("/conversations/{conversation_id}/grants", response_model=GrantList)
    async def list_grants(request: Request, conversation_id: str) -> Response:
        """List who else may do what in a conversation. A token is shown only when it is made."""
        await load(request, conversation_id)
        return _json({"grants": [grant_out(grant) for grant in await backend.grants.of_conversation(conversation_id)]})

    @app.delete("/conversations/{conversation_id}/grants/{grant_id}", status_code=204)
    async def revoke_grant(request: Request, conversation_id: str, grant_id: str) -> Response:
        """Take a grant back, at once; who follows the conversation by it over WebSocket hears no more."""
        await load(request, conversation_id)
        await backend.grants.revoke(conversation_id, grant_id)
        await store.subscriptions.remove_granted(conversation_channel(conversation_id), grant_id)
        return Response(status_code=204)

    @app.get("/report", response_model=ReportOut)
    async def report_day(request: Request, day: str | None = None) -> Response:
        """Add up your replies of a day in UTC, such as 2026-11-22; of today without one."""
        owner = Owner(await backend.identify(request.scope), backend=backend)
        return _json(await owner.report(None if day is None else parse_day(day)))

    @app.get("/messages/{message_id}", response_model=MessageOut)
    async def read_message(request: Request, message_id: str) -> Response:
        """Read a message as it stands: of a reply that is being written, the text so far."""
        await check_owner(backend, request.scope, message_id, may_be_shared=True)
        message: Message = await store.messages.get(message_id)
        if message.role == "system":
            raise NotFound("No such message.")
        content = msgspec.json.encode(message)
        if is_too_large(content):
            raise too_large(message_id)
        return Response(content, media_type="application/json")

    @app.delete("/messages/{message_id}", status_code=204)
    async def delete_message(request: Request, message_id: str) -> Response:
        """Delete one message from sight, and from the next prompt. It is 409 while it is being written."""
        await check_owner(backend, request.scope, message_id)
        await store.history.delete(message_id, now=backend.clock.now(), but="system")
        return Response(status_code=204)

    @app.post("/messages/{message_id}/restore", response_model=MessageOut)
    async def restore_message(request: Request, message_id: str) -> Response:
        """Take back the deletion of one message, if there was one."""
        await check_owner(backend, request.scope, message_id)
        await store.history.restore(message_id, but="system")
        return _json(bounded(await store.messages.get(message_id)))

    @app.post(
        "/broadcasting/auth",
        response_model=ChannelAuth,
        openapi_extra={"requestBody": channel_auth_request()},
    )
    async def sign_channel(request: Request) -> Response:
        """Let a socket into a private or presence channel: what Laravel Echo asks before it subscribes."""
        owner = await backend.identify(request.scope)
        asked = auth_request(await request.body(), request.headers.get("content-type"))
        return _json(await channel_auth(backend, owner, asked))

    app.router.routes.extend(hot_routes(backend))
    describe(app)
    return app


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
