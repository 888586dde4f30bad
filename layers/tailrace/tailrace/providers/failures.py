"""What a provider's failures mean: which of our errors, whether trying again may help, and a sentence that is
safe to show. The provider's own words go into ``detail``, without our key, should it repeat it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Final

import aiohttp
import msgspec

from tailrace.errors import ConnectTimeout, ContentFiltered, ProviderError

DETAIL_BYTES = 2048

STATUSES: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "resource_exhausted": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "overloaded_error": 529,
    "service_unavailable": 503,
    "unavailable": 503,
    "timeout": 504,
    "timeout_error": 504,
    "vector_store_timeout": 504,
    "deadline_exceeded": 504,
}
"""The status that an error inside an answer would have had before it, by the vendors' words for it
(https://docs.anthropic.com/en/api/errors, https://platform.openai.com/docs/guides/error-codes)."""

_SAYS_CODE: Final = ("code", "status_code", "http_status", "http_code", "status", "type")

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


def reported(provider: str, data: bytes) -> ProviderError:
    """The error for one that the provider reported inside its answer, in whatever shape: an object, a text, a list, or
    no JSON at all. Its code, if there is one, says whether it helps to ask again."""
    detail = data[:DETAIL_BYTES].decode("utf-8", "replace")
    codes = list(_codes(_json(data)))
    if any(code.endswith(("_policy", "_policy_violation")) or code == "content_filter" for code in codes):
        return filtered(provider, detail)
    statuses = [int(code) for code in codes if code.isdecimal() and len(code) == 3 and "400" <= code < "600"]
    statuses += [STATUSES[code] for code in codes if code in STATUSES]
    statuses += [400 for code in codes if "image" in code]
    failure = midway(provider, statuses[0] if statuses else None, detail)
    if "insufficient_quota" in codes:
        failure.retryable = False  # an empty account does not fill itself
    return failure


def raise_bare(provider: str, data: bytes) -> None:
    """Raise the error that lies in an answer's place without being marked as one, such as FastAPI's ``{"detail"}`` or
    vLLM's ``{"object": "error", "message", "code"}``; nothing where there is none.

    Raises:
        ProviderError: that error.
    """
    found = _json(data)
    if isinstance(found, list):
        found = next((each for each in found if isinstance(each, dict)), None)
    if not isinstance(found, dict):
        return
    named = found.get("error") or "error" in (found.get("object"), found.get("type"))
    says = {"message", "detail", "msg"} & found.keys() and not {"choices", "candidates", "content"} & found.keys()
    if named or says:
        raise reported(provider, data)


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _codes(error: Any, depth: int = 3) -> Iterator[str]:
    """Yield what an error says of its kind, in lower case, the innermost first."""
    if isinstance(error, list):
        error = next((each for each in error if isinstance(each, dict)), None)
    if not isinstance(error, dict) or not depth:
        return
    for inner in ("error", "response"):
        yield from _codes(error.get(inner), depth - 1)
    for name in _SAYS_CODE:
        value = error.get(name)
        if isinstance(value, int | str):
            yield str(value).strip().lower()
        elif isinstance(value, float) and value.is_integer():
            yield str(int(value))


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
