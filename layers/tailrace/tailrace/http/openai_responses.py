"""The routes of OpenAI's Responses API (openai-python 3.x, openai-node 7.x, base URL ``/v1``): ``/v1/responses``.

A response is a reply, and its id is the reply's behind ``resp_``. Each response belongs to a conversation:
``conversation`` and ``previous_response_id`` say which goes on, and without either there is a new one, which is stored
with the start. Going on from a response that is not its conversation's last branches: what was said until then is
copied into a new conversation, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from tailrace.aws.sessions import OPEN_SECONDS
from tailrace.backend import Backend
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.history import Past
from tailrace.conversation.prompt import as_said
from tailrace.conversation.request import LONGEST_NAME, Choice
from tailrace.errors import AlreadyStarted, Conflict, NotFound, StoreError
from tailrace.events import TERMINAL, ConversationRecord, Message
from tailrace.http.begin import Ask, answer, begin, connecting, find_conversation, new_record, store_start
from tailrace.http.cursor import Cursor, query
from tailrace.http.live import Live
from tailrace.http.openai_errors import BadParameter, respond_error
from tailrace.http.openai_input import read_input
from tailrace.http.openai_input_items import respond_input_items
from tailrace.http.openai_models import choose
from tailrace.http.replay import Replay
from tailrace.http.requests import Receive, Scope, Send, header, read_json
from tailrace.http.responses import respond_json
from tailrace.ids import message_address, new_conversation_id, page_conversation_id
from tailrace.protocols.openai_responses import CONVERSATION, ECHOED, KEPT, NAME, RESPONSE, response_of
from tailrace.protocols.stored import CLIENT_ID, calls_of

__all__ = [
    "cancel_response",
    "delete_response",
    "get_input_items",
    "get_response",
    "post_response",
    "respond_error",
]

MOST_COPIED: Final = 90
"""Messages that a branch may copy: they go in one transaction with its start, which may have 100 writes
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html)."""

LONGEST_COPIED: Final = 1_500_000
"""Characters of the same: a transaction may have 4 MB."""

LARGEST_ECHO: Final = 60_000
"""Bytes of what a response object repeats of its request. It lies in the reply's item, which holds 400 KB with all that
the reply comes to; what is over that is not repeated, tools first."""

MOST_METADATA: Final = 16
LONGEST_METADATA_KEY: Final = 64
LONGEST_METADATA_VALUE: Final = 512
"""As OpenAI has them (https://platform.openai.com/docs/api-reference/responses/create#responses-create-metadata)."""

ENCRYPTED: Final = "reasoning.encrypted_content"
"""What a client asks for that keeps the model's thoughts itself. They are kept here, so there is nothing to give."""

NOT_HERE: Final = {
    "context_management": (None,),
    "max_tool_calls": (None,),
    "moderation": (None,),
    "prompt": (None,),
    "prompt_cache_options": (None,),
    "prompt_cache_retention": (None, "in_memory"),
    "service_tier": (None, "auto", "default"),
    "top_logprobs": (None, 0),
}
"""Fields whose other values cannot be honoured, with those that ask for nothing."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]


class Reasoning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is to think."""

    effort: str | None = None
    summary: str | None = None


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the answer's text is to be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same, as it is wrapped."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ConversationId(msgspec.Struct, frozen=True):
    """A conversation, by its id."""

    id: str


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What ``responses.create`` sends, as far as it is read here; and ``options``, ``fallbacks`` and ``channel``, which
    are ours (docs/http.md)."""

    input: str | list[dict[str, Any]] | None = None
    model: Name | None = None
    stream: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationId | None = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    stream_options: dict[str, Any] | None = None
    options: dict[str, Any] = {}
    fallbacks: list[Choice] = []
    channel: str | None = None


FIELDS: Final = frozenset({*Body.__struct_fields__, *NOT_HERE})


# ---- the routes ----


async def post_response(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Start a response, or attach to the one that the same ``Idempotency-Key`` started before."""
    arrived = backend.clock.monotonic()
    owner = await backend.identify(scope)
    raw = await read_json(scope, receive, backend.settings.body_limit, dict[str, Any])
    asked = _Asked(backend, _read(raw), raw, header(scope, b"idempotency-key"))
    body = asked.body
    if body.background and not body.stream and scope.get("aws.context") is not None:
        raise BadParameter("background without stream needs the function that streams; this one cannot.", "background")
    async with connecting(backend, asked.provider) as opening:
        place = await _place(backend, owner, asked)
        try:
            await _start(backend, scope, receive, send, owner, asked, place, arrived, opening)
        except Conflict:
            if place.claim is None:
                raise
            # Somebody else has just gone on from the same response: this one branches.
            place = await _branch(backend, owner, place.conversation_id, place.after, asked)
            await _start(backend, scope, receive, send, owner, asked, place, arrived, opening)


async def get_response(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Return a response as it stands; with ``?stream=true`` its events after ``starting_after``, then live."""
    message_id = await _own(backend, scope)
    parameters = query(scope)
    after = parameters.get("starting_after")
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 12):
        raise BadParameter("starting_after must be a sequence_number: a whole number from 0 on.", "starting_after")
    if parameters.get("stream", "false") == "true":
        skip = 0 if after is None else int(after) + 1
        await Replay(backend, Cursor(message_id, 0), NAME, skip=skip).stream(scope, receive, send)
        return
    if after is not None:
        raise BadParameter("starting_after is for stream=true.", "starting_after")
    await respond_json(send, 200, await _snapshot(backend, message_id), _headers(message_id))


async def cancel_response(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """End a response and keep its text; from anywhere, any number of times, also one that is not in the background."""
    message_id = await _own(backend, scope)
    await backend.open_replies.cancel(message_id)
    await respond_json(send, 200, await _snapshot(backend, message_id), _headers(message_id))


async def get_input_items(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Return a page of what a response was generated from: ``limit``, ``order`` and ``after``."""
    await respond_input_items(backend, scope, send, await _own(backend, scope))


async def delete_response(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Delete a response from sight and from the next prompt; one that is being written is cancelled first."""
    message_id = await _own(backend, scope)
    await backend.open_replies.cancel(message_id)
    record = await backend.store.conversations.of_message(message_id)
    await Conversation(record, backend).delete_message(message_id)
    await respond_json(send, 200, {"id": RESPONSE + message_id, "object": "response", "deleted": True})


# ---- which response ----


def _message_id(response_id: str) -> str:
    """Return the id of the reply that a response is.

    Raises:
        NotFound: the text is no id of a response.
    """
    if not response_id.startswith(RESPONSE):
        raise NotFound("No such response.")
    message_id = response_id.removeprefix(RESPONSE)
    try:
        message_address(message_id)
    except NotFound:
        raise NotFound("No such response.") from None
    return message_id


async def _own(backend: Backend, scope: Scope) -> str:
    """Return the id of the caller's own reply that a request's path names.

    Raises:
        NotFound: there is none, it is somebody else's, or no reply.
    """
    owner = await backend.identify(scope)
    message_id = _message_id(scope["path_params"]["id"])
    if (await backend.store.conversations.of_message(message_id)).owner != owner:
        raise NotFound("No such response.")
    if (await backend.store.messages.peek(message_id)).role != "assistant":
        raise NotFound("No such response.")
    return message_id


async def _snapshot(backend: Backend, message_id: str) -> dict[str, Any]:
    messages = backend.store.messages
    message, stored = await asyncio.gather(messages.get(message_id), messages.peek(message_id))
    return response_of(message, stored.private)


def _headers(message_id: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-message-id", message_id.encode()), (b"cache-control", b"no-store")]


# ---- what was asked ----


def _read(raw: dict[str, Any]) -> Body:
    """Return the body.

    Raises:
        BadParameter: a field is unknown, cannot be, or asks for what is not done here; the error names it.
    """
    for name in raw:
        if name not in FIELDS:
            raise BadParameter(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        if name in NOT_HERE and raw[name] not in NOT_HERE[name]:
            raise BadParameter(f"{name} is not supported here: leave it out.", name, "unsupported_parameter")
    try:
        body = msgspec.convert(raw, Body, strict=True)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        param = where.rstrip("`") or None
        raise BadParameter(f"{param or 'The body'} does not validate: {what}.", param, "invalid_type") from error
    metadata = body.metadata or {}
    if len(metadata) > MOST_METADATA or any(
        len(key) > LONGEST_METADATA_KEY or len(value) > LONGEST_METADATA_VALUE for key, value in metadata.items()
    ):
        raise BadParameter(
            f"metadata may have {MOST_METADATA} keys of {LONGEST_METADATA_KEY} characters with values of"
            f" {LONGEST_METADATA_VALUE}.",
            "metadata",
        )
    if body.conversation is not None and body.previous_response_id is not None:
        raise BadParameter(
            "Give conversation or previous_response_id, not both.", "previous_response_id", "mutually_exclusive"
        )
    shape = None if body.text is None else body.text.format
    if shape is not None and shape.type == "json_schema" and shape.schema is None:
        raise BadParameter("text.format.schema is missing.", "text.format.schema", "missing_required_parameter")
    return body


class _Asked:
    """A request as it is read.

    Attributes:
        provider, model: who is to answer.
        key: what the client sent as ``Idempotency-Key``.
        is_about: what tells this request from another one under the same key.
    """

    def __init__(self, backend: Backend, body: Body, raw: dict[str, Any], key: str | None) -> None:
        self.body = body
        self.key = key
        self.is_about = {name: value for name, value in raw.items() if name not in ("stream", "stream_options")}
        self.provider: str | None = None
        self.model: str | None = None
        if body.model is not None:
            self.provider, self.model = choose(backend, body.model)
        self.system, self.additions = read_input(body.input)

    @property
    def mark(self) -> str | None:
        """What a response that is started under a key keeps of it."""
        return None if self.key is None else hashlib.sha256(self.key.encode()).hexdigest()[:32]

    def options(self) -> dict[str, Any]:
        """Return the options as ours."""
        body = self.body
        reasoning, text = body.reasoning or Reasoning(), body.text or TextConfig()
        include = [each for each in body.include or () if each != ENCRYPTED]
        found: dict[str, Any] = {
            "max_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "tools": body.tools or None,
            "tool_choice": body.tool_choice if body.tools else None,
            # What is so anyway need not be asked for: not all who answer know the word.
            "parallel_tool_calls": False if body.tools and body.parallel_tool_calls is False else None,
            "reasoning_effort": reasoning.effort,
            "reasoning_summary": reasoning.summary,
            "response_format": _response_format(text.format),
            "include": include or None,
        }
        return {**{name: value for name, value in found.items() if value is not None}, **body.options}

    def kept(self) -> dict[str, Any]:
        """Return what the response object repeats, as far as there is room."""
        body = msgspec.to_builtins(self.body)
        kept = {name: body[name] for name in ECHOED if body.get(name) is not None and name not in ("text", "store")}
        if self.body.reasoning is not None:
            kept["reasoning"] = {**ECHOED["reasoning"], **body["reasoning"]}
        if self.body.text is not None and self.body.text.format is not None:
            shape = {name: value for name, value in body["text"]["format"].items() if value is not None}
            kept["text"] = {"format": shape}
        kept["model"] = self.body.model or self.model or ""
        for name in ("tools", "text", "tool_choice", "instructions"):
            if len(msgspec.json.encode(kept)) <= LARGEST_ECHO:
                break
            kept.pop(name, None)
        if self.mark is not None:
            kept["key"] = self.mark
        return kept


def _response_format(shape: TextFormat | None) -> dict[str, Any] | None:
    if shape is None or shape.type == "text":
        return None
    if shape.type == "json_object":
        return {"type": "json_object"}
    inner = {"name": shape.name or "output", "schema": shape.schema, "strict": shape.strict or False}
    return {"type": "json_schema", "json_schema": inner}


# ---- where it goes ----


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a response is started.

    Attributes:
        new: what the conversation is if it is made with the start.
        copied: what is stored before the input.
        after: the reply that it goes on from.
        claim: a key which only one of those can have that go on from the same reply.
    """

    conversation_id: str
    new: ConversationRecord | None = None
    copied: Sequence[NewMessage] = ()
    after: str = ""
    claim: str | None = None


async def _place(backend: Backend, owner: str, asked: _Asked) -> _Place:
    body = asked.body
    if body.previous_response_id is not None:
        return await _after(backend, owner, asked, body.previous_response_id)
    if body.conversation is not None:
        given = body.conversation if isinstance(body.conversation, str) else body.conversation.id
        conversation_id = await find_conversation(backend, owner, given.removeprefix(CONVERSATION))
        return _Place(conversation_id=conversation_id)
    if not asked.additions:
        raise BadParameter("input is missing.", "input", "missing_required_parameter")
    return _new_place(backend, owner, asked, asked.system)


def _new_place(
    backend: Backend, owner: str, asked: _Asked, system: Sequence[str], copied: Sequence[NewMessage] = ()
) -> _Place:
    # The same key finds the same conversation, so that a retry attaches.
    conversation_id = (
        new_conversation_id(backend.random_bytes)
        if asked.mark is None
        else page_conversation_id(owner, f"openai-responses:{asked.mark}")
    )
    new = new_record(backend, owner, conversation_id, system="\n\n".join(system) or None)
    return _Place(conversation_id=conversation_id, new=new, copied=copied)


async def _after(backend: Backend, owner: str, asked: _Asked, response_id: str) -> _Place:
    """Return where the response goes on that follows another one.

    Raises:
        NotFound: there is no such response of this owner's.
        BadParameter: it has not ended, or there is too much to branch from.
    """
    try:
        message_id = _message_id(response_id)
        record = await backend.store.conversations.of_message(message_id)
        stored = await backend.store.messages.peek(message_id)
    except NotFound:
        stored, record = None, None
    if stored is None or record is None or record.owner != owner or stored.role != "assistant":
        raise NotFound(f"Previous response with id '{response_id[:100]}' not found.")
    if stored.status not in TERMINAL:
        raise BadParameter("The previous response has not ended; wait for it, or cancel it.", "previous_response_id")
    later, _ = await backend.store.messages.list(record.id, 10, newest_first=True)
    is_newest = False
    for message in later:
        if message.id == message_id:
            is_newest = True
            break
        if message.role == "assistant" and asked.mark is not None:
            private = (await backend.store.messages.peek(message.id)).private.get(KEPT)
            if isinstance(private, dict) and private.get("key") == asked.mark:
                return _Place(conversation_id=record.id)  # this very request started it
        if message.role != "system":
            break
    if not is_newest:
        return await _branch(backend, owner, record.id, message_id, asked)
    claim = None if asked.key is not None else f"openai:after:{message_id}"
    return _Place(conversation_id=record.id, after=message_id, claim=claim)


async def _branch(backend: Backend, owner: str, conversation_id: str, after: str, asked: _Asked) -> _Place:
    """Return a new conversation with what another one had until a reply.

    Raises:
        BadParameter: that is more than goes into one transaction.
    """
    record = await backend.store.conversations.get(conversation_id)
    position = message_address(after).position
    copied: list[NewMessage] = []
    system = [record.system] if record.system else []
    size = 0
    async for message in backend.store.messages.history(conversation_id):
        if message_address(message.id).position > position:
            break
        if message.role == "system":
            system.append(message.content)
        elif message.status == "completed" or message.id == after:
            copied.append(_copy(message))
            size += len(message.content)
        if len(copied) + len(asked.additions) > MOST_COPIED or size > LONGEST_COPIED:
            raise BadParameter(
                f"That response is not the last of its conversation, and a branch copies what comes before it: "
                f"{MOST_COPIED} messages at most. Go on from the last one, or give conversation: "
                f"'{CONVERSATION}{conversation_id}'.",
                "previous_response_id",
            )
        if message.id == after:
            break
    return _new_place(backend, owner, asked, [*system, *asked.system], copied)


def _copy(message: Message) -> NewMessage:
    names_kept = ("parts", "tool_calls", "tool_call_id", "tool_name", CLIENT_ID)
    return NewMessage(
        message.role, message.content, {name: message.metadata[name] for name in names_kept if name in message.metadata}
    )


# ---- the start ----


async def _start(
    backend: Backend,
    scope: Scope,
    receive: Receive,
    send: Send,
    owner: str,
    asked: _Asked,
    place: _Place,
    arrived: float,
    opening: asyncio.Future[None],
) -> None:
    body = asked.body
    begun = await begin(
        backend,
        owner,
        place.conversation_id,
        arrived=arrived,
        has_question=bool(asked.additions),
        new=place.new,
    )
    ask = _ask(backend, asked, place, begun.past)
    kept = ask.metadata["private"]

    async def respond(send: Send, message: Message) -> None:
        stored = await backend.store.messages.peek(message.id)
        await respond_json(send, 200, response_of(message, stored.private), _headers(message.id))

    if body.stream or not body.background:
        await answer(backend, scope, receive, send, begun, ask, opening, None if body.stream else respond)
        return
    try:
        started = await store_start(backend, scope, begun, ask)
    except AlreadyStarted as before:
        content = await _snapshot(backend, before.message_id)
        await respond_json(send, 200, content, _headers(before.message_id))
        return
    message = started.stream.message
    await _send_open(send, msgspec.json.encode(response_of(message, kept)), message.id)
    await asyncio.wait((opening,), timeout=OPEN_SECONDS)

    async def nothing_more(send: Send, message: Message) -> None:
        """The client has its answer."""

    try:
        await Live(backend, started).whole(send, nothing_more)
    except StoreError:
        pass  # likewise; whoever asks for the response learns of it
    finally:
        await send({"type": "http.response.body", "body": b""})


async def _send_open(send: Send, body: bytes, message_id: str) -> None:
    """Send an answer that its client has whole at once, and leave the response open: in Lambda, a function whose
    response has ended is frozen.

    The client knows the length. It closes the connection and asks on another one: on this, the server would answer
    the next request only after this response.
    """
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *_headers(message_id),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _ask(backend: Backend, asked: _Asked, place: _Place, past: Past) -> Ask:
    """Return what is to be started.

    Raises:
        BadParameter: a tool's result has no call.
    """
    body = asked.body
    additions = [*place.copied, *asked.additions]
    if place.new is None:
        additions[:0] = [NewMessage("system", text) for text in asked.system]
    additions = _checked(additions, {call for message in past.messages for call in calls_of(message)})
    key = asked.key or place.claim
    return Ask(
        provider=asked.provider,
        model=asked.model,
        fallbacks=body.fallbacks,
        options=asked.options(),
        additions=additions,
        instructions=[body.instructions] if body.instructions else [],
        metadata={"private": {KEPT: asked.kept()}},
        channel=body.channel,
        key=key,
        # Under a claim every request is another one.
        asked=asked.is_about if asked.key is not None else backend.random_bytes(16).hex(),
        protocol=NAME,
        is_whole=not body.stream,
    )


def _checked(additions: Sequence[NewMessage], known: set[str]) -> list[NewMessage]:
    """Return what is to be stored, without calls that are stored already.

    Args:
        known: the ids of these.

    Raises:
        BadParameter: a tool's result has no call.
    """
    found: list[NewMessage] = []
    for message in additions:
        if message.role == "tool_call":
            calls = [each for each in msgspec.json.decode(message.content) if each["id"] not in known]
            if not calls:
                continue
            message = NewMessage(message.role, msgspec.json.encode(calls).decode(), message.metadata)
        elif message.role == "tool_result" and "tool_call_id" not in message.metadata:
            for each in msgspec.json.decode(message.content):
                if each["id"] not in known:
                    text = f"No tool call found for function call output with call_id {each['id']}."
                    raise BadParameter(text, "input")
        known = known | calls_of(as_said(message.role, message.content, message.metadata)).keys()
        found.append(message)
    return found
