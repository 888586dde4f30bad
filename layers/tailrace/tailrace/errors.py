"""Everything that can go wrong, sorted by whose fault it is: the caller, the provider, or us.

The text of every error here is safe to show to a client. What is not (a provider's own words, a
prompt, a stack) travels in ``detail``, which is stored privately and never leaves the server.
"""

from __future__ import annotations

import traceback
from typing import Any, ClassVar, Literal

ErrorType = Literal[
    "invalid_request",
    "unauthenticated",
    "forbidden",
    "unsupported_type",
    "not_found",
    "conflict",
    "too_large",
    "unprocessable",
    "rate_limited",
    "api_error",
    "content_filter",
    "timeout",
    "timeout_connect",
    "timeout_first_chunk",
    "timeout_idle",
    "invalid_output",
    "cancelled",
    "interrupted",
    "store_unavailable",
    "general_error",
]


class TailraceError(Exception):
    """The root of every error raised on purpose.

    Attributes:
        message: a sentence that may be shown to a client.
        status: the HTTP status that says the same, used only before the first byte of a stream.
        error_type: a stable word for programs.
    """

    status: ClassVar[int] = 500
    error_type: ClassVar[ErrorType] = "general_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# ---- the caller's fault -------------------------------------------------------------------------


class RequestError(TailraceError):
    """The request cannot be served as it stands; sending it again will not help."""

    status = 400
    error_type: ClassVar[ErrorType] = "invalid_request"


class Unauthenticated(RequestError):
    """Nobody can be seen behind the request.

    Args:
        challenge: where tokens are asked for, what was wrong with the one that came: a code of RFC 6750, or the empty
            text if none came (https://www.rfc-editor.org/rfc/rfc6750#section-3.1). Elsewhere None.
    """

    status = 401
    error_type: ClassVar[ErrorType] = "unauthenticated"

    def __init__(self, message: str, challenge: str | None = None) -> None:
        super().__init__(message)
        self.challenge = challenge


class Forbidden(RequestError):
    """The caller is known and may not do this. Of channels, scopes and grants: what is somebody else's is not found."""

    status = 403
    error_type: ClassVar[ErrorType] = "forbidden"


class InsufficientScope(Forbidden):
    """The token is good, and not for this.

    Args:
        scope: what it would need.
    """

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class NotFound(RequestError):
    """No such thing, or it belongs to somebody else (the two are never told apart)."""

    status = 404
    error_type: ClassVar[ErrorType] = "not_found"


class Conflict(RequestError):
    """The request contradicts what is stored."""

    status = 409
    error_type: ClassVar[ErrorType] = "conflict"


class AlreadyStarted(Conflict):
    """The same start was made before. The caller attaches to it: nobody outside ever sees this.

    Args:
        message_id: the reply that it started.
    """

    def __init__(self, message_id: str) -> None:
        super().__init__("The reply was started before.")
        self.message_id = message_id


class TooLarge(RequestError):
    """The body is over the limit; or the answer would be."""

    status = 413
    error_type: ClassVar[ErrorType] = "too_large"


class UnsupportedType(RequestError):
    """The body says that it is of a type that is not read here."""

    status = 415
    error_type: ClassVar[ErrorType] = "unsupported_type"


class Unprocessable(RequestError):
    """The body is well formed but does not validate."""

    status = 422
    error_type: ClassVar[ErrorType] = "unprocessable"


class RateLimited(RequestError):
    """Whoever asks has used what they may use for now. Nothing was stored, and nobody was asked.

    Args:
        retry_after: seconds after which it may be tried again.
    """

    status = 429
    error_type: ClassVar[ErrorType] = "rate_limited"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnknownProvider(Unprocessable):
    """The provider named is not one of those built in; the message names those that are."""


class StreamEnded(Conflict):
    """An append or an end came after the stream's terminal event."""


# ---- the provider's fault -----------------------------------------------------------------------


class ProviderError(TailraceError):
    """The provider refused, broke off, or sent what cannot be read.

    Args:
        message: safe to show.
        provider: the provider's name.
        status_code: the provider's HTTP status, or None when there was none.
        retryable: whether the same request may succeed later.
        detail: the provider's own words, cut to a sane length; stored privately, never shown.
        retry_after: seconds the provider asked us to wait, or None.
        in_stream: whether the streaming itself failed: the provider took the request, and its answer then ended
            early, broke off, or was no stream. Asking for the same answer in one body may help.
    """

    status = 502
    error_type: ClassVar[ErrorType] = "api_error"

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        status_code: int | None = None,
        retryable: bool = False,
        detail: str | None = None,
        retry_after: float | None = None,
        in_stream: bool = False,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status_code = status_code
        self.retryable = retryable
        self.detail = detail
        self.retry_after = retry_after
        self.in_stream = in_stream


class ContentFiltered(ProviderError):
    """The provider, or a filter of its, refused to answer or to go on answering. Asking again will not help."""

    error_type: ClassVar[ErrorType] = "content_filter"


class InvalidOutput(ProviderError):
    """The whole answer does not match the schema that was asked for."""

    error_type: ClassVar[ErrorType] = "invalid_output"


class ProviderTimeout(ProviderError):
    """The whole answer took too long; or one of the three below."""

    status = 504
    error_type: ClassVar[ErrorType] = "timeout"


class ConnectTimeout(ProviderTimeout):
    """No connection was made in time."""

    error_type: ClassVar[ErrorType] = "timeout_connect"


class FirstChunkTimeout(ProviderTimeout):
    """The provider was silent for too long before its first event."""

    error_type: ClassVar[ErrorType] = "timeout_first_chunk"


class IdleTimeout(ProviderTimeout):
    """The provider was silent for too long between two events."""

    error_type: ClassVar[ErrorType] = "timeout_idle"


# ---- our fault ----------------------------------------------------------------------------------


class ConfigurationError(TailraceError):
    """The deployment lacks something: a key, a table name, an allowed value of a setting."""


class IssuerUnavailable(TailraceError):
    """The issuer of the tokens gives no keys, so nobody can be told from anybody."""

    status = 503


class OutOfTime(TailraceError):
    """This process is about to be gone: what was to come next was not begun."""

    status = 504
    error_type: ClassVar[ErrorType] = "timeout"


class StoreError(TailraceError):
    """The table could not be read or written."""

    status = 503
    error_type: ClassVar[ErrorType] = "store_unavailable"


class AppendConflict(StoreError):
    """Somebody else put this segment first: the stream is no longer ours to write."""

    status = 409
    error_type: ClassVar[ErrorType] = "conflict"


# ---- what may be logged of it ----------------------------------------------------------------------


def where(error: BaseException) -> dict[str, Any]:
    """Return what may be logged of an unexpected error: its type and place, not its text, which may quote
    a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "exception_type": type(error).__name__,
        "where": [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-8:]],
    }
