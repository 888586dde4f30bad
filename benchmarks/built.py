"""What `make build` made, as Lambda runs it: cold starts, memory, and what the layers weigh.

    python -m benchmarks.built [--quick] [--sizes]

Each function runs in Lambda's Runtime Interface Emulator with Python 3.13 and the built layer, whose own bytecode it
uses; the stream function behind the real Web Adapter. An observer between the function and the emulator sees when it
asks for its first event, when its answer begins, and when its second does. Its table is in memory, in a process of its
own that answers at once, as are the management API and Lambda's. In turns with it run floors, which do nothing.

CPU and memory are those of the function's own Python: the emulator and the Web Adapter are no part of it, and the
adapter is built here without optimisation. All files are in the page cache.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import StoreError
from tailrace.settings import Settings
from tailrace.store.dynamodb import ConditionFailed, TransactionCancelled

from benchmarks import measure
from benchmarks.server import Write, listen
from tests.built.built_layer import BUDGET, LAYERS, TOKENS, TOKENS_BUDGET, files, import_all, lambda_environment, native
from tests.memory_calls import MemoryCalls
from tests.real.lambda_emulator import (
    ADAPTER,
    CLIENT,
    RESOURCES,
    EmulatedFunction,
    descendants,
    emulator,
    free_port,
    python,
)
from tests.real.lambda_emulator import main as check_built
from tests.real.recording import Recording

BUDGET_MB: Final = 80
"""Of the ready stream function."""

EVENTS: Final = measure.ROOT / "events"

ASKS: Final = b"/runtime/invocation/next HTTP"
ANSWERS: Final = b"/response HTTP"
CHUNK: Final = b'data: {"chunk":'

BARE: Final = {"app.py": "def handler(event, context):\n    return {}\n"}

BARE_STREAM: Final = {
    "run.sh": '#!/bin/sh\ncd "$LAMBDA_TASK_ROOT"\nexec python3 -s app.py\n',
    "app.py": """
import os, socket
head = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nContent-Length: 18\\r\\n"
with socket.create_server(("127.0.0.1", int(os.environ["AWS_LWA_PORT"]))) as server:
    while True:
        client, _ = server.accept()
        with client:
            client.recv(65536)
            client.sendall(head + b'Connection: close\\r\\n\\r\\ndata: {"chunk":1}\\n')
""",
}
"""What the stream function cannot do without: something that listens."""


class Subject(NamedTuple):
    """A function and an event that it answers.

    Attributes:
        name: of the function in the template, whose settings it has.
        event: a sample of ``events/``.
        code: other code in its place.
        more: variables beside those of all.
        says: what its answer has in it.
        varies: names in the event that are other ones in each call.
    """

    name: str
    event: str
    says: bytes = b""
    code: Mapping[str, str] | None = None
    more: Mapping[str, str] = {}
    varies: Sequence[str] = ()


SNAPSHOT: Final = {
    "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
    "AWS_ACCESS_KEY_ID": "",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "token",
}
"""What a function has that starts for a snapshot, which is restored after it has started."""

SUBJECTS: Final = {
    "a handler that does nothing": Subject("sweep", "sweep-schedule", b"{}", BARE),
    "a server that does nothing": Subject("stream", "stream-start", CHUNK, BARE_STREAM),
    "stream": Subject("stream", "stream-start", b'"status":"completed"'),
    "stream, for a snapshot": Subject("stream", "stream-start", b'"status":"completed"', None, SNAPSHOT),
    "api": Subject("api", "api-conversation-read", b'"statusCode": 200'),
    "websocket": Subject("websocket", "websocket-ping", b'{"statusCode": 200}'),
    "chat": Subject("chat", "chat-send", b"{}", varies=("chat-of-the-page", "GFp0dXQ2b3RlSDRo")),
    "broadcast": Subject("broadcast", "broadcast-post", b'"dropped": []'),
    "sweep": Subject("sweep", "sweep-schedule", b'"failed": 0'),
}


# ---- what they call ------------------------------------------------------------------------------


async def serve() -> None:
    """Be the table, the management API, Lambda's and the credentials', on a free port, which is printed."""
    table = MemoryCalls()
    tasks: set[asyncio.Task[None]] = set()

    async def call(operation: str, body: bytes, write: Write) -> None:
        try:
            answer: Any = await table.call(operation, msgspec.json.decode(body))
            status = 200
        except ConditionFailed as error:
            status, answer = 400, {"__type": "ConditionalCheckFailedException", "Item": error.item}
        except TransactionCancelled as error:
            status, answer = 400, {"__type": "TransactionCanceledException", "CancellationReasons": error.reasons}
        except StoreError:
            status, answer = 400, {"__type": "ValidationException"}
        write(status, msgspec.json.encode(answer))

    def subject(head: bytes, body: bytes, write: Write) -> None:
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/live/@connections/"):
            write(200, b"")
        elif path.startswith(b"/2015-03-31/functions/"):
            write(202, b"")
        elif path == b"/credentials":
            lasting = {
                "AccessKeyId": "test",
                "SecretAccessKey": "test",
                "Token": "t",
                "Expiration": "2099-01-01T00:00:00Z",
            }
            write(200, msgspec.json.encode(lasting))
        else:
            target = re.search(rb"(?i)\r\nx-amz-target: *DynamoDB_20120810\.(\w+)", head)
            assert target is not None, head
            task = asyncio.ensure_future(call(target[1].decode(), body, write))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async with await listen(subject) as server:
        await server.serve_forever()


def environment(port: int) -> dict[str, str]:
    """Return what the stack gives the functions."""
    url = f"http://127.0.0.1:{port}"
    return {
        "AWS_ENDPOINT_URL_DYNAMODB": url,
        "AWS_ENDPOINT_URL_LAMBDA": url,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/credentials",
        "TAILRACE_TABLE": "table",
        "TAILRACE_WEBSOCKET_URL": f"{url}/live",
        "TAILRACE_CHAT_FUNCTION": "chat",
        "TAILRACE_CHANNEL_SECRET": "secret",
        "TAILRACE_AUTH": "iam",
        "TAILRACE_LIMIT_STARTS": "0",
        "TAILRACE_LIMIT_OPEN": "0",
        "TAILRACE_LIMIT_SOCKETS": "20",
        "TAILRACE_LIMIT_CHANNELS": "100",
        "TAILRACE_LIMIT_WHISPERS": "10",
        "TAILRACE_LEASE_S": "30",
        "TAILRACE_PRUNE_DAYS": "7",
        "POWERTOOLS_METRICS_DISABLED": "true",
        "PYTHONHASHSEED": "0",
    }


async def make_conversation(port: int) -> str:
    """Return the id of a conversation of whoever signed the samples."""
    owner = json.loads((EVENTS / "stream-start.json").read_text())["requestContext"]["authorizer"]["iam"]["userArn"]
    backend = Backend(Settings(table="table", dynamodb_endpoint=f"http://127.0.0.1:{port}"))
    try:
        return (await Conversation.create(owner=owner, backend=backend)).id
    finally:
        await backend.close()


# ---- one cold start ------------------------------------------------------------------------------


def is_python(pid: int) -> bool:
    """Return whether a process is the Python that Lambda runs."""
    return Path(f"/proc/{pid}/exe").resolve() == python().resolve()


class Watched:
    """One function from its start on: what has passed and what its Python has used."""

    def __init__(self, function: EmulatedFunction, recording: Recording, marker: bytes) -> None:
        self._function = function
        self._recording = recording
        self._marker = marker
        self._processes: list[int] = []

    async def ready(self) -> None:
        """Wait until it asks for its first event."""
        await self._recording.until(ASKS, 1)
        self._processes = [pid for pid in descendants(self._function.pid) if is_python(pid)]

    def call(self, event: Any) -> tuple[asyncio.Task[bytes], Awaitable[None]]:
        """Call it; return the call, and what waits for the answer's beginning."""
        before = self._recording.sent.count(self._marker)
        calling = asyncio.create_task(self._function.call(event))
        return calling, self._recording.until(self._marker, before + 1)

    def cpu(self) -> float:
        """Return milliseconds (https://docs.kernel.org/scheduler/sched-stats.html)."""
        tasks = [task for pid in self._processes for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6

    def peak(self) -> float:
        """Return the most megabytes that were resident."""
        lines = [line for pid in self._processes for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def events(subject: Subject, conversation: str) -> Iterator[Any]:
    """Yield the subject's event again and again, as different requests."""
    text = (EVENTS / f"{subject.event}.json").read_text().replace("CONVERSATION_ID", conversation)
    for number in count():
        varied = text
        for name in subject.varies:
            varied = varied.replace(name, f"{name}-{number}")
        event = json.loads(varied)
        event.get("headers", {}).pop("idempotency-key", None)
        yield event


def write_code(code: Mapping[str, str], folder: Path) -> Path:
    """Write a subject's own code into a new folder; return that."""
    folder.mkdir()
    for name, content in code.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    return folder


async def start(subject: Subject, port: int, conversation: str) -> list[float]:
    """Start a function and call it twice. Return the milliseconds until it asks for an event, until its answer begins,
    and until the second one begins; the CPU's of the same; and the most megabytes."""
    marker = CHUNK if subject.name == "stream" else ANSWERS
    with tempfile.TemporaryDirectory() as scratch:
        (folder := Path(scratch) / "function").mkdir()
        code = None if subject.code is None else write_code(subject.code, Path(scratch) / "code")
        runtime_port = free_port()
        async with (
            Recording.between(f"127.0.0.1:{runtime_port}") as recording,
            EmulatedFunction.run(
                subject.name,
                folder,
                {**environment(port), **subject.more},
                runtime_port=runtime_port,
                seen_through=recording.address,
                code=code,
            ) as function,
        ):
            assert not descendants(function.pid)  # the emulator starts it for its first call, as Lambda does
            try:
                return await watch(Watched(function, recording, marker), events(subject, conversation), subject.says)
            except TimeoutError:
                raise SystemExit(f"{subject.name}: {(folder / 'log').read_text()}") from None


async def watch(watched: Watched, asked: Iterator[Any], says: bytes) -> list[float]:
    """Return the figures of ``start``."""
    wall, cpu = [time.perf_counter()], [0.0]
    calling, begins = watched.call(next(asked))
    await watched.ready()
    wall.append(time.perf_counter())
    cpu.append(watched.cpu())
    await begins
    wall.append(time.perf_counter())
    cpu.append(watched.cpu())
    answers = [await calling]
    again, used = time.perf_counter(), watched.cpu()
    calling, begins = watched.call(next(asked))
    await begins
    warm = [time.perf_counter() - again, watched.cpu() - used]
    answers.append(await calling)
    for answer in answers:
        if says not in answer:
            raise SystemExit(f"not what was expected: {answer[:500]!r}")
    taken = [wall[1] - wall[0], wall[2] - wall[1], warm[0]]
    return [*(seconds * 1000 for seconds in taken), cpu[1], cpu[2] - cpu[1], warm[1], watched.peak()]


# ---- what the layers weigh -----------------------------------------------------------------------


class Weight(msgspec.Struct):
    """What one distribution is in a layer: files, their bytes, those of a zip of them, and those of modules that are
    not loaded when all of ours is imported (some are with the first request)."""

    files: int = 0
    unzipped: int = 0
    zipped: int = 0
    idle: int = 0


@cache
def distribution(top: str) -> str:
    """Return the distribution that a name at the top of a layer is of, as the development environment has it too."""
    name = top.removesuffix(".dist-info").rpartition("-")[0] if top.endswith(".dist-info") else None
    if name is None:
        top = top.partition(".")[0]
        name = importlib.metadata.packages_distributions().get(top, [top])[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def weigh(layer: Path, loaded: set[str]) -> dict[str, Weight]:
    """Return the distributions of a layer, the heaviest first."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files(layer):
        top = path.relative_to(layer).parts[0]
        found[distribution(path.name if top == "__pycache__" else top)].append(path)
    weights = {}
    for name, paths in found.items():
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                archive.write(path, path.relative_to(layer))
        idle = [path for path in paths if (module := module_of(path, layer)) is not None and module not in loaded]
        weights[name] = Weight(len(paths), size_of(paths), len(zipped.getvalue()), size_of(idle))
    return dict(sorted(weights.items(), key=lambda item: -item[1].unzipped))


def size_of(paths: Sequence[Path]) -> int:
    """Return the bytes of files."""
    return sum(path.stat().st_size for path in paths)


def module_of(path: Path, layer: Path) -> str | None:
    """Return the module that a file is of, its source or its bytecode; None for any other file."""
    if path.suffix not in (".py", ".pyc"):
        return None
    folder = path.parent.parent if path.parent.name == "__pycache__" else path.parent
    parts = [*folder.relative_to(layer).parts, path.name.partition(".")[0]]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded_by(function: str, layer: Path) -> set[str]:
    """Return the distributions of which a function has loaded something when it has started."""
    done = subprocess.run(
        [str(python()), "-s", "-c", "import app, sys; print(*{name.partition('.')[0] for name in sys.modules})"],
        env=lambda_environment(layer),
        cwd=measure.ROOT / "functions" / function,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(map(distribution, done.stdout.split()))


def show_sizes() -> list[bool]:
    """Print what the layers weigh; return whether each is within its budget."""
    here = native(LAYERS), native(TOKENS)
    loaded = import_all(*here)
    starts = {function: loaded_by(function, here[0]) for function in sorted(RESOURCES)}
    used = {distribution(name.partition(".")[0]) for name in loaded}
    within = []
    for layers, budget in ((LAYERS, BUDGET), (TOKENS, TOKENS_BUDGET)):
        for layer in layers.values():
            weights = weigh(layer, loaded)
            if layer in here:
                show_weights(weights, starts)
                print(f"  of which nothing is ever imported: {', '.join(sorted(weights.keys() - used)) or 'none'}")
            unzipped, zipped = (sum(getattr(each, of) for each in weights.values()) for of in ("unzipped", "zipped"))
            name = f"MB of {layer.parent.name}, unzipped (zipped {zipped / 1e6:.1f})"
            within.append(measure.verdict(name, unzipped / 1e6, budget / 1e6))
    return within


def show_weights(weights: Mapping[str, Weight], starts: Mapping[str, set[str]]) -> None:
    """Print a layer's distributions, and which functions have loaded something of each when they have started."""
    whole = sum(each.unzipped for each in weights.values())
    print(f"\n  {'':26}{'MB':>7}{'share':>7}{'zipped':>8}{'files':>7}{'idle':>7}  loaded at start by")
    for name, each in weights.items():
        who = [function for function, loaded in starts.items() if name in loaded]
        said = "all" if len(who) == len(starts) else ", ".join(who) or "none"
        figures = f"{each.unzipped / 1e6:7.2f}{100 * each.unzipped / whole:6.1f}%{each.zipped / 1e6:8.2f}{each.files:7}"
        print(f"  {name:26}{figures}{each.idle / 1e6:7.2f}  {said}")


# ---- all of it -----------------------------------------------------------------------------------


def missing() -> str | None:
    """Return why what was built cannot be measured; None if it can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "The emulator and the layer that is measured are for Linux on x86_64."
    if not all(layer.exists() for layer in (*LAYERS.values(), *TOKENS.values())):
        return "There are no built layers: make build makes them."
    try:
        check_built()
    except SystemExit as error:
        return str(error)
    return None


def show_starts(*, quick: bool) -> list[bool]:
    """Measure and print the starts; return whether what has a budget is within."""
    # For the conversation that is made here; the functions have their own.
    os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    with measure.server("benchmarks.built", "--serve") as port:
        conversation = asyncio.run(make_conversation(port))
        started = {
            name: partial(lambda subject: asyncio.run(start(subject, port, conversation)), subject)
            for name, subject in SUBJECTS.items()
        }
        rows = measure.medians(started, 2 if quick else 7)
    print(f"\n  {'':28}{'ms until':>10}{'its first':>10}{'a warm':>8}{'CPU until':>11}{'its first':>10}{'a warm':>8}")
    print(f"  {'':28}{'ready':>10}{'answer':>10}{'one':>8}{'ready':>11}{'answer':>10}{'one':>8}{'MB':>6}")
    for name, (*wall, cpu_ready, cpu_first, cpu_warm, peak) in rows.items():
        said = f"{wall[0]:10.0f}{wall[1]:10.0f}{wall[2]:8.0f}{cpu_ready:11.0f}{cpu_first:10.1f}{cpu_warm:8.1f}"
        print(f"  {name:28}{said}{peak:6.0f}")
    return [measure.verdict("peak MB of the stream function", rows["stream"][-1], BUDGET_MB)]


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--sizes", action="store_true", help="only what the layers weigh")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve())
    if (reason := missing()) is not None:
        print(f"Not measured. {reason}")
        return 0
    measure.heading("What the layers weigh")
    within = show_sizes()
    if not all(part.exists() for part in (emulator(), ADAPTER, CLIENT)):
        print("\nNo starts were measured: their emulator, adapter and client are not there (make bench-built).")
    elif not given.sizes:
        measure.heading("Built functions in Lambda's emulator, Python 3.13")
        within += show_starts(quick=given.quick)
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
