"""The frames of chats, as the WebSocket function takes them: handed over, refused, or taken back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tailrace.aws.invoke import InvokeError
from tailrace.broadcast.chats import TRIES, Chats
from tailrace.broadcast.socket import Sockets
from tailrace.events import Json

from tests.broadcast.websocket import Frame, WebSocketApi

pytestmark = pytest.mark.anyio

SEND: Frame = {"type": "send", "requestId": "r1", "id": "chat", "messages": [], "headers": {}, "body": {}}


class ChatApi(WebSocketApi):
    """A WebSocket API with a chat function.

    Attributes:
        handed_over: what that was called with.
        cancelled: the replies that were ended.
        fails: how often it cannot be called.
    """

    def __init__(self, *, open_to_all: bool = False, has_function: bool = True, **more: Any) -> None:
        super().__init__(open_to_all=open_to_all, **more)
        self.handed_over: list[Json] = []
        self.cancelled: list[str] = []
        self.fails = 0

        async def hand_over(payload: Json) -> None:
            if self.fails:
                self.fails -= 1
                raise InvokeError("status 429")
            self.handed_over.append(payload)

        async def cancel(message_id: str) -> None:
            self.cancelled.append(message_id)

        async def no_secret() -> str:
            raise AssertionError("nothing is signed here")

        chats = Chats(
            self.store, hand_over if has_function else None, cancel, allowance=self.allowance, open_to_all=open_to_all
        )
        self.sockets = Sockets(
            self.store,
            self.fan_out,
            self.frames,
            self.clock,
            allowance=self.allowance,
            grants=self.grants,
            secret=no_secret,
            open_to_all=open_to_all,
            chats=chats,
        )


def failed(text: str, request: str = "r1") -> list[Frame]:
    return [{"type": "error", "requestId": request, "errorText": text}]


@pytest.mark.parametrize("kind", ["send", "resume"])
async def test_a_request_is_handed_over(kind: str) -> None:
    """To the letter, with the owner of the connection; whatever else the frame says of that."""
    api = ChatApi()
    await api.connect("s1", "ada")
    frame = json.dumps({**SEND, "type": kind, "owner": "eve", "socket": "s2"}, ensure_ascii=False) + " "
    assert await api.send("s1", frame) == []
    assert api.handed_over == [{"chat": {"socket": "s1", "owner": "ada", "frame": frame}}]


async def test_a_connection_whose_token_is_not_for_chats() -> None:
    """It may listen, as it is allowed to, and ask for nothing."""
    api = ChatApi()
    await api.connect("s1", "ada", may_chat=False)
    assert await api.send("s1", SEND) == failed("The token of this connection is not for chats.")
    assert api.handed_over == []


async def test_nobody_s_connection() -> None:
    """May not chat, unless nobody is asked who they are."""
    api = ChatApi()
    await api.connect("s1", None)
    assert await api.send("s1", SEND) == failed(
        "Nobody can be seen behind this connection: connect with a valid token."
    )
    assert api.handed_over == []
    anybody = ChatApi(open_to_all=True)
    assert await anybody.send("s1", SEND) == []
    assert anybody.handed_over[0]["chat"]["owner"] == "anonymous"


async def test_what_the_function_does_not_take() -> None:
    """It is called again; the client is told when it cannot be, and nothing of why."""
    api = ChatApi(open_to_all=True)
    api.fails = TRIES - 1
    assert await api.send("s1", SEND) == []
    assert len(api.handed_over) == 1
    api.fails = TRIES
    assert await api.send("s1", SEND) == failed("The answer could not be started. Please try again.")
    assert await ChatApi(open_to_all=True, has_function=False).send("s1", SEND) == failed(
        "This is not set up on the server."
    )


@pytest.mark.parametrize(
    "frame",
    [
        {**SEND, "type": "start"},
        {**SEND, "requestId": 7},
        {**SEND, "requestId": ""},
        {**SEND, "requestId": "r" * 129},
        {"type": "abort"},
        {"type": "send", "requestId": None},
        "[" * 10_000,
        '{"type":"send","requestId":"\\ud800"}',
    ],
    ids=str,
)
async def test_what_is_no_frame_of_a_chat(frame: Any) -> None:
    """Is answered as every unknown frame: there is no request that an error could be of."""
    api = ChatApi(open_to_all=True)
    assert await api.send("s1", frame) == [{"event": "error"}]
    assert api.handed_over == []


async def test_without_chats() -> None:
    """A frame of one is unknown."""
    assert await WebSocketApi().send("s1", SEND) == [{"event": "error"}]


async def test_taking_back() -> None:
    """Ends the reply that answers the request, once that is known; another socket cannot."""
    api = ChatApi(open_to_all=True)
    requests = api.store.chat_requests
    assert await requests.begin("s1", "r1", "a")
    assert not await requests.answered_by("s1", "r1", "reply")
    abort = {"type": "abort", "requestId": "r1"}
    assert await api.send("s2", abort) == []
    assert api.cancelled == []
    assert await api.send("s1", abort) == []
    assert api.cancelled == ["reply"]
    assert await api.send("s1", abort) == [], "any number of times"


async def test_taking_back_before_it_is_known_what_answers() -> None:
    """Whoever serves it finds out: before it has begun, or when it has a reply."""
    api = ChatApi(open_to_all=True)
    requests = api.store.chat_requests
    await api.send("s1", {"type": "abort", "requestId": "early"})
    assert not await requests.begin("s1", "early", "a")
    assert await requests.begin("s1", "late", "a")
    await api.send("s1", {"type": "abort", "requestId": "late"})
    assert await requests.is_aborted("s1", "late")
    assert await requests.answered_by("s1", "late", "reply")
    assert api.cancelled == []


async def test_a_request_begins_once() -> None:
    """Lambda may call a function twice for one event. A write that is repeated, its answer lost, is the same one."""
    requests = ChatApi().store.chat_requests
    assert await requests.begin("s1", "r1", "a")
    assert await requests.begin("s1", "r1", "a")
    assert not await requests.begin("s1", "r1", "b")
    assert await requests.begin("s2", "r1", "b")


async def test_what_the_function_did_not_do() -> None:
    """Lambda says so, and the client hears it."""
    api = ChatApi()
    given = {"socket": "s1", "owner": "ada", "frame": json.dumps(SEND)}
    await api.sockets.chat_failed(given)
    assert api.clients.take("s1") == failed("The answer broke off, or did not begin.")
