"""A request for the next reply, and the reply as it arrives from the provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from tailrace.backend import Backend
from tailrace.errors import Unprocessable
from tailrace.events import ConversationRecord, Message, ProviderEvent, ResponseInfo, Text, Usage
from tailrace.providers import PromptMessage, ProviderRequest

Messages = Callable[[], Awaitable[Sequence[Message]]]


def provider_request(
    record: ConversationRecord,
    history: Sequence[Message],
    new_input: str | None,
    model: str | None,
    options: dict[str, Any],
) -> ProviderRequest:
    """Return what to ask a provider: system prompts apart and in order, then the history and the new input.

    Raises:
        Unprocessable: there is no user message to answer.
    """
    system = [record.system] if record.system else []
    system += [message.content for message in history if message.role == "system"]
    messages = [PromptMessage(message.role, message.content) for message in history if message.role != "system"]
    if new_input is not None:
        messages.append(PromptMessage("user", new_input))
    if not any(message.role == "user" for message in messages):
        raise Unprocessable("There is nothing to answer: the conversation has no user message.")
    return ProviderRequest(model=model, system=system, messages=messages, options=options)


class Request:
    """What to ask whom. Each method returns a changed copy."""

    def __init__(
        self,
        backend: Backend,
        record: ConversationRecord,
        messages: Messages,
        *,
        provider: str | None = None,
        model: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._backend = backend
        self._record = record
        self._messages = messages
        self._provider = provider or backend.settings.provider
        self._model = model
        self._options = options or {}

    def using(self, provider: str, model: str | None = None) -> Request:
        """Ask this provider, and this model or the provider's default."""
        return Request(
            self._backend, self._record, self._messages, provider=provider, model=model, options=self._options
        )

    def options(self, **options: Any) -> Request:
        """Ask with ``max_tokens``, ``temperature`` and the like."""
        return Request(
            self._backend,
            self._record,
            self._messages,
            provider=self._provider,
            model=self._model,
            options={**self._options, **options},
        )

    def stream(self) -> Reply:
        """Return the reply to iterate over; the provider is called when the iteration starts.

        Raises (from the iteration):
            UnknownProvider, ConfigurationError, Unprocessable: before any call is made.
            ProviderError: the provider refused, broke off, or sent what cannot be read.
        """
        return Reply(self._open())

    async def text(self) -> Reply:
        """Return the whole reply once it is there; its text is ``reply.content``."""
        reply = self.stream()
        async for _ in reply:
            pass
        return reply

    async def _open(self) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        provider = await self._backend.provider(self._provider)
        request = provider_request(self._record, await self._messages(), None, self._model, self._options)
        async with aclosing(provider.stream(request)) as source:
            async for events in source:
                yield events


class Reply:
    """A provider's answer: iterate over it for its events, then ask it for model, usage and finish reason.

    It can be handed to ``MessageStream.complete``.
    """

    def __init__(self, source: AsyncGenerator[Sequence[ProviderEvent], None]) -> None:
        self._source = source
        self._info = ResponseInfo()
        self._usage: Usage | None = None
        self._pieces: list[str] = []

    async def __aiter__(self) -> AsyncIterator[ProviderEvent]:
        async with aclosing(self._source) as source:
            async for events in source:
                for event in events:
                    self._note(event)
                    yield event

    def _note(self, event: ProviderEvent) -> None:
        if isinstance(event, Text):
            self._pieces.append(event.text)
        elif isinstance(event, ResponseInfo):
            self._info = event.over(self._info)
        elif isinstance(event, Usage):
            self._usage = event.over(self._usage)

    @property
    def content(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def model(self) -> str | None:
        """The model that answered."""
        return self._info.model

    @property
    def finish_reason(self) -> str | None:
        """Why it stopped."""
        return self._info.finish_reason

    @property
    def provider_request_id(self) -> str | None:
        """The provider's id of the request."""
        return self._info.provider_request_id

    @property
    def usage(self) -> Usage | None:
        """The token counts."""
        return self._usage
