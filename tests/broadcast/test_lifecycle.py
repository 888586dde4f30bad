"""What is announced of a change in the table, judged by the records that the emulator's own stream has of it."""

from __future__ import annotations

import itertools
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailrace.backend import Backend
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.lifecycle import Announcement, announcement
from tailrace.conversation.conversation import Conversation
from tailrace.errors import StoreError
from tailrace.events import TERMINAL, ConversationRecord, Message
from tailrace.http.schemas import conversation_out
from tailrace.ids import new_message_id
from tailrace.settings import Settings
from tailrace.store import NEVER, Subscription, change

from tests.broadcast.table_stream import Record, records

SECRET = "a-word-that-nobody-may-hear"
CONVERSATION = "AAAAAAAAAAAAAAAAAAAAAA"
MESSAGE = new_message_id(CONVERSATION, 7, lambda count: bytes(count))


def announced(found: list[Record]) -> list[Announcement]:
    """Return what the records announce, in order."""
    return [told for record in found if (told := announcement(change(record))) is not None]


def sent(found: list[Record]) -> list[Any]:
    """Return what subscribers get to see of the records."""
    return [msgspec.json.decode(told.frame(Frames("App\\Events\\"))) for told in announced(found)]


def names(found: list[Record]) -> list[tuple[str, str]]:
    """Return channel and event of what is announced."""
    return [(frame["channel"], frame["event"].removeprefix("App\\Events\\")) for frame in sent(found)]


# ---- what the table's own stream says ----


@pytest.mark.anyio
async def test_a_conversation_and_a_reply(backend: Backend, settings: Settings) -> None:
    """Each is announced once, in order; segments, keys and the change of a title are not."""
    conversation = await Conversation.create(owner="ada", title="Robots", backend=backend)
    stream = await conversation.stream_response("hello")
    for chunk in ("Once ", "upon ", "a time"):
        await stream.append(chunk)
    message = await stream.complete()
    await backend.store.conversations.update(conversation.id, now=backend.clock.now(), title="Rivers")

    channel = f"conversation.{conversation.id}"
    found = records(settings)
    assert names(found) == [
        ("private-user.ada", "ConversationCreated"),
        (channel, "MessageCreated"),
        (channel, "MessageCreated"),
        (channel, "MessageCompleted"),
    ]
    created, question, reply, completed = (frame["data"] for frame in sent(found))
    assert created["conversation"] == conversation_out(conversation.record)
    assert (question["message"]["role"], question["message"]["content"]) == ("user", "hello")
    assert (reply["message"]["status"], reply["message"]["content"]) == ("pending", "")
    assert completed["message"] == msgspec.to_builtins(message)
    assert completed["message"]["content"] == "Once upon a time"


@pytest.mark.anyio
async def test_whoever_ends_a_reply(backend: Backend, settings: Settings) -> None:
    """Its writer, a cancel and the sweep: each end that is no completion is one MessageFailed with its reason."""
    conversation = await Conversation.create(backend=backend)
    failing = await conversation.stream_response()
    await failing.fail("because")
    await backend.open_replies.cancel((await conversation.stream_response()).id)
    orphan = await conversation.stream_response()
    hasty = Backend(msgspec.structs.replace(settings, lease=0.0), store=backend.store)
    assert await hasty.open_replies.interrupt(orphan.id)

    ends = [frame for frame in sent(records(settings)) if frame["event"].endswith("MessageFailed")]
    assert [frame["data"]["message"]["status"] for frame in ends] == ["failed", "cancelled", "interrupted"]
    assert [frame["data"]["message"]["error"]["message"] for frame in ends] == [
        "The reply failed.",
        "The reply was cancelled.",
        "The reply was interrupted.",
    ]


@pytest.mark.anyio
async def test_nothing_private_is_sent(backend: Backend, settings: Settings) -> None:
    """Neither system prompts, nor private metadata, nor a failure's own words, nor whose it is."""
    private = {"shown": 1, "private": {"ip": SECRET}}
    conversation = await Conversation.create(owner="ada", system=SECRET, metadata=private, backend=backend)
    await conversation.add_system_message(SECRET)
    await conversation.add_user_message("hello", metadata=private)
    stream = await conversation.stream_response(metadata=private)
    await stream.fail(SECRET)

    found = records(settings)
    assert SECRET in str(found)
    frames = sent(found)
    assert len(frames) == 4
    assert SECRET not in str(frames)
    assert "private'" not in str(frames)
    assert all("owner" not in str(frame["data"]) for frame in frames)
    assert all(
        (frame["data"].get("message") or frame["data"]["conversation"])["metadata"]["shown"] == 1 for frame in frames
    )


@pytest.mark.anyio
async def test_what_goes_is_not_announced(backend: Backend, settings: Settings) -> None:
    """Neither a deletion nor the pruning, although both are changes."""
    conversation = await Conversation.create(backend=backend)
    await conversation.add_user_message("hello")
    before = len(records(settings))
    await backend.store.conversations.delete(conversation.id, now=backend.clock.now())
    assert await backend.store.prune(backend.clock.now()) == 1
    found = records(settings)[before:]
    assert {record["eventName"] for record in found} == {"MODIFY", "REMOVE"}
    assert announced(found) == []


@pytest.mark.anyio
async def test_long_content_has_to_be_read(backend: Backend, settings: Settings) -> None:
    """It lies in items of its own, so the record does not have it, and says so."""
    conversation = await Conversation.create(backend=backend)
    await conversation.add_assistant_message("x" * 2000)
    (_, told) = announced(records(settings))
    assert not told.is_whole


# ---- the rule of the end ----


def image(status: str, *, feeding: bool = False, **more: str) -> Record:
    """Return a message's item as a stream's image."""
    attributes = {"conversation": CONVERSATION, "role": "assistant", "id": MESSAGE, "status": status, **more}
    item: Record = {name: {"S": value} for name, value in {"pk": "C#tag", "sk": "M#7#random", **attributes}.items()}
    return {**item, "created": {"N": "7"}, **({"feeding": {"N": "1"}} if feeding else {})}


def record(before: Record | None, after: Record | None) -> Record:
    """Return a record of the stream with these images."""
    images = {"OldImage": before, "NewImage": after}
    stream = {name: found for name, found in images.items() if found is not None}
    return {"eventID": "1", "dynamodb": {"SequenceNumber": "11", **stream}}


@given(
    fed=st.booleans(),
    end=st.sampled_from(sorted(TERMINAL)),
    by_another=st.booleans(),
    edits=st.lists(st.integers(0, 3), max_size=6),
)
def test_one_beginning_and_one_end(fed: bool, end: str, by_another: bool, edits: list[int]) -> None:
    """However a message goes from its start to its end, whoever ends it and whatever else is written in between."""
    states = [image("pending", feeding=fed), image(end, feeding=fed and not by_another)]
    if fed and not by_another:
        states.append(image(end))
    for edit in sorted(edits, reverse=True):  # writes that change none of it
        states.insert(min(edit, len(states) - 1) + 1, states[min(edit, len(states) - 1)])
    told = [
        (number, found.what)
        for number, (before, after) in enumerate(itertools.pairwise([None, *states]))
        if (found := announcement(change(record(before, after)))) is not None
    ]
    first_over = next(number for number, state in enumerate(states) if state == image(end))
    assert told == ([] if fed else [(0, "created")]) + [(first_over, "ended")]


def test_the_channel_and_the_socket_of_a_start() -> None:
    """What the start said is on its messages; without, it is the conversation's own channel and everybody."""
    (said,) = announced([record(None, image("pending", channel="private-room", except_socket="abc="))])
    (unsaid,) = announced([record(None, image("pending"))])
    assert (said.channel, said.except_socket) == ("private-room", "abc=")
    assert (unsaid.channel, unsaid.except_socket) == (f"conversation.{CONVERSATION}", None)


def test_who_is_being_caught_up_hears_the_end_from_the_catch_up() -> None:
    """So that nobody gets it twice; and the beginning is nothing new to whoever asked for what came after it."""
    (created,) = announced([record(None, image("pending"))])
    (ended,) = announced([record(image("pending"), image("completed"))])

    def subscriber(starts: dict[str, int]) -> Subscription:
        return Subscription(channel="c", socket="s", expires=0, since=0, starts=starts)

    for told, wanted in ((created, [True, False, False, True]), (ended, [True, True, False, True])):
        subscribers = map(subscriber, ({}, {MESSAGE: 3}, {MESSAGE: NEVER}, {"another": NEVER}))
        assert [told.is_for(found) for found in subscribers] == wanted


def test_an_owner_that_makes_no_channel() -> None:
    """An owner may be any text; where nobody can have subscribed, nothing is sent, and nothing fails."""
    item = {"pk": {"S": "C#tag"}, "sk": {"S": "C"}, "id": {"S": "i"}, "created": {"N": "1"}, "updated": {"N": "1"}}
    assert len(announced([record(None, {**item, "owner": {"S": "ada"}})])) == 1
    assert announced([record(None, {**item, "owner": {"S": "a d a"}})]) == []
    assert announced([record(None, {**item, "owner": {"S": "a" * 2000}})]) == []


@pytest.mark.parametrize("kind", ["S#x L#00000000", "S#x T#a#0000", "K#x K", "N#conversation.x abc=", "W#abc= W"])
def test_items_of_other_kinds(kind: str) -> None:
    """They are nothing for subscribers."""
    pk, sk = kind.split()
    item: Record = {"pk": {"S": pk}, "sk": {"S": sk}, "n": {"B": b64encode(b"x").decode()}}
    found = change(record(None, item))
    assert (found.before, found.after) == (None, None)
    assert announcement(found) is None


@pytest.mark.parametrize("broken", [{}, {"eventID": "1"}, record(None, {"pk": {"S": "C#tag"}, "sk": {"S": "C"}})])
def test_a_record_that_cannot_be_read(broken: Record) -> None:
    """It is refused in words that hold nothing of it."""
    with pytest.raises(StoreError, match=r"^A record of the table's stream cannot be read\.$"):
        change(broken)


def test_what_travels() -> None:
    """An announcement is about one of our records, whose types say that nothing private is in them."""
    assert "private" not in Message.__struct_fields__
    told = announced([record(None, image("pending", private='{"ip":"203.0.113.7"}'))])
    assert "203.0.113.7" not in str(told)
    assert not isinstance(told[0].subject, ConversationRecord)
