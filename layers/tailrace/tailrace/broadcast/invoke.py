"""Calling a Lambda function and waiting for its answer, as lean as the other calls
(https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html)."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from tailrace.aws.credentials import FindCredentials, default_credentials
from tailrace.aws.sessions import Sessions
from tailrace.aws.signing import Signing
from tailrace.clock import Clock, SystemClock
from tailrace.events import Json


class InvokeError(Exception):
    """The function was not called, failed, or gave no answer in time. The text is for the log."""


class Invoke:
    """One function.

    Args:
        function: its name or ARN.
        region: the AWS region, which is part of the signature.
        endpoint_url: where to call; the region's own endpoint when None.
        credentials: gives the current credentials; botocore's usual chain when None.
        timeout: seconds that a call may take.
    """

    def __init__(
        self,
        function: str,
        *,
        region: str,
        clock: Clock | None = None,
        endpoint_url: str | None = None,
        credentials: FindCredentials | None = None,
        timeout: float = 10.0,
    ) -> None:
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        base = (endpoint_url or f"https://lambda.{region}.{suffix}").rstrip("/")
        url = f"{base}/2015-03-31/functions/{quote(function, safe='')}/invocations"
        self._url = URL(url, encoded=True)
        self._signing = Signing("lambda", region, self._url)
        self._clock = clock or SystemClock()
        self._credentials = credentials
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._sessions = Sessions(limit=64)

    async def call(self, payload: Json) -> dict[str, Any]:
        """Call the function, once; return what it returns.

        Raises:
            InvokeError: it was not called, failed, or did not return an object in time.
        """
        if self._credentials is None:
            self._credentials = await asyncio.to_thread(default_credentials)
        body = msgspec.json.encode(payload)
        now = self._clock.now() // 1_000_000
        path = self._url.raw_path
        headers = self._signing.headers(
            "POST", path, body, self._credentials(), now, {"Content-Type": "application/json"}
        )
        try:
            async with self._sessions.current().post(
                self._url, data=body, headers=headers, timeout=self._timeout
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise InvokeError(type(error).__name__) from error
        if response.status != 200:
            raise InvokeError(f"status {response.status}")
        failed = response.headers.get("X-Amz-Function-Error")
        if failed is not None:
            raise InvokeError(f"the function failed: {failed}")
        try:
            return msgspec.json.decode(answer, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise InvokeError("the function returned no object") from error

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        await self._sessions.close()
