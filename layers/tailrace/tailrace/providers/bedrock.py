"""Amazon Bedrock's Converse API (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html),
through boto3, with the credentials it finds: in Lambda, the function's own role's.

boto3 blocks, so a call has a thread of its own, which hands its events over (``handover.py``); the event loop watches
the time, and cuts the connection (``bedrock_connection.py``) when nobody reads on. A thread for each call and not a
pool: a pool of a few threads would make one reply wait for the end of another.

boto3 is imported by the first call, in its thread: half a second that nobody pays who does not ask Bedrock.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from functools import lru_cache
from math import inf
from typing import Any

import aiohttp
import msgspec

from tailrace.errors import ProviderTimeout
from tailrace.events import ProviderEvent
from tailrace.providers import ProviderConfig, ProviderRequest, has_turns, question
from tailrace.providers.bedrock_connection import CallCut, Line, watch_client
from tailrace.providers.bedrock_failures import failure
from tailrace.providers.bedrock_parser import ConverseParser
from tailrace.providers.bedrock_prompt import messages_of, output_config_of, tool_config_of
from tailrace.providers.handover import Handover, HandoverClosed
from tailrace.providers.timeouts import Timeouts, Watch
from tailrace.providers.tolerant import Halves

NAME = "bedrock"
KEEPS = re.compile(r"anthropic\.claude-(?:3-7|3-5-haiku|(?:opus|sonnet|haiku)-[4-9])|amazon\.nova")
"""The models that keep a prompt when they are asked to; others refuse that
(https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html)."""

WAITING = 256
"""Events that may wait to be taken before the thread stops reading."""


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be given in ``ProviderRequest.options``.

    Attributes:
        citations: whether the model is to cite the files of the input.
        additional_fields: a model's own parameters, such as Claude's ``thinking``.
        guardrail_config: the API's ``guardrailConfig``.
        server_tools: tools of the vendor's own, such as ``{"systemTool": {"name": "nova_grounding"}}``.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    citations: bool = False
    additional_fields: dict[str, Any] | None = None
    guardrail_config: dict[str, Any] | None = None
    server_tools: list[dict[str, Any]] = []
    timeouts: Timeouts = Timeouts()


class Bedrock:
    """The provider ``bedrock``. Made by ``create``."""

    def __init__(self, config: ProviderConfig) -> None:
        self.name = config.name or NAME
        self._config = config

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        """See ``Provider.stream``.

        Raises:
            Unprocessable: at the call, before anything is sent: an unknown option, no model, or a part of the input
                that this wire has no form for.
        """
        options = question.read_options(request.options, Options, self.name)
        model = question.choose_model(request, self._config, self.name)
        asked = _question(request, options, model, self.name)
        return self._answer(asked, model, options.timeouts, request.streamed)

    async def _answer(
        self, asked: dict[str, Any], model: str, timeouts: Timeouts, streamed: bool
    ) -> AsyncGenerator[Sequence[ProviderEvent], None]:
        loop = asyncio.get_running_loop()
        handover: Handover[list[ProviderEvent]] = Handover(WAITING)
        line = Line(timeouts.connect)
        if not streamed:
            timeouts = msgspec.structs.replace(timeouts, first_chunk=timeouts.total, idle=timeouts.total)

        def expire(kind: type[ProviderTimeout], message: str) -> None:
            handover.end(kind(message, provider=self.name, retryable=True))

        watch = Watch(timeouts, loop.time(), expire)
        parser = ConverseParser(model, self.name)
        threading.Thread(
            target=_call, args=(self._config, asked, streamed, parser, line, handover), name=NAME, daemon=True
        ).start()
        started = False
        halves = Halves()
        try:
            while batches := await handover.take():
                if out := halves.join([event for batch in batches for event in batch]):
                    watch.since = inf  # a slow reader is not the provider's fault
                    yield out
                watch.since = loop.time()
                if not started:
                    started = True
                    watch.first_event_came()
            if out := halves.rest():
                yield out
        finally:
            watch.stop()
            handover.close()
            line.cut()


def _events(stream: Iterable[Any]) -> Iterator[Any]:
    """Yield the events of a stream, without those on which botocore itself fails since a member is of another type than
    its model says. The stream goes on after one."""
    from botocore.parsers import ResponseParserError

    while True:
        try:
            yield from stream
        except (AttributeError, LookupError, TypeError, ResponseParserError):
            continue
        return


def _call(
    config: ProviderConfig,
    asked: dict[str, Any],
    streamed: bool,
    parser: ConverseParser,
    line: Line,
    handover: Handover[list[ProviderEvent]],
) -> None:
    """The thread: ask, and hand over what comes."""
    provider = NAME
    try:
        with line:
            client = _client(config.base_url, config.region)
            out: list[ProviderEvent] = []
            if not streamed:
                response = client.converse(**asked)
                parser.begin(response, out)
                parser.read(response, out)
                parser.finish(out)
                handover.put(out)
            else:
                response = client.converse_stream(**asked)
                parser.begin(response, out)
                stream = response["stream"]
                try:
                    for event in _events(stream):
                        parser.feed(event, out)
                        handover.put(out)
                        out = []
                finally:
                    stream.close()
                parser.finish(out)
                handover.put(out)
            parser.end()
        handover.end()
    except (HandoverClosed, CallCut):
        pass  # nobody reads on
    except Exception as error:
        try:
            handover.end(failure(provider, error))
        except Exception as bug:
            handover.end(bug)


@lru_cache(maxsize=4)
def _client(base_url: str | None, region: str | None) -> Any:
    """The client, one for all threads. Without ``base_url`` botocore itself reads ``AWS_ENDPOINT_URL_BEDROCK_RUNTIME``
    and the rest of its environment."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 1},  # whoever asks decides whether to ask again
        read_timeout=None,  # the watch cuts what is silent for too long
        max_pool_connections=50,
    )
    client = boto3.Session(region_name=region).client("bedrock-runtime", endpoint_url=base_url, config=config)
    watch_client(client)
    return client


def _question(request: ProviderRequest, options: Options, model: str, provider: str) -> dict[str, Any]:
    inference = {
        "maxTokens": options.max_tokens,
        "temperature": options.temperature,
        "topP": options.top_p,
        "stopSequences": [options.stop] if isinstance(options.stop, str) else options.stop,
    }
    given = {
        "system": [{"text": text} for text in request.system] or None,
        "inferenceConfig": {name: value for name, value in inference.items() if value is not None} or None,
        "toolConfig": tool_config_of(request, options.server_tools),
        "outputConfig": output_config_of(request),
        "additionalModelRequestFields": options.additional_fields,
        "guardrailConfig": options.guardrail_config,
    }
    asked: dict[str, Any] = {
        "modelId": model,
        "messages": messages_of(request, provider, citations=options.citations),
        **{name: value for name, value in given.items() if value is not None},
    }
    if request.cache and has_turns(request) and KEEPS.search(model):
        for blocks in (asked["messages"][-1]["content"], asked.get("system")):
            if blocks:
                blocks.append({"cachePoint": {"type": "default"}})
    return asked


def create(config: ProviderConfig, session: aiohttp.ClientSession) -> Bedrock:
    """Make the provider. It needs no key; ``config.base_url`` is what ``AWS_ENDPOINT_URL_BEDROCK_RUNTIME`` means to the
    vendor's SDK."""
    return Bedrock(config)
