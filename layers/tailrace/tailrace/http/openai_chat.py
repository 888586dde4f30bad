"""OpenAI's chat completions and models: ``/v1/chat/completions`` and ``/v1/models``.

A request carries its whole history and is stored as a conversation like any other: a new one, unless the header
``X-Conversation-Id`` names one. Then what is stored counts, and only what follows the last answer is added.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from tailrace.backend import Backend
from tailrace.clock import microseconds
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.history import Window
from tailrace.conversation.parts import check_parts, parts_metadata
from tailrace.conversation.request import LONGEST_NAME, Choice
from tailrace.errors import NotFound, ProviderError, ProviderTimeout, TailraceError, Unprocessable
from tailrace.events import Message
from tailrace.http.begin import Ask, answer, begin, connecting, find_conversation, new_record
from tailrace.http.openai_errors import respond_error
from tailrace.http.requests import Receive, Scope, Send, check_type, header, parse, read_body
from tailrace.http.responses import respond_json
from tailrace.ids import new_conversation_id, page_conversation_id
from tailrace.protocols.openai_chat import NAME, completion
from tailrace.providers import FilePart, ImagePart, InputPart, names, variables

MOST_MESSAGES: Final = 90
"""Of a request: they are stored with its reply in one transaction, which may have 100 writes
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html)."""

CONVERSATION: Final = b"x-conversation-id"

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


class Function(msgspec.Struct, frozen=True):
    """What a call calls."""

    name: str
    arguments: str = ""


class Call(msgspec.Struct, frozen=True):
    """A call of a tool, in the history."""

    id: str
    function: Function
    type: str = "function"


class Url(msgspec.Struct, frozen=True):
    """Where an image is, or the image itself."""

    url: str
    detail: str | None = None


class File(msgspec.Struct, frozen=True):
    """A file itself."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class ContentPart(msgspec.Struct, frozen=True):
    """A part of what is said."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Url | None = None
    file: File | None = None


class ChatMessage(msgspec.Struct, frozen=True):
    """A message of the request."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None


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
    given = await read_body(scope, receive, backend.settings.body_limit)
    check_type(scope)
    body = parse(given, CompletionBody)
    if len(body.messages) > MOST_MESSAGES:
        raise Unprocessable(
            f"messages may have {MOST_MESSAGES} messages at most; name a conversation to go on with it."
        )
    provider, model = choose(backend, body.model)
    key, named = header(scope, b"idempotency-key"), header(scope, CONVERSATION)
    if named is not None:
        conversation_id = await find_conversation(backend, owner, named)
    elif key is not None:
        conversation_id = page_conversation_id(owner, f"openai:{key}")  # so the same key finds it again
    else:
        conversation_id = new_conversation_id(backend.random_bytes)
    # What is said to the model of its part is the conversation's, if this begins it.
    system = "\n\n".join(_text(each) for each in body.messages if each.role in ("system", "developer"))
    is_stored = named is not None and await _is_stored(backend, conversation_id)
    additions = _additions(body.messages, is_stored=is_stored)
    async with connecting(backend, provider) as opening:
        begun = await begin(
            backend,
            owner,
            conversation_id,
            arrived=arrived,
            history=body.history,
            new=new_record(backend, owner, conversation_id, system=system or None),
        )
        ask = Ask(
            provider=provider,
            model=model,
            fallbacks=body.fallbacks,
            options=_options(body),
            additions=additions,
            metadata={
                **({"metadata": body.metadata} if body.metadata else {}),
                "private": {NAME: {"model": body.model}},
            },
            channel=body.channel,
            key=key,
            asked=body,
            protocol=NAME,
            wants={"include_usage": bool(body.stream_options and body.stream_options.include_usage)},
            is_whole=not body.stream,
        )

        async def respond(send: Send, message: Message) -> None:
            await respond_completion(send, message, body.model)

        await answer(backend, scope, receive, _telling(send, conversation_id), begun, ask, opening, respond)


async def get_models(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Return what may be asked: the default, and the providers that have a key."""
    await backend.identify(scope)
    settings = backend.settings
    default = f"{settings.provider}/{settings.model}" if settings.model else settings.provider
    found = [default]
    for name in names():
        keys = variables(name).keys
        if name != settings.provider and keys and settings.provider_config(name).api_key is not None:
            found.append(name)
    models = [{"id": each, "object": "model", "created": 0, "owned_by": each.partition("/")[0]} for each in found]
    await respond_json(send, 200, {"object": "list", "data": models})


def choose(backend: Backend, model: str) -> tuple[str, str | None]:
    """Return the provider and its model that a name means: ``provider/model``, a provider alone, or a model of the
    default provider's."""
    provider, slash, rest = model.partition("/")
    if provider in names() and (slash or provider == model):
        return provider, rest or None
    return backend.settings.provider, model


async def respond_completion(send: Send, message: Message, model: str) -> None:
    """Send a reply that has ended, or its failure."""
    if message.status == "completed":
        body = completion(message, model, microseconds(message.created_at) // 1_000_000)
        await respond_json(send, 200, body, [(b"x-message-id", message.id.encode())])
        return
    await respond_error(send, failure_of(message))


def failure_of(message: Message) -> TailraceError:
    """Return the error that a reply ended with."""
    error = message.error or {}
    text, kind = str(error.get("message", "The reply ended early.")), str(error.get("type", ""))
    failure = ProviderTimeout if kind.startswith("timeout") else ProviderError
    return failure(text, provider=message.provider or "")


async def _is_stored(backend: Backend, conversation_id: str) -> bool:
    try:
        await backend.store.conversations.get(conversation_id)
    except NotFound:
        return False
    return True


def _additions(messages: list[ChatMessage], *, is_stored: bool) -> list[NewMessage]:
    """Return what is new of a request.

    Args:
        is_stored: whether all up to the last answer is stored already.

    Raises:
        Unprocessable: there is nothing, or a message says nothing.
    """
    begin = 0
    if is_stored:
        begin = max((place for place, each in enumerate(messages) if each.role == "assistant"), default=-1) + 1
    found: list[NewMessage] = []
    for message in messages[begin:]:
        if message.role in ("system", "developer"):
            continue
        if message.role == "tool":
            if message.tool_call_id is None:
                raise Unprocessable("A message of the role tool must have a tool_call_id - at `$.messages`.")
            content = [{"id": message.tool_call_id, "result": _text(message)}]
            found.append(NewMessage("tool_result", msgspec.json.encode(content).decode()))
        elif message.role == "assistant":
            if text := _text(message):
                found.append(NewMessage("assistant", text))
            if message.tool_calls:
                calls = [
                    {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
                    for call in message.tool_calls
                ]
                found.append(NewMessage("tool_call", msgspec.json.encode(calls).decode()))
        else:
            parts = _parts(message)
            found.append(NewMessage("user", _text(message), parts_metadata(parts)))
    if not found or messages[-1].role == "assistant":
        raise Unprocessable(
            "There is nothing to answer: the last message must be of the role user or tool - at `$.messages`."
        )
    return found


def _text(message: ChatMessage) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return "\n".join(part.text or part.refusal or "" for part in message.content if part.type in ("text", "refusal"))


def _parts(message: ChatMessage) -> list[InputPart]:
    found: list[InputPart] = []
    for part in message.content if isinstance(message.content, list) else ():
        if part.type == "image_url" and part.image_url is not None:
            media_type, data = _data(part.image_url.url)
            found.append(ImagePart(media_type=media_type, data=data, url=None if data else part.image_url.url))
        elif part.type == "file" and part.file is not None and part.file.file_data is not None:
            media_type, data = _data(part.file.file_data)
            found.append(FilePart(media_type=media_type, data=data or part.file.file_data, name=part.file.filename))
        elif part.type not in ("text", "refusal"):
            raise Unprocessable(f"A part of the type {part.type[:64]} cannot be sent on - at `$.messages`.")
    check_parts(found)
    return found


def _data(url: str) -> tuple[str, str | None]:
    """Return the media type and the base64 of a ``data:`` URL; of another one, nothing."""
    if not url.startswith("data:"):
        return "", None
    about, _, data = url[5:].partition(",")
    return about.removesuffix(";base64").partition(";")[0], data


def _options(body: CompletionBody) -> dict[str, Any]:
    given = {name: getattr(body, name) for name in AS_THEY_ARE}
    given["max_tokens"] = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    if body.parallel_tool_calls is False:
        given["parallel_tool_calls"] = False  # otherwise it is what all do
    if not body.tools:
        given["tool_choice"] = None
    return {**{name: value for name, value in given.items() if value is not None}, **body.options}


def _telling(send: Send, conversation_id: str) -> Send:
    """Return ``send`` with the header that says where the request is stored."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            message = {**message, "headers": [*message["headers"], (CONVERSATION, conversation_id.encode())]}
        await send(message)

    return sending


__all__ = ["get_models", "post_completions", "respond_error"]
