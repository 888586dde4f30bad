"""An owner of conversations: whoever an application says, by a name that it chooses."""

from __future__ import annotations

from datetime import date

from tailrace.backend import Backend, default_backend
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.report import Report, bounds, day_of, report
from tailrace.events import ConversationRecord, Json


class Owner:
    """Somebody's conversations.

    Args:
        name: such as ``user-5`` or ``team-5``; two kinds of owners need names that differ.
        backend: the environment's when None.
    """

    def __init__(self, name: str, *, backend: Backend | None = None) -> None:
        self.name = name
        self._backend = backend

    async def start_conversation(
        self, *, title: str | None = None, system: str | None = None, metadata: Json | None = None
    ) -> Conversation:
        """Store and return a new conversation (see ``Conversation.create``).

        Raises:
            StoreError: the table cannot be written.
        """
        return await Conversation.create(
            owner=self.name, title=title, system=system, metadata=metadata, backend=self._backend
        )

    async def continue_conversation(self, conversation_id: str) -> Conversation:
        """Return one of the owner's conversations.

        Raises:
            NotFound: there is none, it was deleted, or it is somebody else's.
            StoreError: the table cannot be read.
        """
        return await Conversation.load(conversation_id, owner=self.name, backend=self._backend)

    async def conversations(
        self, *, limit: int = 20, cursor: str | None = None
    ) -> tuple[list[ConversationRecord], str | None]:
        """Return the owner's conversations that were not deleted, newest first, and the next page's cursor or None.

        By an index that is eventually consistent: a new one may be missing for a moment.

        Raises:
            RequestError: the cursor is not one of ours.
            StoreError: the table cannot be read.
        """
        backend = self._backend or default_backend()
        return await backend.store.conversations.list(self.name, limit, cursor)

    async def report(self, day: date | None = None) -> Report:
        """Return what the owner's replies of a day came to (see ``Conversation.report``).

        From what is stored of each, and no counters: half a read unit for each conversation that the owner had by then,
        and what the day's messages weigh. Conversations and messages that were deleted do not count.

        Args:
            day: in UTC, by when a reply was started; today when None.

        Raises:
            StoreError: the table cannot be read.
        """
        backend = self._backend or default_backend()
        begin, end = bounds(day or day_of(backend.clock.now()))
        return report(await backend.store.replies.between(self.name, begin, end))
