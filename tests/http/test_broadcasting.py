"""``POST /broadcasting/auth``: who may join which channel, and how that is signed."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tailrace.broadcast.channels import is_signed
from tailrace.conversation.conversation import Conversation
from tailrace.errors import Forbidden
from tailrace.http.broadcasting import AuthRequest, channel_auth
from tailrace.settings import Settings

from tests.http.conftest import Client, Serve

pytestmark = pytest.mark.anyio

SECRET = "the channels' secret"
SOCKET = "L0SM9cOFvHcCIhw="
FORBIDDEN = (403, {"error": {"type": "forbidden", "message": "You may not subscribe to this channel."}})


def broadcasting(settings: Settings, **more: Any) -> Settings:
    return msgspec.structs.replace(
        settings, websocket_url="http://127.0.0.1:1/live", **{"channel_secret": SECRET, **more}
    )


@pytest.fixture
async def client(settings: Settings, serve: Serve) -> AsyncIterator[Client]:
    """A client of the application with broadcasting on."""
    async with serve(broadcasting(settings)) as client:
        yield client


async def ask(client: Client, channel: str, socket: str = SOCKET) -> tuple[int, Any]:
    return await client.json("POST", "/broadcasting/auth", {"socket_id": socket, "channel_name": channel})


async def test_a_private_channel(client: Client) -> None:
    """HMAC-SHA256 of socket and channel in lowercase hex, and nothing else: the driver sends on all that it gets."""
    channel = f"private-conversation.{await client.conversation()}"
    expected = hmac.new(SECRET.encode(), f"{SOCKET}:{channel}".encode(), hashlib.sha256).hexdigest()
    assert await ask(client, channel) == (200, {"auth": expected})


async def test_a_presence_channel(client: Client) -> None:
    """The member is signed too. Where nobody is asked who they are, it is the socket."""
    channel = f"presence-conversation.{await client.conversation()}"
    status, answer = await ask(client, channel)
    assert status == 200
    assert json.loads(answer["channel_data"]) == {"user_id": SOCKET, "user_info": {}}
    assert is_signed(answer["auth"], SECRET, SOCKET, channel, answer["channel_data"])
    assert answer.keys() == {"auth", "channel_data"}


async def test_a_form(client: Client) -> None:
    """As pusher-js sends it."""
    channel = f"private-conversation.{await client.conversation()}"
    data = {"socket_id": SOCKET, "channel_name": channel}
    async with client.session.post("/broadcasting/auth", data=data) as response:
        assert (response.status, await response.json()) == await ask(client, channel)


async def test_an_owner_s_channel(client: Client) -> None:
    """Is that owner's alone."""
    status, answer = await ask(client, "private-user.anonymous")
    assert (status, len(answer["auth"])) == (200, 64)
    for channel in ("private-user.ada", "private-user.", "presence-user.anonymous"):
        assert await ask(client, channel) == FORBIDDEN, channel


async def test_what_one_may_not_join(client: Client) -> None:
    """A conversation that is not there or was deleted, a name that nobody allows; a public one needs no signature."""
    conversation = await client.conversation()
    await client.json("DELETE", f"/conversations/{conversation}")
    for name in (conversation, "x", "", conversation[::-1]):
        for kind in ("private", "presence"):
            assert await ask(client, f"{kind}-conversation.{name}") == FORBIDDEN, (kind, name)
    for channel in ("private-room", "presence-room", "room", f"conversation.{await client.conversation()}", "private-"):
        assert await ask(client, channel) == FORBIDDEN, channel


async def test_somebody_else_s_conversation(client: Client) -> None:
    """Is as closed as one that is not there."""
    conversation = await Conversation.create(owner="ada", backend=client.backend)
    channel = f"private-conversation.{conversation.id}"
    assert await ask(client, channel) == FORBIDDEN
    with pytest.raises(Forbidden, match="You may not subscribe to this channel"):
        await channel_auth(client.backend, "bob", AuthRequest(SOCKET, channel))
    assert await channel_auth(client.backend, "ada", AuthRequest(SOCKET, channel)) == {
        "auth": hmac.new(SECRET.encode(), f"{SOCKET}:{channel}".encode(), hashlib.sha256).hexdigest()
    }


async def test_who_is_known_is_the_member(settings: Settings, serve: Serve) -> None:
    """With an identity, the member of a presence channel is the owner, on whatever socket."""
    async with serve(broadcasting(settings, auth="iam")) as client:
        arn = "arn:aws:iam::123456789012:user/ada"
        conversation = await Conversation.create(owner=arn, backend=client.backend)
        asked = AuthRequest(SOCKET, f"presence-conversation.{conversation.id}")
        answer = await channel_auth(client.backend, arn, asked)
        assert json.loads(answer["channel_data"]) == {"user_id": arn, "user_info": {}}
        assert "auth" in await channel_auth(client.backend, arn, AuthRequest(SOCKET, f"private-user.{arn}"))
        assert (await ask(client, asked.channel_name))[1]["error"]["type"] == "unauthenticated"


async def test_rules_of_one_s_own(client: Client) -> None:
    """Allow other names, asked in turn; they cannot open a conversation or another's channel."""
    asked = []

    async def lobby(owner: str, channel: str) -> bool:
        asked.append((owner, channel))
        return channel == "private-lobby"

    client.backend.channel_rules += [lobby, lambda owner, channel: channel.startswith("presence-")]
    assert (await ask(client, "private-lobby"))[0] == (await ask(client, "presence-room"))[0] == 200
    assert await ask(client, "private-room") == FORBIDDEN
    assert asked == [("anonymous", name) for name in ("private-lobby", "presence-room", "private-room")]
    for channel in ("presence-conversation.x", "private-user.ada"):
        assert await ask(client, channel) == FORBIDDEN


@pytest.mark.parametrize(
    ("content_type", "body", "status", "said"),
    [
        ("application/json", b"{", 400, "The body is not valid JSON."),
        ("application/json", b"{}", 422, "The body does not validate: Object missing required field `socket_id`."),
        (
            "application/json",
            b'{"socket_id":"a","channel_name":7}',
            422,
            "The body does not validate: Expected `str`, got `int` - at `$.channel_name`.",
        ),
        ("application/json", b'{"socket_id":"a:b","channel_name":"a"}', 400, "The socket id is not one of ours."),
        (
            "application/json",
            b'{"socket_id":"a","channel_name":"a b"}',
            400,
            "A channel's name has 1 to 255 printable characters, and no space or brace.",
        ),
        ("application/x-www-form-urlencoded", b"nothing", 400, "The body is not a valid form."),
        ("application/x-www-form-urlencoded", b"\xff=1", 400, "The body is not a valid form."),
        (
            "application/x-www-form-urlencoded; charset=UTF-8",
            b"socket_id=a",
            422,
            "The body does not validate: Object missing required field `channel_name`.",
        ),
    ],
)
async def test_bad_input(client: Client, content_type: str, body: bytes, status: int, said: str) -> None:
    """The same shape and words as everywhere."""
    headers = {"Content-Type": content_type}
    async with client.session.post("/broadcasting/auth", data=body, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["message"]) == (status, said)


@pytest.mark.parametrize(
    "missing", [{"channel_secret": None}, {"websocket_url": None}, {"broadcast": False}], ids=lambda given: str(given)
)
async def test_what_is_not_set_up(settings: Settings, serve: Serve, missing: dict[str, Any]) -> None:
    """503, and the log has what is missing."""
    async with serve(msgspec.structs.replace(broadcasting(settings), **missing)) as client:
        status, content = await ask(client, f"private-conversation.{await client.conversation()}")
        assert (status, content["error"]["message"]) == (503, "This is not set up on the server.")


async def test_the_openapi_document(client: Client) -> None:
    """It says what the body is, although it may come in two ways."""
    _, document = await client.json("GET", "/openapi.json")
    operation = document["paths"]["/broadcasting/auth"]["post"]
    content = operation["requestBody"]["content"]
    assert content.keys() == {"application/json", "application/x-www-form-urlencoded"}
    assert content["application/json"]["schema"]["required"] == ["socket_id", "channel_name"]
