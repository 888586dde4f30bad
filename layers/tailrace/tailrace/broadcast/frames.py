"""What subscribers are sent: frames, as npm ``laravel-echo-api-gateway`` 0.5.5 reads them. Pure.

A chunk's frame says which entries of the log it stands for, from ``first_seq`` to ``seq``. ``seq`` is the cursor: the
last entry that a subscriber has whole after it. So ``first_seq`` is always the ``seq`` before it and one, and a
larger one is a gap, to be fetched by the cursor. Of an entry that is too long for one frame, all frames but its last
leave ``seq`` where it was; the later ones say with ``offset`` how many of its characters came before.

Nothing private is in a frame: a ``Message`` carries neither private metadata nor a prompt, and system messages are
refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tailrace.clock import rfc3339
from tailrace.errors import TooLarge
from tailrace.events import ConversationRecord, End, Event, Message, Reset, Text

LARGEST_FRAME: Final = 131_072
"""Bytes in one message to a client
(https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html)."""

_FIGURES: Final = 400
"""Bytes that the numbers of a chunk may take: eleven of at most 20, and their names."""

_encode: Final = msgspec.json.Encoder().encode


class _Frame(msgspec.Struct, omit_defaults=False):
    event: str
    channel: str | msgspec.UnsetType | None = msgspec.UNSET
    data: Any = msgspec.UNSET


class Chunk(msgspec.Struct, kw_only=True):
    """The data of a ``MessageChunkReceived``; docs/broadcasting.md says what each means."""

    message_id: str
    chunk: str
    seq: int
    first_seq: int
    chunk_count: int
    offset: int | msgspec.UnsetType = msgspec.UNSET
    reset: bool | msgspec.UnsetType = msgspec.UNSET
    cursor: str | msgspec.UnsetType = msgspec.UNSET
    sentence_count: int | msgspec.UnsetType = msgspec.UNSET
    progress: Mapping[str, float] | msgspec.UnsetType = msgspec.UNSET


def frame(event: str, channel: str | msgspec.UnsetType | None = msgspec.UNSET, data: Any = msgspec.UNSET) -> bytes:
    """Return a frame: ``{"event", "channel", "data"}``, the last two only when they are given.

    Args:
        event: its whole name.
        data: what msgspec writes as JSON.

    Raises:
        TooLarge: it is over 128 KB.
    """
    encoded = _encode(_Frame(event, channel, data))
    if len(encoded) > LARGEST_FRAME:
        raise TooLarge(f"The event has more than {LARGEST_FRAME} bytes.")
    return encoded


class Frames:
    """The frames of our own events, and of a user's.

    Args:
        namespace: stands before each event's name, such as ``App\\Events\\``.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def event(self, name: str, channel: str, data: Any) -> bytes:
        """Return the frame of an event by its name without the namespace.

        Raises:
            TooLarge: it is over 128 KB.
        """
        return frame(self._namespace + name, channel, data)

    def chunks(
        self, channel: str, message_id: str, first_seq: int, events: Sequence[Event], *, whole: bool = False
    ) -> list[bytes]:
        """Return the frames of a run of consecutive entries of a log.

        What is neither text nor a reset only takes its number. Of a run with nothing else there is no frame:
        whoever sends it keeps it for the next one, so that the numbers follow on each other.

        Args:
            first_seq: of the first of the entries.
            whole: give such a run a frame without text, and so leave nothing for the next.
        """
        run = _Run(self, channel, message_id, first_seq)
        for event in events:
            if isinstance(event, Text):
                run.text(event.text)
            elif isinstance(event, Reset):
                run.reset()
            elif not isinstance(event, End):
                run.pass_over()
        return run.finish(whole)

    def chunk(self, channel: str, chunk: Chunk) -> bytes:
        """Return one ``MessageChunkReceived``.

        Raises:
            TooLarge: it is over 128 KB.
        """
        return self.event("MessageChunkReceived", channel, chunk)

    def space_for_text(self, channel: str, message_id: str) -> int:
        """Return how many bytes of JSON the text of one ``MessageChunkReceived`` may have, with its numbers beside
        it."""
        empty = Chunk(message_id=message_id, chunk="", seq=0, first_seq=0, chunk_count=0)
        return LARGEST_FRAME - len(self.chunk(channel, empty)) - _FIGURES

    def message_created(self, channel: str, message: Message) -> bytes:
        """Return the frame that says that a message is there; a reply's content is still empty."""
        return self._message("MessageCreated", channel, message, {})

    def message_ended(self, channel: str, message: Message) -> bytes:
        """Return ``MessageCompleted``, or ``MessageFailed`` for every other end; it carries the whole message."""
        if message.status == "completed":
            return self._message("MessageCompleted", channel, message, {})
        error = message.error or {}
        return self._message(
            "MessageFailed", channel, message, {"error": error.get("message"), "error_type": error.get("type")}
        )

    def conversation_created(self, channel: str, record: ConversationRecord) -> bytes:
        """Return the frame that says that a conversation is there, without its system prompt and its owner."""
        shown = {
            "id": record.id,
            "title": record.title,
            "metadata": record.metadata,
            "created_at": rfc3339(record.created),
            "updated_at": rfc3339(record.updated),
        }
        data = {"conversation_id": record.id, "conversation": shown}
        return self._shortened("ConversationCreated", channel, data, shown, {"metadata": {}})

    def _message(self, name: str, channel: str, message: Message, more: dict[str, Any]) -> bytes:
        if message.role == "system":
            raise ValueError("a system message is never sent")
        shown = msgspec.structs.asdict(message)
        data = {"message_id": message.id, "conversation_id": message.conversation_id, **more, "message": shown}
        return self._shortened(name, channel, data, shown, {"content": "", "metadata": {}})

    def _shortened(
        self, name: str, channel: str, data: dict[str, Any], shown: dict[str, Any], empty: dict[str, Any]
    ) -> bytes:
        """Return the frame; of one that is too large, what may be long is left out, one after the other."""
        try:
            return self.event(name, channel, data)
        except TooLarge:
            data["truncated"] = True
        for field, nothing in empty.items():
            shown[field] = nothing
            encoded = _encode(_Frame(self._namespace + name, channel, data))
            if len(encoded) <= LARGEST_FRAME:
                return encoded
        raise TooLarge(f"The event has more than {LARGEST_FRAME} bytes.")


class _Run:
    """Packs entries into frames as they come."""

    def __init__(self, frames: Frames, channel: str, message_id: str, first_seq: int) -> None:
        self._frames = frames
        self._channel = channel
        self._id = message_id
        self._done: list[bytes] = []
        self._space = frames.space_for_text(channel, message_id)
        self._first = first_seq  # of the frame that is being packed
        self._seq = first_seq - 1  # of the last entry that is whole
        self._offset = 0
        self._texts: list[str] = []
        self._size = 0
        self._count = 0

    def text(self, text: str) -> None:
        size = json_bytes(text)
        if self._texts and self._size + size > self._space:
            self._close()
        taken = 0
        while size > self._space:
            end = taken + fitting(text, taken, self._space)
            self._texts.append(text[taken:end])
            self._close()
            taken = self._offset = end
            size = json_bytes(text[taken:])
        self._texts.append(text[taken:])
        self._size += size
        self._count += 1
        self._seq += 1

    def reset(self) -> None:
        if self._texts:
            self._close()
        self._seq += 1
        self._emit("", reset=True)

    def pass_over(self) -> None:
        self._seq += 1

    def finish(self, whole: bool) -> list[bytes]:
        if self._texts or ((whole or self._done) and self._seq >= self._first):
            self._close()
        return self._done

    def _close(self) -> None:
        self._emit("".join(self._texts))

    def _emit(self, text: str, *, reset: bool = False) -> None:
        chunk = Chunk(
            message_id=self._id,
            chunk=text,
            seq=self._seq,
            first_seq=self._first,
            chunk_count=self._count,
            offset=self._offset or msgspec.UNSET,
            reset=reset or msgspec.UNSET,
        )
        self._done.append(self._frames.chunk(self._channel, chunk))
        self._texts.clear()
        self._size = self._count = self._offset = 0
        self._first = self._seq + 1


def json_bytes(text: str) -> int:
    """Return how many bytes a text has in JSON."""
    return len(_encode(text)) - 2  # without the quotes


def fitting(text: str, start: int, space: int) -> int:
    """Return how many characters from ``start`` on fit into so many bytes of JSON."""
    fits, too_many = 0, min(space, len(text) - start) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if json_bytes(text[start : start + middle]) <= space:
            fits = middle
        else:
            too_many = middle
    return fits
