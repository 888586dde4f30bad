"""A token bucket, as API Gateway, Lambda and DynamoDB have them: so much at once, and so much a second."""

from __future__ import annotations


class TokenBucket:
    """Full at second 0.

    Args:
        rate: tokens that come back in a second.
        size: tokens that it holds.
    """

    def __init__(self, rate: float, size: float) -> None:
        self._rate, self._size = rate, size
        self._tokens, self._at = size, 0.0

    def take(self, now: float, tokens: float = 1.0) -> bool:
        """Take so many, if there is one at all: what a query costs is known only when it was made.

        Args:
            now: seconds; never before an earlier call's.
        """
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= tokens
        return True
