"""How long a provider may take, and the watch that ends what takes longer.

The watch is one timer for the whole answer that looks at a timestamp. A timer for every read
(``asyncio.timeout``, or aiohttp's ``sock_read``) costs more than reading the chunk does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Annotated

import msgspec

from tailrace.errors import FirstChunkTimeout, IdleTimeout, ProviderTimeout

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``options["timeouts"]``, all in seconds. Never sent to a provider.

    Attributes:
        connect: until there is a connection, name resolution and TLS included.
        first_chunk: from the request until the provider's first event. Models that reason unseen take minutes.
        idle: between two events after that. A ping is not an event: a provider that only pings is silent.
        total: the whole answer. The default is the longest that a Lambda function may run.
    """

    connect: Seconds = 10.0
    first_chunk: Seconds = 120.0
    idle: Seconds = 60.0
    total: Seconds = 900.0


class Watch:
    """Calls ``expire`` once, when the provider has been silent for too long or the answer took too long.

    ``since`` is when the silence began; whoever reads sets it, to the loop's time at each event and to infinity
    while it is not waiting for the provider, whose fault a slow reader is not.

    Args:
        timeouts: the limits; ``connect`` is not the watch's.
        start: the loop's time when the request was sent.
        expire: gets the kind of error, and the sentence that says what happened.
    """

    def __init__(self, timeouts: Timeouts, start: float, expire: Callable[[type[ProviderTimeout], str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._allowed = timeouts.first_chunk
        self._silence: type[ProviderTimeout] = FirstChunkTimeout
        self._idle = timeouts.idle
        self._end = start + timeouts.total
        self._expire = expire
        self.since = start
        self._timer = self._schedule()

    def first_event_came(self) -> None:
        """From now on the idle limit counts."""
        self._timer.cancel()
        self._allowed = self._idle
        self._silence = IdleTimeout
        self._timer = self._schedule()

    def allow(self, seconds: float | None) -> None:
        """Count a silence of so many seconds as too long from now on; None is the idle limit again."""
        self._timer.cancel()
        self._allowed = self._idle if seconds is None else min(seconds, self._idle)
        self._timer = self._schedule()

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self._timer.cancel()

    def _schedule(self) -> asyncio.TimerHandle:
        silent_from = self._loop.time() if self.since == inf else self.since
        return self._loop.call_at(min(silent_from + self._allowed, self._end), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._end:
            self._expire(ProviderTimeout, "The provider took too long.")
        elif now >= self.since + self._allowed:
            self._expire(self._silence, "The provider was silent for too long.")
        else:
            self._timer = self._schedule()
