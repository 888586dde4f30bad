"""The routes of the AI SDK's chat transports (npm ``ai`` 5, 6 and 7): ``/api/chat``.

The page sends its whole history each time. What is stored counts, and only what is new at its end is added: a message
of the user's, or what tools that ran in the page returned.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from tailrace.backend import Backend
from tailrace.conversation.additions import NewMessage
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.history import Past, Window
from tailrace.conversation.parts import check_parts, parts_metadata, read_data_url
from tailrace.conversation.request import LONGEST_NAME, Choice
from tailrace.delivery import Delivery
from tailrace.errors import NotFound, RequestError, Unprocessable
from tailrace.events import TERMINAL, Json, Message
from tailrace.http.begin import Ask, answer, begin, connecting, find_conversation, new_record
from tailrace.http.cursor import Cursor, query
from tailrace.http.replaced import MOST_REPLACED, cancel_open, check_count
from tailrace.http.replay import Replay, check_owner
from tailrace.http.requests import Receive, Scope, Send, header, read_json
from tailrace.http.responses import respond_json, telling
from tailrace.ids import conversation_tag, message_address
from tailrace.protocols.ai_sdk import NAME, Step, ui_messages
from tailrace.protocols.bounded import bounded
from tailrace.protocols.stored import CLIENT_ID, Output, calls_of, outputs_of, value_of
from tailrace.providers import FilePart, ImagePart, InputPart
from tailrace.providers.fallback import Mode
from tailrace.reply.steps import Decision

LONGEST_ID: Final = 255
"""Characters of an id of the page's own."""

MOST_LISTED: Final = 100
"""Stored messages on one page of ``GET /api/chat/{id}/messages``."""

RUN: Final = b"x-workflow-run-id"
TAIL: Final = b"x-workflow-stream-tail-index"

PageId = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]


class PartApproval(msgspec.Struct, frozen=True):
    """What somebody said to a call that waited for it."""

    approved: bool | None = None
    reason: str | None = None


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """A part of a UI message, as far as it is read here."""

    type: str
    text: str | None = None
    url: str | None = None
    media_type: str | None = None
    filename: str | None = None
    tool_call_id: str | None = None
    state: str | None = None
    output: Any = None
    error_text: str | None = None
    approval: PartApproval | None = None
    provider_executed: bool | None = None


class UiMessage(msgspec.Struct, frozen=True):
    """A message as the page has it."""

    id: PageId
    role: Literal["system", "user", "assistant"]
    parts: list[Part] = []


class ChatBody(msgspec.Struct, frozen=True, rename="camel"):
    """What ``DefaultChatTransport`` posts, and what a page may add to it. Other fields are the page's own and say
    nothing here: versions of the client add some."""

    id: PageId
    messages: list[UiMessage]
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: PageId | None = None
    provider: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] | None = None
    model: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] | None = None
    options: dict[str, Any] = {}
    fallbacks: list[Choice] = []
    fallback: Mode = "before_first_chunk"
    history: Window | None = None
    metadata: dict[str, Any] = {}
    delivery: Delivery = Delivery()
    channel: str | None = None


async def post_chat(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Start a reply to what is new in the page's messages, or attach to the one that the same post started before."""
    arrived = backend.clock.monotonic()
    owner = await backend.identify(scope)
    body = await read_json(scope, receive, backend.settings.body_limit, ChatBody)
    await start_chat(backend, owner, body, scope, receive, _with_run(send), arrived)


async def start_chat(
    backend: Backend, owner: str, body: ChatBody, scope: Scope, receive: Receive, send: Send, arrived: float
) -> None:
    """Start a reply to what is new in a page's messages, or attach to the one that the same post started before.

    Args:
        arrived: when the request came, by the monotonic clock.

    Raises:
        TailraceError: it is refused, and nothing was stored.
    """
    if not body.messages:
        raise Unprocessable("messages must not be empty.")
    conversation_id = await find_conversation(backend, owner, body.id)
    chat = _Chat(backend, owner, conversation_id, body)
    async with connecting(backend, body.provider) as opening:
        same = None
        if body.trigger == "regenerate-message" or (body.message_id is not None and body.messages[-1].role == "user"):
            same = await chat.find_replaced()
        if same is not None:
            await Replay(backend, Cursor(same, 0), NAME).stream(scope, receive, send)
            return
        begun = await begin(
            backend,
            owner,
            conversation_id,
            arrived=arrived,
            history=body.history,
            has_question=chat.is_said and body.messages[-1].role == "user",
            new=new_record(backend, owner, conversation_id),
            before=chat.replaced[0] if chat.replaced else None,
        )
        ask = chat.ask(begun.past, header(scope, b"idempotency-key"))
        await answer(backend, scope, receive, send, begun, ask, opening)


async def get_stream(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Resume: all of the answer that is being written, from its start, then live; 204 when there is none.

    The id may be that of a reply instead of a chat's, which ``WorkflowChatTransport`` has as its run's: then its events
    from ``?startIndex=`` on, whether it has ended or not. A negative one counts from the last event that there is now,
    whose index is then in a header.
    """
    owner = await backend.identify(scope)
    given = scope["path_params"]["id"]
    start = query(scope).get("startIndex", "0")
    if not re.fullmatch("-?[0-9]{1,11}", start, re.ASCII):
        raise RequestError("startIndex must be a whole number; a negative one counts from the end.")
    if _is_message_id(given):
        await check_owner(backend, scope, given)
        found: tuple[str, Json] | None = (given, {"is_run": True})
    else:
        found = await find_open(backend, owner, given)
    if found is None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    reply, wants = found
    skip, send = int(start), _with_run(send)
    if skip < 0:
        count = await Replay(backend, Cursor(reply, 0), NAME, wants=wants).count()
        skip = max(0, count + skip)
        send = telling(send, TAIL, lambda headers: str(count - 1).encode())
    await Replay(backend, Cursor(reply, 0), NAME, skip=skip, wants=wants).stream(scope, receive, send)


async def find_open(backend: Backend, owner: str, page_id: str) -> tuple[str, Json] | None:
    """Return the answer of a chat that is being written, and what a reader wants to know who has nothing of it; None
    when there is none."""
    conversation_id = await find_conversation(backend, owner, page_id)
    try:
        await Conversation.load(conversation_id, owner=owner, backend=backend)
    except NotFound:
        return None  # a page that opens resumes before anything was said
    newest = await _open_reply(backend, conversation_id)
    return None if newest is None else (newest, {"earlier": await _earlier(backend, conversation_id, newest)})


async def post_stop(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Stop the answer of a chat that is being written; from any device, any number of times."""
    owner = await backend.identify(scope)
    conversation_id = await find_conversation(backend, owner, scope["path_params"]["id"])
    await Conversation.load(conversation_id, owner=owner, backend=backend)
    newest = await _open_reply(backend, conversation_id)
    stopped = None if newest is None else bounded(await backend.open_replies.cancel(newest))
    await respond_json(send, 200, {"message": stopped})


async def get_messages(backend: Backend, scope: Scope, receive: Receive, send: Send) -> None:
    """Return a chat's stored messages as the page has them, for its first render: the last ones, at most 100.

    An answer that is being written is not among them, with all that came since the user's message: resuming brings it.
    """
    owner = await backend.identify(scope)
    conversation_id = await find_conversation(backend, owner, scope["path_params"]["id"])
    before = query(scope).get("before")
    if before is not None and not (
        _is_message_id(before) and message_address(before).tag == conversation_tag(conversation_id)
    ):
        raise NotFound("No such message.")
    try:
        await Conversation.load(conversation_id, owner=owner, backend=backend)
    except NotFound:
        await respond_json(send, 200, {"messages": [], "before": None})
        return
    found, following = await backend.store.messages.list(conversation_id, MOST_LISTED, newest_first=True, before=before)
    if before is None and any(message.status not in TERMINAL for message in found):
        while found and found[0].role != "user":
            found.pop(0)
    if following is not None:  # a UI message is not cut in two
        while found and found[-1].role != "user":
            found.pop()
    earlier = found[-1].id if following is not None and found else None
    shown = [message for message in reversed(found) if message.role != "system"]
    await respond_json(
        send, 200, {"messages": ui_messages(shown), "before": earlier}, [(b"cache-control", b"no-store")]
    )


class _Chat:
    """What a post of the page means.

    Attributes:
        replaced: the ids of stored messages in whose place something comes, oldest first.
        is_said: whether the last of the page's messages is to be stored. Another answer is asked for to one that is
            stored already; but a page that asks so after a refusal has one at its end that was never stored.
    """

    def __init__(self, backend: Backend, owner: str, conversation_id: str, body: ChatBody) -> None:
        self._backend = backend
        self._owner = owner
        self._id = conversation_id
        self._body = body
        self._last = body.messages[-1]
        self._anchor: str | None = None
        self.replaced: list[str] = []
        self.is_said = body.trigger == "submit-message"

    async def find_replaced(self) -> str | None:
        """Find what an edited message, or another answer, takes the place of. Open replies among it are cancelled.

        Return the id of the reply that this very post started before, if that is still being written, or if the post
        names an answer that is replaced already: other posts cannot be told from another click.

        Raises:
            NotFound: the conversation is somebody else's, or was deleted.
            Unprocessable: it is too much.
        """
        backend, body = self._backend, self._body
        try:
            await Conversation.load(self._id, owner=self._owner, backend=backend)
        except NotFound:
            self.is_said = True
            return None  # nothing is stored yet
        is_edit = body.trigger == "submit-message"
        anchor = body.message_id if is_edit else self._last.id
        tail: list[Message] = []
        found = False
        following = None
        while not found:
            page, following = await backend.store.messages.list(self._id, MOST_LISTED, following, newest_first=True)
            for message in page:
                if message.role == "user" and anchor in (message.id, message.metadata.get(CLIENT_ID)):
                    found = True
                    self._anchor = message.id
                    # An edit that was refused is in the page alone.
                    self.is_said = is_edit or not self._says(message)
                    if self.is_said:
                        tail.append(message)
                    break
                tail.append(message)
            if following is None or len(tail) > MOST_REPLACED:
                break
        if not found:
            if is_edit:
                return None  # the page means a message that it has not sent yet
            # Either it was never stored, or the page has ids of its own for what is: then it is what was said last.
            newest = next((n for n, message in enumerate(tail) if message.role == "user"), None)
            if newest is None or self._has_before(tail[newest]) or not self._says(tail[newest]):
                self.is_said = True
                return None
            self._anchor = tail[newest].id
            tail = tail[:newest]
        tail = [message for message in tail if message.role != "system"]
        check_count(tail)
        was_replaced = self._names_what_is_gone(tail)
        for message in tail:
            if message.role == "assistant" and (was_replaced or message.status not in TERMINAL):
                private = (await backend.store.messages.peek(message.id)).private.get(NAME)
                if isinstance(private, dict) and private.get("asked") == self._asked():
                    return message.id
        await cancel_open(backend, tail)
        self.replaced = [message.id for message in reversed(tail)]
        return None

    def ask(self, past: Past, key: str | None) -> Ask:
        """Return what is to be started.

        Raises:
            Unprocessable: there is nothing new in the page's messages.
        """
        body, last = self._body, self._last
        additions: list[NewMessage] = []
        kept = {"asked": self._asked()}
        replaced = self.replaced[0] if self.replaced else ""
        asked: list[Any] = []
        decisions: dict[str, Decision] = {}
        if not self.is_said:
            own_key = f"ai:again:{self._anchor}:{replaced}"
        elif last.role == "user":
            additions.append(_said(last))
            own_key = f"ai:{last.id}:{replaced}"
        elif last.role == "assistant":
            decisions = _decisions_of(last)
            reply, first, outputs = _outputs_for(past, last, decisions)
            answered = {
                each.id for message in past.messages if message.role == "tool_result" for each in outputs_of(message)
            }
            # All are known if this very post came before: it finds its reply by the key.
            if outputs:
                additions.append(_results([each for each in outputs if each.id not in answered] or outputs))
            kept["message_id"] = first.id
            asked = [msgspec.to_builtins(each) for each in (*outputs, *decisions.items())]
            own_key = f"ai:outputs:{reply.id}:{','.join([*(each.id for each in outputs), *decisions])}"
        else:
            raise Unprocessable("The last of messages must be the user's, or an assistant's with the outputs of tools.")
        private = body.metadata.get("private", {})
        if not isinstance(private, dict):
            raise Unprocessable("metadata.private must be an object.")
        return Ask(
            provider=body.provider,
            model=body.model,
            fallbacks=body.fallbacks,
            fallback=body.fallback,
            options=body.options,
            additions=additions,
            goes_on=bool(decisions),
            decisions=decisions,
            replaced=self.replaced,
            metadata={**body.metadata, "private": {**private, NAME: kept}},
            delivery=body.delivery,
            channel=body.channel,
            key=key or _short(own_key),
            asked=[
                own_key,
                asked or [[each.role, each.content] for each in additions],
                body.provider,
                body.model,
            ],
            protocol=NAME,
        )

    def _names_what_is_gone(self, tail: Sequence[Message]) -> bool:
        """Whether the answer that is to be given again is one of ours and not there any more."""
        named = self._body.message_id
        if self._body.trigger != "regenerate-message" or named is None or not _is_message_id(named):
            return False
        return message_address(named).tag == conversation_tag(self._id) and all(named != each.id for each in tail)

    def _says(self, message: Message) -> bool:
        """Whether a stored message has the words of the page's last one."""
        return self._last.role != "user" or _text(self._last) == message.content

    def _has_before(self, message: Message) -> bool:
        """Whether a stored message is one that the page has before its last."""
        known = (message.id, message.metadata.get(CLIENT_ID))
        return any(each.id in known for each in self._body.messages[:-1])

    def _asked(self) -> str:
        """Return what tells this post from others that mean the same chat: which messages, in which words."""
        body = self._body
        said = [[message.id, [part.text for part in message.parts]] for message in body.messages[-1:]]
        whole = msgspec.json.encode([body.trigger, body.message_id, len(body.messages), said])
        return hashlib.sha256(whole).hexdigest()[:32]


def _said(message: UiMessage) -> NewMessage:
    """Return the user's message.

    Raises:
        Unprocessable: it says nothing, or has a part that cannot be sent on.
    """
    text = _text(message)
    parts = [_file(part) for part in message.parts if part.type == "file"]
    if not text.strip() and not parts:
        raise Unprocessable("The last message must have a text or a file.")
    check_parts(parts)
    return NewMessage("user", text, {**parts_metadata(parts), CLIENT_ID: message.id})


def _text(message: UiMessage) -> str:
    return "\n".join(part.text for part in message.parts if part.type == "text" and part.text)


def _file(part: Part) -> InputPart:
    url, media_type = part.url or "", part.media_type or ""
    found = read_data_url(url)
    if found is None and url.startswith("data:"):
        raise Unprocessable("A file must be a data: URL in base64, or begin with https:// or http://.")
    named, data = found or ("", None)
    media_type = media_type or named
    address = None if found else url
    if media_type.startswith("image/"):
        return ImagePart(media_type="" if media_type == "image/*" else media_type, data=data, url=address)
    return FilePart(media_type=media_type, data=data, url=address, name=part.filename)


def _decisions_of(last: UiMessage) -> dict[str, Decision]:
    """Return what was said to calls that wait for it, by their ids."""
    return {
        part.tool_call_id: Decision(part.approval.approved, part.approval.reason)
        for part in last.parts
        if part.state == "approval-responded" and part.tool_call_id and part.approval
        if part.approval.approved is not None
    }


def _outputs_for(past: Past, last: UiMessage, decisions: Collection[str]) -> tuple[Message, Message, list[Output]]:
    """Return the reply whose calls the page has run, or somebody has decided on; the first reply of the same UI
    message; and what came out.

    Raises:
        Unprocessable: there is none of them in what is stored.
    """
    outputs: dict[str, Output] = {}
    for part in last.parts:
        call_id = part.tool_call_id
        if call_id is None or part.provider_executed:
            continue
        if part.state == "output-available":
            value = part.output
            outputs[call_id] = Output(call_id, value if isinstance(value, str) else msgspec.json.encode(value).decode())
        elif part.state == "output-error":
            outputs[call_id] = Output(call_id, part.error_text or "The tool failed.", is_error=True)
    for place in range(len(past.messages) - 1, -1, -1):
        message = past.messages[place]
        calls = calls_of(message)
        if message.role == "user":
            break
        if message.role == "assistant" and any(each in outputs or each in decisions for each in calls):
            returned = {each["id"] for each in message.metadata.get("tool_results") or ()}
            found = [outputs[each] for each in calls if each in outputs and each not in returned]
            return message, _first_of(past.messages, place), found
    raise Unprocessable(
        "There is nothing new in messages: the last one is an assistant's, and no tool that its stored answer called "
        "has an output."
    )


def _first_of(messages: Sequence[Message], place: int) -> Message:
    """Return the first reply of the UI message that a reply belongs to."""
    first = messages[place]
    for message in reversed(messages[:place]):
        if message.role == "assistant":
            first = message
        elif message.role != "tool_result":
            break
    return first


def _results(outputs: Sequence[Output]) -> NewMessage:
    content = [
        {"id": each.id, "result": value_of(each.text), **({"is_error": True} if each.is_error else {})}
        for each in outputs
    ]
    return NewMessage("tool_result", msgspec.json.encode(content).decode())


async def _earlier(backend: Backend, conversation_id: str, newest: str) -> list[Step]:
    """Return the steps before a reply that belong to the same UI message."""
    steps: list[Step] = []
    outputs: list[Output] = []
    continued = (await backend.store.messages.peek(newest)).metadata.get("continues")
    found, _ = await backend.store.messages.list(conversation_id, MOST_LISTED, newest_first=True, before=newest)
    for message in found:
        if message.role == "tool_result":
            outputs = [*outputs_of(message), *outputs]
        elif message.role == "assistant" and (outputs or message.id == continued):
            steps.insert(0, Step(message, outputs))
            outputs, continued = [], message.metadata.get("continues")
        else:
            break
    return steps


async def _open_reply(backend: Backend, conversation_id: str) -> str | None:
    """Return the id of a chat's newest reply if it is being written; None if it has ended, or there is none."""
    try:
        newest = await backend.store.messages.newest_reply(conversation_id)
        stored = await backend.store.messages.peek(newest)
    except NotFound:
        return None
    return None if stored.status in TERMINAL else newest


def _is_message_id(text: str) -> bool:
    try:
        message_address(text)
    except NotFound:
        return False
    return True


def _short(key: str) -> str:
    """Return a key that is not too long to be one."""
    return key if len(key) <= 200 else f"ai:{hashlib.sha256(key.encode()).hexdigest()}"


def _with_run(send: Send) -> Send:
    """Return ``send`` with the header by which a workflow's client finds its run: the reply."""
    return telling(send, RUN, lambda headers: headers.get(b"x-message-id"))
