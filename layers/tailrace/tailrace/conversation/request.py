"""A request for the next reply, and the reply as it arrives from the provider."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec

from tailrace.backend import Backend
from tailrace.conversation.history import Past
from tailrace.conversation.prompt import NO_STATES, prompt_messages
from tailrace.errors import Unprocessable
from tailrace.events import (
    Citation,
    ConversationRecord,
    Json,
    Message,
    ProviderState,
    ResponseInfo,
    SourceEvent,
    ToolCall,
    ToolResult,
    Usage,
)
from tailrace.providers import ProviderRequest
from tailrace.providers.fallback import Candidate, Fallback, Mode
from tailrace.providers.finish import Finish, finish_of
from tailrace.providers.options import Options, read_options
from tailrace.providers.output_schema import Schema
from tailrace.reply.totals import Tally

MOST_PROVIDERS: Final = 8
"""How many may be named for one reply."""


LONGEST_NAME: Final = 2048
"""Characters of a provider's or a model's name; an ARN of Bedrock's has as many at most."""


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may answer: a provider, and its model or its default."""

    provider: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
    model: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] | None = None


def provider_request(
    record: ConversationRecord,
    history: Sequence[Message],
    options: Options,
    states: Mapping[str, ProviderState] = NO_STATES,
) -> ProviderRequest:
    """Return what to ask a provider: system prompts apart and in order, then the history.

    Raises:
        Unprocessable: there is no user message to answer.
    """
    system = [record.system] if record.system else []
    system += [message.content for message in history if message.role == "system"]
    messages = prompt_messages([message for message in history if message.role != "system"], states)
    if not any(message.role == "user" for message in messages):
        raise Unprocessable("There is nothing to answer: the conversation has no user message.")
    return ProviderRequest(
        model=None,
        system=system,
        messages=messages,
        tools=options.tools,
        tool_choice=options.tool_choice,
        schema=options.schema,
        cache=options.cache,
        conversation=hashlib.sha256(record.id.encode()).hexdigest()[:32],
        options=options.others,
    )


async def open_source(
    backend: Backend, choices: Sequence[Choice], request: ProviderRequest, options: Options, mode: Mode
) -> AsyncGenerator[Sequence[SourceEvent], None]:
    """Return the source of a reply from the first of the choices that answers. Nothing is sent before it is read.

    Raises:
        UnknownProvider, ConfigurationError, Unprocessable: one of the choices cannot be asked this.
    """
    if len(choices) > MOST_PROVIDERS:
        raise Unprocessable(f"A reply may name {MOST_PROVIDERS} providers at most.")
    settings = backend.settings
    providers = await asyncio.gather(*(backend.provider(choice.provider) for choice in choices))
    candidates = [
        Candidate(provider, choice.model or (settings.model if choice.provider == settings.provider else None))
        for provider, choice in zip(providers, choices, strict=True)
    ]
    schema = None if options.schema is None else await Schema.read(options.schema.schema)
    return Fallback(
        candidates,
        request,
        options,
        schema=schema,
        mode=mode,
        clock=backend.clock,
        random=lambda: int.from_bytes(backend.random_bytes(4)) / 2**32,
    ).stream()


class Request:
    """What to ask whom. Each method returns a changed copy."""

    def __init__(
        self,
        backend: Backend,
        record: ConversationRecord,
        past: Callable[[], Awaitable[Past]],
        *,
        choices: Sequence[Choice] = (),
        options: Json | None = None,
    ) -> None:
        self._backend = backend
        self._record = record
        self._past = past
        self._choices = choices or (Choice(backend.settings.provider),)
        self._options = options or {}

    def using(self, provider: str, model: str | None = None) -> Request:
        """Ask this provider first, and this model or the provider's default."""
        return self._changed(choices=(Choice(provider, model), *self._choices[1:]))

    def fallback(self, provider: str, model: str | None = None) -> Request:
        """Ask this provider when those named before have failed."""
        return self._changed(choices=(*self._choices, Choice(provider, model)))

    def options(self, **options: Any) -> Request:
        """Ask with ``max_tokens``, ``temperature``, ``tools``, ``response_format``, ``timeouts`` and the like, as under
        ``options`` over HTTP (docs/http.md). They are checked when the iteration starts."""
        return self._changed(options={**self._options, **options})

    def _changed(self, *, choices: Sequence[Choice] | None = None, options: Json | None = None) -> Request:
        return Request(
            self._backend,
            self._record,
            self._past,
            choices=choices or self._choices,
            options=self._options if options is None else options,
        )

    def stream(self, fallback: Mode = "before_first_chunk") -> Reply:
        """Return the reply to iterate over; the provider is called when the iteration starts.

        Args:
            fallback: whether the next provider is asked also when one fails after its first chunk: with ``reset`` it
                is, and what came before its ``Reset`` is void.

        Raises (from the iteration):
            UnknownProvider, ConfigurationError, Unprocessable: before any call is made.
            ProviderError: nobody answered, or who did broke off, or sent what cannot be read.
            StoreError: the history cannot be read.
        """
        return Reply(self._open(fallback))

    async def text(self, fallback: Mode = "before_first_chunk") -> Reply:
        """Return the whole reply once it is there; its text is ``reply.content``.

        Args:
            fallback: as for ``stream``.

        Raises:
            TailraceError: as the iteration of ``stream`` raises them.
        """
        reply = self.stream(fallback)
        async for _ in reply:
            pass
        return reply

    async def _open(self, fallback: Mode) -> AsyncGenerator[Sequence[SourceEvent], None]:
        options = read_options(self._options)
        past = await self._past()
        request = provider_request(self._record, past.messages, options, past.states)
        async with aclosing(await open_source(self._backend, self._choices, request, options, fallback)) as source:
            async for events in source:
                yield events


class Reply:
    """A provider's answer: iterate over it for its events, then ask it for model, usage and finish reason.

    It can be handed to ``MessageStream.complete``.
    """

    def __init__(self, source: AsyncGenerator[Sequence[SourceEvent], None]) -> None:
        self._source = source
        self._tally = Tally()

    async def __aiter__(self) -> AsyncIterator[SourceEvent]:
        async with aclosing(self._source) as source:
            async for events in source:
                for event in events:
                    if isinstance(event, ResponseInfo):
                        self._tally.info = event.over(self._tally.info)
                    else:
                        self._tally.add(event)
                    yield event

    @property
    def content(self) -> str:
        """The text so far."""
        return self._tally.content

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The tool calls so far."""
        return self._tally.tool_calls

    @property
    def tool_results(self) -> Sequence[ToolResult]:
        """What tools returned that the provider itself ran."""
        return self._tally.tool_results

    @property
    def citations(self) -> Sequence[Citation]:
        """The sources named so far."""
        return self._tally.citations

    @property
    def model(self) -> str | None:
        """The model that answered."""
        return self._tally.info.model

    @property
    def finish_reason(self) -> str | None:
        """Why it stopped, in the provider's own word."""
        return self._tally.info.finish_reason

    @property
    def finish(self) -> Finish:
        """The same in the words that all providers share."""
        return finish_of(self._tally.info.finish_reason, calls=bool(self._tally.tool_calls))

    @property
    def provider_request_id(self) -> str | None:
        """The provider's id of the request."""
        return self._tally.info.provider_request_id

    @property
    def usage(self) -> Usage | None:
        """The token counts."""
        return self._tally.usage
