"""Frames of somebody who means no good: any JSON, any bytes, spoilt copies of good ones."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tailrace.events import ConversationRecord

from tests.broadcast.test_chats import SEND
from tests.broadcast.test_socket import CONVERSATION, listeners
from tests.broadcast.websocket import WebSocketApi, event, subscribing

MINE, THEIRS = f"conversation.{CONVERSATION}", f"conversation.{CONVERSATION[::-1]}"

texts = (
    st.sampled_from(["", "a", MINE, THEIRS, "private-a", "presence-a", "client-x", "\r\n", "\ud800", "\x00"])
    | st.text()
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["whoami", "ping", "subscribe", "unsubscribe", "client-typing", "chat"]) | texts
fields = st.sampled_from(["channel", "auth", "channel_data", "after", "delivery", "socket_id", "owner"]) | texts
frames = st.fixed_dictionaries(
    {"event": names | values}, optional={"channel": texts | values, "data": st.dictionaries(fields, values) | values}
)
good = st.sampled_from(
    [
        {"event": "whoami"},
        subscribing("s2", "news"),
        subscribing("s2", THEIRS, after={"m": 1}),
        {"event": "client-typing", "channel": "private-a", "data": {}},
        SEND,
    ]
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good frame with a byte changed, cut out or added."""
    body = json.dumps(draw(good)).encode()
    place = draw(st.integers(0, len(body)))
    return body[:place] + draw(st.binary(max_size=2)) + body[place + draw(st.integers(0, 3)) :]


bodies = (
    frames.map(lambda frame: json.dumps(frame).encode())
    | values.map(lambda value: json.dumps(value).encode())
    | spoilt()
    | st.binary(max_size=200)
)


class Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.found.append(record.__dict__)


@settings(deadline=None, max_examples=300)
@given(st.lists(bodies, min_size=1, max_size=4))
def test_whatever_is_sent(sent: list[bytes]) -> None:
    """It is answered or passed over; no bug comes to light, nobody gets onto what is not theirs, and the connection of
    somebody else hears nothing."""

    async def play() -> None:
        api = WebSocketApi(open_to_all=False)
        for conversation, owner in ((CONVERSATION, "ada"), (CONVERSATION[::-1], "bob")):
            await api.store.conversations.put(ConversationRecord(id=conversation, owner=owner, created=1, updated=1))
        await api.connect("s1", "ada")
        await api.subscribe("s1", MINE)
        await api.connect("s2", "bob")
        api.clients.take("s1")
        for body in sent:
            binary = {"body": b64encode(body).decode(), "isBase64Encoded": True}
            answered = await api.sockets.handle({**event("websocket-ping", "s2"), **binary}, None)
            assert answered == {"statusCode": 200}
        assert await listeners(api, MINE) == {"s1"}
        assert api.clients.take("s1") == []

    errors = Errors()
    logger = logging.getLogger("tailrace")
    logger.addHandler(errors)
    try:
        asyncio.run(play())
    finally:
        logger.removeHandler(errors)
    assert errors.found == []
