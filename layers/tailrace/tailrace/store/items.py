"""What the items are made of, in pynamodb's attributes; and how an item becomes a record.

One table, keys ``pk`` and ``sk``::

    C#<tag>          C                         a conversation (tag: see ids.py)
    C#<tag>          M#<position>#<random>     its messages, in order
    C#<tag>          T#<position>#<random>#<nonce>   long content of theirs, in the same order
    S#<message id>   L#<number>                the log of a stream: its segments 0, 1, 2...
    S#<message id>   T#<nonce>#<number>        final content too long to lie there
    S#<message id>   F                         when somebody last followed it
    G#<tag>          <grant id>                a grant of a conversation
    K#<digest>       K                         an idempotency key, and which reply it started
    N#<channel>      <socket id>               a subscription
    W#<socket id>    W                         a WebSocket connection, and whose it is
    W#<socket id>    R#<request id>            a request of a chat that came over it, and which reply answers it

All but the first two, final content, and grants that end by being revoked have ``expires``, which DynamoDB's TTL
deletes by, hours or days late (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html); readers look
at it themselves.

They are no pynamodb models: those import its connections, and with them botocore's client, for what ``dynamodb.py``
does, and that is a ninth of a cold start. ``table_model.py`` is the model that creates the table.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from zlib import crc32

import msgspec
from pynamodb.attributes import (
    AttributeContainer,
    BinaryAttribute,
    BooleanAttribute,
    NumberAttribute,
    UnicodeAttribute,
    UnicodeSetAttribute,
)

from tailrace.clock import rfc3339
from tailrace.events import ConversationRecord, Json, Message, Usage
from tailrace.ids import conversation_tag, message_address, message_id
from tailrace.store.dynamodb import Payload

OPEN_SHARDS: Final = 8
DELETED: Final = "deleted"


class IntegerAttribute(NumberAttribute):
    """A whole number, which ``str`` writes in a tenth of what ``json`` takes."""

    def serialize(self, value: int) -> str:
        """Return it as DynamoDB has it."""
        return str(value)


class Item(AttributeContainer):
    """The table's keys."""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)

    @classmethod
    def attributes(cls, **values: Any) -> dict[str, Any]:
        """Return attributes in DynamoDB's JSON, without what is None."""
        known = cls.get_attributes()
        found: dict[str, Any] = {}
        for name, value in values.items():
            if value is not None:
                attribute = known[name]
                typed = attribute.serialize(value)
                if isinstance(typed, bytes):
                    typed = b64encode(typed).decode()
                found[attribute.attr_name] = {attribute.attr_type: typed}
        return found

    @classmethod
    def serialized(cls, key: Mapping[str, str], **values: Any) -> dict[str, Any]:
        """Return an item in DynamoDB's JSON, without what is None: what an instance of this class would serialize to (a
        test compares them), at a quarter of what it takes to make one.

        Raises:
            ValueError: an attribute that every such item has is missing; a bug.
        """
        item = cls.attributes(**key, **values)
        if not _needed(cls) <= item.keys():
            raise ValueError(f"A {cls.__name__} lacks {', '.join(_needed(cls) - item.keys())}.")
        return item


@cache
def _needed(kind: type[Item]) -> frozenset[str]:
    return frozenset(each.attr_name for each in kind.get_attributes().values() if not each.null)


class ConversationItem(Item):
    """A conversation. A deleted one has no ``owner``, which takes it out of that index, and ``sweep`` instead."""

    id = UnicodeAttribute()
    owner = UnicodeAttribute(null=True)
    created = IntegerAttribute()
    updated = IntegerAttribute()
    title = UnicodeAttribute(null=True)
    system = UnicodeAttribute(null=True)
    metadata = UnicodeAttribute(null=True)
    system_messages = UnicodeSetAttribute(null=True)  # the ids of its system messages, which every prompt has
    deleted = IntegerAttribute(null=True)
    former_owner = UnicodeAttribute(null=True)  # whose it was, until it is restored or pruned
    sweep = UnicodeAttribute(null=True)


class MessageItem(Item):
    """A message. JSON values are text: what a user put in comes out the same, 1.0 as well as 1.

    ``sweep`` is one of ``OPEN_SHARDS`` values while it is being written, and absent from then on unless it is deleted;
    but for one whose writer still has to send its last chunks to subscribers, which is ``feeding`` until it has.

    ``channel`` and ``except_socket`` say who is to hear of it, and are there when something is broadcast.
    """

    sweep = UnicodeAttribute(null=True)
    id = UnicodeAttribute()
    conversation = UnicodeAttribute()
    role = UnicodeAttribute()
    status = UnicodeAttribute()
    created = IntegerAttribute()
    completed = IntegerAttribute(null=True)
    ordinal = IntegerAttribute(null=True)  # how many messages the conversation had with it, as far as its writer knew
    content = UnicodeAttribute(null=True)
    beside = UnicodeAttribute(null=True)  # the nonce of the content that lies beside the messages
    parts = IntegerAttribute(null=True)  # how many items in the reply's own partition have the content
    parts_nonce = UnicodeAttribute(null=True)
    content_bytes = IntegerAttribute(null=True)  # of content that lies elsewhere
    state = UnicodeAttribute(null=True)  # what its provider wants back, for nobody else; long ones lie as content does
    state_beside = UnicodeAttribute(null=True)
    state_parts = IntegerAttribute(null=True)
    state_nonce = UnicodeAttribute(null=True)
    seq = IntegerAttribute(null=True)
    metadata = UnicodeAttribute(null=True)
    private = UnicodeAttribute(null=True)
    provider = UnicodeAttribute(null=True)
    model = UnicodeAttribute(null=True)
    usage = UnicodeAttribute(null=True)
    finish_reason = UnicodeAttribute(null=True)
    error = UnicodeAttribute(null=True)
    channel = UnicodeAttribute(null=True)
    except_socket = UnicodeAttribute(null=True)
    feeding = IntegerAttribute(null=True)
    continued = UnicodeAttribute(null=True)  # the reply that goes on with it
    deleted = IntegerAttribute(null=True)


class SegmentItem(Item):
    """A segment. Short names: they are stored up to ten times a second."""

    nonce = BinaryAttribute(legacy_encoding=False, attr_name="n")
    first_seq = IntegerAttribute(attr_name="f")
    at = IntegerAttribute(attr_name="t")
    events = BinaryAttribute(legacy_encoding=False, attr_name="e")
    expires = IntegerAttribute()


def serialized_segment(
    message_id: str, number: int, *, nonce: bytes, first_seq: int, at: int, events: bytes, expires: int
) -> dict[str, dict[str, Any]]:
    """Return what ``SegmentItem`` serializes to, which costs a fifth of the hot write; a test compares them."""
    return {
        "pk": {"S": f"S#{message_id}"},
        "sk": {"S": segment_sort_key(number)},
        "n": {"B": b64encode(nonce).decode()},
        "f": {"N": str(first_seq)},
        "t": {"N": str(at)},
        "e": {"B": b64encode(events).decode()},
        "expires": {"N": str(expires)},
    }


class FollowedItem(Item):
    """The sign that somebody reads a log while it is written."""

    at = IntegerAttribute(attr_name="t")
    expires = IntegerAttribute()


class PartItem(Item):
    """A piece of content too long for its message's item."""

    content = UnicodeAttribute()


class KeyItem(Item):
    """An idempotency key. ``digest`` is of the body it was used with."""

    message = UnicodeAttribute()
    digest = BinaryAttribute(legacy_encoding=False)
    expires = IntegerAttribute()


class GrantItem(Item):
    """A grant. Its owner is not under the name by which an index finds conversations."""

    id = UnicodeAttribute()
    conversation = UnicodeAttribute()
    owner = UnicodeAttribute(attr_name="owner_name")
    right = UnicodeAttribute()
    message = UnicodeAttribute(null=True)
    reader = UnicodeAttribute(null=True)
    created = IntegerAttribute(attr_name="made")
    expires = IntegerAttribute(null=True)


class SubscriptionItem(Item):
    """A subscription. ``from``, a map from message id to a segment's number, is not modelled."""

    socket = UnicodeAttribute()
    since = IntegerAttribute()
    member = UnicodeAttribute(null=True)
    delivery = UnicodeAttribute(null=True)
    grant = UnicodeAttribute(null=True)  # the id of the one by which its socket may be here
    expires = IntegerAttribute()


class IdentityItem(Item):
    """What one identity has used, as JSON; ``version`` changes with every write."""

    version = IntegerAttribute()
    held = UnicodeAttribute()
    expires = IntegerAttribute()


class SocketItem(Item):
    """A WebSocket connection of somebody who was identified, or whose channels or whispers are counted."""

    owner = UnicodeAttribute(null=True)
    grant = UnicodeAttribute(null=True)  # the grant that it was made with, if it was
    conversation = UnicodeAttribute(null=True)  # the only one that it is for then
    may_chat = BooleanAttribute(null=True)  # false where the token has not the scope for it
    is_over = BooleanAttribute(null=True)  # true for one more than its owner may have
    channels = UnicodeSetAttribute(null=True)
    whispers_due = IntegerAttribute(null=True)  # when the whispers so far will have been paid off
    expires = IntegerAttribute()


class ChatRequestItem(Item):
    """A request of a chat that came over a WebSocket: who serves it, which reply answers it, whether it was taken
    back."""

    nonce = UnicodeAttribute(null=True)
    message = UnicodeAttribute(null=True)
    aborted = IntegerAttribute(null=True)
    expires = IntegerAttribute()


# ---- keys ----


def conversation_key(conversation_id: str) -> dict[str, str]:
    return {"pk": f"C#{conversation_tag(conversation_id)}", "sk": "C"}


def message_key(message_id: str) -> dict[str, str]:
    address = message_address(message_id)
    return {"pk": f"C#{address.tag}", "sk": f"M#{address.position:014x}#{address.random}"}


def message_id_of(pk: str, sk: str) -> str:
    """Return the id of the message whose item has these keys."""
    _, position, random = sk.split("#")
    return message_id(pk[2:], int(position, 16), random)


def segment_sort_key(number: int) -> str:
    return f"L#{number:08d}"


def followed_key(message_id: str) -> dict[str, str]:
    return {"pk": f"S#{message_id}", "sk": "F"}


def segment_key(message_id: str, number: int) -> dict[str, str]:
    return {"pk": f"S#{message_id}", "sk": segment_sort_key(number)}


def part_key(message_id: str, nonce: str, number: int) -> dict[str, str]:
    return {"pk": f"S#{message_id}", "sk": f"T#{nonce}#{number:04d}"}


def beside_prefix(message_sort_key: str) -> str:
    """Return what the sort keys of a message's content begin with that lies beside the messages, in their order. Any
    longer one is of the same message, so this is also the end of those that come before."""
    return f"T{message_sort_key[1:]}"


def beside_key(message_id: str, nonce: str) -> dict[str, str]:
    key = message_key(message_id)
    return {"pk": key["pk"], "sk": f"{beside_prefix(key['sk'])}#{nonce}"}


def just_before(sort_key: str) -> str:
    """Return a sort key before this one, after all that come before it and are of its length and made of its
    characters."""
    return sort_key[:-1] + chr(ord(sort_key[-1]) - 1) + "~"


def open_shard(message_id: str) -> str:
    """Return which of ``OPEN_SHARDS`` an open message belongs to: index partitions take 1,000 writes a second. An item
    has it written in it, so another rule moves none."""
    return f"open {crc32(message_id.encode()) % OPEN_SHARDS}"


def idempotency_key(owner: str, conversation_id: str, key: str) -> dict[str, str]:
    """Return where a key lies; the same text of another owner or conversation lies elsewhere."""
    digest = hashlib.sha256(msgspec.json.encode([owner, conversation_id, key])).hexdigest()
    return {"pk": f"K#{digest}", "sk": "K"}


def grant_key(tag: str, grant_id: str) -> dict[str, str]:
    return {"pk": f"G#{tag}", "sk": grant_id}


def subscription_key(channel: str, socket: str) -> dict[str, str]:
    return {"pk": f"N#{channel}", "sk": socket}


def socket_key(socket: str) -> dict[str, str]:
    return {"pk": f"W#{socket}", "sk": "W"}


def chat_request_key(socket: str, request: str) -> dict[str, str]:
    return {"pk": f"W#{socket}", "sk": f"R#{request}"}


def identity_key(owner: str, what: str = "U") -> dict[str, str]:
    """Return where it lies what an identity has used; the key does not tell who that is.

    Args:
        what: ``U`` of replies and conversations, ``W`` of WebSocket connections.
    """
    return {"pk": f"U#{hashlib.sha256(owner.encode()).hexdigest()}", "sk": what}


def is_expired(item: Payload, now: int) -> bool:
    """Return whether an item is past its time, although it may still be there.

    Args:
        now: microseconds since 1970.
    """
    return "expires" in item and int(item["expires"]["N"]) * 1_000_000 <= now


def part_keys(
    item: Payload, beside: str = "beside", parts: str = "parts", nonce: str = "parts_nonce"
) -> list[dict[str, str]]:
    """Return where a message's content lies, if not in its own item; with other attributes' names, its state."""
    if beside in item:
        return [beside_key(item["id"]["S"], item[beside]["S"])]
    if parts not in item:
        return []
    return [part_key(item["id"]["S"], item[nonce]["S"], number) for number in range(int(item[parts]["N"]))]


def state_keys(item: Payload) -> list[dict[str, str]]:
    """Return where what a message's provider wants back lies, if not in the message's own item."""
    return part_keys(item, "state_beside", "state_parts", "state_nonce")


# ---- items to records ----


def to_json(value: Json | Usage | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _text(item: Payload, name: str) -> str | None:
    return item[name]["S"] if name in item else None


def from_json(item: Payload, name: str) -> Any:
    text = _text(item, name)
    return None if text is None else msgspec.json.decode(text)


def conversation_record(item: Payload) -> ConversationRecord:
    return ConversationRecord(
        id=item["id"]["S"],
        owner=item["owner"]["S"],
        title=_text(item, "title"),
        system=_text(item, "system"),
        metadata=from_json(item, "metadata") or {},
        system_messages=tuple(sorted(item["system_messages"]["SS"])) if "system_messages" in item else (),
        created=int(item["created"]["N"]),
        updated=int(item["updated"]["N"]),
    )


def message_record(item: Payload, content: str) -> Message:
    usage = from_json(item, "usage")
    metadata = from_json(item, "metadata") or {}
    if "continued" in item:
        metadata["continued_by"] = item["continued"]["S"]
    completed = item.get("completed")
    return Message(
        id=item["id"]["S"],
        conversation_id=item["conversation"]["S"],
        role=item["role"]["S"],
        content=content,
        status=item["status"]["S"],
        seq=int(item["seq"]["N"]) if "seq" in item else 0,
        metadata=metadata,
        provider=_text(item, "provider"),
        model=_text(item, "model"),
        usage=None if usage is None else msgspec.convert(usage, Usage),
        finish_reason=_text(item, "finish_reason"),
        error=from_json(item, "error"),
        created_at=rfc3339(int(item["created"]["N"])),
        completed_at=None if completed is None else rfc3339(int(completed["N"])),
    )
