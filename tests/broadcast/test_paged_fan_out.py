"""The function's side of a hand-over: a batch of segments to many subscribers, in pages that are posted in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tailrace.aws.invoke import InvokeError, NotCalled, StillRuns
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.paged_fan_out import CallFunction, PagedFanOut
from tailrace.clock import SystemClock
from tailrace.errors import Unprocessable
from tailrace.events import Event, Json, Message, Reset, Text
from tailrace.store import NEVER, Store

from tests.broadcast.test_announce import Listeners
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio

MESSAGE = Message(
    id="m",
    conversation_id="c",
    role="assistant",
    content="",
    status="pending",
    seq=0,
    metadata={},
    created_at="2026-11-22T09:30:00.000000Z",
)
STORY = [["Once ", "upon "], [], ["a ", "time, "], ["there ", "was"]]


class Further:
    """Other environments of the function: each has the same frames and clients, and an own object."""

    def __init__(self, store: Store, clients: Listeners) -> None:
        self._store = store
        self._clients = clients
        self.requests: list[Json] = []
        self.error: InvokeError | None = None

    async def call(self, payload: Json) -> Json:
        """Be Lambda: over the wire and back."""
        if self.error is not None:
            raise self.error
        self.requests.append(payload)
        ((_, request),) = msgspec.json.decode(msgspec.json.encode(payload)).items()
        answer = await hand_over(self._store, self._clients, None).post(request)
        decoded: Json = msgspec.json.decode(msgspec.json.encode(answer))
        return decoded


def hand_over(
    store: Store,
    clients: Listeners,
    call: CallFunction | None,
    page: int = 3,
    task: Literal["post", "announce"] = "post",
) -> PagedFanOut:
    """Return one that posts to the clients, in small pages."""
    fan_out = FanOut(clients, store.subscriptions, clock=SystemClock())
    return PagedFanOut(fan_out, Frames(""), store, call, page=page, task=task)


async def stored(segments: Sequence[Sequence[str]], sockets: Sequence[str] = ()) -> Store:
    """Return a store with a reply's log and subscribers of its channel."""
    store = Store(MemoryCalls(), "table")
    seq = 1
    for number, texts in enumerate(segments):
        events: list[Event] = [Text(text) for text in texts]
        await store.log.append("m", number, seq, events, nonce=bytes(8))
        seq += len(texts)
    for socket in sockets:
        await store.subscriptions.put("room", socket)
    return store


def request(first: int, last: int, **more: Any) -> Json:
    """Return what a relay hands over, over the wire and back."""
    asked = {"message_id": "m", "channel": "room", "first": first, "last": last, "created": None}
    whole = {**asked, "except_socket": None, "skip": [], **more}
    decoded: Json = msgspec.json.decode(msgspec.json.encode(whole))
    return decoded


def text(clients: Listeners, socket: str) -> str:
    """Return what a socket has of the reply."""
    return "".join(frame["data"]["chunk"] for frame in clients.got[socket] if "chunk" in frame["data"])


@pytest.mark.parametrize("others", [0, 1, 3, 4, 10])
@pytest.mark.parametrize("alone", [True, False])
async def test_every_subscriber_gets_the_batch(others: int, alone: bool) -> None:
    """Whatever their number, and whether the pages are posted here or by further invocations."""
    sockets = [f"s{number}" for number in range(others)]
    store, clients = await stored(STORY, sockets), Listeners()
    further = Further(store, clients)
    answer = await hand_over(store, clients, None if alone else further.call).fan_out(request(0, 3))
    assert answer == {"subscribers": others, "dropped": [], "refused": False}
    assert {socket: text(clients, socket) for socket in sockets} == dict.fromkeys(
        sockets, "Once upon a time, there was"
    )
    assert len(further.requests) == (0 if alone else max(0, (others - 1) // 3))


async def test_the_numbers_of_a_batch() -> None:
    """A frame stands for the entries of the segments that were asked for, neither more nor fewer."""
    store, clients = await stored(STORY, ["s"]), Listeners()
    subject = hand_over(store, clients, None)
    for first, last in ((0, 1), (2, 2), (3, 3)):
        await subject.fan_out(request(first, last))
    figures = [(frame["data"]["first_seq"], frame["data"]["seq"], frame["data"]["chunk"]) for frame in clients.got["s"]]
    assert figures == [(1, 2, "Once upon "), (3, 4, "a time, "), (5, 6, "there was")]
    assert {frame["event"] for frame in clients.got["s"]} == {"MessageChunkReceived"}


async def test_who_gets_what() -> None:
    """Left out: the socket of the start and who was dropped before. Caught up: only what their catch-up leaves."""
    store, clients = await stored(STORY, ["plain", "starter", "behind"]), Listeners()
    await store.subscriptions.put("room", "later", starts={"m": 2})
    await store.subscriptions.put("room", "never", starts={"m": NEVER})
    await store.subscriptions.put("room", "other", starts={"another": NEVER})
    await store.subscriptions.put("hall", "elsewhere")
    further = Further(store, clients)
    asked = request(0, 3, created=msgspec.to_builtins(MESSAGE), except_socket="starter", skip=["behind"])
    answer = await hand_over(store, clients, further.call, page=1).fan_out(asked)
    assert answer == {"subscribers": 5, "dropped": [], "refused": False}
    whole = "Once upon a time, there was"
    assert {socket: text(clients, socket) for socket in clients.got} == {
        "plain": whole,
        "other": whole,
        "later": "a time, there was",
    }
    for socket, announced in (("plain", True), ("other", True), ("later", False)):
        assert (clients.got[socket][0]["event"] == "MessageCreated") is announced
    assert clients.got["plain"][0]["data"]["message"] == msgspec.to_builtins(MESSAGE)


async def test_a_reset_is_told() -> None:
    """What came before it is void for many subscribers as for few."""
    store, clients = await stored([["no"]], ["s"]), Listeners()
    await store.log.append("m", 1, 2, [Reset(), Text("yes")], nonce=bytes(8))
    await hand_over(store, clients, None).fan_out(request(0, 1))
    chunks = [(frame["data"]["chunk"], frame["data"].get("reset", False)) for frame in clients.got["s"]]
    assert chunks == [("no", False), ("", True), ("yes", False)]


@given(
    texts=st.lists(st.lists(st.text(min_size=1, max_size=3), max_size=4), min_size=1, max_size=8),
    cuts=st.sets(st.integers(0, 8)),
    page=st.integers(1, 4),
)
@hypothesis_settings(max_examples=100, deadline=None)
def test_any_cuts_give_the_same_text(texts: list[list[str]], cuts: set[int], page: int) -> None:
    """However a relay cuts a reply into batches, each subscriber's text is the reply's."""

    async def run() -> None:
        store, clients = await stored(texts, ["s0", "s1", "s2", "s3"]), Listeners()
        subject = hand_over(store, clients, Further(store, clients).call, page)
        ends = sorted({cut for cut in cuts if cut < len(texts)} | {len(texts) - 1})
        first = 0
        for last in ends:
            await subject.fan_out(request(first, last))
            first = last + 1
        whole = "".join(piece for segment in texts for piece in segment)
        assert [text(clients, f"s{number}") for number in range(4)] == [whole] * 4

    asyncio.run(run())


async def test_sockets_that_are_gone_or_dropped() -> None:
    """Those gone lose their subscription, in whichever invocation it is noticed; those dropped are named."""

    sockets = ["gone1", "gone2", "here1", "here2"]
    store, clients = await stored(STORY, sockets), Listeners()
    clients.gone |= {"gone1", "gone2"}
    answer = await hand_over(store, clients, Further(store, clients).call, page=1).fan_out(request(0, 3))
    assert answer == {"subscribers": 4, "dropped": [], "refused": False}
    assert [found.socket async for found in store.subscriptions.of_channel("room")] == ["here1", "here2"]


async def test_a_page_whose_invocation_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The others have theirs; its subscribers see a gap, and get what comes next."""
    store, clients = await stored(STORY, ["s0", "s1", "s2"]), Listeners()
    further = Further(store, clients)
    subject = hand_over(store, clients, further.call, page=2)
    further.error = InvokeError("the function failed: Unhandled")
    assert await subject.fan_out(request(0, 1)) == {"subscribers": 3, "dropped": [], "refused": False}
    further.error = None
    assert await subject.fan_out(request(2, 3)) == {"subscribers": 3, "dropped": [], "refused": False}
    assert [text(clients, f"s{number}") for number in range(3)] == ["Once upon a time, there was"] * 2 + [
        "a time, there was"
    ]
    assert [(found.getMessage(), vars(found)["reason"]) for found in caplog.records] == [
        ("page not posted", "the function failed: Unhandled")
    ]


async def test_a_page_that_no_environment_is_free_for() -> None:
    """Nobody got it, so it is posted from here."""
    store, clients = await stored(STORY, ["s0", "s1", "s2"]), Listeners()
    further = Further(store, clients)
    further.error = NotCalled("status 429")
    answer = await hand_over(store, clients, further.call, page=1).fan_out(request(0, 3))
    assert answer == {"subscribers": 3, "dropped": [], "refused": False}
    assert {text(clients, f"s{number}") for number in range(3)} == {"Once upon a time, there was"}


async def test_who_is_behind() -> None:
    """Gets what it missed and the batch, from its place on, as one frame; everybody else gets the batch."""
    store, clients = await stored(STORY, ["missed", "more", "plain"]), Listeners()
    await store.subscriptions.put("room", "caught-up", starts={"m": 3})
    behind = {"missed": 1, "more": -1, "caught-up": 0, "left": 0}
    asked = request(2, 3, begins=False, behind=behind, created=msgspec.to_builtins(MESSAGE))
    answer = await hand_over(store, clients, None).fan_out(asked)
    assert answer == {"subscribers": 4, "dropped": [], "refused": False}
    assert {socket: text(clients, socket) for socket in clients.got} == {
        "missed": "a time, there was",
        "more": "Once upon a time, there was",
        "plain": "a time, there was",
        "caught-up": "there was",
    }
    assert [socket for socket, frames in clients.got.items() if frames[0]["event"] == "MessageCreated"] == ["more"]
    assert {len(frames) for socket, frames in clients.got.items() if socket != "more"} == {1}


async def test_nothing_new_but_for_who_is_behind() -> None:
    """As at a reply's end: the others get nothing."""
    store, clients = await stored(STORY, ["missed", "plain"]), Listeners()
    await hand_over(store, clients, None).fan_out(request(4, 3, begins=False, behind={"missed": 2}))
    assert {socket: text(clients, socket) for socket in clients.got} == {"missed": "a time, there was"}


@pytest.mark.parametrize("others", [0, 1, 4, 10])
async def test_an_announcement_is_shared_out(others: int) -> None:
    """To all who want it, but for the one that is left out."""
    sockets = [f"s{number}" for number in range(others)]
    store, clients = await stored([], [*sockets, "me", "not"]), Listeners()
    further = Further(store, clients)
    subject = hand_over(store, clients, further.call, task="announce")
    sent = await subject.send("room", [b'{"data":{}}'], except_socket="me", wants=lambda each: each.socket != "not")
    assert (sent.subscribers, sent.posted, list(sent.dropped)) == (others + 1, others, [])
    assert clients.got == {socket: [{"data": {}}] for socket in sockets}
    assert [[*each] for each in further.requests] == [["announce"]] * max(0, (others - 1) // 3)


@pytest.mark.parametrize(
    ("error", "told"), [(NotCalled("x"), True), (InvokeError("x"), True), (StillRuns("x"), False), (None, True)]
)
async def test_an_announcement_whose_page_fails(error: InvokeError | None, told: bool) -> None:
    """Is made from here, since nobody makes it again; unless it may be under way."""
    store, clients = await stored([], ["s0", "s1"]), Listeners()
    further = Further(store, clients)
    further.error = error
    sent = await hand_over(store, clients, further.call, page=1, task="announce").send("room", [b"{}"])
    assert (sent.subscribers, sent.posted) == (2, 1 + told)
    assert clients.got == {"s0": [{}]} | ({"s1": [{}]} if told else {})


async def test_what_is_too_large_to_share() -> None:
    """Lambda takes 6 MB: frames that would not fit are posted from here."""
    large = [["x" * 100_000] for _ in range(60)]
    store, clients = await stored(large, ["s0", "s1"]), Listeners()
    further = Further(store, clients)
    await hand_over(store, clients, further.call, page=1).fan_out(request(0, 59))
    assert further.requests == []
    assert {len(text(clients, socket)) for socket in ("s0", "s1")} == {6_000_000}


async def test_the_pages_are_posted_at_once() -> None:
    """One page whose clients do not read keeps no other page waiting."""
    store, clients = await stored(STORY, ["a-deaf", "b", "c"]), Listeners()
    clients.silent.add("a-deaf")
    further = Further(store, clients)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        subject = hand_over(store, clients, further.call, page=1)
        posting = tasks.create_task(subject.fan_out(request(0, 3)))
        await clients.have({"b": 1, "c": 1})
        assert not posting.done()
        clients.release.set()


@pytest.mark.parametrize(
    "wrong", [{}, {"message_id": "m"}, [], "x", {**request(0, 3), "first": "0"}, request(0, 3, skip="s")]
)
async def test_a_request_that_cannot_be_read(wrong: object) -> None:
    """It says which field, and nothing of what is in it."""
    subject = hand_over(await stored(STORY), Listeners(), None)
    with pytest.raises(Unprocessable, match=r"^The request to fan out cannot be read: "):
        await subject.fan_out(wrong)
    with pytest.raises(Unprocessable, match=r"^The request to fan out cannot be read: "):
        await subject.post({"runs": [{"frames": 1}]})
