"""Beginning a reply, in whatever words it was asked for: what can be refused is, then its start is stored.

A route reads its own body into an ``Ask`` and gives that to ``answer``, which starts the reply, or attaches to the one
that the same start began before, and serves its reader.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp  # noqa: F401 - what asks providers is imported as the function starts, not in its first request
import msgspec

from tailrace.aws.sessions import OPEN_SECONDS
from tailrace.backend import Backend
from tailrace.clock import microseconds
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.going_on import Before, read_before
from tailrace.conversation.history import Past, Window
from tailrace.conversation.prompt import CONTINUED, as_said, estimate
from tailrace.conversation.request import Choice, Here, Running, open_source, provider_request, tools_here
from tailrace.delivery import Delivery, Progress
from tailrace.errors import AlreadyStarted, NotFound, RequestError, TailraceError, Unprocessable
from tailrace.events import ConversationRecord, Json, Message
from tailrace.http.allowed import bounded_options, check_choices
from tailrace.http.cursor import Cursor, last_event_id
from tailrace.http.live import Live, Started
from tailrace.http.replay import Replay
from tailrace.http.requests import Receive, Scope, Send, correlation_id, socket_id, time_left
from tailrace.http.responses import RespondWhole
from tailrace.ids import conversation_tag, page_conversation_id
from tailrace.protocols import DEFAULT, find_protocol
from tailrace.protocols.reader import Opening, check_by_chunk
from tailrace.protocols.stored import CLIENT_TOOLS, outputs_of
from tailrace.providers import connect
from tailrace.providers.fallback import Mode
from tailrace.providers.options import read_options
from tailrace.reply.steps import MAX_STEPS, Decision
from tailrace.store import Start
from tailrace.store.together import both

if TYPE_CHECKING:
    from tailrace.conversation.admission import Admission

LONGEST_KEY: Final = 255
"""Characters of an idempotency key."""

LONGEST_PAGE_ID: Final = 255
"""Characters of an id that a page chose for its conversation."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a start asks for.

    Attributes:
        provider, model: who is to answer; the settings' when None.
        fallbacks, fallback: who is asked after it, and when.
        additions: messages that are stored before the reply, in this order: the user's, or the results of tools.
        earlier: messages that come before these, any number; they are stored in transactions of their own.
        replaced: the ids of stored messages in whose place these and the reply come.
        instructions: system prompts of this reply alone.
        metadata: of the reply. What is under ``private`` is stored and never sent.
        key: the same key attaches to the same reply, if the same was asked.
        asked: what was asked, for telling two starts under one key apart; JSON.
        protocol: the wire format of the reader, and ``wants`` what its request says of that.
        goes_on: whether it goes on with the newest reply, and ``decisions`` what was said to calls of it that wait.
        is_whole: whether the reader wants the message at the end and no stream.
        first: sent before everything else, with the reply's id in the place of ``%b``.
    """

    provider: str | None = None
    model: str | None = None
    fallbacks: Sequence[Choice] = ()
    fallback: Mode = "before_first_chunk"
    options: Json = msgspec.field(default_factory=dict)
    additions: Sequence[NewMessage] = ()
    earlier: Sequence[NewMessage] = ()
    replaced: Sequence[str] = ()
    instructions: Sequence[str] = ()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    delivery: Delivery = Delivery()
    cancel_on_disconnect: bool = False
    channel: str | None = None
    key: str | None = None
    asked: Any = None
    protocol: str = DEFAULT
    wants: Json = msgspec.field(default_factory=dict)
    goes_on: bool = False
    decisions: Mapping[str, Decision] = msgspec.field(default_factory=dict)
    is_whole: bool = False
    first: bytes = b""


class Begun(msgspec.Struct, frozen=True):
    """A conversation that a reply is about to be started in, and what of it goes into the prompt.

    Attributes:
        arrived: when the request came, by the monotonic clock.
        admission: counts the reply for the limits of its owner; None where there are none.
    """

    conversation: Conversation
    past: Past
    owner: str
    arrived: float
    admission: Admission | None = None


async def find_conversation(backend: Backend, owner: str, page_id: str) -> str:
    """Return the id of the conversation that an owner's page knows by an id: ours, or one of its own.

    Raises:
        Unprocessable: it is too long, or empty.
    """
    if not 0 < len(page_id) <= LONGEST_PAGE_ID:
        raise Unprocessable(f"The id of a conversation must have 1 to {LONGEST_PAGE_ID} characters.")
    try:
        conversation_tag(page_id)
    except NotFound:
        return page_conversation_id(owner, page_id)
    try:  # it has the form of one of ours
        if (await backend.store.conversations.get(page_id)).owner == owner:
            return page_id
    except NotFound:
        pass
    return page_conversation_id(owner, page_id)


def new_record(
    backend: Backend, owner: str, conversation_id: str, *, system: str | None = None, metadata: Json | None = None
) -> ConversationRecord:
    """Return what a conversation is that is made by its first reply."""
    now = backend.clock.now()
    return ConversationRecord(
        id=conversation_id, owner=owner, system=system, metadata=metadata or {}, created=now, updated=now
    )


@asynccontextmanager
async def connecting(backend: Backend, provider: str | None) -> AsyncIterator[asyncio.Future[None]]:
    """Open the connection to a provider inside the block. Nothing is asked: that waits for the store."""
    opening = asyncio.ensure_future(_open_connection(backend, provider or backend.settings.provider))
    try:
        yield opening
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)


async def _open_connection(backend: Backend, name: str) -> None:
    try:
        provider = await backend.provider(name)
    except TailraceError:
        return  # the start itself says so
    await connect(provider)


async def begin(
    backend: Backend,
    owner: str,
    conversation_id: str,
    *,
    arrived: float,
    history: Window | None = None,
    has_question: bool = True,
    new: ConversationRecord | None = None,
    before: str | None = None,
) -> Begun:
    """Read the conversation and its window, in one round trip.

    Args:
        has_question: whether what is to be answered is not stored yet.
        before: the id of a message that is to be replaced with all that come after it.
        new: what the conversation is if there is none yet.

    Raises:
        RateLimited: this process has no time for one more.
        NotFound, StoreError: as ``Conversation.load`` does.
    """
    async with backend.load.starting():
        loading = Conversation.load_with_past(
            conversation_id,
            history,
            has_question=has_question,
            owner=owner,
            backend=backend,
            new=new,
            before=before,
        )
        if not backend.limits.are_any:
            conversation, past = await loading
            return Begun(conversation, past, owner, arrived)
        from tailrace.conversation.admission import Admission  # where there are limits

        (conversation, past), known = await both(loading, backend.store.identities.get(owner))
        return Begun(conversation, past, owner, arrived, Admission(backend, owner, known))


async def answer(
    backend: Backend,
    scope: Scope,
    receive: Receive,
    send: Send,
    begun: Begun,
    ask: Ask,
    opening: asyncio.Future[None] | None = None,
    respond: RespondWhole | None = None,
) -> None:
    """Start the reply, or attach to the one that the same start began, and serve its reader.

    Args:
        opening: the connection to the provider that is being opened.
        respond: sends the whole reply, where that is wanted.

    Raises:
        TailraceError: it is refused, and nothing was stored.
    """
    more = () if respond is None else (respond,)
    try:
        started = await store_start(backend, scope, begun, ask)
    except AlreadyStarted as before:
        cursor = last_event_id(scope, before.message_id) or Cursor(before.message_id, 0)
        replay = Replay(backend, cursor, ask.protocol, ask.delivery, wants=ask.wants)
        await (replay.whole(send, *more) if ask.is_whole else replay.stream(scope, receive, send))
        return
    if opening is not None:
        # The reply's first byte needs the connection, whoever opens it.
        await asyncio.wait((opening,), timeout=OPEN_SECONDS)
    live = Live(backend, started)
    if ask.is_whole:
        await live.whole(send, *more)
    else:
        await live.stream(receive, send, ask.first.replace(b"%b", started.stream.id.encode()))


async def store_start(backend: Backend, scope: Scope, begun: Begun, ask: Ask) -> Started:
    """Check everything that can be refused, then store the start; the provider is not called yet.

    Raises:
        AlreadyStarted: the key was used with the same body.
        TailraceError: it is refused, and nothing was stored.
    """
    ask.delivery.check()
    check_by_chunk(find_protocol(ask.protocol), is_paced=ask.delivery.is_paced)
    owner, conversation = begun.owner, begun.conversation
    first = Choice(ask.provider or backend.settings.provider, ask.model)
    choices = [first, *ask.fallbacks]
    check_choices(backend.settings, choices)
    is_own = any(choice.provider in backend.own_providers for choice in choices)
    options = read_options(bounded_options(backend.settings, ask.options, is_own=is_own))
    tools = await tools_here(backend, options)
    start = None if ask.key is None else Start(owner, check_key(ask.key), digest(ask.asked))
    said = [as_said(each.role, each.content, each.metadata) for each in (*ask.earlier, *ask.additions)]
    past, before = begun.past, None
    if ask.goes_on:
        outputs = {output.id for message in said for output in outputs_of(message)}
        # What this very start has gone on with before is gone on with already.
        if start is not None and (same := await backend.store.messages.started(conversation.id, start)) is not None:
            raise AlreadyStarted(same)
        before = await read_before(backend.store, conversation.id, tools, ask.decisions, outputs=outputs)
        past, said = _gone_on(past, before, said)
    request = provider_request(conversation.record, [*past.messages, *said], options, past.steps, tools.values())
    request = msgspec.structs.replace(request, system=[*request.system, *ask.instructions])
    running = Running(conversation, metadata=ask.metadata)
    here = Here(tools, running, options.max_steps or MAX_STEPS, None if before is None else before.pending)
    source = await open_source(backend, choices, request, options, ask.fallback, here)
    for rule in backend.start_rules:
        if (asked := rule(owner, msgspec.structs.replace(request, model=first.model))) is not None:
            await asked
    if ask.channel is not None:
        await _check_channel(backend, owner, ask.channel)
    metadata = {**ask.metadata, **_what_was_left_out(past)}
    if tools:
        metadata["steps"] = 1  # until its end counts them
    if tools or is_own:
        # Of the tools that run here, or at an agent, a protocol may have no form that its clients would not run.
        private = metadata.get("private") or {}
        if isinstance(private, dict):  # what else it is, is refused where it is stored
            metadata["private"] = {**private, CLIENT_TOOLS: [tool.name for tool in options.tools]}
    if before is not None:
        metadata["continues"] = before.message.id
    stream = await conversation.stream_response(
        metadata=metadata,
        additions=ask.additions,
        replaced=ask.replaced,
        earlier=ask.earlier,
        channel=ask.channel,
        provider=first.provider,
        model=first.model,
        prompt_tokens=estimate(request),
        start=start,
        except_socket=socket_id(scope),
        continued=None if before is None else before.message.id,
        admission=begun.admission,
    )
    message = stream.message
    left = time_left(scope, backend)
    running.message_id, running.stored = message.id, stream.stored
    running.gone_at = None if left is None else backend.clock.monotonic() + left
    return Started(
        stream=stream,
        source=source,
        protocol=ask.protocol,
        delivery=ask.delivery,
        progress=Progress(begun.arrived) if ask.delivery.progress else None,
        cancel_on_disconnect=ask.cancel_on_disconnect,
        gone_at=running.gone_at,
        correlation=correlation_id(scope),
        opening=Opening(
            message_id=message.id,
            conversation_id=conversation.id,
            created=microseconds(message.created_at),
            provider=message.provider,
            model=message.model,
            metadata=message.metadata,
            private=metadata.get("private") or {},
        ),
        wants=ask.wants,
    )


def _gone_on(past: Past, before: Before, said: Sequence[Message]) -> tuple[Past, list[Message]]:
    """Return the prompt's messages with the reply that is gone on with, and what comes after it.

    The results that its calls will have are empty here; whoever makes the calls puts them in.
    """
    message = before.message
    messages = [each for each in past.messages if each.id != message.id]
    # As it will be stored.
    continued = msgspec.structs.replace(message, metadata={**message.metadata, CONTINUED: ""})
    steps = {**past.steps, message.id: before.steps}
    past = Past([*messages, continued], past.left_out, max(past.count, 1), steps)
    results = [{"id": call.id, "result": ""} for call in before.pending.calls]
    waiting = [as_said("tool_result", msgspec.json.encode(results).decode(), {})] if results else []
    return past, [*said, *waiting]


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


def check_key(key: str) -> str:
    """Return an idempotency key that can be one.

    Raises:
        RequestError: it cannot.
    """
    if not 0 < len(key) <= LONGEST_KEY:
        raise RequestError(f"The idempotency key must have 1 to {LONGEST_KEY} characters.")
    return key


def digest(asked: Any) -> bytes:
    """Return what tells requests apart: their meaning, not how a client happened to write them."""
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).digest()
