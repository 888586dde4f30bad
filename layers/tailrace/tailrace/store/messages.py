"""Messages in the table."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from pynamodb.expressions.condition import Condition, size

from tailrace.errors import AlreadyStarted, Conflict, NotFound, StoreError, Unprocessable
from tailrace.events import TERMINAL, ConversationRecord, End, Event, Json, Message, ProviderState, Role, Status, Step
from tailrace.store.content import Found, content_bytes, lay_out, read_contents, read_with_states
from tailrace.store.conversations import conversation_item
from tailrace.store.dynamodb import ConditionFailed, Payload, TransactionCancelled
from tailrace.store.identities import IdentityChanged
from tailrace.store.items import (
    DELETED,
    OPEN_SHARDS,
    ConversationItem,
    Item,
    KeyItem,
    MessageItem,
    conversation_key,
    from_json,
    idempotency_key,
    just_before,
    message_id_of,
    message_key,
    message_record,
    open_shard,
    to_json,
)
from tailrace.store.log import Log
from tailrace.store.segment import text_of
from tailrace.store.table import Table, expressions

LARGEST_ITEM: Final = 380_000
"""Bytes of what is stored of a message besides its content. An item may have 400 KB with its attributes' names
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)."""

LARGEST_OPEN_ITEM: Final = 150_000
"""The same of a reply that is about to be written: its end adds up to 240,000 (``reply/ending.py``), and whatever
is started must be able to end."""


MOST_SYSTEM_MESSAGES: Final = 1000
"""Of one conversation: their ids lie in its item, 48 bytes each."""


FAILED: Final = "ConditionalCheckFailed"

_NO_CONVERSATION: Final = expressions(condition=ConversationItem.pk.does_not_exist())

MOST_WRITES: Final = 100
"""Of one transaction
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html)."""


MOST_PARTS: Final = 16
"""Items of long content that are put in a start's transaction, which may have 4 MB; more are put before it."""


class ConversationThere(Exception):
    """The conversation that was to be made is there already. Nobody outside ever sees this."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message about to be put."""

    id: str
    conversation_id: str
    role: Role
    content: str
    status: Status
    created: int
    completed: int | None = None
    metadata: Json = msgspec.field(default_factory=dict)
    private: Json | None = None
    provider: str | None = None
    model: str | None = None
    channel: str | None = None
    except_socket: str | None = None
    feeding: bool = False
    ordinal: int | None = None


class Start(msgspec.Struct, frozen=True):
    """An idempotency key and what it is used for.

    Attributes:
        key: the client's text.
        digest: of the body that came with it.
    """

    owner: str
    key: str
    digest: bytes


class Open(msgspec.Struct, frozen=True):
    """What is stored of a message besides its content.

    Attributes:
        created: microseconds since 1970.
        private: metadata that is never sent.
        channel: where subscribers hear of it, or None when nothing was to be broadcast.
        except_socket: who is left out there, or None.
        feeding: whether its writer still has chunks to send to them.
    """

    conversation_id: str
    role: Role
    status: Status
    seq: int
    created: int
    metadata: Json
    private: Json
    model: str | None
    provider: str | None = None
    channel: str | None = None
    except_socket: str | None = None
    feeding: bool = False


class Messages:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table, log: Log, retention: int) -> None:
        self._table = table
        self._log = log
        self._retention = retention

    async def put(
        self,
        drafts: Sequence[Draft],
        *,
        nonce: bytes,
        start: Start | None = None,
        conversation: ConversationRecord | None = None,
        replaced: Sequence[str] = (),
        continued: str | None = None,
        identity: Payload | None = None,
    ) -> list[Message]:
        """Put new messages, all or none: a start puts the user's message and the empty reply.

        A start waits for nothing but its transaction, so long content of the user's is in that, unless it is so long
        that it does not lie beside the messages. Otherwise long content is put before, which costs half.

        Args:
            nonce: 16 random bytes.
            start: the idempotency key that must be free; it is taken by the last message.
            conversation: theirs, if it is put with them.
            replaced: the ids of messages in whose place these come: they are deleted, as ``History.delete`` does.
            continued: the id of a reply that the last of these goes on with, which only one may.
            identity: the update of what their owner has used.

        Raises:
            AlreadyStarted: the key was used for the same body; the error has the message.
            Conflict: the key was used for another body, a message to replace is being written or gone, or the reply to
                go on with is gone or was gone on with before.
            ConversationThere: the conversation was put by somebody else, or was deleted.
            IdentityChanged: what their owner has used was changed by somebody else.
            Unprocessable: one of them does not fit into an item; nothing was stored.
        """
        values = [_values(draft) for draft in drafts]
        is_start = len(drafts) > 1 and drafts[-1].status not in TERMINAL
        # Beside the key, the conversation, its system messages, the reply that is gone on with, and the identity.
        room = min(MOST_PARTS, MOST_WRITES - len(drafts) - len(replaced) - 5)
        items: list[Payload] = []
        parts: list[Payload] = []
        for draft, value in zip(drafts, values, strict=True):
            content, laid_out = lay_out(draft.id, draft.content, nonce)
            items.append(self._item(draft, {**value, **content}))
            if is_start and "beside" in content and len(parts) + len(laid_out) <= room:
                parts += laid_out
                continue
            for part in laid_out:
                await self._table.put(part)
        writes: list[Payload] = [{"Put": {"TableName": self._table.name, "Item": item}} for item in (*items, *parts)]
        if start is not None:
            writes.insert(0, {"Put": self._key_request(start, drafts[-1])})
        made = len(writes)
        if conversation is not None:
            writes.append({"Put": self._conversation_request(conversation)})
        writes += [{"Update": self._replace_request(each, drafts[-1].created)} for each in replaced]
        if continued is not None:
            writes.append({"Update": self._continue_request(continued, drafts[-1].id)})
        if identity is not None:
            writes.append({"Update": identity})
        systems = [draft.id for draft in drafts if draft.role == "system"]
        if systems:
            writes.append({"Update": self._system_request(drafts[0].conversation_id, systems)})
        if len(writes) == 1:
            await self._table.put(items[0])
        else:
            try:
                await self._table.transact(writes, token=nonce.hex())
            except TransactionCancelled as error:
                codes = [reason.get("Code") for reason in error.reasons]
                if start is None or not error.reasons or "Item" not in error.reasons[0]:
                    if conversation is not None and codes[made : made + 1] == [FAILED]:
                        raise ConversationThere from error
                    begin = made + (conversation is not None)
                    if FAILED in codes[begin : begin + len(replaced)]:
                        raise Conflict("What is to be replaced is being written, or is gone.") from error
                    begin += len(replaced)
                    if continued is not None and codes[begin : begin + 1] == [FAILED]:
                        raise Conflict("Somebody has gone on with that reply already.") from error
                    begin += continued is not None
                    if identity is not None and codes[begin : begin + 1] == [FAILED]:
                        raise IdentityChanged from error
                if systems and codes[-1] == FAILED:
                    raise Unprocessable(f"A conversation may have {MOST_SYSTEM_MESSAGES} system messages.") from error
                _check_key(error, start, drafts[-1].id)
        return [message_record(item, draft.content) for item, draft in zip(items, drafts, strict=True)]

    def _system_request(self, conversation_id: str, message_ids: Sequence[str]) -> Payload:
        """Return the update by which a conversation knows its system messages, wherever in it they lie."""
        known = ConversationItem.system_messages
        few = known.does_not_exist() | (size(known) <= MOST_SYSTEM_MESSAGES - len(message_ids))  # type: ignore[no-untyped-call]  # pynamodb leaves it untyped
        return self._table.update_request(conversation_key(conversation_id), few, [known.add({*message_ids})])

    def _conversation_request(self, conversation: ConversationRecord) -> Payload:
        return {
            "TableName": self._table.name,
            "Item": conversation_item(conversation),
            **_NO_CONVERSATION,
        }

    def _replace_request(self, message_id: str, now: int) -> Payload:
        """Return the update that deletes a message which has ended; that it was deleted before does not matter."""
        actions = [MessageItem.deleted.set(now), MessageItem.sweep.set(DELETED)]
        return self._table.update_request(message_key(message_id), MessageItem.completed.exists(), actions)

    def _continue_request(self, message_id: str, by: str) -> Payload:
        free = MessageItem.completed.exists() & MessageItem.continued.does_not_exist()
        free &= MessageItem.deleted.does_not_exist()
        return self._table.update_request(message_key(message_id), free, [MessageItem.continued.set(by)])

    def _key_request(self, start: Start, reply: Draft) -> Payload:
        key = idempotency_key(start.owner, reply.conversation_id, start.key)
        seconds = reply.created // 1_000_000
        free = KeyItem.pk.does_not_exist() | (KeyItem.expires <= seconds)
        return {
            "TableName": self._table.name,
            "Item": KeyItem.serialized(key, message=reply.id, digest=start.digest, expires=seconds + self._retention),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **expressions(condition=free),
        }

    async def started(self, conversation_id: str, start: Start) -> str | None:
        """Return the id of the reply that a key started in a conversation; None if there is none.

        Raises:
            Conflict: the key was used for another body.
        """
        item = await self._table.get(idempotency_key(start.owner, conversation_id, start.key))
        if item is None:
            return None
        if b64decode(item["digest"]["B"]) != start.digest:
            raise Conflict("The idempotency key was used for another request.")
        return str(item["message"]["S"])

    def _item(self, draft: Draft, values: dict[str, Any]) -> Payload:
        return MessageItem.serialized(
            message_key(draft.id),
            **values,
            created=draft.created,
            completed=draft.completed,
            sweep=None if draft.status in TERMINAL else open_shard(draft.id),
            feeding=1 if draft.feeding else None,
            ordinal=draft.ordinal,
        )

    async def fed(self, message_id: str) -> None:
        """Note that subscribers have got the chunks of a reply that has ended; now they may be told of its end.

        Does nothing when that is noted already, or when the reply has not ended.
        """
        key = message_key(message_id)
        condition = MessageItem.feeding.exists() & (MessageItem.status != "pending")
        actions = [MessageItem.feeding.remove(), MessageItem.sweep.remove()]
        try:
            await self._table.update(key, condition & MessageItem.deleted.does_not_exist(), actions)
        except ConditionFailed:
            with suppress(ConditionFailed):  # of one that was deleted since, sweep is what the pruning finds it by
                await self._table.update(key, condition & MessageItem.deleted.exists(), actions[:1])

    async def peek(self, message_id: str) -> Open:
        """Return what is stored of a message besides its content.

        Raises:
            NotFound: there is none.
        """
        return _open(await self._get(message_id))

    async def newest_reply(self, conversation_id: str) -> str:
        """Return the id of a conversation's newest reply.

        Raises:
            NotFound: there is none.
        """
        condition = (Item.pk == conversation_key(conversation_id)["pk"]) & Item.sk.startswith("M#")
        async for item in self._table.query(condition, ScanIndexForward=False, Limit=10):
            if item["role"]["S"] == "assistant" and "deleted" not in item:
                return str(item["id"]["S"])
        raise NotFound("The conversation has no reply yet.")

    def open_ids(self, created_before: int) -> list[AsyncIterator[str]]:
        """Return, shard by shard, the ids of replies that have not ended and were created before a moment, in
        microseconds. The shards can be read at the same time.

        The index is eventually consistent: one that has just ended may still be among them.
        """
        return [self._open_ids(f"open {shard}", created_before) for shard in range(OPEN_SHARDS)]

    async def _open_ids(self, shard: str, created_before: int) -> AsyncIterator[str]:
        condition = (MessageItem.sweep == shard) & (MessageItem.created < created_before)
        async for item in self._table.query(condition, IndexName="by_sweep", ConsistentRead=False):
            yield message_id_of(item["pk"]["S"], item["sk"]["S"])

    async def get(self, message_id: str) -> Message:
        """Return a message as it stands: of a reply that is being written, the content and seq so far.

        Raises:
            NotFound: there is none.
        """
        item = await self._get(message_id)
        return await (self._whole(item) if item["status"]["S"] in TERMINAL else self._so_far(item))

    async def those_there(self, message_ids: Sequence[str]) -> list[Message]:
        """Return messages that have ended, without those that are gone or deleted, in their order."""
        found = await self._table.get_all([message_key(each) for each in message_ids], are_all_there=False)
        items = [found[place] for place in sorted(found) if "deleted" not in found[place]]
        return await self.read(items)

    async def read_with_states(
        self, items: Sequence[Payload], *, found: Found | None = None
    ) -> list[tuple[Message, Sequence[Step]]]:
        """Return messages that have ended, and their steps: at least one of an answer whose provider wants something
        back.

        Args:
            found: parts of their contents that were read already.
        """
        read = await read_with_states(self._table, items, found=found)
        return [
            (message_record(item, content), () if state is None else _read_steps(state))
            for item, (content, state) in zip(items, read, strict=True)
        ]

    async def with_steps(self, message_id: str) -> tuple[Message, Sequence[Step]]:
        """Return a message that has ended, with its steps.

        Raises:
            NotFound: there is none.
        """
        (found,) = await self.read_with_states([await self._get(message_id)])
        return found

    async def newest_with_steps(self, conversation_id: str) -> tuple[Message, Sequence[Step]]:
        """Return a conversation's newest message that is not deleted, with its steps.

        Raises:
            NotFound: there is none.
            Conflict: it is a reply that is still being written.
        """
        condition = (Item.pk == conversation_key(conversation_id)["pk"]) & Item.sk.startswith("M#")
        async for item in self._table.query(condition, ScanIndexForward=False, Limit=10):
            if "deleted" in item:
                continue
            if item["status"]["S"] not in TERMINAL:
                raise Conflict("The reply is still being written.")
            (found,) = await self.read_with_states([item])
            return found
        raise NotFound("The conversation has no message yet.")

    async def read(self, items: Sequence[Payload]) -> list[Message]:
        """Return the messages of items, with their content."""
        contents = await read_contents(self._table, items)
        return [
            message_record(item, content) if item["status"]["S"] in TERMINAL else await self._so_far(item)
            for item, content in zip(items, contents, strict=True)
        ]

    async def list(
        self,
        conversation_id: str,
        limit: int,
        cursor: str | None = None,
        *,
        newest_first: bool = False,
        before: str | None = None,
        after: str | None = None,
    ) -> tuple[list[Message], str | None]:
        """Return a page of a conversation's messages, and the cursor of the next page or None.

        Args:
            before: the id of a message of this conversation, whether it is still there or not; only those that come
                before it are listed.
            after: likewise, in place of a cursor: those that are listed after it.

        Raises:
            RequestError: the cursor is not one of ours.
        """
        key = conversation_key(conversation_id)["pk"]
        items, following = await self._table.page(
            (Item.pk == key) & places(before),
            limit,
            cursor if after is None else self._table.cursor_at(message_key(after)),
            size=_size,
            ConsistentRead=True,
            ScanIndexForward=not newest_first,
        )
        return await self.read([item for item in items if "deleted" not in item]), following

    async def history(self, conversation_id: str) -> AsyncIterator[Message]:
        """Yield all messages of a conversation in order."""
        cursor: str | None = None
        while True:
            messages, cursor = await self.list(conversation_id, 100, cursor)
            for message in messages:
                yield message
            if cursor is None:
                return

    async def _get(self, message_id: str) -> Payload:
        item = await self._table.get(message_key(message_id))
        if item is None or "deleted" in item:
            raise NotFound("No such message.")
        return item

    async def _so_far(self, item: Payload) -> Message:
        """Return an open message with what its log says. That it is streaming is not stored: its log says so."""
        message_id = item["id"]["S"]
        events: list[Event] = []
        async for segment in self._log.read(message_id):
            events += segment.events
        if events and isinstance(events[-1], End):
            # It ended after the item was read, and the item has the whole of it.
            return await self._whole(await self._get(message_id))
        message = message_record(item, text_of(events))
        return msgspec.structs.replace(message, seq=len(events), status="streaming" if events else "pending")

    async def _whole(self, item: Payload) -> Message:
        (content,) = await read_contents(self._table, [item])
        return message_record(item, content)


def _values(draft: Draft) -> dict[str, str | None]:
    """Return the texts that are stored of a draft besides its content.

    Raises:
        Unprocessable: they are too many for its item.
    """
    values = {
        "id": draft.id,
        "conversation": draft.conversation_id,
        "role": draft.role,
        "status": draft.status,
        "metadata": to_json(draft.metadata),
        "private": to_json(draft.private),
        "provider": draft.provider,
        "model": draft.model,
        "channel": draft.channel,
        "except_socket": draft.except_socket,
    }
    limit = LARGEST_ITEM if draft.status in TERMINAL else LARGEST_OPEN_ITEM
    stored = sum(len(value.encode()) for value in values.values() if value is not None)
    if stored > limit:
        raise Unprocessable(f"The metadata of the message are too long: {stored} bytes as stored, of at most {limit}.")
    return values


class _State(msgspec.Struct):
    """What is stored beside a reply's content: its steps, or what the provider of its only one wants back."""

    provider: str | None = None
    data: str = ""
    steps: tuple[Step, ...] = ()


def _read_steps(stored: str) -> Sequence[Step]:
    state = msgspec.json.decode(stored, type=_State)
    return state.steps if state.provider is None else (Step(state=ProviderState(state.provider, state.data)),)


def places(before: str | None) -> Condition:
    """Return the condition of messages' sort keys: all, or those before a message."""
    if before is None:
        return Item.sk.startswith("M#")
    return Item.sk.between("M#", just_before(message_key(before)["sk"]))


def _size(item: Payload) -> int:
    """Return how many bytes a message has at most, with content that is not read yet."""
    return content_bytes(item) + sum(len(item[name]["S"].encode()) for name in ("content", "metadata") if name in item)


def _open(item: Payload) -> Open:
    return Open(
        conversation_id=item["conversation"]["S"],
        role=item["role"]["S"],
        status=item["status"]["S"],
        seq=int(item["seq"]["N"]) if "seq" in item else 0,
        created=int(item["created"]["N"]),
        metadata=from_json(item, "metadata") or {},
        private=from_json(item, "private") or {},
        model=item["model"]["S"] if "model" in item else None,
        provider=item["provider"]["S"] if "provider" in item else None,
        channel=item["channel"]["S"] if "channel" in item else None,
        except_socket=item["except_socket"]["S"] if "except_socket" in item else None,
        feeding="feeding" in item,
    )


def _check_key(error: TransactionCancelled, start: Start | None, message_id: str) -> None:
    """Say what stands in the way of a start; nothing if it is this very start, whose answer was lost."""
    holder = error.reasons[0].get("Item") if start is not None and error.reasons else None
    if start is None or holder is None:
        raise StoreError("The store refused the request.") from error
    if holder["message"]["S"] == message_id:
        return
    if b64decode(holder["digest"]["B"]) != start.digest:
        raise Conflict("The idempotency key was used for another request.") from error
    raise AlreadyStarted(holder["message"]["S"]) from error
