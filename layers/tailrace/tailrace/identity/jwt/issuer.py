"""Tokens signed by an issuer that publishes its keys (https://openid.net/specs/openid-connect-discovery-1_0.html).

Its keys are fetched when the first token comes, kept for an hour, and fetched again when a token names one that is not
among them: issuers publish a new key before they use it. That is done at most once a minute, so nobody who makes up
names of keys makes us ask more often. An issuer that cannot be reached, or does not answer, delays and stops nobody for
a day whose key is known: keys that are an hour old are used, and fetched again beside.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tailrace.aws.sessions import Sessions
from tailrace.clock import Clock
from tailrace.errors import IssuerUnavailable, Unauthenticated
from tailrace.identity.jwt.signed import (
    PUBLISHED,
    Header,
    PublishedKey,
    check_algorithm,
    published_key,
    verified_payload,
)

FRESH_SECONDS: Final = 3600.0
STALE_SECONDS: Final = 24 * 3600.0
PAUSE_SECONDS: Final = 60.0
"""Between two fetches, if the first one brought keys."""

RETRY_SECONDS: Final = 5.0
"""Between two fetches, if the first one brought none."""

FETCH_SECONDS: Final = 5.0
LARGEST_DOCUMENT: Final = 256 * 1024
MOST_KEYS: Final = 100


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct):
    keys: list[Any]


class Issuer:
    """An issuer and its keys.

    Args:
        url: what its tokens have as ``iss``; its documents lie below.
    """

    def __init__(self, url: str, *, sessions: Sessions, clock: Clock) -> None:
        self._url = url
        self._sessions = sessions
        self._clock = clock
        self._keys: list[PublishedKey] = []
        self._fetched: float | None = None
        self._tried: float | None = None
        self._locks: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}
        self._beside: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    async def check(self, token: str, header: Header) -> bytes:
        """Return the payload of a token that is signed with a key of the issuer.

        Raises:
            Unauthenticated: it is not, or says that it is signed in another way.
            IssuerUnavailable: the keys cannot be had.
        """
        check_algorithm(header, PUBLISHED)
        key = await self._key(header)
        if header.algorithm not in key.algorithms:
            raise Unauthenticated("The token's algorithm is not the one of its key.", "invalid_token")
        return verified_payload(token, key.key, header.algorithm)

    async def _key(self, header: Header) -> PublishedKey:
        if self._find(header) is None or self._age(self._fetched) > STALE_SECONDS:
            await self._refreshed(header)
        elif self._age(self._fetched) > FRESH_SECONDS:
            self._refresh_beside(header)
        if self._age(self._fetched) > STALE_SECONDS:
            raise IssuerUnavailable("The token cannot be checked now. Please try again.")
        key = self._find(header)
        if key is None:
            raise Unauthenticated("The token is signed with a key that its issuer does not publish.", "invalid_token")
        return key

    def _find(self, header: Header) -> PublishedKey | None:
        # A token that names no key is of the only one there is for its algorithm, or of none.
        found = [key for key in self._keys if header.key_id in (None, key.name)]
        if len(found) > 1:
            found = [key for key in found if header.algorithm in key.algorithms]
        return found[0] if len(found) == 1 else None

    async def _refreshed(self, header: Header) -> None:
        async with self._lock():
            await self._refresh(header)

    def _refresh_beside(self, header: Header) -> None:
        """Fetch the keys while requests go on with those that are known; one fetch at a time in an event loop."""
        loop = asyncio.get_running_loop()
        if loop in self._beside and not self._beside[loop].done():
            return
        self._beside = {each: task for each, task in self._beside.items() if not each.is_closed()}
        self._beside[loop] = loop.create_task(self._refreshed(header))

    async def close(self) -> None:
        """Fetch nothing more in the running event loop."""
        task = self._beside.pop(asyncio.get_running_loop(), None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _refresh(self, header: Header) -> None:
        """Fetch the keys, unless somebody else just has, or tried."""
        is_fresh = self._age(self._fetched) <= FRESH_SECONDS
        if is_fresh and self._find(header) is not None:
            return
        if self._age(self._tried) < (PAUSE_SECONDS if is_fresh else RETRY_SECONDS):
            return
        try:
            discovered = msgspec.json.decode(
                await self._get(self._url.rstrip("/") + "/.well-known/openid-configuration"), type=_Discovery
            )
            if discovered.issuer != self._url or urlsplit(discovered.jwks_uri).scheme != urlsplit(self._url).scheme:
                return  # not the document of this issuer, or one that points to where nobody should ask
            listed = msgspec.json.decode(await self._get(discovered.jwks_uri), type=_KeySet).keys
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError, ValueError):
            return  # what is known goes on to be good for a while
        finally:
            self._tried = self._clock.monotonic()  # whoever waited for this does not wait for another
        self._keys = [key for entry in listed[:MOST_KEYS] if (key := published_key(entry)) is not None]
        self._fetched = self._clock.monotonic()

    async def _get(self, url: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        pieces, size = [], 0
        async with self._sessions.current().get(url, timeout=timeout, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > LARGEST_DOCUMENT:
                    raise ValueError("too large")
                pieces.append(piece)
        return b"".join(pieces)

    def _age(self, then: float | None) -> float:
        return float("inf") if then is None else self._clock.monotonic() - then

    def _lock(self) -> asyncio.Lock:
        """Return the running loop's lock: requests that wait for the same keys fetch them once."""
        loop = asyncio.get_running_loop()
        for old in [old for old in self._locks if old.is_closed()]:
            del self._locks[old]
        return self._locks.setdefault(loop, asyncio.Lock())
