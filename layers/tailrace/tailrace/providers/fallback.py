"""Several providers as one source: retries, then the next one, and never two answers glued together.

Until its first chunk a provider that fails is asked again, if that may help, and then the next one is. What it said so
far, its model and its count of the prompt, is held back, so nobody sees anything of an answer that never began.

After the first chunk a failure is the reply's, unless the start asked for ``reset``: then a ``Reset`` voids what was
said, and the next provider gives a whole new answer.

When even the last one's streaming fails, though it takes requests, it is asked for the answer in one body.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, Literal

import msgspec

from tailrace.clock import Clock
from tailrace.errors import ConnectTimeout, ProviderError, ProviderTimeout, Unprocessable
from tailrace.events import Attempt, ProviderEvent, Reset, ResponseInfo, SourceEvent, Text, ToolCall, Usage
from tailrace.providers import Provider, ProviderRequest
from tailrace.providers.options import Options
from tailrace.providers.output_schema import Schema

logger = logging.getLogger(__name__)

Mode = Literal["before_first_chunk", "reset"]

FIRST_PAUSE: Final = 0.5
"""Seconds before the first retry; each next one waits twice as long. As the vendors' SDKs have it."""

LONGEST_PAUSE: Final = 8.0

LONGEST_WAIT: Final = 60.0
"""Seconds: who asks us in ``Retry-After`` to stay away for longer is not waited for."""

LONGEST_WAIT_BESIDE: Final = 5.0
"""The same while another provider stands by."""

Random = Callable[[], float]
"""Returns a number from 0 to 1."""


class Candidate(msgspec.Struct, frozen=True):
    """A provider that may answer, and its model, or None for its default."""

    provider: Provider
    model: str | None


class Fallback:
    """Asks candidates in their order. ``stream`` gives the source of one reply.

    Args:
        candidates: at least one.
        request: what each is asked, but for the model.
        options: of which the engine's own are used: time-outs and retries.
        schema: what the whole text must match.
        mode: what happens when a provider fails after its first chunk.
        random: for the jitter.

    Attributes:
        candidates: who may be asked from now on: who is asked, and those after it.

    Raises:
        Unprocessable: one of them does not know an option, or has no model. Nothing was sent.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        request: ProviderRequest,
        options: Options,
        *,
        schema: Schema | None,
        mode: Mode,
        clock: Clock,
        random: Random,
    ) -> None:
        self.candidates: Sequence[Candidate] = candidates
        self._request = request
        self._timeouts = options.timeouts
        self._retries = options.retries
        self._schema = schema
        self._mode = mode
        self._clock = clock
        self._random = random
        self._deadline = 0.0
        # Nothing is sent by asking: that begins with the reading. The first one's is kept, since it is usually enough.
        self._asked: AsyncGenerator[Sequence[ProviderEvent], None] | None
        self._asked, *_ = [self._ask(candidate) for candidate in candidates]

    async def stream(self) -> AsyncGenerator[Sequence[SourceEvent], None]:
        """Yield what arrives, as a provider does. Closing it closes the connection to whichever provider answers.

        Raises:
            ProviderError: nobody answered, or who did broke off. It is the last one's error.
        """
        self._deadline = self._clock.monotonic() + self._timeouts.total
        retries = 0
        streamed = True
        while True:
            candidate = self.candidates[0]
            answer = _Answer(None if self._schema is None else [])
            asked, self._asked = self._asked, None
            try:
                async with aclosing(asked or self._ask(candidate, streamed)) as source:
                    async for events in source:
                        if (shown := answer.take(events)) is not None:
                            yield shown
                if not answer.begun and answer.held:  # nothing was said, and that is an answer too
                    yield answer.held
                await self._check(answer, candidate)
                return
            except ProviderError as error:
                failure = error
            last = len(self.candidates) == 1
            pause = None if answer.begun else self._pause(failure, retries, last)
            if pause is not None and streamed:
                retries += 1
                following = candidate
            elif answer.begun and self._mode != "reset":
                raise failure
            elif not last and self._clock.monotonic() < self._deadline and type(failure) is not ProviderTimeout:
                self.candidates, retries, pause = self.candidates[1:], 0, 0.0
                following = self.candidates[0]
            elif streamed and failure.in_stream and self._can_be_whole(candidate):
                streamed, pause = False, 0.0
                following = candidate
            else:
                if not answer.begun and answer.held:
                    yield answer.held
                raise failure
            yield self._moving_on(candidate, following, failure, streamed, answer.begun)
            if pause:
                await self._clock.sleep(pause)

    async def _check(self, answer: _Answer, candidate: Candidate) -> None:
        if self._schema is not None and answer.texts is not None and (answer.texts or not answer.called):
            await self._schema.check("".join(answer.texts), candidate.provider.name)

    def _ask(self, candidate: Candidate, streamed: bool = True) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        request = msgspec.structs.replace(self._request, model=candidate.model, streamed=streamed)
        if self._deadline:
            left = max(self._deadline - self._clock.monotonic(), 0.001)
            timeouts = msgspec.structs.replace(self._timeouts, total=left)
            if not streamed:  # its first byte is its last
                timeouts = msgspec.structs.replace(timeouts, first_chunk=left, idle=left)
            options = {**request.options, "timeouts": msgspec.to_builtins(timeouts)}
            request = msgspec.structs.replace(request, options=options)
        return candidate.provider.stream(request)

    def _can_be_whole(self, candidate: Candidate) -> bool:
        try:
            self._ask(candidate, streamed=False)
        except Unprocessable:
            return False
        return True

    def _pause(self, failure: ProviderError, retries: int, last: bool) -> float | None:
        """Return the seconds until the same provider is asked again; None when it is not."""
        if not failure.retryable or retries >= self._retries:
            return None
        if isinstance(failure, ProviderTimeout) and not isinstance(failure, ConnectTimeout):
            return None  # it was long enough, and may be billed
        longest = min(FIRST_PAUSE * 2**retries, LONGEST_PAUSE)
        pause = longest * (0.5 + self._random() / 2)
        if failure.retry_after is not None:
            if failure.retry_after > (LONGEST_WAIT if last else LONGEST_WAIT_BESIDE):
                return None
            # A little later than asked: everybody else was told the same.
            pause = failure.retry_after + FIRST_PAUSE * self._random()
        return pause if self._clock.monotonic() + pause < self._deadline else None

    def _moving_on(
        self, candidate: Candidate, following: Candidate, failure: ProviderError, streamed: bool, begun: bool
    ) -> Sequence[SourceEvent]:
        logger.warning(
            "provider failed, asking again",
            extra={
                "provider": candidate.provider.name,
                "model": candidate.model,
                "error_type": failure.error_type,
                "status_code": failure.status_code,
                "next_provider": following.provider.name,
            },
        )
        attempt = Attempt(
            provider=candidate.provider.name,
            model=candidate.model,
            error_type=failure.error_type,
            status_code=failure.status_code,
            next_provider=following.provider.name,
            next_model=following.model,
            streamed=streamed,
            detail=failure.detail,
        )
        return [Reset(), attempt] if begun else [attempt]


class _Answer:
    """How far one provider's answer has come.

    Args:
        texts: gathers its text, or None where nobody will look at it.
    """

    def __init__(self, texts: list[str] | None) -> None:
        self.begun = False  # something of it was passed on
        self.held: list[SourceEvent] = []
        self.texts = texts
        self.called = False  # it has a tool call

    def take(self, events: Sequence[ProviderEvent]) -> Sequence[SourceEvent] | None:
        """Return what is to be passed on now."""
        if self.texts is not None:
            self.texts += [event.text for event in events if isinstance(event, Text)]
            self.called = self.called or any(isinstance(event, ToolCall) for event in events)
        if self.begun:
            return events
        if all(isinstance(event, Usage | ResponseInfo) for event in events):
            self.held += events
            return None
        self.begun = True
        return [*self.held, *events]
