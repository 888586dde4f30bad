"""A provider that needs no key, no network and no account: for demos, for tests, and for users' tests as a fake.

The model's name chooses what it does:

- ``story``, and any name not in this list: a short story in three languages, about 50 chunks a second (clients of
  the OpenAI wire must name a model, and whatever they name works with no provider set);
- ``fast``: the same story without pauses;
- ``long``: 10,000 chunks without pauses;
- ``echo``: the last user message, said back;
- ``stall``: three chunks, then silence until the time-out;
- ``error``: refused with status 529 before the first chunk;
- ``break``: ends early after three chunks.

``options["script"]`` chooses in detail, see ``Script``; what it leaves out is the model's. The other options that
the real providers have are accepted and do nothing, but for ``timeouts``, whose ``idle`` ends a stall. Asked without
streaming it says all at once, and what it is to do wrong in its stream does not happen.

    provider = Scripted(sleep=no_sleep)
    request = ProviderRequest(model="fast", messages=[], options={"script": {"chunks": ["Hel", "lo"], "batch": 2}})
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

import aiohttp
import msgspec

from tailrace.errors import FirstChunkTimeout, IdleTimeout, Unprocessable
from tailrace.events import (
    Citation,
    ProviderEvent,
    Reasoning,
    ResponseInfo,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    Usage,
)
from tailrace.providers import ProviderConfig, ProviderRequest, failures
from tailrace.providers.timeouts import Timeouts

NAME = "scripted"
PACE = 0.02
WHOLE = 1_000_000

# ruff: noqa: RUF001  # the Chinese has Chinese punctuation
STORY = """Once upon a time, where the mountain lets the river go, there was a mill with a wheel that never slept. 🌊 \
The miller's daughter had one question: where does the water go when its work is done?

她沿着水渠走下去，一步一步，直到听见磨坊的声音变得很轻。水在石头之间继续流动，好像从来没有停过。 🐟 「你去哪里？」她问。

„Weiter“, sagte das Wasser, „immer weiter. Was du einmal gehört hast, kann dir niemand mehr nehmen.“ Und so war es.

She wrote it down, word for word, and whoever came late could read from where they had stopped. 📖✨ That is all a \
tailrace is: the channel that carries the water away from the wheel."""

Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Pause = Annotated[float, msgspec.Meta(ge=0)]


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do, in detail.

    Attributes:
        chunks: the texts, or how many there are to be. Empty texts are left out, as real providers' are.
        echo: say the last user message back, in place of ``chunks``.
        reasoning: pieces of reasoning before the first chunk.
        tool_calls: what it calls after its last chunk, each ``{"id", "name", "arguments"}``, written in three pieces.
        steps: of a reply in steps, what each does otherwise; the last one holds for all that follow.
        tool_results: what a tool of its own returned, ``{"id", "name", "result"}``.
        citations: sources that it names at the end, each ``{"url", "title", "quote"}`` or less.
        every: seconds between two reads.
        batch: chunks that one read brings.
        error_at: chunks before the failure; 0 fails before the first.
        status: the failure is an error with this HTTP status.
        error: what it is without one: ``early`` (the body ends), ``garbage`` (it cannot be read) or ``reset``.
        stall_after: chunks before the silence.
        prompt_tokens: counted in words by default.
        completion_tokens: counted in chunks by default.
        finish_reason: what the end says.
    """

    chunks: list[str] | Natural | None = None
    echo: bool = False
    reasoning: list[str] = []
    tool_calls: list[ToolCall] = []
    steps: list[dict[str, Any]] = []
    tool_results: list[ToolResult] = []
    citations: list[Citation] = []
    every: Pause = 0.0
    batch: Positive = 1
    error_at: Natural | None = None
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    error: Literal["early", "garbage", "reset"] = "early"
    stall_after: Natural | None = None
    prompt_tokens: Natural | None = None
    completion_tokens: Natural | None = None
    finish_reason: str = "stop"


MODELS = {
    "story": Script(every=PACE),
    "fast": Script(),
    "long": Script(chunks=10_000, batch=10),
    "echo": Script(echo=True),
    "stall": Script(stall_after=3),
    "error": Script(error_at=0, status=529),
    "break": Script(error_at=3),
}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``."""

    script: dict[str, Any] | None = None
    timeouts: Timeouts = Timeouts()
    max_tokens: Any = None
    temperature: Any = None
    top_p: Any = None
    stop: Any = None
    response_format: Any = None
    server_tools: Any = None
    parallel_tool_calls: Any = None
    reasoning_effort: Any = None
    reasoning_summary: Any = None
    include: Any = None


def split(text: str) -> list[str]:
    """Pieces of the size that models send: a short word with its space, two characters of Chinese, an emoji."""
    return re.findall(r"[\u2e80-\u9fff\uff00-\uffef]{1,2}|\s*[^\s\u2e80-\u9fff\uff00-\uffef]{1,6}|\s+", text)


class Scripted:
    """The provider ``scripted``.

    Args:
        sleep: how it waits; a test passes its own and needs no time.
        model: for requests that name none.
    """

    name = NAME

    def __init__(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep, model: str | None = None) -> None:
        self._sleep = sleep
        self._model = model or "story"

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``.

        Raises:
            Unprocessable: at the call: a script of the wrong shape.
        """
        model = request.model or self._model
        try:
            options = msgspec.convert(request.options, Options)
            given = msgspec.to_builtins(MODELS.get(model, MODELS["story"])) | (options.script or {})
            script = msgspec.convert(given, Script)
            if script.steps:
                number = min(_steps_before(request), len(script.steps) - 1)
                script = msgspec.convert({**given, "steps": [], **script.steps[number]}, Script)
        except msgspec.ValidationError as error:
            raise Unprocessable(f"Bad options for scripted: {str(error)[:200]}.") from error
        if not request.streamed:
            broken = script.status is None
            script = msgspec.structs.replace(
                script, every=0.0, batch=WHOLE, stall_after=None, error_at=None if broken else script.error_at
            )
        return self._tell(model, request, script, options.timeouts)

    async def _tell(
        self, model: str, request: ProviderRequest, script: Script, timeouts: Timeouts
    ) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        chunks = _chunks(script, request)
        words = sum(len(text.split()) for text in (*request.system, *(m.content for m in request.messages)))
        prompt_tokens = words if script.prompt_tokens is None else script.prompt_tokens
        batch: list[ProviderEvent] = [
            ResponseInfo(model=model, provider_request_id=f"req_{uuid4().hex}"),
            Usage(prompt_tokens=prompt_tokens),
        ]
        batch += [Reasoning(text) for text in script.reasoning if text]
        introduction = len(batch)
        sent = 0
        last = len(chunks)
        while True:
            if script.error_at == sent or script.stall_after == sent or sent == last:
                break
            batch.append(Text(chunks[sent]))
            sent += 1
            if len(batch) - introduction >= script.batch:
                yield batch
                batch = []
                introduction = 0
                if script.every and sent < last:
                    await self._sleep(script.every)
        if batch and sent:
            yield batch
            batch = []
        if script.stall_after == sent:
            # The seam's promise, a deadline for every wait, holds here too.
            await self._sleep(timeouts.idle if sent else timeouts.first_chunk)
            late = IdleTimeout if sent else FirstChunkTimeout
            raise late("The provider was silent for too long.", provider=NAME, retryable=True)
        if script.error_at == sent:
            raise _failure(script)
        completion_tokens = sent if script.completion_tokens is None else script.completion_tokens
        yield [
            *batch,
            *_besides(script),
            Usage(completion_tokens=completion_tokens),
            ResponseInfo(finish_reason=script.finish_reason),
        ]


def _steps_before(request: ProviderRequest) -> int:
    """Return how often the last message of the user's was answered with calls of tools."""
    count = 0
    for message in request.messages:
        count = 0 if message.role == "user" else count + bool(message.tool_calls)
    return count


def _besides(script: Script) -> Iterator[ProviderEvent]:
    for call in script.tool_calls:
        yield ToolCallStart(call.id, call.name)
        size = len(call.arguments) // 3 + 1
        for start in range(0, len(call.arguments), size):
            yield ToolCallDelta(call.id, call.arguments[start : start + size])
        yield call
    yield from script.tool_results
    yield from script.citations


def _chunks(script: Script, request: ProviderRequest) -> list[str]:
    if script.echo:
        said = [message.content for message in request.messages if message.role == "user"]
        return split(said[-1]) if said else []
    if isinstance(script.chunks, list):
        return [text for text in script.chunks if text]
    story = split(STORY)
    if script.chunks is None:
        return story
    return [story[index % len(story)] for index in range(script.chunks)]


def _failure(script: Script) -> Exception:
    if script.status is not None:
        return failures.by_status(NAME, script.status, detail="scripted")
    if script.error == "garbage":
        return failures.unreadable(NAME, "scripted")
    if script.error == "reset":
        return failures.by_exception(NAME, aiohttp.ClientConnectionResetError("scripted"))
    return failures.ended_early(NAME, "scripted")


def create(config: ProviderConfig, session: aiohttp.ClientSession) -> Scripted:
    """Make the provider. Neither a key nor the session is used."""
    return Scripted(model=config.default_model)
