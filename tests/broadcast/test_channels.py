"""Channels' names and their signatures."""

from __future__ import annotations

import pytest
from tailrace.broadcast.channels import (
    check_channel,
    check_socket_id,
    conversation_channel,
    conversation_of,
    is_signed,
    kind_of,
    owner_channel,
    owner_of,
    signature,
)
from tailrace.errors import RequestError


def test_pusher_s_own_example() -> None:
    """The worked example of Pusher's page on signatures, private and presence.

    https://pusher.com/docs/channels/library_auth_reference/auth-signatures/
    """
    secret, socket = "7ad3773142a6692b25b8", "1234.1234"
    private = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    assert signature(secret, socket, "private-foobar") == private
    data = '{"user_id":10,"user_info":{"name":"Mr. Channels"}}'
    presence = "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"
    assert signature(secret, socket, "presence-foobar", data) == presence


def test_a_signature_opens_one_channel_for_one_socket() -> None:
    """Another socket, channel, member, secret or text is refused."""
    made = signature("secret", "socket", "presence-a", "{}")
    assert is_signed(made, "secret", "socket", "presence-a", "{}")
    assert not is_signed(made, "secret", "socket2", "presence-a", "{}")
    assert not is_signed(made, "secret", "socket", "presence-b", "{}")
    assert not is_signed(made, "secret", "socket", "presence-a", '{"user_id":"other"}')
    assert not is_signed(made, "secret", "socket", "presence-a")
    assert not is_signed(made, "other", "socket", "presence-a", "{}")
    for wrong in ("", made.upper(), made[:-1], "ünï", "\ud800"):
        assert not is_signed(wrong, "secret", "socket", "presence-a", "{}")


def test_what_names_mean() -> None:
    """The prefix says who may subscribe, the rest what it is about."""
    assert [kind_of(name) for name in ("x", "private-x", "presence-x", "xprivate-")] == [
        "public",
        "private",
        "presence",
        "public",
    ]
    for name in (conversation_channel("c1"), "private-conversation.c1", "presence-conversation.c1"):
        assert conversation_of(name) == "c1"
        assert owner_of(name) is None
    arn = "arn:aws:iam::123456789012:user/me"
    assert owner_of(owner_channel(arn)) == arn
    assert conversation_of(owner_channel(arn)) is None
    assert conversation_of("conversation.") is None
    assert conversation_of("client-conversation.c1") is None


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a\x00", "x" * 256, "\ud800", 'presence-a:{"user_id":1}'])
def test_a_name_that_cannot_be(name: str) -> None:
    """It is refused, and said how a name has to be."""
    with pytest.raises(RequestError, match="1 to 255 printable characters, and no space or brace"):
        check_channel(name)
    assert check_channel("private-user.arn:aws:iam::1:user/ü") == "private-user.arn:aws:iam::1:user/ü"


@pytest.mark.parametrize("text", ["", "a/b", "a?b", "a b", "x" * 129, "../x"])
def test_a_socket_id_that_cannot_be(text: str) -> None:
    """What is put into a path is nothing but an id."""
    with pytest.raises(RequestError, match="socket id is not one of ours"):
        check_socket_id(text)
    assert check_socket_id("L0SM9cOFvHcCIhw=") == "L0SM9cOFvHcCIhw="
