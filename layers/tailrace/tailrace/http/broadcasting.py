"""``POST /broadcasting/auth``: the signature that lets a socket into a private or presence channel.

Laravel Echo's drivers ask for it before they subscribe: the API Gateway driver in JSON, pusher-js as a form.
"""

from __future__ import annotations

import inspect
from typing import Final
from urllib.parse import parse_qs

import msgspec

from tailrace.backend import Backend
from tailrace.broadcast.channels import (
    check_channel,
    check_socket_id,
    conversation_of,
    kind_of,
    owner_of,
    signature,
)
from tailrace.errors import ConfigurationError, Forbidden, NotFound, RequestError
from tailrace.http.requests import parse


class AuthRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Who wants to subscribe to what."""

    socket_id: str
    channel_name: str


_FIELDS: Final = frozenset(AuthRequest.__struct_fields__)


def auth_request(body: bytes, content_type: str | None) -> AuthRequest:
    """Return the body as what it asks, from JSON or from a form.

    Raises:
        RequestError: it is neither, or what it names can be neither a socket nor a channel.
        Unprocessable: a field is missing; the message names it.
    """
    if content_type is not None and content_type.lower().startswith("application/x-www-form-urlencoded"):
        try:
            fields = parse_qs(body.decode(), strict_parsing=True, max_num_fields=100)
        except ValueError as error:
            raise RequestError("The body is not a valid form.") from error
        # What a page adds to its form, such as a token against forgery, is its own.
        body = msgspec.json.encode({name: values[-1] for name, values in fields.items() if name in _FIELDS})
    asked = parse(body, AuthRequest)
    check_socket_id(asked.socket_id)
    check_channel(asked.channel_name)
    return asked


async def channel_auth(backend: Backend, owner: str, asked: AuthRequest) -> dict[str, str]:
    """Return ``{"auth"}`` for a private channel, ``{"auth", "channel_data"}`` for a presence channel.

    ``channel_data`` says who it is: the owner, or the socket where nobody is asked who they are.

    Raises:
        Forbidden: the owner may not be on this channel.
        ConfigurationError: nothing is broadcast, or there is no secret to sign with.
        StoreError: the table cannot be read.
    """
    if not backend.broadcast.on:
        raise ConfigurationError(
            "Nothing is broadcast: TAILRACE_WEBSOCKET_URL is not set, or TAILRACE_BROADCAST is off."
        )
    channel = asked.channel_name
    if not await _may_join(backend, owner, channel):
        raise Forbidden("You may not subscribe to this channel.")
    secret = await backend.broadcast.secret()
    if kind_of(channel) == "private":
        return {"auth": signature(secret, asked.socket_id, channel)}
    user_id = asked.socket_id if backend.settings.auth == "none" else owner
    channel_data = msgspec.json.encode({"user_id": user_id, "user_info": {}}).decode()
    return {"auth": signature(secret, asked.socket_id, channel, channel_data), "channel_data": channel_data}


async def _may_join(backend: Backend, owner: str, channel: str) -> bool:
    if kind_of(channel) == "public":
        return False  # nobody needs a signature for it
    conversation_id = conversation_of(channel)
    if conversation_id is not None:
        try:
            return (await backend.store.conversations.get(conversation_id)).owner == owner
        except NotFound:
            return False
    if (whose := owner_of(channel)) is not None:
        return whose == owner
    for rule in backend.channel_rules:
        allowed = rule(owner, channel)
        if await allowed if inspect.isawaitable(allowed) else allowed:
            return True
    return False
