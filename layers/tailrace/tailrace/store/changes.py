"""What the table's stream says: its records, as conversations and messages before and after.

A record has the item's images as DynamoDB's JSON
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html), which is what
Lambda hands to a function (https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html).
"""

from __future__ import annotations

from typing import Final

import msgspec

from tailrace.errors import StoreError
from tailrace.events import ConversationRecord, Message
from tailrace.store.dynamodb import Payload
from tailrace.store.items import conversation_record, message_record, part_keys


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as an image of the stream has it.

    Attributes:
        message: its content is empty where ``is_whole`` is false.
        is_whole: whether the content lies in the image, and not in items of its own.
        feeding: whether a relay is still posting the reply's chunks.
        channel: where subscribers hear of it, or None when nothing was said.
        except_socket: the socket that is left out, or None.
    """

    message: Message
    is_whole: bool
    feeding: bool
    channel: str | None
    except_socket: str | None


Image = ConversationRecord | StoredMessage


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the table's stream.

    Attributes:
        id: the same whenever this record is delivered again.
        number: its sequence number, which a function names to have it again.
        before, after: None where there is nothing, or nothing that anybody is shown: an item of another
            kind, a deleted conversation.
    """

    id: str
    number: str
    before: Image | None
    after: Image | None


def change(record: Payload) -> Change:
    """Return what a record says.

    Raises:
        StoreError: it is not a record of this table's stream with both images.
    """
    try:
        stream = record["dynamodb"]
        return Change(
            id=record["eventID"],
            number=stream["SequenceNumber"],
            before=_image(stream.get("OldImage")),
            after=_image(stream.get("NewImage")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
        raise StoreError("A record of the table's stream cannot be read.") from error


_CONVERSATION: Final = "C"
_MESSAGE: Final = "M#"


def _image(item: Payload | None) -> Image | None:
    if item is None or not item["pk"]["S"].startswith("C#"):
        return None
    kind = item["sk"]["S"]
    if kind == _CONVERSATION:
        return None if "deleted" in item else conversation_record(item)
    if not kind.startswith(_MESSAGE):
        return None
    return StoredMessage(
        message=message_record(item, item.get("content", {}).get("S", "")),
        is_whole=not part_keys(item),
        feeding="feeding" in item,
        channel=item["channel"]["S"] if "channel" in item else None,
        except_socket=item["except_socket"]["S"] if "except_socket" in item else None,
    )
