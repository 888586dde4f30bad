"""Starting a reply: ``POST /conversations/{id}/stream``, and ``GET`` for the browser's EventSource."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any, Literal

import msgspec

from tailrace.aws.sessions import OPEN_SECONDS
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.history import Past, Window
from tailrace.conversation.parts import Input, split_input
from tailrace.conversation.prompt import estimate
from tailrace.conversation.request import LONGEST_NAME, Choice, open_source, provider_request
from tailrace.delivery import Delivery, Progress
from tailrace.errors import AlreadyStarted, NotFound, RequestError, TailraceError, Unprocessable
from tailrace.events import Json
from tailrace.http.cursor import Cursor, last_event_id, query
from tailrace.http.delivered import asked_delivery, asked_protocol
from tailrace.http.head import IS_HEAD
from tailrace.http.live import Live, Started
from tailrace.http.replay import Replay
from tailrace.http.requests import (
    Receive,
    Scope,
    Send,
    check_type,
    correlation_id,
    header,
    parse,
    read_body,
    socket_id,
    time_left,
)
from tailrace.http.responses import respond_empty_stream
from tailrace.ids import conversation_tag, message_address
from tailrace.providers import PromptMessage, connect
from tailrace.providers.fallback import Mode
from tailrace.providers.options import Options, read_options
from tailrace.reply.relay import Source
from tailrace.reply.stream import MessageStream
from tailrace.store import Start

LONGEST_KEY = 255
"""Characters of an idempotency key."""


class StartBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a start (docs/http.md)."""

    input: Input | None = None
    provider: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] | None = None
    model: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    fallbacks: list[Choice] = msgspec.field(default_factory=list)
    fallback: Mode = "before_first_chunk"
    history: Window | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    delivery: Delivery = Delivery()
    on_disconnect: Literal["continue", "cancel"] = "continue"
    channel: str | None = None

    def check(self) -> None:
        """Refuse what would be ignored.

        Raises:
            Unprocessable: the message says what.
        """
        self.delivery.check()


async def post_stream(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Start a reply, or attach to the one that the same ``Idempotency-Key`` started before."""
    arrived = backend.clock.monotonic()
    owner = await backend.identify(scope)
    given = await read_body(scope, receive, backend.settings.body_limit)
    if given:
        check_type(scope)
    body = parse(given, StartBody)
    protocol = asked_protocol(scope)
    accept = header(scope, b"accept") or ""
    whole = "application/json" in accept and "text/event-stream" not in accept
    try:
        started = await _start(backend, scope, owner, body, protocol, header(scope, b"idempotency-key"), arrived)
    except AlreadyStarted as before:
        cursor = last_event_id(scope, before.message_id) or Cursor(before.message_id, 0)
        replay = Replay(backend, cursor, protocol, body.delivery)
        await (replay.whole(send) if whole else replay.stream(scope, receive, send))
        return
    live = Live(backend, started)
    await (live.whole(send) if whole else live.stream(receive, send))


async def get_stream(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """For EventSource: start with ``?message=``, go on with what ``Last-Event-ID`` says, or follow the newest
    reply. A browser that reconnects never starts anything twice."""
    arrived = backend.clock.monotonic()
    owner = await backend.identify(scope)
    conversation_id = scope["path_params"]["conversation_id"]
    parameters = query(scope)
    delivery, protocol = asked_delivery(scope), asked_protocol(scope)
    cursor = last_event_id(scope)
    if cursor is not None:
        if message_address(cursor.message_id).tag != conversation_tag(conversation_id):
            raise RequestError("The cursor is not one of ours.")
        await Conversation.load(conversation_id, owner=owner, backend=backend)
        await Replay(backend, cursor, protocol, delivery).stream(scope, receive, send)
        return
    if "message" in parameters and scope.get(IS_HEAD):
        await Conversation.load(conversation_id, owner=owner, backend=backend)
        await respond_empty_stream(send)  # a look starts nothing
        return
    if "message" in parameters:
        body = StartBody(
            input=parameters["message"],
            provider=parameters.get("provider"),
            model=parameters.get("model"),
            delivery=delivery,
        )
        try:
            started = await _start(backend, scope, owner, body, protocol, parameters.get("key"), arrived)
        except AlreadyStarted as before:
            await Replay(backend, Cursor(before.message_id, 0), protocol, delivery).stream(scope, receive, send)
            return
        # An id alone is no event, but a browser keeps it: should the connection drop before the first chunk, the
        # reconnect resumes this reply instead of starting another.
        await Live(backend, started).stream(receive, send, first=f"id: {started.stream.id}:0\n\n".encode())
        return
    await Conversation.load(conversation_id, owner=owner, backend=backend)
    newest = await backend.store.messages.newest_reply(conversation_id)
    await Replay(backend, Cursor(newest, 0), protocol, delivery).stream(scope, receive, send)


async def _start(
    backend: Backend, scope: Scope, owner: str, body: StartBody, protocol: str, key: str | None, arrived: float
) -> Started:
    """Check everything that can be refused, then store the start; the provider is not called yet.

    Raises:
        AlreadyStarted: the key was used with the same body.
        TailraceError: it is refused, and nothing was stored.
    """
    body.check()
    new_input = None
    if body.input is not None:
        text, parts = split_input(body.input)
        if not text.strip() and not parts:
            raise Unprocessable("input must not be blank; leave it out to answer the conversation as it stands.")
        new_input = PromptMessage("user", text, parts=parts)
    first = Choice(body.provider or backend.settings.provider, body.model)
    options = read_options(body.options)
    opening = asyncio.ensure_future(_open_connection(backend, first.provider))
    try:
        started = await _store(backend, scope, owner, body, key, first, options, new_input)
        # The reply's first byte needs the connection, whoever opens it.
        await asyncio.wait((opening,), timeout=OPEN_SECONDS)
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    stream, source = started
    return Started(
        stream=stream,
        source=source,
        protocol=protocol,
        delivery=body.delivery,
        progress=Progress(arrived) if body.delivery.progress else None,
        cancel_on_disconnect=body.on_disconnect == "cancel",
        deadline=time_left(scope, backend),
        correlation=correlation_id(scope),
    )


async def _open_connection(backend: Backend, name: str) -> None:
    """Open the connection to a provider while the start is stored. Nothing is asked: that waits for the store."""
    try:
        provider = await backend.provider(name)
    except TailraceError:
        return  # the start itself says so
    await connect(provider)


async def _store(
    backend: Backend,
    scope: Scope,
    owner: str,
    body: StartBody,
    key: str | None,
    first: Choice,
    options: Options,
    new_input: PromptMessage | None,
) -> tuple[MessageStream, Source]:
    """Read what the reply is asked with, and store its start: two round trips, one after the other."""
    conversation, past = await Conversation.load_with_past(
        scope["path_params"]["conversation_id"],
        body.history,
        has_question=new_input is not None,
        owner=owner,
        backend=backend,
    )
    request = provider_request(conversation.record, past.messages, new_input, options, past.states)
    source = await open_source(backend, [first, *body.fallbacks], request, options, body.fallback)
    if body.channel is not None:
        await _check_channel(backend, owner, body.channel)
    stream = await conversation.stream_response(
        body.input,
        metadata={**body.metadata, **_what_was_left_out(past)},
        channel=body.channel,
        provider=first.provider,
        model=first.model,
        prompt_tokens=estimate(request),
        start=None if key is None else Start(owner, _check_key(key), _digest(body)),
        except_socket=socket_id(scope),
    )
    return stream, source


def _what_was_left_out(past: Past) -> Json:
    """Return what the metadata of a reply say of its prompt, which its reader may want to know."""
    if not past.left_out:
        return {}
    sent = sum(message.role != "system" for message in past.messages)
    return {"history": {"messages": sent, "left_out": past.left_out}}


async def _check_channel(backend: Backend, owner: str, channel: str) -> None:
    """Refuse to speak to somebody else's subscribers.

    Raises:
        RequestError: the name cannot be a channel's.
        NotFound: it names a conversation or an owner that is not this one's.
    """
    settings = backend.settings
    if not settings.broadcasting:
        return
    # Imported where something is broadcast.
    from tailrace.broadcast.channels import check_channel, conversation_of, owner_of

    check_channel(channel)
    if settings.auth == "none":
        return  # everybody is one owner
    conversation_id = conversation_of(channel)
    if conversation_id is not None:
        await Conversation.load(conversation_id, owner=owner, backend=backend)
    elif owner_of(channel) not in (None, owner):
        raise NotFound("No such channel.")


def _check_key(key: str) -> str:
    if not 0 < len(key) <= LONGEST_KEY:
        raise RequestError(f"The idempotency key must have 1 to {LONGEST_KEY} characters.")
    return key


def _digest(body: StartBody) -> bytes:
    """Return what tells bodies apart: their meaning, not how a client happened to write them, nor how this reader
    wants its events."""
    body = msgspec.structs.replace(body, delivery=Delivery())
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).digest()
