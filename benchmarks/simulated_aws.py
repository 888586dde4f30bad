"""AWS around the library in a simulation: a table, a management API and Lambda, with their limits, in virtual time.

The library's own code runs down to the HTTP request (``SignedCalls.call``), which comes here instead: statuses,
retries, deadlines, JSON and sizes are the real ones. An answer takes a time that is drawn, and what our code costs is
taken from the CPU of the environment that it runs in, one thing after the other: so a relay or a function has no more
than its share of a vCPU, and what it has to do waits for that.

Not simulated: connections and their TLS, the 512 and 64 of them that one environment may have, packets that are lost,
and that a CPU which is busy also delays timers. API Gateway's limits are targets, says AWS, and no exact ceilings; here
they are exact.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from types import ModuleType
from typing import Any, Final
from unittest import mock
from urllib.parse import unquote

import msgspec
from tailrace.aws.exchange import Answer
from tailrace.aws.signed_calls import NoAnswer, SignedCalls
from tailrace.backend import Backend
from tailrace.settings import Settings
from tailrace.store.dynamodb import ConditionFailed, TransactionCancelled

from benchmarks.simulated_table import SimulatedTable
from local.child import ROOT
from tests.token_bucket import TokenBucket
from tests.virtual_time import LoopClock

DYNAMODB, GATEWAY, LAMBDA = "dynamodb.invalid", "gateway.invalid", "lambda.invalid"

VCPU_MB: Final = 1769
"""Megabytes that come with a whole vCPU (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html)."""

LARGEST_PAYLOAD: Final = 6 * 1024**2
"""Bytes of a synchronous call (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html)."""

NO_HEADERS: Final[Mapping[str, str]] = {}


class Latency(msgspec.Struct, frozen=True):
    """Seconds that an answer takes: a logarithmic normal distribution, by its median and its 99th percentile."""

    median: float
    p99: float

    def draw(self, dice: random.Random) -> float:
        """Return one."""
        if self.p99 <= self.median:
            return self.median
        return dice.lognormvariate(math.log(self.median), math.log(self.p99 / self.median) / 2.326)


class Costs(msgspec.Struct, frozen=True):
    """CPU seconds that our code takes, on a whole vCPU.

    Attributes:
        post: a call over HTTP with all that belongs to it: a post to one subscriber, a query, a write.
        item: each item that a query brought.
        byte: each byte of JSON that one function is given by another, on either side.
        chunk: each chunk of a provider, until it is stored.
        call: a call of a function, beside what it does.
    """

    post: float
    item: float
    byte: float
    chunk: float
    call: float = 0.002


class Limits(msgspec.Struct, frozen=True):
    """What an account has by default.

    Attributes:
        posts, burst: requests a second of API Gateway, and its bucket: of all its APIs, callbacks among them
            (https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html).
        environments: of Lambda at a time, of all functions
            (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
        starts: environments of one function that are started in ten seconds
            (https://docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html).
        partition_reads, partition_writes: units a second of one partition key
            (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html).
    """

    posts: float = 10_000
    burst: float = 5_000
    environments: int = 1_000
    starts: float = 1_000
    partition_reads: float = 3_000
    partition_writes: float = 1_000


class Latencies(msgspec.Struct, frozen=True):
    """How long AWS takes. It publishes none of these but DynamoDB's "single-digit milliseconds"; all are assumed."""

    post: Latency = Latency(0.010, 0.060)
    dynamodb: Latency = Latency(0.004, 0.012)
    transaction: Latency = Latency(0.012, 0.030)
    invoke: Latency = Latency(0.020, 0.080)
    cold_start: Latency = Latency(0.5, 1.2)


NO_TIME: Final = Latencies(*[Latency(0.0003, 0.0003)] * 5)
"""A machine beside this one."""


class Environment:
    """An execution environment, or a relay's: one CPU, of which it has a share.

    Attributes:
        used: CPU seconds, as on a whole vCPU.
    """

    def __init__(self, name: str, share: float) -> None:
        self.name = name
        self.used = 0.0
        self._share = share
        self._free = 0.0

    def work(self, seconds: float) -> float:
        """Let the CPU work, after what it has to do already; return the seconds until that is done."""
        now = asyncio.get_running_loop().time()
        self._free = max(now, self._free) + seconds / self._share
        self.used += seconds
        return self._free - now

    def create_task(self, main: Any) -> asyncio.Task[Any]:
        """Run a coroutine here: whatever it calls is called from here."""
        context = copy_context()
        context.run(HERE.set, self)
        return asyncio.get_running_loop().create_task(main, context=context)


HERE: ContextVar[Environment] = ContextVar("HERE")


class Function:
    """A function, and its environments.

    Attributes:
        calls, refused, started: how many there were.
        most: environments at work at a time, at most.
        seconds: that are billed.
        cpu: seconds of all its environments.
    """

    def __init__(self, aws: AWS, name: str, memory: int) -> None:
        self.name = name
        self.memory = memory
        self.calls = self.refused = self.started = self.most = 0
        self.seconds = 0.0
        self._aws = aws
        self._idle: list[tuple[Environment, ModuleType]] = []
        self._all: list[Environment] = []
        self._at_work = 0
        self._starts = TokenBucket(aws.limits.starts / 10, aws.limits.starts)

    @property
    def cpu(self) -> float:
        return sum(environment.used for environment in self._all)

    @asynccontextmanager
    async def _environment(self) -> AsyncIterator[tuple[Environment, ModuleType] | None]:
        now = asyncio.get_running_loop().time()
        if not self._aws.begin_work():
            self.refused += 1
            yield None
            return
        try:
            if not self._idle and not self._starts.take(now):
                self.refused += 1
                yield None
                return
            self.calls += 1
            self._at_work += 1
            self.most = max(self.most, self._at_work)
            try:
                found = self._idle.pop() if self._idle else await self._start()
                try:
                    yield found
                finally:
                    self._idle.append(found)
            finally:
                self._at_work -= 1
                self.seconds += asyncio.get_running_loop().time() - now
        finally:
            self._aws.end_work()

    async def _start(self) -> tuple[Environment, ModuleType]:
        self.started += 1
        await asyncio.sleep(self._aws.latencies.cold_start.draw(self._aws.dice))
        environment = Environment(self.name, self.memory / VCPU_MB)
        self._all.append(environment)
        return environment, load(self.name, self._aws.settings(self.name))

    async def call(self, event: Any, size: int) -> Any:
        """Call it with an event of so many bytes; return what it returns, or None when there is no environment.

        Raises what it raises.
        """
        async with self._environment() as found:
            if found is None:
                return None
            environment, module = found
            await asyncio.sleep(environment.work(self._aws.costs.call + size * self._aws.costs.byte))
            return await environment.create_task(module._handle(event, 120.0))


class AWS:
    """One account.

    Args:
        memory: megabytes of each function.

    Attributes:
        answers: of the management API, by status.
        messages: of 32 KB, as they are billed.
        busiest: posts that were taken in one second, at most.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        latencies: Latencies,
        costs: Costs,
        memory: int,
        fan_out_limit: int,
        seed: int,
    ) -> None:
        self.limits, self.latencies, self.costs = limits, latencies, costs
        self.dice = random.Random(seed)
        self.clock = LoopClock()
        self.table = SimulatedTable(lambda: self.clock.now() / 1_000_000)
        self.answers: Counter[int] = Counter()
        self.a_second: Counter[int] = Counter()
        self.messages = 0
        self.at_work = self.most_at_work = 0
        self.take: Callable[[str, bytes, float], int] = lambda socket, frame, now: 200
        self._fan_out_limit = fan_out_limit
        self._posts = TokenBucket(limits.posts, limits.burst)
        self._reads: dict[str, TokenBucket] = {}
        self._writes: dict[str, TokenBucket] = {}
        self.broadcast = Function(self, "broadcast", memory)

    def settings(self, function: str) -> Settings:
        """Return what the template gives a function."""
        return Settings(
            table="t",
            auth="iam",
            in_lambda=True,
            dynamodb_endpoint=f"http://{DYNAMODB}",
            websocket_url=f"http://{GATEWAY}/live",
            lambda_endpoint=f"http://{LAMBDA}",
            broadcast_function="broadcast",
            fan_out_limit=self._fan_out_limit,
            environment={"AWS_LAMBDA_FUNCTION_NAME": function},
        )

    def begin_work(self) -> bool:
        """Count an environment at work, if there may be one more."""
        if self.at_work >= self.limits.environments:
            return False
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        return True

    def end_work(self) -> None:
        """Count it no more."""
        self.at_work -= 1

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Answer what the library calls while the block runs, and let its jitter be drawn from the same seed."""

        async def call(
            calls: Any, method: str, path: str, body: bytes, further: Mapping[str, str] = NO_HEADERS
        ) -> Answer:
            return await self._call(calls._signing.host, path, body, further, calls._timeout)

        with mock.patch.object(SignedCalls, "call", call), mock.patch.object(random, "_urandom", self.dice.randbytes):
            yield

    # ---- what is called ----

    async def _call(self, host: str, path: str, body: bytes, further: Mapping[str, str], timeout: float) -> Answer:
        here, loop = HERE.get(), asyncio.get_running_loop()
        begun = loop.time()
        carried = len(body) * self.costs.byte if host == LAMBDA else 0.0
        # All that a call costs, before it leaves: what belongs to its answer delays the calls beside it as much.
        before = here.work(self.costs.post + carried)
        latency = self._latency(host, further).draw(self.dice)
        await asyncio.sleep(before + latency / 2)
        if host == LAMBDA:
            calling = loop.create_task(self._invoke(body))  # which goes on when nobody waits for it any more
            await asyncio.wait((calling,), timeout=max(0.0, begun + timeout - loop.time()))
            if not calling.done():
                raise NoAnswer("TimeoutError")
            answer = calling.result()
        elif host == GATEWAY:
            answer = Answer(self._post(unquote(path.rpartition("/")[2]), body), NO_HEADERS, b"{}")
        else:
            answer = await self._dynamodb(further["X-Amz-Target"].rpartition(".")[2], body)
        # An answer that comes too late is none. What was asked for has been done all the same.
        left = begun + timeout - loop.time()
        await asyncio.sleep(max(0.0, min(latency / 2, left)))
        if latency / 2 < left:
            after = len(answer.body) * self.costs.byte if host == LAMBDA else 0.0
            if host == DYNAMODB:
                after = answer.body.count(b'"pk":') * self.costs.item
            if after:
                await asyncio.sleep(here.work(after))
        if loop.time() > begun + timeout:
            raise NoAnswer("TimeoutError")
        return answer

    def _latency(self, host: str, further: Mapping[str, str]) -> Latency:
        if host == GATEWAY:
            return self.latencies.post
        if host == LAMBDA:
            return self.latencies.invoke
        is_transaction = further["X-Amz-Target"].endswith("TransactWriteItems")
        return self.latencies.transaction if is_transaction else self.latencies.dynamodb

    def _post(self, socket: str, frame: bytes) -> int:
        now = asyncio.get_running_loop().time()
        status = self.take(socket, frame, now) if self._posts.take(now) else 429
        if status == 200:
            self.messages += -(-len(frame) // 32_768)
            self.a_second[int(now)] += 1
        self.answers[status] += 1
        return status

    async def _invoke(self, body: bytes) -> Answer:
        if len(body) > LARGEST_PAYLOAD:
            return Answer(413, NO_HEADERS, b"{}")
        try:
            returned = await self.broadcast.call(msgspec.json.decode(body), len(body))
        except Exception as error:
            return Answer(200, {"x-amz-function-error": "Unhandled"}, repr(error).encode())
        if returned is None:
            return Answer(429, NO_HEADERS, b"{}")
        return Answer(200, NO_HEADERS, msgspec.json.encode(returned))

    async def _dynamodb(self, operation: str, body: bytes) -> Answer:
        request, now = msgspec.json.decode(body), asyncio.get_running_loop().time()
        table = self.table
        pk = partition_of(request)
        reads = operation in ("Query", "GetItem", "BatchGetItem")
        buckets, rate = (
            (self._reads, self.limits.partition_reads) if reads else (self._writes, self.limits.partition_writes)
        )
        bucket = buckets.setdefault(pk, TokenBucket(rate, rate))
        if not bucket.take(now, 0.0):
            self.answers[-429] += 1
            return Answer(400, NO_HEADERS, b'{"__type":"#ThrottlingException"}')
        before = (table.read_units if reads else table.write_units).total()
        try:
            answer = Answer(200, NO_HEADERS, msgspec.json.encode(await table.call(operation, request)))
        except ConditionFailed as error:
            failed = {"__type": "#ConditionalCheckFailedException", "Item": error.item}
            answer = Answer(400, NO_HEADERS, msgspec.json.encode(failed))
        except TransactionCancelled as error:
            cancelled = {"__type": "#TransactionCanceledException", "CancellationReasons": error.reasons}
            answer = Answer(400, NO_HEADERS, msgspec.json.encode(cancelled))
        bucket.take(now, (table.read_units if reads else table.write_units).total() - before)
        return answer


def partition_of(request: Mapping[str, Any]) -> str:
    """Return the partition that a request is for; of a transaction, the first one's."""
    if "TransactItems" in request:
        (request,) = request["TransactItems"][0].values()
    if "KeyConditionExpression" in request:
        return str(next(iter(request["ExpressionAttributeValues"].values()))["S"])
    for name in ("Key", "Item"):
        if name in request:
            return str(request[name]["pk"]["S"])
    return ""


def load(function: str, settings: Settings) -> ModuleType:
    """Import ``functions/<function>/app.py`` as an environment of its own has it, with the loop's clock."""
    path = ROOT / "functions" / function / "app.py"
    spec = importlib.util.spec_from_file_location(f"simulated_{function}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module)["backend"] = Backend(settings, clock=LoopClock())
    return module
