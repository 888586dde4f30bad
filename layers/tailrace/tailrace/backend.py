"""The real objects, wired once: what the functions, the local stack and a user's own function share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import aiohttp

from tailrace.clock import Clock, SystemClock
from tailrace.ids import RandomBytes
from tailrace.providers import Provider, check_name, open_provider
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store

KEY_MAX_AGE = 300
"""Seconds a key from Secrets Manager or Parameter Store is kept before it is read again."""


class Backend:
    """Everything a conversation needs from outside.

    Args:
        settings: read from the environment when None.
        store: made from the settings when None; tests hand in their own.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self.clock = clock or SystemClock()
        self.random_bytes = random_bytes
        self._closers: list[Callable[[], Awaitable[object]]] = []
        if store is None:
            dynamodb = DynamoDB(
                region=self.settings.region, endpoint_url=self.settings.dynamodb_endpoint, clock=self.clock
            )
            self.on_close(dynamodb.close)
            store = Store(dynamodb, self.settings.table, clock=self.clock, retention=self.settings.retention)
        self.store = store
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def provider(self, name: str) -> Provider:
        """Return a provider by name.

        Raises:
            UnknownProvider: there is none of that name.
            ConfigurationError: it needs a key and there is none.
        """
        config = self.settings.provider_config(check_name(name))
        source = self.settings.key_source(name)
        if config.api_key is None and source is not None:
            key = await asyncio.to_thread(_read_key, *source)
            config = type(config)(api_key=key, base_url=config.base_url, default_model=config.default_model)
        return open_provider(name, config, self._session())

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            for old in [old for old in self._sessions if old.is_closed()]:
                del self._sessions[old]
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1024), auto_decompress=True)
            self._sessions[loop] = session
        return session

    def on_close(self, closer: Callable[[], Awaitable[object]]) -> None:
        """Close something else together with this."""
        self._closers.append(closer)

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()
        for closer in self._closers:
            await closer()


def _read_key(kind: str, where: str) -> str:
    # Imported when a key is first read: it costs boto3 and about 0.4 s, which a key in the environment saves.
    from aws_lambda_powertools.utilities import parameters

    if kind == "secret":
        return str(parameters.get_secret(where, max_age=KEY_MAX_AGE))
    return str(parameters.get_parameter(where, decrypt=True, max_age=KEY_MAX_AGE))


_default: Backend | None = None


def default_backend() -> Backend:
    """Return the backend of the environment, made when first asked for."""
    global _default  # one per process, as the environment is
    if _default is None:
        _default = Backend()
    return _default
