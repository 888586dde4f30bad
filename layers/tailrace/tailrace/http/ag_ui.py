"""AG-UI over HTTP: ``POST /api/ag-ui`` runs, ``GET /api/ag-ui/{threadId}`` connects, ``POST .../stop`` stops.

What a page sends of a thread's history is not believed: what is stored counts, and what is new at the end is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from tailrace.backend import Backend
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.history import Window
from tailrace.conversation.parts import check_parts, parts_metadata
from tailrace.conversation.request import Choice
from tailrace.errors import NotFound, Unprocessable
from tailrace.events import TERMINAL, ConversationRecord, Json, Message
from tailrace.http.begin import Ask, answer, begin, connecting, find_conversation, new_record
from tailrace.http.cursor import Cursor
from tailrace.http.replay import Replay
from tailrace.http.requests import Receive, Scope, Send, header, read_json
from tailrace.http.responses import respond_json, stream_headers
from tailrace.protocols.ag_ui import NAME, AgUiProtocol, messages_of, reply_of
from tailrace.protocols.bounded import bounded
from tailrace.protocols.reader import Object, Opening, Reading
from tailrace.protocols.stored import CLIENT_ID, calls_of, outputs_of
from tailrace.providers import FilePart, ImagePart, InputPart
from tailrace.providers.fallback import Mode
from tailrace.reply.steps import Decision
from tailrace.store.together import both

LONGEST_RUN_ID: Final = 200
"""Characters; an idempotency key is made of it."""

MOST_SHOWN: Final = 200
"""Stored messages that a page which opens a thread is shown, from the end."""

NEWEST: Final = 50
"""Stored messages among which those that a page sends are looked for, from the end."""


class Said(msgspec.Struct, frozen=True):
    """A message as a page sends it; what other fields it has does not matter here."""

    role: str
    id: str = ""
    content: Any = None
    toolCallId: str | None = None  # noqa: N815  # the wire's own words, here and below
    error: str | None = None

    @property
    def is_of_page(self) -> bool:
        """Whether the page itself has written it: the user's words, or the result of a tool of the page."""
        return self.role in ("user", "tool") and reply_of(self.id) is None


class PageTool(msgspec.Struct, frozen=True):
    """A tool that the page runs."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None


class Context(msgspec.Struct, frozen=True):
    """What the page tells an agent about itself."""

    description: str
    value: str


class Resume(msgspec.Struct, frozen=True):
    """What a page answers to an interrupt of the run before."""

    interruptId: str  # noqa: N815
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class RunInput(msgspec.Struct, frozen=True):
    """The body of a run: AG-UI's ``RunAgentInput``."""

    threadId: str  # noqa: N815
    runId: str  # noqa: N815
    messages: list[dict[str, Any]] = []
    tools: list[PageTool] | None = None
    context: list[Context] | None = None
    forwardedProps: Any = None  # noqa: N815
    resume: list[Resume] | None = None


class Forwarded(msgspec.Struct, frozen=True):
    """What of ``forwardedProps`` is ours; an app may have others there, which are its own."""

    provider: str | None = None
    model: str | None = None
    options: dict[str, Any] | None = None
    fallbacks: list[Choice] | None = None
    fallback: Mode = "before_first_chunk"
    history: Window | None = None
    metadata: dict[str, Any] | None = None


async def run(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Run: add what is new, and stream the reply; the same run posted again attaches to the same reply."""
    arrived = backend.clock.monotonic()
    owner = await backend.identify(scope)
    body = await read_json(scope, receive, backend.settings.body_limit, RunInput)
    if not 0 < len(body.runId) <= LONGEST_RUN_ID:
        raise Unprocessable(f"runId must have 1 to {LONGEST_RUN_ID} characters.")
    said = _messages(body)
    forwarded = _forwarded(body)
    async with connecting(backend, forwarded.provider) as opening:
        conversation_id = await find_conversation(backend, owner, body.threadId)
        new = new_record(backend, owner, conversation_id, system=_system(said))
        begun, stored = await both(
            begin(backend, owner, conversation_id, arrived=arrived, history=forwarded.history, new=new),
            _newest(backend, conversation_id),
        )
        additions = _additions(said, stored)
        decisions = _decisions(body)
        replaced = [] if additions or decisions else _replaced(said, stored)
        if replaced:
            begun = await begin(
                backend,
                owner,
                conversation_id,
                arrived=arrived,
                history=forwarded.history,
                has_question=False,
                before=replaced[0],
            )
        if not stored and not additions:
            raise Unprocessable("messages must have a message of the user to answer.")
        ask = Ask(
            provider=forwarded.provider,
            model=forwarded.model,
            fallbacks=forwarded.fallbacks or (),
            fallback=forwarded.fallback,
            options=_options(body, forwarded),
            additions=additions,
            goes_on=bool(decisions),
            decisions=decisions,
            replaced=replaced,
            instructions=[f"{each.description}: {each.value}" for each in body.context or ()],
            metadata=_metadata(body, forwarded),
            key=header(scope, b"idempotency-key") or f"{NAME}:{body.runId}",
            asked=_asked(body, said),
            protocol=NAME,
            wants={
                "threadId": body.threadId,
                "runId": body.runId,
                "messages": body.messages,
                # TanStack AI's client, which sends this header, waits for an event of its own (protocols/ag_ui.py).
                "inputs": [each.name for each in body.tools or ()] if header(scope, b"x-run-id") else [],
            },
        )
        await answer(backend, scope, receive, send, begun, ask, opening)


async def connect(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Show the stored messages as a run does, and follow the run that is active."""
    thread_id, record = await _thread(backend, scope)
    history = await _shown(backend, record.id)
    newest = next((each for each in reversed(history) if each.role == "assistant"), None)
    wants: dict[str, Any] = {"threadId": thread_id}
    if newest is not None and newest.status not in TERMINAL:
        wants["snapshot"] = messages_of(each for each in history if each.id != newest.id)
        replay = Replay(backend, Cursor(newest.id, 0), NAME, wants=wants)
        await replay.stream(scope, receive, send)
        return
    wants["snapshot"] = messages_of(history)
    wants["runId"] = record.id if newest is None else newest.id
    message_id = "" if newest is None else newest.id
    encoder = AgUiProtocol(
        Opening(message_id=message_id, conversation_id=record.id),
        Reading(monotonic=backend.clock.monotonic, wants=wants),
    )
    headers = stream_headers(message_id) if message_id else stream_headers("none")[:-1]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": encoder.begin() + encoder.finished()})


async def stop(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Stop the thread's newest reply and keep its text; from any device, any number of times."""
    _, record = await _thread(backend, scope)
    newest = await backend.store.messages.newest_reply(record.id)
    await respond_json(send, 200, bounded(await backend.open_replies.cancel(newest)))


async def _thread(backend: Backend, scope: Scope) -> tuple[str, ConversationRecord]:
    """Return the id of a request's thread, and its conversation.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    owner = await backend.identify(scope)
    thread_id = scope["path_params"]["thread_id"]
    conversation_id = await find_conversation(backend, owner, thread_id)
    try:
        return thread_id, (await Conversation.load(conversation_id, owner=owner, backend=backend)).record
    except NotFound:
        raise NotFound("No such thread.") from None


async def _shown(backend: Backend, conversation_id: str) -> list[Message]:
    """Return the last messages of a thread, which begin with one of the user's if there are more before them."""
    found = await backend.store.history.recent(conversation_id, MOST_SHOWN)
    is_cut = len(found) == MOST_SHOWN
    first = next((place for place, each in enumerate(found) if each.role == "user"), 0)
    return found[first:] if is_cut else found


async def _newest(backend: Backend, conversation_id: str) -> list[Message]:
    return await backend.store.history.recent(conversation_id, NEWEST)


# ---- reading ----


def _messages(body: RunInput) -> list[Said]:
    found: list[Said] = []
    for number, each in enumerate(body.messages):
        try:
            found.append(msgspec.convert(each, Said))
        except msgspec.ValidationError as error:
            raise Unprocessable(f"messages[{number}] does not validate: {error}.") from error
    return found


def _forwarded(body: RunInput) -> Forwarded:
    if not isinstance(body.forwardedProps, dict):
        return Forwarded()
    given = {name: value for name, value in body.forwardedProps.items() if value is not None}
    try:
        return msgspec.convert(given, Forwarded)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"forwardedProps does not validate: {error}.") from error


def _decisions(body: RunInput) -> dict[str, Decision]:
    """Return what the page answers to the interrupts of the run before: the ids of the calls are theirs."""
    found: dict[str, Decision] = {}
    for each in body.resume or ():
        if each.status == "cancelled":
            found[each.interruptId] = Decision(approved=False)
        elif isinstance(each.payload, bool):
            found[each.interruptId] = Decision(each.payload)
        else:
            try:
                found[each.interruptId] = msgspec.convert(each.payload, Decision)
            except msgspec.ValidationError:
                raise Unprocessable(
                    'The payload of a resume that is resolved must be true, false, or {"approved", "reason"?}.'
                ) from None
    return found


def _options(body: RunInput, forwarded: Forwarded) -> Json:
    """Return the options with the page's tools among them."""
    options = dict(forwarded.options or {})
    if not body.tools:
        return options
    tools = [
        {"type": "function", "function": {name: value for name, value in msgspec.to_builtins(each).items() if value}}
        for each in body.tools
    ]
    given = options.get("tools")
    return {**options, "tools": [*(given if isinstance(given, list) else ()), *tools]}


def _metadata(body: RunInput, forwarded: Forwarded) -> dict[str, Any]:
    """Return the reply's metadata; the ids of thread and run are private, for those who read it later."""
    metadata = dict(forwarded.metadata or {})
    private = metadata.get("private", {})
    if isinstance(private, dict):  # what else it is, is refused where it is stored
        metadata["private"] = {**private, NAME: {"threadId": body.threadId, "runId": body.runId}}
    return metadata


def _asked(body: RunInput, said: Sequence[Said]) -> Any:
    """Return what makes two runs the same.

    Of the messages, those that the page wrote: one that lost its connection has something of the answer too.
    """
    own = [(each.role, each.id, each.content, each.toolCallId, each.error) for each in said if each.is_of_page]
    return [own, body.tools, body.context, body.forwardedProps]


def _system(said: Sequence[Said]) -> str | None:
    """Return the system prompt of a thread that is new."""
    texts = [_text(each.content, number) for number, each in enumerate(said) if each.role in ("system", "developer")]
    return "\n\n".join(text for text in texts if text) or None


def _additions(said: Sequence[Said], stored: Sequence[Message]) -> list[NewMessage]:
    """Return what is new at the end of what a page sent: what the user said, and the results of the page's tools."""
    known = {each.id for each in stored} | {each.metadata.get(CLIENT_ID) for each in stored}
    unanswered = _unanswered(stored)
    found: list[NewMessage] = []
    for number in range(len(said) - 1, -1, -1):
        each = said[number]
        if each.role == "assistant" or (each.id and each.id in known):
            break
        if each.role == "user":
            found.append(_user(each, number))
        elif each.role == "tool" and each.toolCallId in unanswered:
            unanswered.discard(each.toolCallId)
            text = _text(each.content, number) or each.error or ""
            content = msgspec.json.encode([{"id": each.toolCallId, "result": text}]).decode()
            found.append(NewMessage("tool_result", content, _client_id(each)))
    return found[::-1]


def _replaced(said: Sequence[Said], stored: Sequence[Message]) -> list[str]:
    """Return the ids of the answer to the last question, where the page asks that again: it regenerates.

    A page that has missed later questions takes nothing of them away.
    """
    last = next((each for each in reversed(said) if each.role in ("user", "assistant", "tool")), None)
    if last is None or last.role != "user" or not last.id:
        return []
    for place in range(len(stored) - 1, -1, -1):
        if stored[place].role == "user":
            is_asked = last.id in (stored[place].id, stored[place].metadata.get(CLIENT_ID))
            return [each.id for each in stored[place + 1 :]] if is_asked else []
    return []


def _unanswered(stored: Sequence[Message]) -> set[str | None]:
    """Return the ids of the newest reply's tool calls that nobody has answered."""
    answered: set[str] = set()
    for message in reversed(stored):
        if message.role == "tool_result":
            answered |= {each.id for each in outputs_of(message)}
        if message.role == "assistant":
            ran = message.metadata.get("tool_results")  # those that the provider ran itself
            done = {each["id"] for each in ran if isinstance(each, dict)} if isinstance(ran, list) else set()
            return {*(calls_of(message).keys() - done - answered)}
    return set()


def _client_id(said: Said) -> dict[str, Any]:
    return {CLIENT_ID: said.id} if said.id else {}


def _user(said: Said, number: int) -> NewMessage:
    texts: list[str] = []
    parts: list[InputPart] = []
    for place, part in enumerate(said.content if isinstance(said.content, list) else [said.content]):
        where = f"messages[{number}].content" + (f"[{place}]" if isinstance(said.content, list) else "")
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict):
            parts.append(_part(part, where))
        else:
            raise Unprocessable(f"{where} must be text, or a list of parts.")
    check_parts(parts)
    text = "\n".join(texts)
    if not text.strip() and not parts:
        raise Unprocessable(f"messages[{number}].content must not be blank.")
    return NewMessage("user", text, {**_client_id(said), **parts_metadata(parts)})


def _part(part: Object, where: str) -> InputPart:
    """Return an image or a file: a part with a ``source``, or ``binary`` as it was before 1.0."""
    kind = part.get("type")
    source = part.get("source")
    if kind == "binary":
        media_type, data, url = part.get("mimeType"), part.get("data"), part.get("url")
        name = part.get("filename")
    elif kind in ("image", "document") and isinstance(source, dict) and source.get("type") in ("data", "url"):
        media_type, value = source.get("mimeType"), source.get("value")
        data, url = (value, None) if source["type"] == "data" else (None, value)
        name = None
    else:
        raise Unprocessable(f"{where} must be text, an image or a document, with a source of type data or url.")
    given = {"media_type": media_type or "", "data": data or None, "url": url or None}
    is_image = kind == "image" or (kind == "binary" and str(media_type).startswith("image/"))
    try:
        if is_image:
            return msgspec.convert({"type": "image", **given}, ImagePart)
        return msgspec.convert({"type": "file", **given, "name": name}, FilePart)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"{where} does not validate: {error}.") from error


def _text(content: Any, number: int) -> str:
    """Return the text of a content that has only text."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        texts = [each.get("text") for each in content if isinstance(each, dict) and each.get("type") == "text"]
        if len(texts) == len(content) and all(isinstance(each, str) for each in texts):
            return "\n".join(map(str, texts))
    raise Unprocessable(f"messages[{number}].content must be text.")
