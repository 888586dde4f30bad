"""Long content: it lies where a conversation's end brings it along, or in its reply's own partition, and is read whole
whatever the pages are; and what a start waits for."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, Final, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tailrace import Backend, Conversation
from tailrace.conversation.history import Window
from tailrace.errors import AlreadyStarted, AppendConflict
from tailrace.events import TERMINAL, End, Message, ProviderState, Role, Status, Step
from tailrace.ids import new_conversation_id, new_message_id
from tailrace.settings import Settings
from tailrace.store import Calls, Draft, Outcome, Start, Store, StoredMessage, change
from tailrace.store.content import BESIDE_BYTES, INLINE_BYTES, PART_BYTES
from tailrace.store.dynamodb import Payload
from tailrace.store.items import beside_key, beside_prefix, message_key, part_key
from tailrace.testing import ManualClock

from tests.memory_calls import MemoryCalls
from tests.write_units import CountingCalls, item_bytes

pytestmark = pytest.mark.anyio

T = TypeVar("T")

LATER = 2**60
"""A moment after all others, in microseconds since 1970."""

ANSWER: Final = "A reply of some words. " * 130
"""3 KB."""


class Far:
    """A table that is a second away, which a manual clock counts; and what it was asked for.

    Args:
        page_bytes: what one query brings at most: 1 MB in DynamoDB.
        unseen: the sort keys of items that a read which need not be consistent does not show yet.
    """

    def __init__(self, page_bytes: int = 1024**2, unseen: Collection[str] = ()) -> None:
        self.memory = MemoryCalls()
        self.clock: ManualClock | None = None
        self.made: list[tuple[str, Payload, Payload]] = []
        self.unseen = unseen
        self._page_bytes = page_bytes

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        if self.clock is not None:
            await self.clock.sleep(1)
        answer = dict(await self.memory.call(operation, payload))
        if operation == "Query" and "IndexName" not in payload:
            if not payload["ConsistentRead"]:
                answer["Items"] = [item for item in answer["Items"] if item["sk"]["S"] not in self.unseen]
            size = 0
            for place, item in enumerate(answer["Items"], 1):
                size += item_bytes(item)
                if size >= self._page_bytes and place < len(answer["Items"]):
                    answer["Items"] = answer["Items"][:place]
                    answer["LastEvaluatedKey"] = {name: item[name] for name in ("pk", "sk")}
                    break
        self.made.append((operation, payload, answer))
        return answer

    async def round_trips(self, doing: Awaitable[T]) -> tuple[T, int]:
        """Return what an awaitable returns, and how many calls one after the other it took."""
        clock = self.clock = ManualClock()
        self.made.clear()
        task = asyncio.ensure_future(doing)
        while not task.done():
            await clock.advance(1)
        self.clock = None
        return task.result(), round(clock.monotonic())

    def operations(self) -> list[str]:
        """Return the names of the calls."""
        return sorted(operation for operation, _, _ in self.made)

    def items(self, prefix: str) -> list[str]:
        """Return the sort keys in the table that begin with a text."""
        return sorted(sort for _, sort in self.memory.items if sort.startswith(prefix))


def backend_on(calls: Calls) -> Backend:
    return Backend(Settings(broadcast=False), store=Store(calls, "t"))


def state_of(text: str) -> str:
    """Return what a provider wants back, as it is stored."""
    return msgspec.json.encode(ProviderState("scripted", text)).decode()


def kept_of(steps: Sequence[Step]) -> str | None:
    """Return what is kept of a reply without steps."""
    state = steps[0].state if steps else None
    return None if state is None else state.data


async def answered(store: Store, conversation_id: str, place: int, content: str, state: str | None = None) -> str:
    """Store a reply as its start and end do; return its id."""
    (reply,) = await store.messages.put(
        [draft(conversation_id, place, "", "assistant", "pending")], nonce=os.urandom(16)
    )
    outcome = Outcome(status="completed", content=content, seq=1, metadata={}, completed=place, state=state)
    await store.log.end(reply.id, 0, 1, [End("completed")], outcome, nonce=os.urandom(8))
    return reply.id


def draft(conversation_id: str, place: int, content: str, role: Role = "user", status: Status = "completed") -> Draft:
    return Draft(
        id=new_message_id(conversation_id, place, os.urandom),
        conversation_id=conversation_id,
        role=role,
        content=content,
        status=status,
        created=place,
        completed=place if status in TERMINAL else None,
        ordinal=place,
    )


async def rounds_of(backend: Backend, rounds: int, content: str = ANSWER, state: str | None = None) -> Conversation:
    """Return a conversation of so many questions and answers of 3 KB."""
    conversation = await Conversation.create(backend=backend)
    for number in range(rounds):
        question = draft(conversation.id, 2 * number + 1, f"{number} {content}")
        await backend.store.messages.put([question], nonce=os.urandom(16))
        await answered(backend.store, conversation.id, 2 * number + 2, f"{number} {content}", state)
    return conversation


# ---- what a start waits for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "kept"), [(None, 60), (Window(messages=20), 20), (Window(tokens=8_000), 10), (Window(messages=0), 0)]
)
@pytest.mark.parametrize("question", [10, 3_000, BESIDE_BYTES])
@pytest.mark.parametrize("state", [None, state_of("s" * 2_000)], ids=["", "state"])
async def test_a_start_is_two_round_trips(window: Window | None, kept: int, question: int, state: str | None) -> None:
    """One reads the conversation and its window, whose messages have 3 KB each; the other is the transaction."""
    calls = Far()
    backend = backend_on(calls)
    conversation = await rounds_of(backend, 30, state=state)

    async def start() -> list[Message]:
        again, past = await Conversation.load_with_past(conversation.id, window, has_question=True, backend=backend)
        await again.stream_response("x" * question)
        return past.messages

    messages, round_trips = await calls.round_trips(start())
    assert [message.content for message in messages] == [
        f"{number} {ANSWER}" for number in range(30) for _ in ("question", "answer")
    ][60 - kept :]
    assert calls.operations() == ["GetItem", "Query", "Query", "TransactWriteItems"]
    assert round_trips == 2
    await backend.close()


@pytest.mark.parametrize("before", [10, 60, 250])
async def test_what_is_read_does_not_grow_with_long_messages(before: int) -> None:
    """Of content no more than the window may need, however much lies before."""
    calls = Far()
    backend = backend_on(calls)
    conversation = await rounds_of(backend, before)
    window = Window(messages=10)
    _, round_trips = await calls.round_trips(
        Conversation.load_with_past(conversation.id, window, has_question=True, backend=backend)
    )
    assert round_trips == 1
    read = sum(item_bytes(item) for _, _, answer in calls.made for item in answer.get("Items", ()))
    assert read <= 20 * 3_300 + 30 * 500


@pytest.mark.parametrize("content", [ANSWER, ""], ids=["all are long", "half of them are"])
async def test_a_window_of_several_pages(content: str) -> None:
    """Each page is a round trip with its content, none of which is read twice; queries that run ahead wait."""
    calls = Far()
    backend = backend_on(calls)
    conversation = await Conversation.create(backend=backend)
    for place in range(1, 401):
        put = draft(conversation.id, place, f"{place} {content if place % 2 else ANSWER}")
        await backend.store.messages.put([put], nonce=os.urandom(16))
    window = Window(messages=400)
    (_, past), round_trips = await calls.round_trips(
        Conversation.load_with_past(conversation.id, window, has_question=True, backend=backend)
    )
    assert [int(message.content.partition(" ")[0]) for message in past.messages] == [*range(1, 401)]
    assert round_trips == 4
    assert "BatchGetItem" not in calls.operations()
    read = [item["sk"]["S"] for _, _, answer in calls.made for item in answer.get("Items", ())]
    assert len(read) == len(set(read)) == (800 if content else 600)


async def test_longer_content_is_read_only_for_the_window() -> None:
    """It takes a third round trip where the window has it, and nothing where it has not."""
    calls = Far()
    backend = backend_on(calls)
    conversation = await Conversation.create(backend=backend)
    await answered(backend.store, conversation.id, 1, "x" * 3_000_000)
    for place in range(2, 6):
        await backend.store.messages.put([draft(conversation.id, place, ANSWER)], nonce=os.urandom(16))

    def past(count: int) -> Awaitable[Any]:
        window = Window(messages=count)
        return Conversation.load_with_past(conversation.id, window, has_question=True, backend=backend)

    _, round_trips = await calls.round_trips(past(3))
    assert (round_trips, calls.operations()) == (1, ["GetItem", "Query", "Query"])
    (_, found), round_trips = await calls.round_trips(past(20))
    assert (round_trips, calls.operations()) == (2, ["BatchGetItem", "GetItem", "Query", "Query"])
    assert [len(message.content) for message in found.messages] == [3_000_000, *[len(ANSWER)] * 4]


async def test_content_that_a_read_does_not_show_yet() -> None:
    """The reads of content need not be consistent: what is missing is read again, consistently."""
    calls = Far()
    backend = backend_on(calls)
    conversation = await rounds_of(backend, 3)
    calls.unseen = calls.items("T#")[-2:]
    (_, past), round_trips = await calls.round_trips(
        Conversation.load_with_past(conversation.id, None, has_question=True, backend=backend)
    )
    assert [message.content for message in past.messages] == [f"{n} {ANSWER}" for n in range(3) for _ in "qa"]
    assert (round_trips, calls.operations()) == (2, ["BatchGetItem", "GetItem", "Query", "Query"])


async def test_a_start_that_is_refused_leaves_no_content() -> None:
    """A long question is in the transaction, unless it is longer than what lies beside the messages."""
    calls = Far()
    backend = backend_on(calls)
    conversation = await Conversation.create(backend=backend)
    key = Start("owner", "key", b"digest")
    await conversation.stream_response("x" * 3_000, start=key)
    (part,) = calls.items("T#")
    with pytest.raises(AlreadyStarted):
        await conversation.stream_response("x" * 3_000, start=key)
    assert calls.items("T#") == [part]
    _, round_trips = await calls.round_trips(conversation.stream_response("x" * (BESIDE_BYTES + 1)))
    assert (round_trips, calls.operations()) == (2, ["PutItem", "TransactWriteItems"])
    await backend.close()


async def test_what_long_content_costs_to_write() -> None:
    """A unit for each KB; in a start's transaction twice that, which is what its round trip less is paid with."""
    calls = CountingCalls(MemoryCalls())
    backend = backend_on(calls)
    conversation = await Conversation.create(backend=backend)
    calls.units.clear()
    await conversation.add_user_message("x" * 2_900)
    assert calls.units["PutItem"] == 3 + 1
    calls.units.clear()
    stream = await conversation.stream_response("x" * 2_900)
    assert calls.units["TransactWriteItems"] == 2 * (3 + 1 + 1)
    calls.units.clear()
    await stream.append("x" * 2_900)
    await stream.complete()
    assert calls.units["PutItem"] == 3 + 3  # a segment of the log, and the content
    await backend.close()


async def test_who_asks_for_no_content_reads_none() -> None:
    """Reports, counts and the search for the newest reply."""
    calls = Far()
    backend = backend_on(calls)
    conversation = await rounds_of(backend, 10)
    calls.made.clear()
    store = backend.store
    assert len(await store.replies.of_conversation(conversation.id)) == 10
    assert await store.history.count(conversation.id) > 0
    await store.messages.newest_reply(conversation.id)
    assert [each async for each in store.replies.open_ids(conversation.id, now=0)] == []
    assert len(await store.replies.between(conversation.record.owner, 0, 2**60)) == 10
    found = [item for _, _, answer in calls.made for item in answer["Items"]]
    assert len(found) > 20
    assert all(item_bytes(item) < 600 for item in found)


# ---- where it lies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "beside", "apart"),
    [(INLINE_BYTES, 0, 0), (INLINE_BYTES + 1, 1, 0), (BESIDE_BYTES, 1, 0), (BESIDE_BYTES + 1, 0, 1), (700_001, 0, 3)],
)
async def test_where_content_lies(size: int, beside: int, apart: int) -> None:
    """By its bytes: in its message's item, beside the messages, or with the reply's log."""
    calls = Far()
    store = Store(calls, "t")
    conversation = new_conversation_id(os.urandom)
    reply = await answered(store, conversation, 1, "é" * (size // 2) + "x" * (size % 2))
    partition, sort = message_key(reply).values()
    found = [pk for pk, sk in calls.memory.items if sk.startswith("T#")]
    assert (found.count(partition), found.count(f"S#{reply}")) == (beside, apart)
    image = calls.memory.items[partition, sort]
    record = {"eventID": "1", "dynamodb": {"SequenceNumber": "1", "NewImage": image}}
    after = change(record).after
    assert isinstance(after, StoredMessage)
    assert after.is_whole == (beside + apart == 0)
    for key, item in calls.memory.items.items():
        if key[1].startswith("T#"):
            record["dynamodb"] = {"SequenceNumber": "1", "NewImage": item}
            assert change(record).after is None


async def test_content_of_who_lost_is_nowhere() -> None:
    """It is named by no message, does no harm to the winner's, and goes with the message."""
    calls = Far()
    store = Store(calls, "t")
    conversation = new_conversation_id(os.urandom)
    (reply, other) = [await answered(store, conversation, place, f"{place} {ANSWER}") for place in (1, 2)]
    for size in (3_000, 100_000):
        lost = Outcome(status="failed", content="x" * size, seq=1, metadata={}, completed=9, state="x" * 3_000)
        with pytest.raises(AppendConflict):
            await store.log.end(reply, 0, 1, [End("failed")], lost, nonce=os.urandom(8))
    assert len(calls.items("T#")) == 6
    assert [message.content for message in await store.history.recent(conversation, 5)] == [
        f"1 {ANSWER}",
        f"2 {ANSWER}",
    ]
    await store.history.delete(reply, now=5)
    await store.history.restore(reply)
    assert (await store.messages.get(reply)).content == f"1 {ANSWER}"
    await store.history.delete(reply, now=5)
    await store.prune(LATER)
    assert len(calls.items("T#")) == 1
    assert (await store.messages.get(other)).content == f"2 {ANSWER}"


async def test_pruning_that_is_cut_leaves_nothing_in_the_end() -> None:
    """A conversation's content goes before its own item does, so the next pruning finds what is left."""
    calls = Far()
    backend = backend_on(calls)
    conversation = await rounds_of(backend, 2)
    late = beside_key(new_message_id(conversation.id, 7, os.urandom), "ab")
    calls.memory.items[late["pk"], late["sk"]] = {"pk": {"S": late["pk"]}, "sk": {"S": late["sk"]}}
    await backend.store.conversations.delete(conversation.id, now=5)
    await backend.store.prune(LATER)
    assert calls.memory.items == {}


async def test_what_the_first_version_stored_is_read() -> None:
    """All long content lay with the reply's log then, and sizes were not stored."""
    calls = Far()
    store = Store(calls, "t")
    conversation = new_conversation_id(os.urandom)
    sizes = (3_000, 60_000, 400_000)
    ids = [await answered(store, conversation, place, "short", state_of("s")) for place in range(1, 5)]
    for message_id, size in zip(ids, sizes, strict=False):
        item = calls.memory.items[tuple(message_key(message_id).values())]  # type: ignore[index]
        for names, text in (
            (("content", "parts", "parts_nonce", ""), "x" * size),
            (("state", "state_parts", "state_nonce", "s"), state_of("y" * size)),
        ):
            inline, parts, nonce, suffix = names
            del item[inline]
            pieces = [text[begin : begin + PART_BYTES] for begin in range(0, len(text), PART_BYTES)]
            item |= {parts: {"N": str(len(pieces))}, nonce: {"S": f"ab{suffix}"}}
            for number, piece in enumerate(pieces):
                key = part_key(message_id, f"ab{suffix}", number)
                calls.memory.items[key["pk"], key["sk"]] = {
                    "pk": {"S": key["pk"]},
                    "sk": {"S": key["sk"]},
                    "content": {"S": piece},
                }
    contents = [*("x" * size for size in sizes), "short"]
    states = [*("y" * size for size in sizes), "s"]
    newest = [each async for each in store.history.newest_first(conversation, TERMINAL)][::-1]
    assert [message and message.content for message, _, _ in newest] == contents
    assert [kept_of(steps) for _, _, steps in newest] == states
    assert [message.content async for message in store.messages.history(conversation)] == contents
    assert [message.content for message in await store.history.recent(conversation, 9)] == contents
    assert [(await store.messages.get(each)).content for each in ids] == contents
    for each in ids:
        await store.history.delete(each, now=5)
    await store.prune(LATER)
    assert calls.memory.items == {}


# ---- against a list -------------------------------------------------------------------------------------------------


class Said(msgspec.Struct, frozen=True):
    """A message as the list model has it."""

    content: str
    state: str | None
    role: Role
    is_deleted: bool
    id: str = ""
    place: int = 0


EDGES: Final = (0, 1, INLINE_BYTES, INLINE_BYTES + 1, 3_000, 3_000, BESIDE_BYTES, BESIDE_BYTES + 1, PART_BYTES + 1)


def text_of_size(character: str, size: int) -> str:
    """Return a text of so many bytes."""
    width = len(character.encode())
    return character * (size // width) + "x" * (size % width)


texts = st.builds(
    text_of_size,
    st.sampled_from("xé€😀"),
    st.builds(lambda edge, off: max(0, edge + off), st.sampled_from(EDGES), st.integers(-4, 4)),
)
said = st.builds(
    Said,
    texts,
    st.none() | texts,
    st.sampled_from(("user", "assistant")),
    st.sampled_from((False, False, True)),
)


async def stored(store: Store, conversation: str, messages: Sequence[Said], chance: random.Random) -> list[Said]:
    """Store messages, some with content of writers that lost; return them with their ids."""
    found = []
    for place, each in enumerate(messages, 1):
        if each.role == "user":
            (put,) = await store.messages.put([draft(conversation, place, each.content)], nonce=os.urandom(16))
            message_id = put.id
            each = msgspec.structs.replace(each, state=None)
        else:
            state = None if each.state is None else state_of(each.state)
            message_id = await answered(store, conversation, place, each.content, state)
            if chance.random() < 0.3:
                lost = Outcome(status="failed", content="lost" * 500, seq=1, metadata={}, completed=9)
                with pytest.raises(AppendConflict):
                    await store.log.end(message_id, 0, 1, [End("failed")], lost, nonce=os.urandom(8))
        if each.is_deleted:
            await store.history.delete(message_id, now=5)
        found.append(msgspec.structs.replace(each, id=message_id, place=place))
    return found


async def check(store: Store, conversation: str, wanted: Sequence[Said], chance: random.Random) -> None:
    """Hold every way to read a conversation against the list."""
    there = [each for each in wanted if not each.is_deleted]
    most = len(wanted) + 2
    at_once, parts_at_once = chance.randint(1, most), chance.randint(1, 2 * most)
    reading = store.history.newest_first(conversation, TERMINAL, at_once=at_once, parts_at_once=parts_at_once)
    expected: list[tuple[str | None, str | None, str | None, int]] = [
        (None, None, None, each.place) if each.is_deleted else (each.id, each.content, each.state, each.place)
        for each in wanted
    ]
    assert [
        (message and message.id, message and message.content, kept_of(steps), ordinal)
        async for message, ordinal, steps in reading
    ] == expected[::-1]

    for newest_first in (False, True):
        before = chance.choice(wanted).id if wanted and chance.random() < 0.5 else None
        older = wanted if before is None else wanted[: [each.id for each in wanted].index(before)]
        limit = chance.randint(1, most)
        listed: list[Message] = []
        cursor: str | None = None
        while True:
            page, cursor = await store.messages.list(
                conversation, limit, cursor, newest_first=newest_first, before=before
            )
            assert len(page) <= limit
            listed += page
            if cursor is None:
                break
        contents = [(each.id, each.content) for each in older if not each.is_deleted]
        assert [(each.id, each.content) for each in listed] == (contents[::-1] if newest_first else contents)

    count = chance.randint(1, most)
    recent = await store.history.recent(conversation, count)
    assert [each.content for each in recent] == [each.content for each in there[-count:]]
    assert await store.history.count(conversation) == (wanted[-1].place if wanted else 0)
    replies = [each.id for each in there if each.role == "assistant"]
    assert [each.id for each in await store.replies.of_conversation(conversation)] == replies
    if replies and replies[-1] in [each.id for each in wanted[-10:]]:
        assert await store.messages.newest_reply(conversation) == replies[-1]
    for each in there[:3]:
        assert (await store.messages.get(each.id)).content == each.content


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.lists(said, max_size=10), st.sampled_from((1_000, 10_000, 100_000, 1024**2)), st.randoms())
def test_conversations_are_read_as_they_were_stored(
    messages: list[Said], page_bytes: int, chance: random.Random
) -> None:
    """Whatever the sizes, the pages, the orders, what was deleted, what a read does not show yet, and who lost."""

    async def run() -> None:
        calls = Far(page_bytes)
        store = Store(calls, "t")
        conversation = new_conversation_id(os.urandom)
        wanted = await stored(store, conversation, messages, chance)
        calls.unseen = [key for key in calls.items("T#") if chance.random() < 0.2]
        await check(store, conversation, wanted, chance)
        await store.prune(LATER)
        kept = [each for each in wanted if not each.is_deleted]
        assert calls.items("M#") == [message_key(each.id)["sk"] for each in kept]
        for each in wanted:
            if each.is_deleted:
                assert calls.items(beside_prefix(message_key(each.id)["sk"])) == []
                assert all(partition != f"S#{each.id}" for partition, _ in calls.memory.items)
        await check(store, conversation, kept, chance)

    asyncio.run(run())


async def test_a_real_table_does_the_same(backend: Backend) -> None:
    """With queries whose pages end at 1 MB, and at a limit of items."""
    chance = random.Random(1)
    sizes = [*EDGES, *[BESIDE_BYTES] * 40, *[3_000] * 80]
    messages = [
        Said(
            text_of_size(chance.choice("xé€😀"), chance.choice(sizes)),
            text_of_size("x", chance.choice(sizes)) if chance.random() < 0.2 else None,
            chance.choice(("user", "assistant")),
            chance.random() < 0.1,
        )
        for _ in range(130)
    ]
    conversation = new_conversation_id(os.urandom)
    wanted = await stored(backend.store, conversation, messages, chance)
    for _ in range(2):
        await check(backend.store, conversation, wanted, chance)
    whole = backend.store.history.newest_first(conversation, TERMINAL)
    assert len([each async for each in whole]) == len(wanted)
