"""What of a conversation goes into a prompt: its last messages, as many as fit into a window.

A window begins with a message of the user's, so that a round stays whole: vendors refuse a tool's result without its
call, and some an answer without a question. It is read newest first and no further than it reaches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated

import msgspec

from tailrace.conversation.prompt import is_in_steps, is_prompt
from tailrace.errors import Unprocessable
from tailrace.events import Message, Status, Step
from tailrace.ids import message_address
from tailrace.reply.totals import BYTES_A_TOKEN, tokens_in
from tailrace.store import Store
from tailrace.store.content import INLINE_BYTES
from tailrace.store.history import PAGE

Bound = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of what was said goes into a prompt. System prompts always do, and count for nothing.

    Attributes:
        messages: so many at most.
        tokens: of so many tokens together at most: those that the provider counted of its answers, and an estimate of
            what others said, without images and files.
    """

    messages: Bound | None = None
    tokens: Bound | None = None


Windowed = Window | Mapping[str, int]
"""A window, or the same as a mapping: ``{"messages": 20}``."""


def window_of(given: Windowed) -> Window:
    """Return a window.

    Raises:
        Unprocessable: the mapping is none; the message says why.
    """
    try:
        return msgspec.convert(given, Window)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"Bad history: {error}.") from error


class Past(msgspec.Struct, frozen=True):
    """What goes into a prompt.

    Attributes:
        messages: the window, oldest first; before it all that the system said.
        left_out: how many messages lie before it. They are counted by the numbers that messages get when they are
            stored; two that were stored at the same moment may have the same.
        count: how many messages the conversation has.
        steps: by the ids of messages, the steps of those that have some.
    """

    messages: list[Message]
    left_out: int
    count: int
    steps: Mapping[str, Sequence[Step]]

    def with_system(self, system: Sequence[Message]) -> Past:
        """Return this with the system's messages, in order, before all others; they are not left out."""
        begin = message_address(self.messages[0].id).position if self.messages else None
        older = sum(begin is None or message_address(message.id).position < begin for message in system)
        return Past([*system, *self.messages], max(0, self.left_out - older), self.count, self.steps)


class Selection:
    """Takes messages newest first, and keeps those of the window.

    Args:
        has_question: whether what is to be answered comes after them. If not, the last round belongs into the prompt
            however long it is.

    Attributes:
        is_cut: whether older messages were left out, if there are any.
    """

    def __init__(self, window: Window, *, has_question: bool) -> None:
        self._window = window
        self._may_be_empty = has_question
        self._kept: list[Message] = []
        self._round: list[Message] = []
        self._messages = 0
        self._tokens = 0
        self.is_cut = False

    def take(self, message: Message) -> bool:
        """Take the next older message; return whether an older one may still belong to the window."""
        self._messages += 1
        self._tokens += tokens_of(message)
        is_over = self._is_over(self._messages, self._tokens)
        if is_over and (self._kept or self._may_be_empty):
            self.is_cut = True
            return False
        self._round.append(message)
        if message.role == "user":
            self._kept += self._round
            self._round.clear()
            self.is_cut = self._is_over(self._messages + 1, self._tokens)
        return not self.is_cut

    def _is_over(self, messages: int, tokens: int) -> bool:
        most_messages, most_tokens = self._window.messages, self._window.tokens
        return (most_messages is not None and messages > most_messages) or (
            most_tokens is not None and tokens > most_tokens
        )

    def kept(self) -> list[Message]:
        """Return the window, oldest first. Where nothing was cut off, it begins with whatever the conversation does."""
        return (self._kept if self.is_cut else self._kept + self._round)[::-1]


def tokens_of(message: Message) -> int:
    """Return how many tokens a message is in a prompt: as they were counted when it was written, else an estimate."""
    if message.usage is not None and message.usage.completion_tokens is not None:
        # What tools returned in its steps goes into the prompt, and the model did not write it.
        results = message.metadata.get("tool_results") if "steps" in message.metadata else None
        return message.usage.completion_tokens + (tokens_in(len(msgspec.json.encode(results))) if results else 0)
    calls = message.metadata.get("tool_calls")
    return tokens_in(len(message.content.encode()) + (len(msgspec.json.encode(calls)) if calls else 0))


async def read_past(
    store: Store,
    conversation_id: str,
    window: Window,
    statuses: Collection[Status],
    *,
    has_question: bool,
    before: str | None = None,
) -> Past:
    """Read a window, newest first. What the system said is not in it: that is read by its ids, wherever it lies.

    Args:
        statuses: of messages that may go into a prompt.
        before: the id of a message of this conversation; only what comes before it is read.

    Raises:
        StoreError: the table cannot be read.
    """
    selection = Selection(window, has_question=has_question)
    count = 0
    ordinals: dict[str, int] = {}
    all_steps: dict[str, Sequence[Step]] = {}
    # A window of a few messages needs few, and some of those that are there may not count.
    at_once = PAGE if window.messages is None else 2 * window.messages + 10
    reading = store.history.newest_first(
        conversation_id, statuses, at_once=at_once, parts_at_once=_long_in(window), before=before
    )
    async with aclosing(reading) as past:
        async for message, ordinal, steps in past:
            count = max(count, ordinal)
            if message is None or message.role == "system" or not (is_prompt(message) or is_in_steps(steps)):
                continue
            ordinals[message.id] = ordinal
            if steps:
                all_steps[message.id] = steps
            if not selection.take(message):
                break
    kept = selection.kept()
    earlier = ordinals[kept[0].id] - 1 if kept else count
    return Past(kept, max(0, earlier) if selection.is_cut else 0, count, all_steps)


def _long_in(window: Window) -> int:
    """Return how many items of long content to read along with a window, without knowing it: what is missing then is
    read after it, what is too much was read in vain."""
    most = PAGE
    if window.messages is not None:
        most = min(most, window.messages)
    if window.tokens is not None:
        most = min(most, int(window.tokens * BYTES_A_TOKEN) // INLINE_BYTES)  # what is shorter lies in its message
    return most + 10  # for what does not count, and for what providers want back
