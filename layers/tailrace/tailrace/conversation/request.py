"""A request for the next reply, and the reply as it arrives from the provider."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from tailrace.backend import Backend
from tailrace.conversation.history import Past
from tailrace.conversation.prompt import NO_STEPS, prompt_messages
from tailrace.errors import Unprocessable
from tailrace.events import (
    Citation,
    ConversationRecord,
    Json,
    Message,
    ResponseInfo,
    SourceEvent,
    Step,
    ToolCall,
    ToolResult,
    Usage,
)
from tailrace.providers import ProviderRequest
from tailrace.providers.fallback import Candidate, Fallback, Mode
from tailrace.providers.finish import Finish, finish_of
from tailrace.providers.options import Options, read_options
from tailrace.providers.output_schema import Schema
from tailrace.reply.steps import MAX_STEPS, Pending, Steps
from tailrace.reply.totals import Tally

if TYPE_CHECKING:
    from tailrace.conversation.conversation import Conversation
    from tailrace.conversation.tools import LocalTool, ToolContext
    from tailrace.reply.stream import MessageStream

MOST_PROVIDERS: Final = 8
"""How many may be named for one reply."""


LONGEST_NAME: Final = 2048
"""Characters of a provider's or a model's name; an ARN of Bedrock's has as many at most."""


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may answer: a provider, and its model or its default."""

    provider: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
    model: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] | None = None


class Running(msgspec.Struct):
    """The reply that tools run in, as far as it is known; it is filled in when the reply is stored.

    Attributes:
        conversation: the reply's.
        message_id, metadata: the reply's own.
        stored: waits until all that was said is in its log.
        gone_at: when this process will be gone, by the monotonic clock.
    """

    conversation: Conversation
    message_id: str = ""
    metadata: Json = msgspec.field(default_factory=dict)
    stored: Callable[[], Awaitable[object]] | None = None
    gone_at: float | None = None


class Here(msgspec.Struct, frozen=True):
    """What runs here while a reply is made.

    Attributes:
        tools: by their names.
        running: the reply.
        max_steps: how often the model is asked at most.
        pending: the calls of an earlier reply that come first.
    """

    tools: Mapping[str, LocalTool]
    running: Running
    max_steps: int
    pending: Pending | None = None


def provider_request(
    record: ConversationRecord,
    history: Sequence[Message],
    options: Options,
    steps: Mapping[str, Sequence[Step]] = NO_STEPS,
    tools: Iterable[LocalTool] = (),
) -> ProviderRequest:
    """Return what to ask a provider: system prompts apart and in order, then the history.

    Args:
        tools: those that run here.

    Raises:
        Unprocessable: there is no user message to answer.
    """
    system = [record.system] if record.system else []
    system += [message.content for message in history if message.role == "system"]
    messages = prompt_messages([message for message in history if message.role != "system"], steps)
    if not any(message.role == "user" for message in messages):
        raise Unprocessable("There is nothing to answer: the conversation has no user message.")
    return ProviderRequest(
        model=None,
        system=system,
        messages=messages,
        tools=[*options.tools, *(tool.definition for tool in tools)],
        tool_choice=options.tool_choice,
        schema=options.schema,
        cache=options.cache,
        conversation=hashlib.sha256(record.id.encode()).hexdigest()[:32],
        options=options.others,
    )


async def open_source(
    backend: Backend,
    choices: Sequence[Choice],
    request: ProviderRequest,
    options: Options,
    mode: Mode,
    here: Here | None = None,
) -> AsyncGenerator[Sequence[SourceEvent], None]:
    """Return the source of a reply from the first of the choices that answers. Nothing is sent before it is read.

    Args:
        here: what runs here beside it.

    Raises:
        UnknownProvider, ConfigurationError, Unprocessable: one of the choices cannot be asked this.
    """
    if len(choices) > MOST_PROVIDERS:
        raise Unprocessable(f"A reply may name {MOST_PROVIDERS} providers at most.")
    settings = backend.settings
    providers = await asyncio.gather(*(backend.provider(choice.provider) for choice in choices))
    candidates: Sequence[Candidate] = [
        Candidate(provider, choice.model or (settings.model if choice.provider == settings.provider else None))
        for provider, choice in zip(providers, choices, strict=True)
    ]
    schema = None if options.schema is None else await Schema.read(options.schema.schema)

    def asking(candidates: Sequence[Candidate], request: ProviderRequest, mode: Mode) -> Fallback:
        return Fallback(
            candidates,
            request,
            options,
            schema=schema,
            mode=mode,
            clock=backend.clock,
            random=lambda: int.from_bytes(backend.random_bytes(4)) / 2**32,
        )

    # Made at once: it refuses what cannot be asked.
    first = asking(candidates, request, mode)
    if here is None or not (here.tools or here.pending):
        return first.stream()
    newest = first

    def ask(step: ProviderRequest, is_first: bool) -> AsyncGenerator[Sequence[SourceEvent], None]:
        # Whoever answered the first step answers the others, since the thoughts are its own. From the second on nothing
        # can be made void: tools have run.
        nonlocal newest
        if not is_first or step is not request:
            newest = asking(newest.candidates, step, mode if is_first else "before_first_chunk")
        return newest.stream()

    async def call(call: ToolCall) -> ToolResult:
        return await here.tools[call.name].call(call, context_of(here.running, call.id))

    running, clock = here.running, backend.clock
    return Steps(
        ask,
        request,
        here.tools,
        call,
        max_steps=here.max_steps,
        pending=here.pending,
        stored=lambda: _stored(running),
        time_left=lambda: None if running.gone_at is None else running.gone_at - clock.monotonic(),
    ).stream()


async def _stored(running: Running) -> None:
    if running.stored is not None:
        await running.stored()


def context_of(running: Running, call_id: str) -> ToolContext:
    """Return what a tool may know of the reply that it is called for."""
    # Where a tool runs, pydantic is there; nobody else imports it.
    from tailrace.conversation.tools import ToolContext

    return ToolContext(
        conversation=running.conversation,
        owner=running.conversation.record.owner,
        metadata=running.metadata,
        message_id=running.message_id,
        call_id=call_id,
    )


class Request:
    """What to ask whom. Each method returns a changed copy."""

    def __init__(
        self,
        backend: Backend,
        conversation: Conversation,
        past: Callable[[], Awaitable[Past]],
        *,
        choices: Sequence[Choice] = (),
        options: Json | None = None,
        tools: Sequence[Callable[..., Any]] = (),
    ) -> None:
        self._backend = backend
        self._conversation = conversation
        self._past = past
        self._tools = tools
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

    def tools(self, *tools: Callable[..., Any]) -> Request:
        """Let the model call these functions, plain or ``async``, or what ``tool`` made of them; they run here
        (docs/own-code.md). They come beside those of ``options``."""
        return self._changed(tools=[*self._tools, *tools])

    def _changed(
        self,
        *,
        choices: Sequence[Choice] | None = None,
        options: Json | None = None,
        tools: Sequence[Callable[..., Any]] | None = None,
    ) -> Request:
        return Request(
            self._backend,
            self._conversation,
            self._past,
            choices=choices or self._choices,
            options=self._options if options is None else options,
            tools=self._tools if tools is None else tools,
        )

    def stream(
        self,
        fallback: Mode = "before_first_chunk",
        *,
        max_steps: int | None = None,
        into: MessageStream | None = None,
    ) -> Reply:
        """Return the reply to iterate over; the provider is called when the iteration starts.

        Args:
            max_steps: how often the model is asked at most, where tools that run here answer it; 8 when None.
            into: the stream that what comes is appended to. Tools are told of its reply, and none is called before its
                call is stored.
            fallback: whether the next provider is asked also when one fails after its first chunk: with ``reset`` it
                is, and what came before its ``Reset`` is void.

        Raises (from the iteration):
            UnknownProvider, ConfigurationError, Unprocessable: before any call is made.
            ProviderError: nobody answered, or who did broke off, or sent what cannot be read.
            StoreError: the history cannot be read.
        """
        return Reply(self._open(fallback, max_steps, into))

    async def text(self, fallback: Mode = "before_first_chunk", *, max_steps: int | None = None) -> Reply:
        """Return the whole reply once it is there; its text is ``reply.content``.

        Args:
            fallback, max_steps: as for ``stream``.

        Raises:
            TailraceError: as the iteration of ``stream`` raises them.
        """
        reply = self.stream(fallback, max_steps=max_steps)
        async for _ in reply:
            pass
        return reply

    async def _open(
        self, fallback: Mode, max_steps: int | None, into: MessageStream | None
    ) -> AsyncGenerator[Sequence[SourceEvent], None]:
        options = read_options(self._options)
        past = await self._past()
        running = Running(self._conversation)
        if into is not None:
            running = Running(self._conversation, into.id, into.metadata, into.stored)
        tools = await tools_here(self._backend, options, self._tools)
        here = Here(tools, running, max_steps or options.max_steps or MAX_STEPS)
        request = provider_request(self._conversation.record, past.messages, options, past.steps, tools.values())
        async with aclosing(
            await open_source(self._backend, self._choices, request, options, fallback, here)
        ) as source:
            async for events in source:
                yield events


async def tools_here(
    backend: Backend, options: Options, given: Sequence[Callable[..., Any]] = ()
) -> Mapping[str, LocalTool]:
    """Return the tools that run here: those that the options name, and those that were given.

    Raises:
        Unprocessable: there is none of a name, or it is also that of a tool of the client's.
        ConfigurationError: one of those given cannot be a tool, or has the name of another.
    """
    if not options.own_tools and not given:
        return {}
    from tailrace.conversation.tools import named_tools, tools_by_name  # and with them pydantic

    tools = tools_by_name([*await named_tools(backend, options.own_tools), *given])
    for tool in options.tools:
        if tool.name in tools:
            raise Unprocessable(f"Two tools have the name {tool.name}.")
    return tools


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
                        self._tally.add((event,))
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
        """What tools returned that ran beside the model: at the provider, or here."""
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
        return finish_of(self._tally.info.finish_reason, calls=self._tally.has_calls)

    @property
    def provider_request_id(self) -> str | None:
        """The provider's id of the request."""
        return self._tally.info.provider_request_id

    @property
    def usage(self) -> Usage | None:
        """The token counts."""
        return self._tally.usage
