"""What a provider's failures mean: which of our errors, whether trying again may help, and a sentence that is
safe to show. The provider's own words go into ``detail``, without our key, should it repeat it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite

import aiohttp

from tailrace.errors import ConnectTimeout, ContentFiltered, ProviderError

DETAIL_BYTES = 2048

FILTERED = re.compile(r'"code": ?"(?:content_filter|bio_policy|\w+_policy_violation)"')
"""A refusal whose reason is a filter: Azure's and OpenAI's error codes for a prompt."""


def by_status(
    provider: str, status: int, *, headers: Mapping[str, str] | None = None, detail: str | None = None
) -> ProviderError:
    """The error for an HTTP status, be it the response's or what an error inside the stream stands for."""
    headers = {} if headers is None else headers
    if status in (400, 403) and detail and FILTERED.search(detail):
        return filtered(provider, detail, status)
    if status == 429:
        message = f"The provider is limiting requests (status {status})."
    elif is_retryable(status):
        message = f"The provider is not available (status {status})."
    else:
        message = f"The provider refused the request (status {status})."
    # Both vendors' SDKs let this header overrule the status: OpenAI's 429 for an empty account says false.
    advice = headers.get("x-should-retry")
    return ProviderError(
        message,
        provider=provider,
        status_code=status,
        retryable=is_retryable(status) if advice not in ("true", "false") else advice == "true",
        detail=detail,
        retry_after=retry_after(headers),
    )


def by_exception(provider: str, error: Exception) -> ProviderError:
    """The error for what the HTTP client raised."""
    detail = f"{type(error).__name__}: {error}"[:DETAIL_BYTES]
    if isinstance(error, TimeoutError):  # the client's own, for the connection; the rest is watched by us
        return ConnectTimeout(
            "The provider could not be reached in time.", provider=provider, retryable=True, detail=detail
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        # A certificate that is wrong now is wrong a second later.
        retryable = not isinstance(error, aiohttp.ClientSSLError)
        return ProviderError(
            "The provider could not be reached.", provider=provider, retryable=retryable, detail=detail
        )
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return ProviderError(
            "The provider broke off the connection.", provider=provider, retryable=True, detail=detail, in_stream=True
        )
    return unreadable(provider, detail)


def midway(provider: str, status: int | None, detail: str | None) -> ProviderError:
    """The error for one that the provider reported inside its answer, after status 200.

    Without a status that we know it counts as retryable: the request itself had been accepted.
    """
    if status is not None:
        return by_status(provider, status, detail=detail)
    return ProviderError("The provider failed while answering.", provider=provider, retryable=True, detail=detail)


def filtered(provider: str, detail: str, status: int | None = None) -> ContentFiltered:
    """The error for what a content filter refused or stopped. ``detail`` is the provider's word for why."""
    message = "The provider's content filter stopped the answer."
    return ContentFiltered(message, provider=provider, status_code=status, detail=detail[:DETAIL_BYTES])


def malformed(provider: str, detail: str) -> ProviderError:
    """The error for an answer of which the provider itself says that the model wrote it wrong."""
    return ProviderError(
        "The model's answer was malformed.", provider=provider, retryable=True, detail=detail[:DETAIL_BYTES]
    )


def unreadable(provider: str, detail: str) -> ProviderError:
    """The error for bytes that are not the provider's wire."""
    return ProviderError(
        "The provider sent what cannot be read.",
        provider=provider,
        retryable=True,
        detail=detail[:DETAIL_BYTES],
        in_stream=True,
    )


def ended_early(provider: str, detail: str | None = None) -> ProviderError:
    """The error for a body that ended before the provider said that the answer is whole."""
    return ProviderError(
        "The provider ended its answer early.", provider=provider, retryable=True, detail=detail, in_stream=True
    )


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed later. As both vendors' SDKs see it: 408, 409 (a lock), 429, every 5xx."""
    return status in (408, 409, 429) or status >= 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: ``retry-after-ms`` (OpenAI's), or ``retry-after`` in seconds or as a date (RFC 9110, 10.2.3)."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            seconds = float(milliseconds) / 1000
        elif (value := headers.get("retry-after")) is None:
            return None
        elif value[:1].isalpha():
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        else:
            seconds = float(value)
    except ValueError:
        return None
    return max(seconds, 0.0) if isfinite(seconds) else None
