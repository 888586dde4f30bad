"""What botocore raises, sorted as ``failures.py`` does. botocore is imported when there is something to sort."""

from __future__ import annotations

from collections.abc import Mapping

from tailrace.errors import ConnectTimeout, ProviderError
from tailrace.providers import failures

STATUS_OF_ERROR: Mapping[str, int] = {
    "accessdeniedexception": 403,
    "internalserverexception": 500,
    "modelstreamerrorexception": 424,
    "modeltimeoutexception": 408,
    "resourcenotfoundexception": 404,
    "serviceunavailableexception": 503,
    "throttlingexception": 429,
    "validationexception": 400,
}
"""The status that an error inside the stream would have had before it
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html#API_runtime_ConverseStream_Errors)."""

FAILED_DEPENDENCY = 424
"""The model failed. AWS says of it: retry."""


def failure(provider: str, error: Exception) -> ProviderError:
    """The error for whatever came out of a call."""
    from botocore import eventstream, exceptions
    from urllib3.exceptions import HTTPError

    detail = f"{type(error).__name__}: {error}"[: failures.DETAIL_BYTES]
    match error:
        case ProviderError():
            return error
        case exceptions.ClientError():
            return _reported(provider, error, isinstance(error, exceptions.EventStreamError), detail)
        case exceptions.ConnectTimeoutError():
            message = "The provider could not be reached in time."
            return ConnectTimeout(message, provider=provider, retryable=True, detail=detail)
        case exceptions.EndpointConnectionError() | exceptions.ProxyConnectionError():
            return ProviderError("The provider could not be reached.", provider=provider, retryable=True, detail=detail)
        case exceptions.SSLError():
            return ProviderError("The provider could not be reached.", provider=provider, detail=detail)
        case exceptions.HTTPClientError() | exceptions.ConnectionError() | HTTPError() | OSError():
            message = "The provider broke off the connection."
            return ProviderError(message, provider=provider, retryable=True, detail=detail, in_stream=True)
        case exceptions.ParamValidationError():
            return ProviderError("The provider cannot be asked this.", provider=provider, detail=detail)
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return ProviderError("There are no AWS credentials to ask with.", provider=provider, detail=detail)
        case exceptions.NoRegionError():
            return ProviderError("There is no AWS region to ask in.", provider=provider, detail=detail)
        case eventstream.ParserError() | ValueError() | KeyError() | TypeError() | RecursionError():
            return failures.unreadable(provider, detail)
        case exceptions.BotoCoreError():
            return ProviderError("The provider cannot be asked.", provider=provider, detail=detail)
    raise error  # a bug of ours


def _reported(provider: str, error: Exception, in_stream: bool, detail: str) -> ProviderError:
    response: Mapping[str, Mapping[str, object]] = getattr(error, "response", {})
    about = response.get("ResponseMetadata", {})
    status = about.get("HTTPStatusCode")
    if in_stream or not isinstance(status, int):
        status = STATUS_OF_ERROR.get(str(response.get("Error", {}).get("Code")).lower())
    if status is None:
        return failures.midway(provider, None, detail)
    headers = about.get("HTTPHeaders")
    reported = failures.by_status(
        provider, status, headers=headers if isinstance(headers, dict) else None, detail=detail
    )
    if status == FAILED_DEPENDENCY:
        reported.retryable = True
    return reported
