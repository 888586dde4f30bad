"""The real objects, wired once: what the functions, the local stack and a user's own function share."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from tailrace.aws.credentials import prepare_chain
from tailrace.aws.secrets import read_key
from tailrace.aws.sessions import Sessions
from tailrace.clock import Clock, SystemClock
from tailrace.errors import ConfigurationError
from tailrace.identity.auth import Auth
from tailrace.identity.grants import Grants
from tailrace.identity.limits import Limits, SocketLimits
from tailrace.ids import RandomBytes
from tailrace.protocols import DEFAULT, find_protocol
from tailrace.providers import (
    Provider,
    ProviderRequest,
    check_name,
    import_provider,
    names,
    open_provider,
    variables,
)
from tailrace.providers.own_code import load
from tailrace.reply.load import Load
from tailrace.reply.open_replies import OpenReplies
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store

if TYPE_CHECKING:
    from tailrace.broadcast import Broadcast

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
"""How long closing waits for replies that have just been cancelled."""

ChannelRule = Callable[[str, str], bool | Awaitable[bool]]
"""Takes an owner and a channel's name; returns whether they may subscribe."""


StartRule = Callable[[str, ProviderRequest], Awaitable[None] | None]
"""Takes an owner, and what is to be asked for them; raises an error if it is not to be asked."""


class Backend:
    """Everything a conversation needs from outside.

    Args:
        settings: read from the environment when None.
        store: made from the settings when None; tests hand in their own.
        providers: answers from code of your own, by the names that starts name them by (docs/own-code.md), beside those
            of the settings.
        tools: functions of your own that starts may name as tools, beside those of the settings.

    Attributes:
        settings, clock, store: as they were given, or made.
        own_providers: those of your own: each the code, or where it is.
        own_tools: likewise.
        open_table: opens a connection to the table ahead of the first request; None where the store was handed in.
        channel_rules: your own private and presence channels: whoever one of these lets in may subscribe.
        load: how busy this process is.
        limits, socket_limits: what one identity, and one connection, may use, by the settings.
        grants: what owners let others do in their conversations.
        start_rules: rules of your own for starts over HTTP, such as plans and credits: each is given the owner and what
            is asked, and raises ``RateLimited``, or another error of ours, if that is not to be. Nothing is stored.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        random_bytes: RandomBytes = os.urandom,
        providers: Mapping[str, Any] | None = None,
        tools: Sequence[Callable[..., Any]] = (),
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self.own_providers: Mapping[str, Any] = {**self.settings.own_providers, **(providers or {})}
        self._opened: dict[str, Provider] = {}  # of these
        self.own_tools: Sequence[Any] = (*self.settings.own_tools, *tools)
        self.clock = clock or SystemClock()
        self.random_bytes = random_bytes
        self._replies: set[asyncio.Task[Any]] = set()
        self._closers: list[Callable[[], Awaitable[object]]] = []
        self.open_table: Callable[[], Coroutine[Any, Any, None]] | None = None
        if store is None:
            dynamodb = DynamoDB(
                region=self.settings.region, endpoint_url=self.settings.dynamodb_endpoint, clock=self.clock
            )
            self.on_close(dynamodb.close)
            self.open_table = dynamodb.connect
            store = Store(
                dynamodb,
                self.settings.table,
                clock=self.clock,
                retention=self.settings.retention,
                random_bytes=random_bytes,
            )
        self.store = store
        self.open_replies = OpenReplies(
            store,
            clock=self.clock,
            random_bytes=random_bytes,
            lease=self.settings.lease,
            keep_reasoning=self.settings.keep_reasoning,
        )
        self.load = Load(self.clock)
        self._sessions = Sessions(limit=1024)
        self.grants = Grants(store.grants, clock=self.clock, random_bytes=random_bytes)
        self.channel_rules: list[ChannelRule] = []
        self.start_rules: list[StartRule] = []
        self.limits = Limits(
            open=self.settings.limit_open,
            starts=self.settings.limit_starts,
            tokens=self.settings.limit_tokens,
            conversations=self.settings.limit_conversations,
        )
        self.socket_limits = SocketLimits(
            channels=self.settings.limit_channels,
            whispers=self.settings.limit_whispers,
            sockets=self.settings.limit_sockets,
        )
        self._broadcast: Broadcast | None = None

    @cached_property
    def auth(self) -> Auth:
        """Who is asking. Made when first asked for: with tokens that imports what checks them, which a function that
        asks nobody does not have. One that does asks as it starts, so that no request waits for it."""
        return Auth(
            self.settings,
            grants=self.grants,
            clock=self.clock,
            sessions=self._sessions,
            read_secret=_read_secret,
        )

    @property
    def broadcast(self) -> Broadcast:
        """What sends to subscribers. It is called with an event of your own: ``await backend.broadcast(event, data,
        channel)``."""
        if self._broadcast is None:
            # Imported when first asked for: who does not broadcast does not pay for it.
            from tailrace.broadcast import Broadcast

            self._broadcast = Broadcast(self.settings, self.store, clock=self.clock, read_secret=_read_secret)
        return self._broadcast

    async def provider(self, name: str) -> Provider:
        """Return a provider by name.

        Raises:
            UnknownProvider: there is none of that name.
            ConfigurationError: it needs a key and there is none, or it cannot be read.
        """
        check_name(name, self.own_providers)
        if name in self.own_providers:
            return await self._own_provider(name)
        config = self.settings.provider_config(name)
        source = self.settings.key_source(name)
        if config.api_key is None and source is not None:
            key = await asyncio.to_thread(read_key, *source, variables(name).keys)
            config = msgspec.structs.replace(config, api_key=key)
        try:
            return open_provider(name, config, self._sessions.current())
        except ConfigurationError as error:
            if source is None or source[0] != "keys" or config.api_key is not None:
                raise
            raise ConfigurationError(f"{error.message} It is not in the secret {source[1]} either.") from error

    def provider_names(self) -> list[str]:
        """Return the names of all providers, with those of your own."""
        return names(self.own_providers)

    async def _own_provider(self, name: str) -> Provider:
        if name not in self._opened:
            # Imported where there is one, and in a thread: a framework may take a second to import.
            from tailrace.providers.own import own_provider

            given = self.own_providers[name]
            if isinstance(given, str):
                given = await asyncio.to_thread(load, given, "TAILRACE_PROVIDERS")
            self._opened[name] = own_provider(name, given)
        return self._opened[name]

    def _import_ahead(self) -> None:
        """Import what the first reply would: in a snapshot it is there for the first reply of every environment."""
        import encodings.idna  # noqa: F401  # as whoever looks up a host does

        prepare_chain()
        find_protocol(DEFAULT)
        if self.settings.provider in names():
            import_provider(self.settings.provider)
        if self.settings.broadcasting:
            import tailrace.broadcast  # noqa: F401

    async def _load_own_code(self) -> None:
        for name in self.own_providers:
            try:
                await self._own_provider(name)
            except ConfigurationError as error:  # whoever asks for it is told
                logger.error("not configured", extra={"missing": error.message})

    @property
    def closing(self) -> OpenReplies:
        """``open_replies`` by the name it had before."""
        return self.open_replies

    async def identify(self, scope: Mapping[str, Any]) -> str:
        """Return the owner that a request of this ASGI scope acts for (see ``Auth``).

        Raises:
            Unauthenticated: nobody can be seen behind it.
            Forbidden, NotFound: it comes with a token that is not for this.
            IssuerUnavailable: the issuer of the tokens gives no keys now.
        """
        return await self.auth.identify(scope)

    def on_close(self, closer: Callable[[], Awaitable[object]]) -> None:
        """Close something else together with this."""
        self._closers.append(closer)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep ``close`` waiting while this task writes a reply: a server that shuts down cancels its tasks and
        closes what they need without waiting for them."""
        task = asyncio.current_task()
        assert task is not None
        self._replies.add(task)
        self.load.opened()
        try:
            yield
        finally:
            self.load.closed()
            self._replies.discard(task)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Serve from here to the end of the block: a connection to the table is opened meanwhile, and all is closed in
        the end. Code of your own is imported before: no request waits for that. For a snapshot nothing is opened: a
        connection would be dead when it is restored, and the first call would wait in vain for an answer."""
        opening = None
        if self.settings.in_snapshot:
            await asyncio.to_thread(self._import_ahead)
        elif self.open_table is not None:
            opening = asyncio.ensure_future(self.open_table())
        await self._load_own_code()
        try:
            yield
        finally:
            if opening is not None:
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Close the connections that belong to the running event loop, once open replies have stored their end."""
        loop = asyncio.get_running_loop()
        replies = [task for task in self._replies if task.get_loop() is loop]
        if replies:
            await asyncio.wait(replies, timeout=CLOSE_SECONDS)
        if self._broadcast is not None:
            await self._broadcast.close()
        if "auth" in self.__dict__:
            await self.auth.close()
        await self._sessions.close()
        for closer in self._closers:
            await closer()


async def _read_secret(name: str) -> str:
    secret = await asyncio.to_thread(read_key, "secret", name)
    assert secret is not None  # only one of many keys may be missing
    return secret


_default: Backend | None = None


def default_backend() -> Backend:
    """Return the backend of the environment, made when first asked for."""
    global _default  # one per process, as the environment is
    if _default is None:
        _default = Backend()
    return _default
