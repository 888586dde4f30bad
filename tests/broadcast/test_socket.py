"""Every frame that a client may send, and what it is answered. The client is npm laravel-echo-api-gateway 0.5.5."""

from __future__ import annotations

import itertools
import json
import os
from base64 import b64encode
from typing import Any

import pytest
from tailrace.broadcast.channels import signature
from tailrace.events import ConversationRecord
from tailrace.identity.grants import Grants
from tailrace.ids import new_conversation_id, new_message_id
from tailrace.store import Caller, Grant, Store
from tailrace.store.dynamodb import Payload

from tests.broadcast.websocket import SECRET, Frame, Hesitant, WebSocketApi, event, subscribing
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio

CONVERSATION = new_conversation_id(lambda count: bytes(range(count)))
ERROR = [{"event": "error"}]


def refused(channel: str, message: str) -> list[Frame]:
    return [{"event": "error", "channel": channel, "data": {"message": message}}]


def succeeded(channel: str) -> list[Frame]:
    return [{"event": "subscription_succeeded", "channel": channel, "data": []}]


async def listeners(api: WebSocketApi, channel: str) -> set[str]:
    return {each.socket async for each in api.store.subscriptions.of_channel(channel)}


# ---- the plain ones ----


async def test_whoami() -> None:
    """The driver learns its socket id, and subscribes with it."""
    assert await WebSocketApi().send("s1", {"event": "whoami"}) == [{"event": "whoami", "data": {"socket_id": "s1"}}]


async def test_ping() -> None:
    """A pong, whose channel is null as in the wire."""
    assert await WebSocketApi().send("s1", {"event": "ping"}) == [{"event": "pong", "channel": None}]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "[]",
        '"whoami"',
        "{}",
        '{"event":null}',
        '{"event":7}',
        '{"event":"shout"}',
        '{"event":"Whoami"}',
        '{"event":"subscribe","channel":7,"data":{"channel":"a"}}',
        '{"event":"subscription_succeeded","channel":"a","data":[]}',
        '{"event":"App\\\\Events\\\\MessageCompleted","channel":"a","data":{}}',
        '{"event":"unsubscribe"}',
        '{"event":"unsubscribe","data":{}}',
        '{"event":"client-","channel":"private-a","data":{}}',
        '{"event":"client-typing","data":{}}',
        "[" * 10_000,
        "\ud800",
        "x" * 128 * 1024,
    ],
    ids=lambda body: body[:30],
)
async def test_anything_else(body: str) -> None:
    """What is no frame of ours is answered with an error, and nothing is stored."""
    api = WebSocketApi()
    assert await api.send("s1", body) == ERROR
    assert not [made for made, _ in api.calls.made if made != "Query"]


async def test_binary_frames() -> None:
    """API Gateway hands them over as base64: text in them is read, anything else is an error."""
    api = WebSocketApi()
    for content, answer in ((b'{"event":"ping"}', "pong"), (b"\xff\xfe", "error")):
        binary = {**event("websocket-ping", "s1"), "body": b64encode(content).decode(), "isBase64Encoded": True}
        await api.sockets.handle(binary, None)
        assert [frame["event"] for frame in api.clients.take("s1")] == [answer]


async def test_an_event_without_a_body() -> None:
    """API Gateway leaves it out when a frame is empty."""
    api = WebSocketApi()
    happened = event("websocket-ping", "s1")
    del happened["body"]
    await api.sockets.handle(happened, None)
    assert api.clients.take("s1") == ERROR


# ---- subscribing ----


async def test_subscribe_and_unsubscribe() -> None:
    """To a public channel, as the driver does it."""
    api = WebSocketApi()
    assert await api.send("s1", {"event": "subscribe", "data": {"channel": "conversation.1"}}) == succeeded(
        "conversation.1"
    )
    assert await listeners(api, "conversation.1") == {"s1"}
    assert await api.send("s1", {"event": "unsubscribe", "data": {"channel": "conversation.1"}}) == [
        {"event": "unsubscription_succeeded", "channel": "conversation.1", "data": []}
    ]
    assert await listeners(api, "conversation.1") == set()


async def test_unsubscribing_from_what_one_is_not_on() -> None:
    """Is fine: the driver's leave() asks for channels that it may have lost."""
    frames = await WebSocketApi().send("s1", {"event": "unsubscribe", "data": {"channel": "a"}})
    assert [frame["event"] for frame in frames] == ["unsubscription_succeeded"]


async def test_subscribing_is_one_write() -> None:
    """A subscribe puts one item, and a public channel costs no read either."""
    api = WebSocketApi()
    await api.subscribe("s1", "conversation.1")
    assert [operation for operation, _ in api.calls.made] == ["PutItem"]


@pytest.mark.parametrize("channel", ["private-room", "presence-room"])
async def test_subscribing_to_a_guarded_channel_is_one_write(channel: str) -> None:
    """The signature is all that is needed; who else is here is read."""
    api = WebSocketApi()
    await (api.join("s1", "ada") if channel == "presence-room" else api.subscribe("s1", channel))
    assert [operation for operation, _ in api.calls.made if operation != "Query"] == ["PutItem"]


async def test_subscribing_again() -> None:
    """The driver may: once from its buffer and once from its backlog. There is one subscription."""
    api = WebSocketApi()
    for _ in range(2):
        assert await api.subscribe("s1", "a") == succeeded("a")
    assert await listeners(api, "a") == {"s1"}


@pytest.mark.parametrize("name", ["", " ", "a b", "a\nb", "x" * 256, "{", 'presence-a:{"user_id":1}'])
async def test_what_is_no_name_of_a_channel(name: str) -> None:
    """The answer says what one is made of."""
    said = "A channel's name has 1 to 255 printable characters, and no space or brace."
    assert await WebSocketApi().send("s1", {"event": "subscribe", "data": {"channel": name}}) == refused(name, said)
    assert await WebSocketApi().send("s1", {"event": "unsubscribe", "data": {"channel": name}}) == refused(name, said)


async def test_a_name_too_long_to_be_sent_back() -> None:
    """A channel's name may be all that fits into a frame, so that the answer would not."""
    frame = {"event": "subscribe", "data": {"channel": "x" * (128 * 1024 - 45)}}
    assert await WebSocketApi().send("s1", frame) == ERROR


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"after": []}, "The subscription does not validate: Expected `object`, got `array` - at `$.after`."),
        (
            {"after": {"m": 1.5}},
            "The subscription does not validate: Expected `int | str`, got `float` - at `$.after[...]`.",
        ),
        ({"after": {"m": -1}}, "The subscription does not validate: Expected `int` >= 0 - at `$.after[...]`."),
        ({"auth": 7}, "The subscription does not validate: Expected `str | null`, got `int` - at `$.auth`."),
        ({"after": {f"m{n}": 1 for n in range(21)}}, "after may name 20 messages."),
    ],
    ids=str,
)
async def test_a_subscription_that_does_not_validate(data: dict[str, Any], said: str) -> None:
    """The answer names the field."""
    assert await WebSocketApi().subscribe("s1", "a", **data) == refused("a", said)


# ---- who may ----

INVALID = "The auth of this channel is not valid for this socket."


async def test_a_private_channel() -> None:
    """The signature of the socket and the channel lets in."""
    api = WebSocketApi()
    auth = signature(SECRET, "s1", "private-a")
    assert await api.send("s1", {"event": "subscribe", "data": {"channel": "private-a", "auth": auth}}) == succeeded(
        "private-a"
    )
    assert await listeners(api, "private-a") == {"s1"}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"auth": None},
        {"auth": ""},
        {"auth": "x" * 64},
        {"auth": "ü" * 64},
        {"auth": signature(SECRET, "s2", "private-a")},
        {"auth": signature(SECRET, "s1", "private-b")},
        {"auth": signature(SECRET, "s1", "private-a").upper()},
        {"auth": "key:" + signature(SECRET, "s1", "private-a")},
        {"auth": signature("another secret", "s1", "private-a")},
        {"auth": signature(SECRET, "s1", "private-a", "data"), "channel_data": "data"},
        {"auth": signature(SECRET, "s1", "private-a:b"), "channel_data": "b"},
    ],
    ids=str,
)
async def test_a_signature_that_is_not_this_one(data: dict[str, Any]) -> None:
    """Another socket's, another channel's, one that the channel's data was moved into: nobody gets in with it."""
    api = WebSocketApi()
    frame = {"event": "subscribe", "data": {"channel": "private-a", **data}}
    assert await api.send("s1", frame) == refused("private-a", INVALID)
    assert await listeners(api, "private-a") == set()


@pytest.mark.parametrize(
    ("channel_data", "said"),
    [
        (None, "A presence channel needs channel_data with a user_id."),
        ("", "A presence channel needs channel_data with a user_id."),
        ("{}", "A presence channel needs channel_data with a user_id."),
        ('{"user_id":null}', "A presence channel needs channel_data with a user_id."),
        ("[1]", "A presence channel needs channel_data with a user_id."),
    ],
)
async def test_a_member_without_a_name(channel_data: str | None, said: str) -> None:
    """Even signed by the user's own server, a member must say who it is."""
    api = WebSocketApi()
    answer = await api.subscribe("s1", "presence-a", channel_data=channel_data)
    assert answer == refused("presence-a", said)
    assert await listeners(api, "presence-a") == set()


async def test_a_member_that_was_changed() -> None:
    """The member is part of what is signed."""
    api = WebSocketApi()
    auth = signature(SECRET, "s1", "presence-a", '{"user_id":"ada"}')
    answer = await api.subscribe("s1", "presence-a", auth=auth, channel_data='{"user_id":"bob"}')
    assert answer == refused("presence-a", INVALID)


async def test_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """What is missing is said in the log and not to the client."""
    api = WebSocketApi(secret=None)
    assert await api.subscribe("s1", "private-a") == refused("private-a", "This is not set up on the server.")
    assert [record.__dict__["reason"] for record in caplog.records] == ["TAILRACE_CHANNEL_SECRET is not set."]


async def test_a_conversation_s_public_channel() -> None:
    """Where people are known, only the connection of its owner may listen to it; others do not learn that it exists."""
    api = WebSocketApi(open_to_all=False)
    await api.store.conversations.put(ConversationRecord(id=CONVERSATION, owner="ada", created=1, updated=1))
    channel = f"conversation.{CONVERSATION}"
    for socket, owner in (("s1", "ada"), ("s2", "bob"), ("s3", None)):
        await api.connect(socket, owner)
    assert await api.subscribe("s1", channel) == succeeded(channel)
    for socket in ("s2", "s3", "s4"):
        assert await api.subscribe(socket, channel) == refused(channel, "No such conversation.")
    another = f"conversation.{CONVERSATION[::-1]}"
    assert await api.subscribe("s1", another) == refused(another, "No such conversation.")
    assert await listeners(api, channel) == {"s1"}

    await api.store.conversations.delete(CONVERSATION, now=2)
    assert await api.subscribe("s1", channel) == refused(channel, "No such conversation.")


async def granting(api: WebSocketApi, **more: Any) -> tuple[Grant, str]:
    """Return a grant of a conversation that is ada's, and the conversation's channel."""
    record = ConversationRecord(id=CONVERSATION, owner="ada", created=1, updated=1)
    await api.store.conversations.put(record)
    granted, _ = await api.grants.make(record, "read", **more)
    return granted, f"conversation.{CONVERSATION}"


def connected_by(granted: Grant) -> dict[str, Any]:
    return {"owner": granted.owner, "grant": granted.id, "conversation": granted.conversation, "may_chat": False}


async def test_a_connection_by_a_grant() -> None:
    """It may listen to its conversation and to no other of the same owner, for as long as the grant holds."""
    api = WebSocketApi(open_to_all=False)
    granted, channel = await granting(api, seconds=60)
    other = new_conversation_id(os.urandom)
    await api.store.conversations.put(ConversationRecord(id=other, owner="ada", created=1, updated=1))
    await api.connect("s1", **connected_by(granted))
    assert await api.subscribe("s1", channel) == succeeded(channel)
    assert await api.subscribe("s1", f"conversation.{other}") == refused(
        f"conversation.{other}", "No such conversation."
    )
    assert await listeners(api, channel) == {"s1"}
    await api.clock.advance(60)
    assert await listeners(api, channel) == set()
    assert await api.subscribe("s1", channel) == refused(channel, "No such conversation.")


async def test_a_connection_by_a_grant_for_one_message() -> None:
    """A conversation's channel has all of its messages."""
    api = WebSocketApi(open_to_all=False)
    message = new_message_id(CONVERSATION, 1, os.urandom)
    granted, channel = await granting(api, message_id=message)
    await api.connect("s1", **connected_by(granted))
    assert await api.subscribe("s1", channel) == refused(channel, "The grant is for one message alone.")


async def test_another_owner_s_connection() -> None:
    """May listen to what is shared with them; once that is revoked, who listens by it is taken off, and no other."""
    api = WebSocketApi(open_to_all=False)
    granted, channel = await granting(api, reader="bob")
    for socket, owner in (("s1", "ada"), ("s2", "bob"), ("s3", "eve")):
        await api.connect(socket, owner)
    assert await api.subscribe("s1", channel) == await api.subscribe("s2", channel) == succeeded(channel)
    assert await api.subscribe("s3", channel) == refused(channel, "No such conversation.")
    await api.grants.revoke(CONVERSATION, granted.id)
    await api.store.subscriptions.remove_granted(channel, granted.id)
    assert await listeners(api, channel) == {"s1"}
    assert await api.subscribe("s2", channel) == refused(channel, "No such conversation.")


async def subscribing_while_revoked(moment: int) -> tuple[set[str], bool]:
    """Revoke a grant before the nth call that a subscribing makes; return who listens then, and whether it was."""
    memory, seen = MemoryCalls(), itertools.count(1)
    api = WebSocketApi(open_to_all=False, calls=memory)
    granted, channel = await granting(api, reader="bob")
    await api.connect("s2", "bob")
    was_revoked = False

    async def revoke() -> None:
        nonlocal was_revoked
        if next(seen) == moment:
            store = Store(memory, "table", clock=api.clock)
            await Grants(store.grants, clock=api.clock, random_bytes=os.urandom).revoke(CONVERSATION, granted.id)
            await store.subscriptions.remove_granted(channel, granted.id)
            was_revoked = True

    api.calls.inner = Hesitant(memory, revoke)
    await api.receive("s2", subscribing("s2", channel))
    api.calls.inner = memory
    return await listeners(api, channel), was_revoked


async def test_a_grant_that_is_revoked_while_somebody_subscribes_by_it() -> None:
    """At every call that the subscribing makes: afterwards nobody listens by it."""
    for moment in itertools.count(1):
        listening, was_revoked = await subscribing_while_revoked(moment)
        assert listening == (set() if was_revoked else {"s2"})
        if not was_revoked:
            assert moment > 8
            return


async def test_other_public_channels_are_open() -> None:
    """To everybody, known or not."""
    api = WebSocketApi(open_to_all=False)
    assert await api.subscribe("s1", "news") == succeeded("news")


async def test_where_nobody_is_asked_nothing_is_stored_of_a_connection() -> None:
    """A connection costs no write; that of somebody who is known costs one."""
    api = WebSocketApi()
    await api.connect("s1")
    assert api.calls.made == []
    await api.connect("s2", "ada")
    assert [operation for operation, _ in api.calls.made] == ["PutItem"]
    assert await api.store.sockets.caller("s2") == Caller(owner="ada")


# ---- whispers ----


async def test_a_whisper() -> None:
    """To the other members, with the data as it came, and not to the one who whispers."""
    api = WebSocketApi()
    for socket in ("s1", "s2", "s3"):
        await api.subscribe(socket, "private-a")
    await api.subscribe("s4", "private-b")
    data = {"name": "Ada", "nested": [1, 1.0, None, "ü\u2028"]}
    whisper = {"event": "client-typing", "data": data, "channel": "private-a"}
    for socket in ("s2", "s3"):
        api.clients.take(socket)
    assert await api.send("s1", whisper) == []
    assert api.clients.take("s2") == api.clients.take("s3") == [{**whisper, "data": data}]
    assert api.clients.take("s4") == []


async def test_a_whisper_without_data() -> None:
    """Passes null on."""
    api = WebSocketApi()
    await api.join("s1", "ada")
    await api.join("s2", "bob")
    api.clients.take("s2")
    await api.send("s1", {"event": "client-left", "channel": "presence-room"})
    assert api.clients.take("s2") == [{"event": "client-left", "channel": "presence-room", "data": None}]


async def test_who_is_no_member_may_not_whisper() -> None:
    """Neither who never was one, nor who has left, nor a member of another channel."""
    api = WebSocketApi()
    await api.subscribe("s1", "private-a")
    for socket in ("s2", "s3"):
        await api.subscribe(socket, "private-b" if socket == "s2" else "private-a")
    await api.send("s3", {"event": "unsubscribe", "data": {"channel": "private-a"}})
    api.clients.take("s1")
    whisper = {"event": "client-typing", "data": {}, "channel": "private-a"}
    for socket in ("s2", "s3", "s4"):
        said = "Subscribe to this channel before you whisper on it."
        assert await api.send(socket, whisper) == refused("private-a", said)
    assert api.clients.take("s1") == []


async def test_no_whisper_on_a_public_channel() -> None:
    """Anybody could be on it."""
    api = WebSocketApi()
    for socket in ("s1", "s2"):
        await api.subscribe(socket, "a")
    api.clients.take("s2")
    said = "Whispers are for private and presence channels."
    assert await api.send("s1", {"event": "client-typing", "data": {}, "channel": "a"}) == refused("a", said)
    assert api.clients.take("s2") == []


async def test_a_whisper_that_is_too_large() -> None:
    """One that would not fit into a frame is refused with words."""
    api = WebSocketApi()
    for socket in ("s1", "s2"):
        await api.subscribe(socket, "private-a")
    whisper = {"event": "client-typing", "data": "x" * 131_072, "channel": "private-a"}
    assert await api.send("s1", whisper) == refused("private-a", "The event has more than 131072 bytes.")


async def test_a_whisper_to_a_socket_that_is_gone() -> None:
    """Takes its subscription away, and the others get it."""
    api = WebSocketApi()
    for socket in ("s1", "s2", "s3"):
        await api.subscribe(socket, "private-a")
    api.clients.gone.add("s2")
    api.clients.take("s3")
    assert await api.send("s1", {"event": "client-typing", "data": {}, "channel": "private-a"}) == []
    assert len(api.clients.take("s3")) == 1
    assert await listeners(api, "private-a") == {"s1", "s3"}


# ---- leaving, and faults ----


async def test_disconnecting_removes_all_of_a_socket() -> None:
    """Its subscriptions and whose it was; nothing of another socket."""
    api = WebSocketApi(open_to_all=False)
    await api.connect("s1", "ada")
    for channel in ("a", "private-b"):
        await api.subscribe("s1", channel)
        await api.subscribe("s2", channel)
    await api.disconnect("s1")
    for channel in ("a", "private-b"):
        assert await listeners(api, channel) == {"s2"}
    assert await api.store.sockets.caller("s1") is None


async def test_a_socket_that_goes_before_it_is_answered() -> None:
    """Nothing fails."""
    api = WebSocketApi()
    api.clients.gone.add("s1")
    for frame in ({"event": "whoami"}, {"event": "shout"}, {"event": "subscribe", "data": {"channel": "a"}}):
        assert await api.send("s1", frame) == []


async def test_the_table_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """The client is told, in words that tell nothing of ours, and connections are accepted all the same."""
    api = WebSocketApi()
    api.calls.choose = lambda operation, payload: "refused"
    said = "The store is not available. Please try again."
    assert await api.subscribe("s1", "a") == refused("a", said)
    assert await api.send("s1", {"event": "unsubscribe", "data": {"channel": "a"}}) == refused("a", said)
    assert await api.send("s1", {"event": "client-x", "channel": "private-a"}) == refused("private-a", said)
    await api.connect("s1", "ada")
    await api.disconnect("s1")
    assert {record.message for record in caplog.records} == {"frame failed", "socket event failed"}


async def test_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    """The log says where, without the text, which may quote what somebody wrote; the client learns no more."""
    api = WebSocketApi()

    def fail(operation: str, payload: Payload) -> None:
        raise ValueError("a secret text")

    api.calls.choose = fail
    assert await api.subscribe("s1", "a") == refused("a", "Something went wrong on our side.")
    await api.connect("s1", "ada")
    assert [record.__dict__["exception_type"] for record in caplog.records] == ["ValueError", "ValueError"]
    assert "a secret text" not in json.dumps([record.__dict__ for record in caplog.records], default=str)


async def test_leaving_is_told_on_every_channel(caplog: pytest.LogCaptureFixture) -> None:
    """Also when one of them cannot be told."""
    api = WebSocketApi()
    for channel in ("presence-a", "presence-b"):
        await api.join("s1", "ada", channel)
        await api.join("s2", "bob", channel)
    api.clients.take("s2")
    api.calls.choose = lambda operation, payload: (
        "refused" if operation == "Query" and "N#presence-a" in str(payload) else None
    )
    await api.disconnect("s1")
    assert [frame["channel"] for frame in api.clients.take("s2")] == ["presence-b"]
    assert [record.message for record in caplog.records] == ["leaving not told"]
