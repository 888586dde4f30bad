"""Signed calls to one host of AWS, asynchronous and lean: aiohttp for the transport, a signer of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from yarl import URL

from tailrace.aws.credentials import FindCredentials, default_credentials
from tailrace.aws.sessions import Sessions, open_connection
from tailrace.aws.signing import NONE, Signing
from tailrace.clock import Clock


class NoAnswer(Exception):
    """There was none in time, or no connection. The call may have been done all the same; the text is for the log."""


class Answer(NamedTuple):
    """What a service answers."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def endpoint(service: str, region: str) -> str:
    """Return where a service listens in a region."""
    return f"https://{service}.{region}.{'amazonaws.com.cn' if region.startswith('cn-') else 'amazonaws.com'}"


class SignedCalls:
    """Calls to one host. Nothing is tried again here.

    Args:
        service: as the scope of a signature names it, such as ``execute-api``.
        region: the AWS region, which is part of the signature.
        url: any of that host, percent-encoded.
        clock: dates the signatures.
        credentials: gives the current credentials; botocore's usual chain when None.
        timeout: seconds that one call may take.
        limit: connections open at once.
    """

    def __init__(
        self,
        service: str,
        region: str,
        url: URL,
        *,
        clock: Clock,
        credentials: FindCredentials | None,
        timeout: float,
        limit: int,
    ) -> None:
        self._origin = url.origin()
        self._signing = Signing(service, region, url)
        self._clock = clock
        self._credentials = credentials
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._sessions = Sessions(limit)

    async def call(self, method: str, path: str, body: bytes, further: Mapping[str, str] = NONE) -> Answer:
        """Make one call.

        Args:
            path: percent-encoded; there is no query.
            further: headers that are sent and signed too, without spaces at their ends.

        Raises:
            NoAnswer: there was none in time.
            ConfigurationError: there are no credentials.
        """
        if self._credentials is None:
            self._credentials = await asyncio.to_thread(default_credentials)
        now = self._clock.now() // 1_000_000
        headers = self._signing.headers(method, path, body, self._credentials(), now, further)
        url = URL(f"{self._origin}{path}", encoded=True)
        try:
            async with self._sessions.current().request(
                method, url, data=body, headers=headers, timeout=self._timeout
            ) as response:
                # To its end, even of nothing, or the connection is not kept.
                return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(type(error).__name__) from error

    async def connect(self) -> None:
        """Open a connection ahead of the first call."""
        await open_connection(self._sessions.current(), self._origin)

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        await self._sessions.close()
