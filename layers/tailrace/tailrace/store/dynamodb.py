"""DynamoDB's wire, asynchronous and lean: a transport and a signer of our own.

Why not a client: a write through pynamodb costs ten times as much CPU and blocks, one through aiohttp more than
twice as much; at ten flushes a second per reply that decides how many replies fit on a vCPU
(benchmarks/segment_write.py). The requests themselves are built by pynamodb's models in ``store.py``.

Every call has a deadline. What may succeed later (throttling, a lost connection, a 5xx) is tried again
with jitter until then, so a caller of a write must be ready for its write to have been applied before
an answer was lost: ``store.py`` says for each how it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from yarl import URL

from tailrace.aws.credentials import FindCredentials
from tailrace.aws.signed_calls import NoAnswer, SignedCalls, endpoint
from tailrace.clock import Clock
from tailrace.errors import StoreError
from tailrace.ids import JITTER

Payload = Mapping[str, Any]
"""A request or an answer in DynamoDB's JSON."""

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
RETRYABLE = frozenset(
    {
        "InternalServerError",
        "ItemCollectionSizeLimitExceededException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
RETRYABLE_REASONS = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})

FIRST_PAUSE = 0.025
LONGEST_PAUSE = 0.25
"""Seconds between two tries, which double from one to the other. Longer ones leave a throttled table to those who have
not been refused yet (benchmarks/scale.py)."""

HELD_PAUSE = 0.01
"""Seconds before a write is tried again whose item is in somebody's transaction, which holds it for milliseconds."""

CHECK_PAUSE = 0.1
LONGEST_CHECK_PAUSE = 2.0
"""Seconds between two tries of a transaction that checks an item which it does not write. The check keeps out whoever
writes the item, and the checks of others, so where there are many each tries seldom."""


class ConditionFailed(Exception):
    """The write's condition did not hold. ``item`` is what stands there, when it was asked for."""

    def __init__(self, item: Payload | None) -> None:
        super().__init__("condition failed")
        self.item = item


class TransactionCancelled(Exception):
    """A condition of the transaction did not hold. ``reasons`` has one entry for each of its writes."""

    def __init__(self, reasons: Sequence[Payload]) -> None:
        super().__init__("transaction cancelled")
        self.reasons = reasons


class Calls(Protocol):
    """What ``store.py`` needs of DynamoDB; tests put a counting or failing one in between."""

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call, such as ``PutItem``.

        Raises:
            ConditionFailed: the write's condition did not hold.
            TransactionCancelled: one of the transaction's conditions did not hold.
            StoreError: no success before the deadline, or a request that DynamoDB refuses.
        """
        ...


class DynamoDB:
    """Calls to one DynamoDB endpoint.

    Args:
        region: the AWS region, which is part of the signature.
        endpoint_url: where to call; the region's own endpoint when None.
        credentials: gives the current credentials; botocore's usual chain when None.
        attempt_timeout: seconds one attempt may take.
        deadline: seconds all attempts together may take.
        jitter: a number in [0, 1), drawn for each wait.
    """

    def __init__(
        self,
        *,
        region: str,
        clock: Clock,
        endpoint_url: str | None = None,
        credentials: FindCredentials | None = None,
        attempt_timeout: float = 2.0,
        deadline: float = 6.0,
        jitter: Callable[[], float] = JITTER,
    ) -> None:
        url = URL((endpoint_url or endpoint("dynamodb", region)).rstrip("/") + "/", encoded=True)
        self._path = url.raw_path
        self._calls = SignedCalls(
            "dynamodb", region, url, clock=clock, credentials=credentials, timeout=attempt_timeout, limit=256
        )
        self._clock = clock
        self._deadline = deadline
        self._jitter = jitter

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call (see ``Calls``)."""
        body = msgspec.json.encode(payload)
        give_up = self._clock.monotonic() + self._deadline
        pause, longest = (CHECK_PAUSE, LONGEST_CHECK_PAUSE) if _checks(payload) else (FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                return await self._attempt(operation, body)
            except _Retry as reason:
                is_held = isinstance(reason, _Held)
                wait = (HELD_PAUSE if is_held else pause) * (0.5 + self._jitter())
                if self._clock.monotonic() + wait >= give_up:
                    raise StoreError("The store is not available. Please try again.") from reason
            await self._clock.sleep(wait)
            if not is_held:
                pause = min(pause * 2, longest)

    async def _attempt(self, operation: str, body: bytes) -> Payload:
        further = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
        try:
            status, _, answer = await self._calls.call("POST", self._path, body, further)
        except NoAnswer as error:
            raise _Retry(str(error)) from error
        try:
            parsed: dict[str, Any] = msgspec.json.decode(answer)
        except msgspec.DecodeError as error:
            raise _Retry(f"status {status} without JSON") from error
        if status == 200:
            return parsed
        return _refused(status, parsed)

    async def connect(self) -> None:
        """Open a connection ahead of the first call."""
        await self._calls.connect()

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        await self._calls.close()


class _Retry(Exception):
    """This attempt failed in a way that another one may not."""


class _Held(_Retry):
    """The item is in somebody's transaction."""


def _checks(payload: Payload) -> bool:
    """Whether a transaction looks at an item that it does not write."""
    return any("ConditionCheck" in change for change in payload.get("TransactItems", ()))


def _refused(status: int, parsed: Payload) -> Payload:
    code = str(parsed.get("__type", "")).rsplit("#", 1)[-1]
    if code == "ConditionalCheckFailedException":
        raise ConditionFailed(parsed.get("Item"))
    if code == "TransactionCanceledException":
        reasons: Sequence[Payload] = parsed.get("CancellationReasons") or ()
        codes = {reason.get("Code") for reason in reasons}
        if "ConditionalCheckFailed" in codes:
            raise TransactionCancelled(reasons)
        if codes & RETRYABLE_REASONS:
            raise _Retry("transaction conflict")
        # Anything else, such as an item that is too large, is no answer to a condition.
    if code == "TransactionConflictException":
        raise _Held(code)
    if status >= 500 or code in RETRYABLE:
        raise _Retry(code or f"status {status}")
    # The code names the fault (ResourceNotFoundException, AccessDeniedException) without any of the data.
    raise StoreError("The store refused the request.") from RuntimeError(code)
