"""The real stream, log, closing and follower against a list, in any order of steps, faults, deaths and late arrivals.

The model is the list of events that the writer took. What is stored must always be a beginning of it, with at most an
end after that; ``histories.check`` holds all readers against what is stored.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar, get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import StoreError, StreamEnded
from tailrace.events import TERMINAL, End, Event, Message, ProviderEvent, Reasoning, Reset, Text, ToolCall, Usage
from tailrace.reply.follow import Follower
from tailrace.reply.open_replies import OpenReplies
from tailrace.settings import Settings
from tailrace.store import LONGEST_REPLY, Store
from tailrace.store.dynamodb import ConditionFailed, Payload, TransactionCancelled
from tailrace.testing import ManualClock

from tests import histories
from tests.faults import Fault, FaultyCalls, is_append, is_end
from tests.histories import Cut, History, Terminal, check, read_final, shown
from tests.memory_calls import MemoryCalls

T = TypeVar("T")

LEASE: Final = 30.0
RETENTION: Final = 3600

Trouble = Literal["refused", "applied, answer lost", "arrives late"]
"""What happens to a call; one that arrives late is told to have failed, and may be applied at any later time."""


def is_read(operation: str, payload: Payload) -> bool:
    """Whether a call changes nothing."""
    return operation in ("GetItem", "Query", "BatchGetItem")


Which = Callable[[str, Payload], bool]

TARGETS: Final[Mapping[str, Which]] = {
    "append": is_append,
    "end": is_end,
    "read": is_read,
    "any": lambda operation, payload: True,
}


TROUBLE: Final = st.none() | st.tuples(st.sampled_from(get_args(Trouble)), st.integers(1, 2))
"""What happens to the next calls of a step, and how many of them; mostly nothing."""


class StaleReads:
    """Answers an eventually consistent query without some of the newest items, in any combination."""

    def __init__(self, inner: FaultyCalls) -> None:
        self.inner = inner
        self.missing = 0  # bits: which items, counted from the newest

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        answer = await self.inner.call(operation, payload)
        if operation != "Query" or payload.get("ConsistentRead"):
            return answer
        items = answer["Items"]
        return {
            **answer,  # where the next page begins
            "Items": [
                item for age, item in zip(range(len(items))[::-1], items, strict=True) if not self.missing >> age & 1
            ],
        }


class Reader:
    """A follower, and what it saw."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.follower: Follower | None = None


class LogMachine(RuleBasedStateMachine):
    """One reply."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.memory = MemoryCalls()
        self.calls = FaultyCalls(self.memory, self._choose)
        self.late: list[tuple[str, Payload]] = []
        self.trouble: list[tuple[Trouble, str]] = []
        self.troubled = False  # in this step
        self.ever_troubled = False
        self.writing = FaultyCalls(self.calls)
        self.stale = StaleReads(self.calls)
        self.raw = self._store(self.memory)
        self.store = self._store(self.calls)
        randomness = random.Random(1).randbytes
        self.open_replies = OpenReplies(self.store, clock=self.clock, random_bytes=randomness, lease=LEASE)
        self.backend = Backend(
            Settings(lease=LEASE, flush_interval=0.1),
            store=self._store(self.writing),
            clock=self.clock,
            random_bytes=randomness,
        )
        self.taken: list[Event] = []  # the model
        self.stored: list[Event] = []
        self.ended: Message | None = None
        self.alive = True
        self.ending = False  # the writer has tried to end it, and may try again
        self.starting = Reader(History("starting", "starting"))
        self.readers = [self.starting]

    def _store(self, calls: Any) -> Store:
        return Store(calls, "memory", clock=self.clock, retention=RETENTION)

    def _run(self, what: Awaitable[T]) -> T:
        async def run() -> T:
            result = await what
            await self.clock.advance(0)
            return result

        return self.loop.run_until_complete(run())

    def _choose(self, operation: str, payload: Payload) -> Fault | None:
        if self.trouble and TARGETS[self.trouble[0][1]](operation, payload):
            kind, _ = self.trouble.pop(0)
            self.troubled = self.ever_troubled = True
            if kind != "arrives late":
                return kind
            if not is_read(operation, payload):
                self.late.append((operation, payload))
            return "refused"
        return None

    @initialize(patience=st.integers(0, 30))
    def open(self, patience: int) -> None:
        """A reply is started, which nobody ends for a while: most of what can go wrong goes wrong before."""
        self.patience = patience
        conversation = self._run(Conversation.create(backend=self.backend))
        self.stream = self._run(conversation.stream_response("Tell me."))

    def _expect(self, trouble: tuple[Trouble, int] | None, *where: str) -> None:
        """Have the next calls of some kinds get into trouble. Without it, nothing that is asked for may fail."""
        self.troubled = False
        self.trouble = [] if trouble is None else [(trouble[0], place) for place in where for _ in range(trouble[1])]

    # ---- the writer ----

    @precondition(lambda self: self.alive)
    @rule(
        events=st.lists(
            st.text(max_size=6).map(Text)
            | st.sampled_from([Reasoning("hm"), Usage(3, None), Usage(None, 9), Reset(), ToolCall("id", "name", "{}")]),
            min_size=1,
            max_size=4,
        ),
        flush=st.booleans(),
        trouble=TROUBLE,
    )
    def append(self, events: list[ProviderEvent | Reset], flush: bool, trouble: tuple[Trouble, int] | None) -> None:
        """The provider sent something, and perhaps the interval passed."""
        try:
            first_seq, logged = self._run(self._push(events))
        except (StreamEnded, StoreError):
            # Somebody ended it, or a write failed and was not repaired yet.
            assert self.ended is not None or self.ever_troubled
            return
        assert not self.ending
        self.taken += logged
        self.starting.history.seen += shown(first_seq, logged)
        if flush:
            self.time_passes(0.1, trouble)

    def _lives(self) -> bool:
        """Whether there is a writer that goes on: no write of it has failed, and it has not tried to end it."""
        return self.alive and not self.ending and self.stream.lost is None

    async def _push(self, events: list[ProviderEvent | Reset]) -> tuple[int, Sequence[Event]]:
        return self.stream.push(events)

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.3, 6.0]), trouble=TROUBLE)
    def time_passes(self, seconds: float, trouble: tuple[Trouble, int] | None) -> None:
        """The interval passes; without trouble, what was taken before it is in the log now."""
        self._expect(trouble, "append")
        expected = len(self.taken)
        self._run(self.clock.advance(seconds))
        self._look()
        if self._lives() and seconds >= 0.1 and self.ended is None:
            assert len(self.stored) == expected

    @precondition(lambda self: self.alive and (self.patience <= 0 or self.stream.lost))
    @rule(how=st.sampled_from(["complete", "fail", "cancel"]), trouble=TROUBLE, where=st.sampled_from(sorted(TARGETS)))
    def end(self, how: str, trouble: tuple[Trouble, int] | None, where: str) -> None:
        """The writer ends it; after a fault it does so again, in the same way or another."""
        self._expect(trouble, where)
        stream = self.stream
        self.ending = True
        try:
            if how == "complete":
                message = self._run(stream.complete())
            else:
                message = self._run(stream.fail("secret") if how == "fail" else stream.cancel())
        except StoreError:
            assert self.troubled
            return
        self._look()
        assert message == self.ended, "the writer was told something else than what is stored"
        self._terminal(self.starting, message)

    @precondition(lambda self: self.alive and self.stream.lost)
    @rule(again=st.booleans())
    def give_up(self, again: bool) -> None:
        """The relay learns that a write has failed, and ends the reply; perhaps after it has sent a little more."""
        if again:
            self.append([Text("more")], True, None)
        self.end("fail", None, "any")

    @precondition(lambda self: self.alive and self.patience <= 0)
    @rule()
    def crash(self) -> None:
        """The writer's process is gone. What it had on its way may still arrive."""
        self.alive = False
        self.writing.choose = lambda operation, payload: "refused"
        if not self.starting.history.ended:
            self.starting.history.seen.append(Cut())

    @precondition(lambda self: self.late)
    @rule(which=st.integers(0, 9))
    def arrive(self, which: int) -> None:
        """A request that everybody has given up comes to the table."""
        operation, payload = self.late.pop(which % len(self.late))
        with suppress(ConditionFailed, TransactionCancelled):
            self._run(self.memory.call(operation, payload))

    # ---- those who end it from outside ----

    @rule(trouble=TROUBLE, where=st.sampled_from(sorted(TARGETS)))
    def cancel(self, trouble: tuple[Trouble, int] | None, where: str) -> None:
        """Another device stops it, or tries to: what it asked for may come much later."""
        if self.patience > 0:
            trouble, where = ("arrives late", 1), "end"
        self._expect(trouble, where)
        try:
            message = self._run(self.open_replies.cancel(self.stream.id))
        except StoreError:
            assert self.troubled
            return
        self._look()
        assert message == self.ended

    @rule(after=st.sampled_from([0.0, LEASE / 2, LEASE + 1]), trouble=TROUBLE, where=st.sampled_from(sorted(TARGETS)))
    def sweep(self, after: float, trouble: tuple[Trouble, int] | None, where: str) -> None:
        """The schedule's sweep never ends a reply whose writer lives, and always one whose writer is gone."""
        self._run(self.clock.advance(after))
        self._expect(trouble, where)
        orphan = not self.alive and self.ended is None and after > LEASE and not self.trouble
        self._look()
        before, lived = self.ended, self._lives()
        try:
            swept = self._run(self.open_replies.sweep())
        except StoreError:
            assert self.troubled
            return
        self._look()
        if orphan:
            assert self.ended is not None
        if before is None and self.ended is not None:
            assert not lived
            assert (swept.ended + swept.failed, self.ended.status) == (1, "interrupted")

    # ---- readers ----

    @rule(share=st.floats(0, 1))
    def resume(self, share: float) -> None:
        """Somebody comes with any cursor that the log has."""
        if len(self.readers) < 5:
            seq = round(share * len([event for event in self.stored if not isinstance(event, End)]))
            self.readers.append(Reader(History(f"reader {len(self.readers)}", "resumed", after=seq)))

    @rule(
        which=st.integers(0, 4),
        missing=st.integers(0, 7),
        again=st.booleans(),
        wait=st.sampled_from([0, 1, 40]),
        trouble=TROUBLE,
    )
    def read(self, which: int, missing: int, again: bool, wait: int, trouble: tuple[Trouble, int] | None) -> None:
        """A reader reads on, perhaps on a new connection, perhaps what is eventually consistent, perhaps for long."""
        reader = self.readers[which % len(self.readers)]
        if reader.history.ended or (reader is self.starting and self.alive):
            return
        self.stale.missing = missing
        self._expect(trouble, "read")
        try:
            self._run(self._read(reader, again, wait))
        except StoreError:
            assert self.troubled
            reader.follower = None
            reader.history.seen.append(Cut())
        self.stale.missing = 0

    async def _read(self, reader: Reader, again: bool, wait: int) -> None:
        follower = reader.follower
        if follower is None or again:
            follower = Follower(
                self._store(self.stale),
                self.open_replies,
                self.stream.id,
                reader.history.cursor,
                clock=self.clock,
                lease=LEASE,
            )
            await follower.open()
        elif wait:
            pausing = asyncio.ensure_future(follower.pause())
            await self.clock.advance(wait)
            await pausing
        reader.follower = follower
        if not follower.ended:
            for first_seq, events in await follower.read():
                reader.history.seen += shown(first_seq, events)
        if follower.ended:
            self._terminal(reader, await follower.message())

    def _terminal(self, reader: Reader, message: Message) -> None:
        if not reader.history.ended:
            end = Terminal(seq=message.seq, status=message.status, content=message.content, error=message.error)
            reader.history.seen.append(end)

    # ---- what always holds ----

    def _look(self) -> histories.Final:
        """Read the table itself; what it held before must still be there."""
        final = self.loop.run_until_complete(read_final(self.raw, self.stream.id))
        message = self.loop.run_until_complete(self.raw.messages.get(self.stream.id))
        events = self.loop.run_until_complete(self._events())
        assert events[: len(self.stored)] == self.stored, "the log was changed"
        self.stored = events
        if message.status in TERMINAL:
            assert self.ended in (None, message), "the end was changed"
            self.ended = message
        assert (self.ended is not None) == (message.status in TERMINAL)
        return final

    async def _events(self) -> list[Event]:
        return [event async for segment in self.raw.log.read(self.stream.id) for event in segment.events]

    @invariant()
    def promises(self) -> None:
        """P1, P2, P4: the log is a beginning of what the writer took, it has one end, and all readers agree with it."""
        if not hasattr(self, "stream"):
            return
        self._expect(None)
        self.patience -= 1
        final = self._look()
        written = [event for event in self.stored if not isinstance(event, End)]
        assert written == self.taken[: len(written)]
        if self.ended is not None and self.ended.status == "completed":
            assert written == self.taken
        assert check([_cut_now(reader.history) for reader in self.readers], final) == []

    def teardown(self) -> None:
        """P5 and P3: whatever happened, the reply ends and everybody is told, even when the log is gone."""
        try:
            if hasattr(self, "stream"):
                self._settle()
        finally:
            self.loop.run_until_complete(self.clock.advance(0))
            self.loop.close()

    def _settle(self) -> None:
        self._expect(None)
        if self.alive and not self.starting.history.ended:
            self.crash()
        self.sweep(LEASE + 1, None, "any")
        assert self.ended is not None
        while self.late:
            self.arrive(0)
        for reader in self.readers:
            if not reader.history.ended:
                self._run(self._read(reader, True, 0))
        assert check([reader.history for reader in self.readers], self._look()) == []
        self._run(self.clock.advance(RETENTION + LONGEST_REPLY + 1))
        assert self._run(self._events()) == []
        late = Reader(History("late", "resumed", after=len(self.stored) // 2))
        self._run(self._read(late, True, 0))
        assert late.history.seen == [
            Terminal(seq=self.ended.seq, status=self.ended.status, content=self.ended.content, error=self.ended.error)
        ]
        assert self._run(self.raw.messages.get(self.stream.id)) == self.ended


def _cut_now(history: History) -> History:
    """Return the history as if its reader left now."""
    if history.ended:
        return history
    return History(history.reader, history.kind, history.after, [*history.seen, Cut()], left=True)


LogMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None, derandomize=True)
TestLogMachine = LogMachine.TestCase
