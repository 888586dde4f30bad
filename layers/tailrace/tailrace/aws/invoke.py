"""Calling a Lambda function, with its answer or without (https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from yarl import URL

from tailrace.aws.credentials import FindCredentials
from tailrace.aws.signed_calls import NoAnswer, SignedCalls, endpoint
from tailrace.clock import Clock, SystemClock
from tailrace.events import Json


class InvokeError(Exception):
    """The function was not called, failed, or gave no answer in time. The text is for the log."""


class NotCalled(InvokeError):
    """The function was certainly not called: no environment was free, as when an account has as many at work as it may
    (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html)."""


class StillRuns(InvokeError):
    """There was no answer in time. The function was called, as far as is known, and goes on."""


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
        base = (endpoint_url or endpoint("lambda", region)).rstrip("/")
        url = URL(f"{base}/2015-03-31/functions/{quote(function, safe='')}/invocations", encoded=True)
        self._path = url.raw_path
        clock = clock or SystemClock()
        self._calls = SignedCalls(
            "lambda", region, url, clock=clock, credentials=credentials, timeout=timeout, limit=64
        )

    async def call(self, payload: Json) -> dict[str, Any]:
        """Call the function, once; return what it returns.

        Raises:
            NotCalled: it was not.
            StillRuns: it was, and gave no answer yet.
            InvokeError: it may have been, failed, or did not return an object in time.
        """
        body = msgspec.json.encode(payload)
        try:
            status, headers, answer = await self._calls.call(
                "POST", self._path, body, {"Content-Type": "application/json"}
            )
        except NoAnswer as error:
            raise StillRuns(str(error)) from error
        if status == 429:
            raise NotCalled(f"status {status}")
        if status != 200:
            raise InvokeError(f"status {status}")
        if (failed := headers.get("x-amz-function-error")) is not None:
            raise InvokeError(f"the function failed: {failed}")
        try:
            return msgspec.json.decode(answer, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise InvokeError("the function returned no object") from error

    async def hand_over(self, payload: Json) -> None:
        """Have the function called, once, and wait for no answer.

        Raises:
            InvokeError: it will not be called, as far as is known.
        """
        headers = {"Content-Type": "application/json", "X-Amz-Invocation-Type": "Event"}
        try:
            status, _, _ = await self._calls.call("POST", self._path, msgspec.json.encode(payload), headers)
        except NoAnswer as error:
            raise InvokeError(str(error)) from error
        if status != 202:
            raise InvokeError(f"status {status}")

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        await self._calls.close()
