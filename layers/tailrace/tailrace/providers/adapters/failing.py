"""What an agent's exceptions mean: those that its model's vendor caused, by what all their packages have in common.

A framework hands on what its model's own package raised, or wraps it. Whoever of a chain has an HTTP status, or a name
that says time-out or filter, decides. What says nothing stays as it is: to the reader the provider has failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from tailrace.errors import IdleTimeout, ProviderError, TailraceError
from tailrace.providers import failures

LONGEST_CHAIN: Final = 8
"""How many exceptions behind one are looked at."""

FILTERS: Final = ("contentfilter", "contentpolicy", "guardrailtripwire")
"""What the names of exceptions have that speak of a filter, or of a guard of the agent's own."""


@contextmanager
def failing(framework: str) -> Iterator[None]:
    """Raise what an agent's exception means in its place.

    Raises:
        ProviderError: its model's vendor refused, or was silent for too long.
    """
    try:
        yield
    except TailraceError:
        raise
    except Exception as error:
        found = meaning(error, framework)
        if found is None:
            raise
        raise found from error


def meaning(error: BaseException, framework: str) -> TailraceError | None:
    """Return our error for an agent's exception; None where it does not say."""
    behind: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        if behind is None:
            return None
        if isinstance(behind, TailraceError):
            return behind
        if (found := _one(behind, framework)) is not None:
            return found
        behind = behind.__cause__ or behind.__context__
    return None


def _one(error: BaseException, framework: str) -> ProviderError | None:
    name = type(error).__name__.lower()
    detail = f"{type(error).__name__}: {error}"[: failures.DETAIL_BYTES]
    status = _status(error)
    if any(word in name for word in FILTERS):
        return failures.filtered(framework, detail, status)
    if isinstance(error, TimeoutError) or name.endswith(("timeout", "timeouterror", "timedout")):
        return IdleTimeout(
            "The provider was silent for too long.", provider=framework, retryable=True, detail=detail, in_stream=True
        )
    if status is not None:
        return failures.by_status(framework, status, headers=_headers(error), detail=detail)
    if "throttled" in name:  # Strands has a class of its own for it, without a status
        return failures.by_status(framework, 429, detail=detail)
    return None


def _status(error: BaseException) -> int | None:
    status: Any = getattr(error, "status_code", None)
    if status is None:  # botocore's
        response = getattr(error, "response", None)
        about = response.get("ResponseMetadata") if isinstance(response, dict) else None
        status = about.get("HTTPStatusCode") if isinstance(about, dict) else None
    return status if isinstance(status, int) and 400 <= status < 600 else None


def _headers(error: BaseException) -> Mapping[str, str]:
    for found in (getattr(error, "headers", None), getattr(getattr(error, "response", None), "headers", None)):
        if isinstance(found, Mapping):
            return found
    return {}
