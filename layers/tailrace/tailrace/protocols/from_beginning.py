"""What wire formats share whose events depend on those before: parts that are opened and closed, counts, numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import msgspec

from tailrace.events import Event, Message, Text
from tailrace.protocols.reader import Object, Opening, ReaderProtocol, Reading, Shown
from tailrace.protocols.stored import entries_of

_encode = msgspec.json.Encoder().encode


class FromBeginning(ReaderProtocol):
    """A wire format that needs a method for one entry, and the ends. Its arguments are ``ReaderProtocol``'s.

    Attributes:
        seq: of the last entry.
        written: characters of text that were shown and are not void.
        around: what stands before and behind the JSON of a piece of text as long as nothing else comes: then text is
            two joins and no dict. None where something must be opened first.
    """

    has_ids: ClassVar[bool] = False
    needs_beginning: ClassVar[bool] = True

    def __init__(self, opening: Opening, reading: Reading) -> None:
        super().__init__(opening, reading)
        self.seq = 0
        self.written = 0
        self.around: tuple[bytes, bytes] | None = None

    @abstractmethod
    def entry(self, event: Event) -> list[Object]:
        """Return what one entry is to the reader; empty if it has no shape here. It counts what is ``written``."""

    def shown(self, objects: Iterable[Object], cursor: str | None = None) -> list[Shown]:
        """Return events with their cursor; that after the last entry when None."""
        cursor = self.cursor(self.seq) if cursor is None else cursor
        return [Shown(each, cursor) for each in objects]

    def objects(self, first_seq: int, events: Sequence[Event]) -> list[Shown]:
        """Return what the entries are to the reader."""
        found: list[Shown] = []
        for seq, event in enumerate(events, first_seq):
            self.seq = seq
            found += self.shown(self.entry(event))
        return found

    def events(self, first_seq: int, events: Sequence[Event]) -> bytes:
        """Return the entries as server-sent events; empty when there is nothing to show."""
        if not self.is_new(first_seq):
            return super().events(first_seq, events)
        blocks: list[bytes] = []
        around = self.around
        for seq, event in enumerate(events, first_seq):
            if around is not None and isinstance(event, Text):
                self.written += len(event.text)
                blocks.append(around[0] + _encode(event.text) + around[1])
            else:
                blocks.append(self._encode(self.objects(seq, [event])))
                around = self.around
        self.seq = first_seq + len(events) - 1
        return b"".join(blocks)

    def stored(self, message: Message) -> Iterator[Event]:
        """Yield the entries that a stored message alone tells."""
        return entries_of(message)

    def missing(self, message: Message) -> Iterator[Event]:
        """Yield what of an answer was not shown when its end comes: all of it, if its log has expired."""
        if not self.seq:
            yield from self.stored(message)
        elif message.status == "completed" and self.written < len(message.content):
            yield Text(message.content[self.written :])
