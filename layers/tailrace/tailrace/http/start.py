"""Starting a reply: ``POST /conversations/{id}/stream``, and ``GET`` for the browser's EventSource."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from tailrace.backend import Backend
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.history import Window
from tailrace.conversation.parts import Input, parts_metadata, split_input
from tailrace.conversation.request import LONGEST_NAME, Choice
from tailrace.delivery import Delivery
from tailrace.errors import RequestError, Unprocessable
from tailrace.http.begin import Ask, answer, begin, check_key, connecting, digest
from tailrace.http.cursor import Cursor, last_event_id, query
from tailrace.http.delivered import asked_delivery, asked_protocol
from tailrace.http.head import IS_HEAD
from tailrace.http.replaced import find_replaced
from tailrace.http.replay import Replay
from tailrace.http.requests import Receive, Scope, Send, header, read_json
from tailrace.http.responses import respond_empty_stream
from tailrace.ids import conversation_tag, message_address
from tailrace.providers.fallback import Mode
from tailrace.reply.steps import Decision
from tailrace.store import Start


class StartBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a start (docs/http.md). What it leaves out does not count when two are compared, so a field that is
    added later makes no two of them differ."""

    input: Input | None = None
    goes_on: bool = msgspec.field(default=False, name="continue")
    approvals: dict[str, bool | Decision] = msgspec.field(default_factory=dict)
    replaces: str | None = None
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
    body = await read_json(scope, receive, backend.settings.body_limit, StartBody, is_optional=True)
    accept = header(scope, b"accept") or ""
    ask = _ask(
        body,
        protocol=asked_protocol(scope),
        key=header(scope, b"idempotency-key"),
        is_whole="application/json" in accept and "text/event-stream" not in accept,
    )
    await _answer(backend, scope, receive, send, owner, body, ask, arrived)


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
        await Conversation.load(conversation_id, owner=owner, backend=backend, may_be_shared=True)
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
        key = parameters.get("key")
        # An id alone is no event, but a browser keeps it: should the connection drop before the first chunk, the
        # reconnect resumes this reply instead of starting another. With a key it does so anyway, and is spared a block
        # that some clients hand to their page as an event without data (@microsoft/fetch-event-source, httpx-sse).
        first = b"id: %b:0\n\n" if key is None else b""
        ask = _ask(body, protocol=protocol, key=key, first=first)
        await _answer(backend, scope, receive, send, owner, body, ask, arrived)
        return
    await Conversation.load(conversation_id, owner=owner, backend=backend, may_be_shared=True)
    newest = await backend.store.messages.newest_reply(conversation_id)
    await Replay(backend, Cursor(newest, 0), protocol, delivery).stream(scope, receive, send)


async def _answer(
    backend: Backend,
    scope: Scope,
    receive: Receive,
    send: Send,
    owner: str,
    body: StartBody,
    ask: Ask,
    arrived: float,
) -> None:
    async with connecting(backend, ask.provider) as opening:
        replaced: Sequence[str] = ()
        if body.replaces is not None:
            conversation_id = scope["path_params"]["conversation_id"]
            same = await _started(backend, owner, conversation_id, ask)
            if same is not None:  # what it replaced is gone by now
                cursor = last_event_id(scope, same) or Cursor(same, 0)
                replay = Replay(backend, cursor, ask.protocol, ask.delivery, wants=ask.wants)
                await (replay.whole(send) if ask.is_whole else replay.stream(scope, receive, send))
                return
            replaced = await find_replaced(backend, owner, conversation_id, body.replaces)
            metadata = {**ask.metadata, "replaces": body.replaces}
            ask = msgspec.structs.replace(ask, replaced=replaced, metadata=metadata)
        begun = await begin(
            backend,
            owner,
            scope["path_params"]["conversation_id"],
            arrived=arrived,
            history=body.history,
            has_question=body.input is not None,
            before=replaced[0] if replaced else None,
        )
        await answer(backend, scope, receive, send, begun, ask, opening)


async def _started(backend: Backend, owner: str, conversation_id: str, ask: Ask) -> str | None:
    """Return the id of the reply that this very start began before, if it has a key and did."""
    if ask.key is None:
        return None
    start = Start(owner, check_key(ask.key), digest(ask.asked))
    return await backend.store.messages.started(conversation_id, start)


def _ask(body: StartBody, *, protocol: str, key: str | None, is_whole: bool = False, first: bytes = b"") -> Ask:
    """Return what a body asks for.

    Raises:
        Unprocessable: something of it would be ignored.
    """
    body.check()
    additions: list[NewMessage] = []
    if body.input is not None:
        text, parts = split_input(body.input)
        if not text.strip() and not parts:
            raise Unprocessable("input must not be blank; leave it out to answer the conversation as it stands.")
        additions.append(NewMessage("user", text, parts_metadata(parts)))
    goes_on = body.goes_on or bool(body.approvals)
    if goes_on and body.input is not None:
        raise Unprocessable("A start goes on with the reply before it, or it has an input.")
    if goes_on and body.replaces is not None:
        raise Unprocessable("A start goes on with the reply before it, or it replaces something.")
    return Ask(
        provider=body.provider,
        model=body.model,
        fallbacks=body.fallbacks,
        fallback=body.fallback,
        options=body.options,
        additions=additions,
        metadata=body.metadata,
        delivery=body.delivery,
        cancel_on_disconnect=body.on_disconnect == "cancel",
        channel=body.channel,
        key=key,
        goes_on=goes_on,
        decisions={
            call_id: Decision(said) if isinstance(said, bool) else said for call_id, said in body.approvals.items()
        },
        asked=msgspec.structs.replace(body, delivery=Delivery()),  # how this reader wants its events is no matter
        protocol=protocol,
        is_whole=is_whole,
        first=first,
    )
