"""API Gateway's management API, asynchronous and lean, and its only user here
(https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html).

Why not a client: a post through boto3 costs ten times as much CPU and blocks (benchmarks/post.py), and a reply that
fifty people watch makes five hundred posts a second.

Nothing is tried again here. Who posts knows how long it may wait, and that a post whose answer was lost may have
arrived: the service has no way to tell.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from yarl import URL

from tailrace.aws.credentials import FindCredentials
from tailrace.aws.signed_calls import NoAnswer, SignedCalls
from tailrace.clock import Clock, SystemClock

AT_ONCE = 512
"""Connections to the service. A Lambda environment has 1,024 file descriptors
(https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html)."""


class SocketError(Exception):
    """A post that did not arrive, as far as is known. The text is for the log."""


class SocketGone(SocketError):
    """There is no such connection any more."""


class SocketBusy(SocketError):
    """Not now: the client does not read (429), the service has a fault (5xx) or gave no answer in time."""


class Refused(SocketError):
    """The service does not take it, now or later: 413 for what is too large, 403 without the permission."""


@lru_cache(1024)
def _quoted(socket: str) -> str:
    """Return an id as a path has it; each is posted to again and again."""
    return quote(socket, safe="")


class Connections:
    """The connections of one WebSocket API.

    Args:
        endpoint: the management endpoint with its stage, such as ``https://<id>.execute-api.<region>.amazonaws.com/live``.
        region: the AWS region, which is part of the signature.
        clock: dates the signatures.
        credentials: gives the current credentials; botocore's usual chain when None.
        attempt_timeout: seconds that one request may take.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        region: str,
        clock: Clock | None = None,
        credentials: FindCredentials | None = None,
        attempt_timeout: float = 1.0,
    ) -> None:
        base = URL(endpoint.rstrip("/"), encoded=True)
        self._path = base.raw_path.rstrip("/") + "/@connections/"
        self._calls = SignedCalls(
            "execute-api",
            region,
            base,
            clock=clock or SystemClock(),
            credentials=credentials,
            timeout=attempt_timeout,
            limit=AT_ONCE,
        )

    async def post(self, socket: str, data: bytes) -> None:
        """Send a frame of at most 128 KB to a client.

        Raises:
            SocketGone: there is no such connection.
            SocketBusy: not now; the frame may have arrived all the same if there was no answer.
            Refused: neither now nor later.
        """
        try:
            status, _, _ = await self._calls.call("POST", self._path + _quoted(socket), data)
        except NoAnswer as error:
            raise SocketBusy(str(error)) from error
        if status < 300:
            return
        # 400 is "Invalid connectionId": no id that the service ever gave.
        if status in (400, 410):
            raise SocketGone(f"status {status}")
        if status == 429 or status >= 500:
            raise SocketBusy(f"status {status}")
        raise Refused(f"status {status}")

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        await self._calls.close()
