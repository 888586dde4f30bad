"""What may be added to a conversation: whole messages, for each role, under a condition, several at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from tailrace.conversation.parts import parts_metadata
from tailrace.errors import Unprocessable
from tailrace.events import Json, Message, Role
from tailrace.providers import InputPart

ROLES: Final[tuple[Role, ...]] = get_args(Role)

MOST_AT_ONCE: Final = 100
"""Messages in one transaction
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html)."""


class NewMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole message to add.

    Attributes:
        metadata: the caller's own; what is under ``private`` is stored and never sent.
    """

    role: Role
    content: str
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Additions(ABC):
    """The part of a conversation that takes messages.

    Every method raises ``StoreError`` when the table cannot be written and ``Unprocessable`` when
    ``metadata["private"]`` is no object; then nothing was added.
    """

    @abstractmethod
    async def _add(self, messages: Sequence[NewMessage], except_socket: str | None) -> list[Message]:
        """Store messages, all or none, in this order."""

    async def add_message(
        self, role: Role, content: str, metadata: Json | None = None, *, except_socket: str | None = None
    ) -> Message:
        """Store a whole message and return it.

        Args:
            metadata: the caller's own; what is under ``private`` is stored and never sent.
            except_socket: the socket id that does not hear of it: Echo's ``toOthers``.

        Raises (and so do all that add a message):
            Unprocessable: a tool's message, or a user's ``parts``, that no prompt could take up.
            TooLarge: parts that do not fit into an item.
            StoreError: the table cannot be written.
        """
        (message,) = await self._add([NewMessage(role, content, dict(metadata or {}))], except_socket)
        return message

    async def add_messages(self, *messages: str | NewMessage | Mapping[str, Any]) -> list[Message]:
        """Store several messages in one transaction, all or none, and return them.

        Args:
            messages: a text is the user's; otherwise a ``NewMessage``, or a mapping with ``role``, ``content`` and
                perhaps ``metadata``.

        Raises:
            Unprocessable: one of them is none of these (the message says which), or there are more than 100.
            TooLarge, StoreError: as for ``add_message``.
        """
        if len(messages) > MOST_AT_ONCE:
            raise Unprocessable(f"At most {MOST_AT_ONCE} messages can be added at once.")
        return (
            await self._add([_new(number, message) for number, message in enumerate(messages)], None)
            if messages
            else []
        )

    async def add_message_if(
        self, condition: object, role: Role, content: str, metadata: Json | None = None
    ) -> Message | None:
        """Add a message if the condition is true; return it, or None."""
        return await self.add_message(role, content, metadata) if condition else None

    async def add_message_unless(
        self, condition: object, role: Role, content: str, metadata: Json | None = None
    ) -> Message | None:
        """Add a message unless the condition is true; return it, or None."""
        return await self.add_message_if(not condition, role, content, metadata)

    # ---- each role ----

    async def add_user_message(
        self, content: str, metadata: Json | None = None, *, parts: Sequence[InputPart] = ()
    ) -> Message:
        """Add what the user said. It sorts before a reply that was opened but has no chunk yet.

        Args:
            parts: images and files that go with it, kept in the metadata under ``parts``.
        """
        return await self.add_message("user", content, {**(metadata or {}), **parts_metadata(parts)})

    async def add_assistant_message(self, content: str, metadata: Json | None = None) -> Message:
        """Add a whole reply that was not streamed."""
        return await self.add_message("assistant", content, metadata)

    async def add_system_message(self, content: str, metadata: Json | None = None) -> Message:
        """Add a system prompt, which goes to the provider and never to a client."""
        return await self.add_message("system", content, metadata)

    async def add_tool_call_message(self, content: str, metadata: Json | None = None) -> Message:
        """Add tool calls, as JSON text: ``[{"id", "name", "arguments"}]``."""
        return await self.add_message("tool_call", content, metadata)

    async def add_tool_result_message(self, content: str, metadata: Json | None = None) -> Message:
        """Add tools' results, as JSON text: ``[{"id", "result"}]``; or any text, with the call's id in the metadata as
        ``tool_call_id``."""
        return await self.add_message("tool_result", content, metadata)

    async def add_user_message_if(
        self, condition: object, content: str, metadata: Json | None = None
    ) -> Message | None:
        """Add what the user said, if the condition is true."""
        return await self.add_message_if(condition, "user", content, metadata)

    async def add_user_message_unless(
        self, condition: object, content: str, metadata: Json | None = None
    ) -> Message | None:
        """Add what the user said, unless the condition is true."""
        return await self.add_message_unless(condition, "user", content, metadata)

    async def add_assistant_message_if(
        self, condition: object, content: str, metadata: Json | None = None
    ) -> Message | None:
        """Add a whole reply, if the condition is true."""
        return await self.add_message_if(condition, "assistant", content, metadata)

    async def add_assistant_message_unless(
        self, condition: object, content: str, metadata: Json | None = None
    ) -> Message | None:
        """Add a whole reply, unless the condition is true."""
        return await self.add_message_unless(condition, "assistant", content, metadata)

    async def add_system_message_if(
        self, condition: object, content: str, metadata: Json | None = None
    ) -> Message | None:
        """Add a system prompt, if the condition is true."""
        return await self.add_message_if(condition, "system", content, metadata)

    async def add_system_message_unless(
        self, condition: object, content: str, metadata: Json | None = None
    ) -> Message | None:
        """Add a system prompt, unless the condition is true."""
        return await self.add_message_unless(condition, "system", content, metadata)

    # The original's ``create`` returns the message where its ``add`` returns the conversation; an awaited call
    # cannot be chained, so here both return the message.
    create_message = add_message
    create_user_message = add_user_message
    create_assistant_message = add_assistant_message
    create_system_message = add_system_message
    create_tool_call_message = add_tool_call_message
    create_tool_result_message = add_tool_result_message


def _new(number: int, message: str | NewMessage | Mapping[str, Any]) -> NewMessage:
    if isinstance(message, str):
        return NewMessage("user", message)
    # One that is made already too: making it checks nothing.
    value = msgspec.structs.asdict(message) if isinstance(message, NewMessage) else message
    try:
        return msgspec.convert(value, NewMessage)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"Message {number} cannot be added: {error}.") from error
