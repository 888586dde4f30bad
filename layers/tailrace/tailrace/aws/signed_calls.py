"""Signed calls to one host of AWS, asynchronous and lean: a transport and a signer of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from yarl import URL

from tailrace.aws.credentials import FindCredentials, default_credentials
from tailrace.aws.exchange import Answer, Exchange
from tailrace.aws.per_loop import PerLoop
from tailrace.aws.signing import NONE, Signing
from tailrace.clock import Clock

OPEN_SECONDS: Final = 2.0
"""How long a connection may take that is opened ahead of its first call."""


class NoAnswer(Exception):
    """There was none in time, or no connection. The call may have been done all the same; the text is for the log."""


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
        self._signing = Signing(service, region, url)
        self._clock = clock
        self._credentials = credentials
        self._timeout = timeout
        self._exchanges = PerLoop(lambda: Exchange(url, limit))

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
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._signing.host}\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchanges.current().call(head.encode("ascii") + body)
        except OSError as error:  # a TimeoutError is one
            raise NoAnswer(type(error).__name__) from error

    async def connect(self) -> None:
        """Open a connection ahead of the first call. If none can be opened that is no error: who calls finds out."""
        with suppress(OSError):
            async with asyncio.timeout(OPEN_SECONDS):
                await self._exchanges.current().connect()

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        exchange = self._exchanges.take()
        if exchange is not None:
            exchange.close()
