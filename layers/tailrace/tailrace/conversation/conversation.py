"""A conversation: ordered messages, and the replies that are streamed into it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from tailrace.backend import Backend, default_backend
from tailrace.conversation.additions import MOST_AT_ONCE, Additions, NewMessage
from tailrace.conversation.history import Past, Window, Windowed, read_past, window_of
from tailrace.conversation.order import Positions
from tailrace.conversation.parts import Input, check_parts, parts_metadata, read_parts, split_input
from tailrace.conversation.prompt import check_tool_message
from tailrace.conversation.request import Request
from tailrace.errors import AlreadyStarted, NotFound, RateLimited, TailraceError, Unprocessable
from tailrace.events import TERMINAL, ConversationRecord, Json, Message, Role, Status
from tailrace.ids import conversation_tag, message_address, new_conversation_id, new_message_id
from tailrace.reply.ending import PROMPT_ESTIMATE
from tailrace.reply.stream import MessageStream
from tailrace.store import ConversationThere, Draft, Start
from tailrace.store.dynamodb import Payload
from tailrace.store.identities import IdentityChanged
from tailrace.store.together import both

if TYPE_CHECKING:
    from tailrace.conversation.admission import Admission
    from tailrace.conversation.report import Report

logger = logging.getLogger(__name__)

COMPLETED: Final = frozenset[Status]({"completed"})

MOST_WITH_REPLY: Final = MOST_AT_ONCE - 5
"""Messages that one transaction may add or replace beside the reply, its key, the conversation, the reply that it goes
on with, and what its owner has used."""

MOST_TRIES: Final = 5
"""How often a start is decided anew when others of the same owner come between."""

Audience = tuple[str, str | None]
"""A channel, and the socket id that is left out there."""


class Conversation(Additions):
    """Ordered messages with an owner. Made by ``create`` and ``load``."""

    def __init__(self, record: ConversationRecord, backend: Backend) -> None:
        self.record = record
        self._backend = backend
        self._store = backend.store
        self._positions = Positions()
        self._count: int | None = None
        self._is_new = False

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self.record.id

    @classmethod
    async def create(
        cls,
        *,
        owner: str = "anonymous",
        title: str | None = None,
        system: str | None = None,
        metadata: Json | None = None,
        backend: Backend | None = None,
        admission: Admission | None = None,
    ) -> Self:
        """Store and return a new conversation.

        Args:
            owner: whose it is.
            system: the system prompt of every reply.
            backend: the environment's when None.
            admission: counts it for the limits of its owner, and may refuse it.

        Raises:
            RateLimited: the owner has made as many as they may for now.
            StoreError: the table cannot be written.
        """
        backend = backend or default_backend()
        now = backend.clock.now()
        record = ConversationRecord(
            id=new_conversation_id(backend.random_bytes),
            owner=owner,
            title=title,
            system=system,
            metadata=metadata or {},
            created=now,
            updated=now,
        )
        if admission is None:
            await backend.store.conversations.put(record)
        else:
            await cls._put_counted(backend, record, admission)
        conversation = cls(record, backend)
        conversation._count = 0
        return conversation

    @classmethod
    async def _put_counted(cls, backend: Backend, record: ConversationRecord, admission: Admission) -> None:
        for _ in range(MOST_TRIES):
            identity = await admission.conversation()
            try:
                await backend.store.conversations.put(record, identity=identity, nonce=backend.random_bytes(16))
            except IdentityChanged:
                admission.forget()
                continue
            return
        raise RateLimited("Too many conversations are made at once.", retry_after=1)

    @classmethod
    async def load(
        cls,
        conversation_id: str,
        *,
        owner: str | None = None,
        backend: Backend | None = None,
        may_be_shared: bool = False,
    ) -> Self:
        """Return a stored conversation.

        Args:
            owner: whose it must be; anybody's when None.
            may_be_shared: whether it may also be somebody's who lets the owner read it.

        Raises:
            NotFound: there is none, it was deleted, or it is somebody else's.
            StoreError: the table cannot be read.
        """
        backend = backend or default_backend()
        record = await backend.store.conversations.get(conversation_id)
        if owner is None or record.owner == owner:
            return cls(record, backend)
        if not may_be_shared or await backend.grants.for_reader(record, owner) is None:
            raise NotFound("No such conversation.")
        return cls(record, backend)

    @classmethod
    async def load_with_past(
        cls,
        conversation_id: str,
        window: Window | None,
        *,
        has_question: bool,
        owner: str | None = None,
        backend: Backend | None = None,
        new: ConversationRecord | None = None,
        before: str | None = None,
    ) -> tuple[Self, Past]:
        """Return a stored conversation, and what of it goes into the next prompt; both are read at the same time.

        Args:
            window: the settings' when None.
            has_question: whether what is to be answered is not stored yet.
            new: what it is if there is none of that id: it is stored with its first reply.
            before: the id of a message of it: the window is of what comes before that.

        Raises:
            NotFound, StoreError: as ``load`` does.
        """
        backend = backend or default_backend()
        reading = asyncio.ensure_future(
            _read_past(backend, conversation_id, window, has_question=has_question, before=before)
        )
        try:
            try:
                conversation = await cls.load(conversation_id, owner=owner, backend=backend)
            except NotFound:
                if new is None:
                    raise
                conversation = cls(new, backend)
                conversation._is_new = True
            past = await conversation._with_system_messages(reading)
            if before is not None:
                conversation._count = None  # there are more
            return conversation, past
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    # ---- messages ----

    async def _add(self, messages: Sequence[NewMessage], except_socket: str | None) -> list[Message]:
        for new in messages:
            check_tool_message(new.role, new.content, new.metadata)
        now = self._backend.clock.now()
        audience = self._audience(None, except_socket)
        drafts = [
            self._draft(new.role, new.content, self._positions.take(now), new.metadata, now, audience)
            for new in messages
        ]
        return await self._put(drafts)

    async def _put(
        self,
        drafts: Sequence[Draft],
        start: Start | None = None,
        replaced: Sequence[str] = (),
        continued: str | None = None,
        admission: Admission | None = None,
    ) -> list[Message]:
        """Store messages under the next ordinals, as far as this object knows; and the conversation, if it is new."""
        if self._count is None:
            self._count = await self._store.history.count(self.id)
        counted = [
            msgspec.structs.replace(draft, ordinal=ordinal) for ordinal, draft in enumerate(drafts, self._count + 1)
        ]

        async def put(conversation: ConversationRecord | None) -> list[Message]:
            return await self._store.messages.put(
                counted,
                nonce=self._backend.random_bytes(16),
                start=start,
                conversation=conversation,
                replaced=replaced,
                continued=continued,
                identity=None if admission is None else await self._admitted(admission, drafts[-1].id, start),
            )

        for tries in range(MOST_TRIES):
            try:
                stored = await put(self.record if self._is_new else None)
                break
            except ConversationThere:
                # Two first starts at once: the other one has stored it. If it was deleted, it is not found.
                self.record = await self._store.conversations.get(self.id)
                self._is_new = False
            except IdentityChanged:
                # Another start of the same owner's came between: whether this one may be is decided anew.
                assert admission is not None
                admission.forget()
                if tries + 1 == MOST_TRIES:
                    raise RateLimited("Too many replies are started at once.", retry_after=1) from None
        self._is_new = False
        self._count += len(stored)
        system = [message.id for message in stored if message.role == "system"]
        self.record = msgspec.structs.replace(self.record, system_messages=(*self.record.system_messages, *system))
        return stored

    async def _admitted(self, admission: Admission, reply: str, start: Start | None) -> Payload:
        """Return the update that counts a reply.

        Raises:
            AlreadyStarted: it would be refused, and this very start was made before.
            RateLimited: it is refused.
        """
        try:
            return await admission.reply(reply, makes_conversation=self._is_new)
        except RateLimited:
            same = None if start is None else await self._store.messages.started(self.id, start)
            if same is None:
                raise
            raise AlreadyStarted(same) from None

    async def messages(self, *, role: Role | None = None, status: Status | None = None) -> list[Message]:
        """Return all messages in order, or those of a role or a status.

        Raises:
            StoreError: the table cannot be read.
        """
        messages = [message async for message in self._store.messages.history(self.id)]
        if messages:
            self._positions.seen(message_address(messages[-1].id).position)
        return [message for message in messages if role in (None, message.role) and status in (None, message.status)]

    async def recent_messages(self, count: int, *, role: Role | None = None) -> list[Message]:
        """Return the last messages in order, or the last of a role; all of them if there are fewer.

        Raises:
            StoreError: the table cannot be read.
        """
        return await self._store.history.recent(self.id, count, None if role is None else (role,))

    async def last_message(self, *, role: Role | None = None) -> Message | None:
        """Return the last message, or the last of a role; None when there is none. It may be one that is still being
        written.

        Raises:
            StoreError: the table cannot be read.
        """
        found = await self.recent_messages(1, role=role)
        return found[0] if found else None

    async def report(self) -> Report:
        """Return what its replies came to: chunks, tokens, time to the first chunk, failures by type.

        One query; messages that were deleted do not count.

        Raises:
            StoreError: the table cannot be read.
        """
        from tailrace.conversation.report import report  # no reply needs it

        return report(await self._store.replies.of_conversation(self.id))

    # ---- deleting ----

    async def delete(self) -> None:
        """Delete it and its messages from sight; ``restore`` takes that back until it is pruned.

        Its open replies are cancelled, and keep their text so far.

        Raises:
            NotFound: it was deleted before.
            StoreError: the table cannot be written.
        """
        now = self._backend.clock.now()
        await self._store.conversations.delete(self.id, now=now)
        # After it: nothing can be started any more. One that cannot be cancelled now ends by itself.
        async for message_id in self._store.replies.open_ids(self.id, now=now):
            try:
                await self._backend.open_replies.cancel(message_id)
            except TailraceError as error:
                logger.warning("reply not cancelled", extra={"message_id": message_id, "reason": error.message})

    @classmethod
    async def restore(cls, conversation_id: str, *, owner: str | None = None, backend: Backend | None = None) -> Self:
        """Take back a deletion and return the conversation. Messages that were deleted one by one stay deleted.

        Args:
            owner: whose it must have been; anybody's when None.

        Raises:
            NotFound: no such conversation is deleted, it was somebody else's, or it was pruned.
            StoreError: the table cannot be written.
        """
        backend = backend or default_backend()
        return cls(await backend.store.conversations.restore(conversation_id, owner=owner), backend)

    async def delete_message(self, message_id: str) -> None:
        """Delete one message from sight, from the next prompt too.

        Raises:
            NotFound: there is no such message here, or it was deleted before.
            Conflict: it is a reply that is still being written.
            StoreError: the table cannot be written.
        """
        await self._store.history.delete(self._own(message_id), now=self._backend.clock.now())

    async def restore_message(self, message_id: str) -> Message:
        """Take back the deletion of one message, if there was one, and return it.

        Raises:
            NotFound: there is no such message here, or it was pruned.
            StoreError: the table cannot be written.
        """
        await self._store.history.restore(self._own(message_id))
        return await self._store.messages.get(message_id)

    def _own(self, message_id: str) -> str:
        if message_address(message_id).tag != conversation_tag(self.id):
            raise NotFound("No such message.")
        return message_id

    # ---- prompts ----

    async def to_messages(self, *, include_unfinished: bool = False, history: Windowed | None = None) -> list[Message]:
        """Return what belongs into the next prompt: system messages, and the last completed messages that say
        something, as many as fit into the window. Of tool calls and results, a request leaves out those without their
        partner.

        Args:
            include_unfinished: also the partial text of replies that failed or were stopped.
            history: the window, such as ``{"messages": 20}``; the settings' when None.

        Raises:
            Unprocessable: that is no window.
            StoreError: the table cannot be read.
        """
        return (await self._past(history, include_unfinished=include_unfinished)).messages

    async def _past(self, window: Windowed | None, *, include_unfinished: bool) -> Past:
        statuses = TERMINAL if include_unfinished else COMPLETED
        reading = _read_past(self._backend, self.id, window, has_question=False, statuses=statuses)
        return await self._with_system_messages(reading)

    async def _with_system_messages(self, reading: Awaitable[Past]) -> Past:
        ids = sorted(self.record.system_messages, key=lambda each: message_address(each).position)
        if not ids:
            past = await reading
        else:
            system, past = await both(self._store.messages.those_there(ids), reading)
            past = past.with_system(system)
        self._count = past.count
        return past

    def to_request(self, *, include_unfinished: bool = False, history: Windowed | None = None) -> Request:
        """Return a request for the next reply: ``conversation.to_request().using("anthropic").stream()``.

        The history is read when the provider is called.

        Args:
            include_unfinished, history: as for ``to_messages``.
        """
        return Request(
            self._backend,
            self,
            lambda: self._past(history, include_unfinished=include_unfinished),
        )

    # ---- replies ----

    async def stream_response(
        self,
        input: Input | None = None,  # noqa: A002  # the wire's own word
        *,
        metadata: Json | None = None,
        channel: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        prompt_tokens: int | None = None,
        start: Start | None = None,
        except_socket: str | None = None,
        additions: Sequence[NewMessage] = (),
        replaced: Sequence[str] = (),
        earlier: Sequence[NewMessage] = (),
        continued: str | None = None,
        admission: Admission | None = None,
    ) -> MessageStream:
        """Store an empty reply and return its stream.

        Args:
            input: what the user said, text or parts; stored in the same transaction, before the reply.
            metadata: the caller's own; what is under ``private`` is stored and never sent.
            channel: where subscribers hear of it and of the input; ``conversation.<id>`` when None.
            provider, model: what will answer, if it is known.
            prompt_tokens: an estimate of the prompt, for the usage of a reply whose provider does not tell.
            start: an idempotency key that must not have been used.
            except_socket: the socket id that does not hear of it: Echo's ``toOthers``.
            additions: other messages that are stored in the same transaction before the reply, after the input.
            replaced: the ids of messages of this conversation that the reply and these come instead of: they are
                deleted in the same transaction.
            earlier: messages that come before all of these, in transactions of their own: there may be any number. A
                conversation that is made by this reply is there with it only, so nobody sees a part of them.
            continued: the id of the reply that this one goes on with, which only one may.
            admission: counts it for the limits of its owner, and may refuse it.

        Raises:
            RateLimited: the owner has used what they may for now.
            AlreadyStarted: the key was used for the same start; the error says which reply it started.
            Conflict: the key was used for another start, what is to be replaced is being written or gone, or somebody
                has gone on with that reply before.
            Unprocessable, TooLarge: the input or an addition has what cannot be.
            StoreError: the table cannot be written; then nothing was.
        """
        backend = self._backend
        now = backend.clock.now()
        drafts: list[Draft] = []
        audience = self._audience(channel, except_socket)
        if len(additions) + (input is not None) + len(replaced) > MOST_WITH_REPLY:
            raise Unprocessable(f"A start may add or replace {MOST_WITH_REPLY} messages at most.")
        if admission is not None and earlier:
            await self._admitted(admission, "", start)  # before anything of it is stored
        if earlier:
            await self._put_earlier(earlier, now, audience, start)
        if input is not None:
            text, parts = split_input(input)
            drafts.append(self._draft("user", text, self._positions.take(now), parts_metadata(parts), now, audience))
        for new in additions:
            check_tool_message(new.role, new.content, new.metadata)
            drafts.append(self._draft(new.role, new.content, self._positions.take(now), new.metadata, now, audience))
        if channel is not None:
            metadata = {**(metadata or {}), "channel": channel}
        has_question = bool(drafts or earlier or continued)
        # The question is here already, or it will come before the first chunk.
        position = self._positions.open_reply(now, lambda: not has_question and stream.seq == 0)
        reply = self._draft(
            "assistant", "", position, metadata, now, audience, status="pending", provider=provider, model=model
        )
        if prompt_tokens is not None:
            private = {**(reply.private or {}), PROMPT_ESTIMATE: prompt_tokens}
            reply = msgspec.structs.replace(reply, private=private)
        drafts.append(reply)
        *_, message = await self._put(
            drafts,
            start,
            [self._own(each) for each in replaced],
            None if continued is None else self._own(continued),
            admission,
        )
        feed = None
        if audience is not None:
            feed = backend.broadcast.feed(message, *audience)
            feed.start()
        stream = MessageStream(
            self._store,
            message,
            clock=backend.clock,
            random_bytes=backend.random_bytes,
            private=reply.private,
            flush_interval=backend.settings.flush_interval,
            heartbeat=backend.settings.lease / 6,
            feed=feed,
            keep_reasoning=backend.settings.keep_reasoning,
        )
        return stream

    async def _put_earlier(
        self, messages: Sequence[NewMessage], now: int, audience: Audience | None, start: Start | None
    ) -> None:
        """Store what comes before a start, a transaction at a time. Each is claimed under the start's key, so that two
        of the same start, or one that goes on where another broke off, store it once.

        Raises:
            Conflict: the key was used for another start.
            Unprocessable, TooLarge, StoreError: as for ``stream_response``.
        """
        for new in messages:
            check_tool_message(new.role, new.content, new.metadata)
            if new.role == "system":  # its id would lie in a conversation that may not be there yet
                raise Unprocessable("A system message cannot be among the earlier ones.")
        if self._is_new or self._count is None:
            # What is there of a new one was left by a start that broke off, and is counted below.
            self._count = 0 if self._is_new else await self._store.history.count(self.id)
        put = self._store.messages.put
        for number, place in enumerate(range(0, len(messages), MOST_WITH_REPLY)):
            drafts = [
                msgspec.structs.replace(
                    self._draft(new.role, new.content, self._positions.take(now), new.metadata, now, audience),
                    ordinal=self._count + ordinal,
                )
                for ordinal, new in enumerate(messages[place : place + MOST_WITH_REPLY], 1)
            ]
            # No client's key has a line break.
            claim = None if start is None else Start(start.owner, f"{start.key}\n{number}", start.digest)
            try:
                await put(drafts, nonce=self._backend.random_bytes(16), start=claim)
            except AlreadyStarted as before:
                self._positions.seen(message_address(before.message_id).position)
            self._count += len(drafts)

    # ---- subscribers ----

    async def broadcast(self, event: str, data: Any, *, except_socket: str | None = None) -> None:
        """Send an event of your own to those who listen to this conversation. Does nothing when broadcasting is off.

        Args:
            event: its name without the namespace, as Echo's ``listen`` takes it.
            data: JSON.
            except_socket: the socket id that is left out: Echo's ``toOthers``.

        Raises:
            TooLarge: the frame is over 128 KB.
            StoreError: the subscriptions cannot be read. No subscriber's fault is ever raised.
        """
        if self._backend.settings.broadcasting:
            await self._backend.broadcast(event, data, _channel_of(self.id), except_socket=except_socket)

    def _audience(self, channel: str | None, except_socket: str | None) -> Audience | None:
        """Return who hears of a message; None when nothing is broadcast, which then costs nothing."""
        if not self._backend.settings.broadcasting:
            return None
        return channel or _channel_of(self.id), except_socket

    def _draft(
        self,
        role: Role,
        content: str,
        position: int,
        metadata: Json | None,
        now: int,
        audience: Audience | None,
        *,
        status: Status = "completed",
        provider: str | None = None,
        model: str | None = None,
    ) -> Draft:
        public: dict[str, Any] = dict(metadata or {})
        private = public.pop("private", None)
        if private is not None and not isinstance(private, dict):
            raise Unprocessable("metadata.private must be an object.")
        if role == "user":
            check_parts(read_parts(public))
        return Draft(
            id=new_message_id(self.id, position, self._backend.random_bytes),
            conversation_id=self.id,
            role=role,
            content=content,
            status=status,
            created=now,
            completed=now if status == "completed" else None,
            metadata=public,
            private=private,
            provider=provider,
            model=model,
            channel=audience and audience[0],
            except_socket=audience and audience[1],
            feeding=audience is not None and status not in TERMINAL,
        )


async def _read_past(
    backend: Backend,
    conversation_id: str,
    window: Windowed | None,
    *,
    has_question: bool,
    statuses: Collection[Status] = COMPLETED,
    before: str | None = None,
) -> Past:
    window = Window(tokens=backend.settings.history_tokens) if window is None else window_of(window)
    return await read_past(backend.store, conversation_id, window, statuses, has_question=has_question, before=before)


def _channel_of(conversation_id: str) -> str:
    # Imported when something is broadcast.
    from tailrace.broadcast.channels import conversation_channel

    return conversation_channel(conversation_id)
