"""Answers from code of your own: an async generator of text is a provider.

    async def answer(request: ProviderRequest) -> AsyncIterator[str]:
        yield "Hello "
        yield request.messages[-1].content

    Backend(providers={"mine": answer})            TAILRACE_PROVIDERS="mine=app.answers:answer"

It may yield events instead of text, or sequences of them. What it raises ends the reply as failed; only the words of a
``TailraceError`` are shown. Agents of frameworks may stand in its place: ``adapters/`` has a file for each.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from math import inf
from typing import Any, Final, cast, get_args

import msgspec

from tailrace.errors import ConfigurationError, ProviderError, ProviderTimeout, TailraceError, Unprocessable, where
from tailrace.events import ProviderEvent, ResponseInfo, Text
from tailrace.providers import Provider, ProviderRequest
from tailrace.providers.adapters import Adapted, find_adapter
from tailrace.providers.timeouts import Timeouts, Watch

logger = logging.getLogger(__name__)

Answer = Callable[[ProviderRequest], AsyncIterator[Any] | Awaitable[AsyncIterator[Any]]]
"""Takes what is asked; yields text, events, or sequences of events."""

EVENTS: Final = get_args(ProviderEvent)

CLOSE_SECONDS: Final = 1.0
"""How long an answer may take to close after its reply was cancelled; then it is left to itself."""

MOST_WAITING: Final = 100
"""Texts and lists of events that wait to be passed on; then the function waits."""


class OwnProvider:
    """A provider made of a function.

    Args:
        name: what it is called where a provider is named.
        answer: gives the answer to one request.
    """

    def __init__(self, name: str, answer: Answer) -> None:
        self.name = name
        self._answer = answer

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``.

        Raises:
            Unprocessable: it is asked for an answer without streaming, or for what its agent cannot.
        """
        if not request.streamed:
            raise Unprocessable(f"The provider {self.name} answers streamed only.")
        timeouts = msgspec.convert(request.options.get("timeouts", {}), Timeouts)
        asked = self._answer(request) if isinstance(self._answer, Adapted) else None
        return self._tell(request, asked, timeouts)

    async def _tell(
        self, request: ProviderRequest, asked: AsyncIterator[Any] | None, timeouts: Timeouts
    ) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        loop = asyncio.get_running_loop()
        late: ProviderTimeout | None = None
        waiting: asyncio.Timeout | None = None
        is_first, has_finish = True, False

        def expire(kind: type[ProviderTimeout], text: str) -> None:
            nonlocal late
            late = kind(text, provider=self.name)
            if waiting is not None:
                waiting.reschedule(loop.time())

        said: asyncio.Queue[Sequence[ProviderEvent] | None] = asyncio.Queue(MOST_WAITING)
        watch = Watch(timeouts, loop.time(), expire)
        # A task of its own: what a framework enters in a task it must leave in the same, and one that does not let
        # itself be stopped must not keep us.
        pump = asyncio.create_task(self._pump(request, asked, said))
        try:
            while late is None:
                # It never comes by itself: the watch breaks a wait by it.
                async with asyncio.timeout(None) as waiting:
                    events = await said.get()
                waiting = None
                if events is None:
                    break
                if is_first:
                    watch.first_event_came()
                    is_first = False
                while events is not None and not said.empty():
                    more = said.get_nowait()
                    if more is None:
                        said.put_nowait(None)  # the end, once these are passed on
                        break
                    events = [*events, *more]
                has_finish |= any(isinstance(each, ResponseInfo) and bool(each.finish_reason) for each in events)
                watch.since = inf
                yield events
                watch.since = loop.time()
        except TimeoutError:
            if late is None:
                raise
        finally:
            watch.stop()
            await self._stop(pump)
        if late is not None:
            raise late
        pump.result()
        if not has_finish:
            yield (ResponseInfo(finish_reason="stop"),)  # it has said all that it has to say

    async def _pump(
        self,
        request: ProviderRequest,
        asked: AsyncIterator[Any] | None,
        said: asyncio.Queue[Sequence[ProviderEvent] | None],
    ) -> None:
        """Hand on what the function yields, as events, and None at its end.

        Raises:
            TailraceError: it failed.
        """
        iterator: AsyncIterator[Any] | None = None
        failure: TailraceError | None = None
        try:
            answer = self._answer(request) if asked is None else asked
            iterator = aiter(await answer if isinstance(answer, Awaitable) else answer)
            async for each in iterator:
                if events := self._read(each):
                    await said.put(events)
        except TailraceError as error:  # whatever it is, its words are meant to be shown
            failure = error if isinstance(error, ProviderError) else ProviderError(error.message, provider=self.name)
        except Exception as error:
            # Its text may quote a prompt: neither a client nor the log gets it.
            logger.error("own provider failed", extra={"provider": self.name, **where(error)})
            failure = ProviderError(f"The provider {self.name} failed.", provider=self.name)
        finally:
            await self._close(iterator)
        await said.put(None)
        if failure is not None:
            raise failure

    async def _close(self, iterator: AsyncIterator[Any] | None) -> None:
        if (close := getattr(iterator, "aclose", None)) is not None:
            try:
                await close()
            except Exception as error:
                logger.error("own provider did not close", extra={"provider": self.name, **where(error)})

    async def _stop(self, pump: asyncio.Task[None]) -> None:
        pump.cancel()
        await asyncio.wait((pump,), timeout=CLOSE_SECONDS)
        if not pump.done():
            logger.error("own provider does not stop", extra={"provider": self.name})

    def _read(self, said: Any) -> Sequence[ProviderEvent]:
        if isinstance(said, str):
            return (Text(said),) if said else ()
        if isinstance(said, EVENTS):
            return (cast("ProviderEvent", said),)
        if isinstance(said, list | tuple) and all(isinstance(each, EVENTS) for each in said):
            return said
        raise TypeError("an answer yields text, events, or lists of events")


def own_provider(name: str, given: Any) -> Provider:
    """Return the provider that something of a user's is: a function, a class of the protocol ``Provider`` or one made
    of it, or an agent that an adapter knows.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(given, type):
        given = given()
    if (adapt := find_adapter(given)) is not None:
        return OwnProvider(name, adapt(given))
    stream = getattr(given, "stream", None)
    if stream is not None and _takes_one(stream):
        return OwnProvider(name, stream)
    if callable(given) and _takes_one(given):
        return OwnProvider(name, given)
    raise ConfigurationError(
        f"The provider {name} must be a function that takes a ProviderRequest and yields text or events, a class with"
        " such a method stream, or an agent that Tailrace has an adapter for."
    )


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        return False
    return True
