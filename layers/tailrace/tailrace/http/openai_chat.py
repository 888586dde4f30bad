"""OpenAI's chat completions and models: ``/v1/chat/completions`` and ``/v1/models``.

A request carries its whole history and is stored as a conversation like any other: a new one, unless the header
``X-Conversation-Id`` or ``metadata`` names one. Then what is stored counts, and of the request only what follows its
last answer and is not stored yet is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from tailrace.backend import Backend
from tailrace.clock import microseconds
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import MOST_WITH_REPLY
from tailrace.conversation.history import Past, Window
from tailrace.conversation.request import LONGEST_NAME, Choice
from tailrace.errors import NotFound, TooLarge
from tailrace.events import Message
from tailrace.http.begin import Ask, answer, begin, connecting, digest, find_conversation, new_record
from tailrace.http.openai_errors import BadParameter, respond_error, respond_failure
from tailrace.http.openai_history import ChatMessage, after_last_answer, new_of, read_messages, system_of, tail_of
from tailrace.http.openai_models import choose
from tailrace.http.requests import Receive, Scope, Send, header, read_json
from tailrace.http.responses import respond_json, telling, too_large
from tailrace.ids import new_conversation_id, page_conversation_id
from tailrace.protocols.openai_chat import NAME, completion
from tailrace.store.together import both

__all__ = ["post_completions", "respond_error"]

MOST_MESSAGES: Final = 1000
"""Of a request. DynamoDB takes about so many in a second into one conversation
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html)."""

MOST_READ: Final = 100
"""Stored messages that are compared with those of a request."""

CONVERSATION: Final = b"x-conversation-id"
MESSAGE: Final = b"x-message-id"

IN_METADATA: Final = "conversation_id"
"""Where ``metadata`` names a conversation, for clients that cannot send a header."""

AS_THEY_ARE: Final = (
    "temperature",
    "top_p",
    "stop",
    "tools",
    "tool_choice",
    "response_format",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
)
"""Fields that are options of a reply under the same name; a provider that does not know one refuses it."""


class StreamOptions(msgspec.Struct, frozen=True):
    """What else is streamed."""

    include_usage: bool = False
    include_obfuscation: bool = False


Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]


class CompletionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a request. The last four are ours, for ``extra_body``."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    logprobs: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    options: dict[str, Any] = {}
    fallbacks: list[Choice] = []
    history: Window | None = None
    channel: str | None = None


async def post_completions(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, streamed or whole."""
    arrived = backend.clock.monotonic()
    owner = await backend.identify(scope)
    body = await read_json(scope, receive, backend.settings.body_limit, CompletionBody)
    if len(body.messages) > MOST_MESSAGES:
        raise BadParameter(f"messages may have {MOST_MESSAGES} messages at most.", "messages")
    provider, model = choose(backend, body.model)
    async with connecting(backend, provider) as opening:
        place = await _place(backend, owner, body, header(scope, CONVERSATION), header(scope, b"idempotency-key"))
        begun = await begin(
            backend,
            owner,
            place.conversation_id,
            arrived=arrived,
            history=body.history,
            has_question=bool(place.said),
            new=new_record(backend, owner, place.conversation_id, system=system_of(body.messages)),
        )
        if place.is_whole:
            # All that goes into the prompt came with the request; what there is was left by one that broke off.
            begun = msgspec.structs.replace(begun, past=Past([], 0, begun.past.count, {}))
        ask = Ask(
            provider=provider,
            model=model,
            fallbacks=body.fallbacks,
            options=_options(body),
            earlier=place.said[:-MOST_WITH_REPLY],
            additions=place.said[-MOST_WITH_REPLY:],
            metadata={
                **({"metadata": body.metadata} if body.metadata else {}),
                "private": {NAME: {"model": body.model}},
            },
            channel=body.channel,
            key=place.key,
            asked=body,
            protocol=NAME,
            wants={"include_usage": bool(body.stream_options and body.stream_options.include_usage)},
            is_whole=not body.stream,
        )

        async def respond(send: Send, message: Message) -> None:
            await respond_completion(send, message, body.model)

        # Whatever names a reply says where it is stored.
        where = place.conversation_id.encode()
        send = telling(send, CONVERSATION, lambda headers: where if MESSAGE in headers else None)
        await answer(backend, scope, receive, send, begun, ask, opening, respond)


async def respond_completion(send: Send, message: Message, model: str) -> None:
    """Send a reply that has ended, or its failure.

    Raises:
        TooLarge: no answer can carry it.
    """
    if message.status != "completed":
        await respond_failure(send, message)
        return
    body = completion(message, model, microseconds(message.created_at) // 1_000_000)
    try:
        await respond_json(send, 200, body, [(MESSAGE, message.id.encode())])
    except TooLarge:
        raise too_large(message.id) from None


# ---- where it is stored ----


class _Place(msgspec.Struct, frozen=True):
    """Where a request is stored.

    Attributes:
        said: the messages that are not there yet.
        is_whole: whether these are all there are.
        key: the same one attaches to the same reply.
    """

    conversation_id: str
    said: Sequence[NewMessage]
    is_whole: bool
    key: str | None


async def _place(backend: Backend, owner: str, body: CompletionBody, name: str | None, key: str | None) -> _Place:
    """Return where a request is stored: in a new conversation, or at the end of the one that it names.

    Raises:
        BadParameter: its messages cannot be, or there is nothing new among them.
    """
    given = (body.metadata or {}).get(IN_METADATA)
    if name is not None and given not in (None, name):
        raise BadParameter(
            f"metadata.{IN_METADATA} and the header X-Conversation-Id name two conversations.",
            f"metadata.{IN_METADATA}",
        )
    name = name if given is None else given
    if name is None:
        # The same key finds it again.
        new_id = (
            new_conversation_id(backend.random_bytes) if key is None else page_conversation_id(owner, f"openai:{key}")
        )
        return _Place(new_id, read_messages(body.messages, 0, ()), True, key)
    conversation_id = await find_conversation(backend, owner, name)
    begin = after_last_answer(body.messages)
    most = min(MOST_READ, len(body.messages) - begin + 10)
    is_there, (stored, following) = await both(
        _is_there(backend, conversation_id),
        backend.store.messages.list(conversation_id, most, newest_first=True),
    )
    tail = tail_of(stored if is_there else [], is_all=following is None)
    is_whole = not is_there
    if is_there and stored:
        said = new_of(read_messages(body.messages, begin, tail.calls), tail.pending)
    else:
        said = read_messages(body.messages, 0, ())
    if len(said) > MOST_WITH_REPLY:
        # More than one transaction takes: of a start that broke off, another one under this name would see the rest.
        raise BadParameter(f"A conversation that is named takes {MOST_WITH_REPLY} new messages at a time.", "messages")
    # Whoever asks the same again while it is being answered is a client that lost its connection.
    own_key = f"openai:{tail.newest}:{digest(body).hex()}"
    return _Place(conversation_id, said, is_whole, key or own_key)


async def _is_there(backend: Backend, conversation_id: str) -> bool:
    try:
        await backend.store.conversations.get(conversation_id)
    except NotFound:
        return False
    return True


def _options(body: CompletionBody) -> dict[str, Any]:
    given = {name: getattr(body, name) for name in AS_THEY_ARE}
    given["max_tokens"] = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    if body.parallel_tool_calls is False:
        given["parallel_tool_calls"] = False  # otherwise it is what all do
    if not body.tools:
        given["tool_choice"] = None
    return {**{name: value for name, value in given.items() if value is not None}, **body.options}
