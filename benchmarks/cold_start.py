"""What a cold start costs (budgets: section 1 of benchmarks/README.md).

    python -m benchmarks.cold_start [--quick] [--modules]

Every figure is of a fresh process. Imports are timed from the start of the process to its end, less bare
Python; a server from its start until its first /health is answered with 200. CPU time is what decides, since
that is what a function with a share of a vCPU waits for, and it suffers least from what else the machine does.

Bytecode is kept in directories of this run's own (PYTHONPYCACHEPREFIX): one that is warm, and one that has the
standard library's only, which is what a layer without bytecode finds in Lambda.
"""

from __future__ import annotations

import asyncio
import collections
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tailrace import Backend, Conversation
from tailrace.store import create_table

from benchmarks import measure
from local.emulator import Emulator

STREAM_FUNCTION = measure.ROOT / "functions" / "stream"
BUDGET_IMPORT = 0.08
BUDGET_HEALTH = 0.12
BUDGET_MB = 80
REGION = "us-east-1"

USUAL_APP = """
import anthropic, boto3, fastapi, mangum, openai
from aws_lambda_powertools import Logger, Metrics
{tracer}
logger, metrics = Logger(service="usual"), Metrics(namespace="usual", service="usual")
table = boto3.client("dynamodb", region_name="us-east-1")
clients = anthropic.AsyncAnthropic(api_key="k"), openai.AsyncOpenAI(api_key="k")
app = fastapi.FastAPI()
@app.get("/health")
async def health() -> dict[str, str]:
    return {{"status": "ok"}}
@app.post("/conversations/{{conversation_id}}/stream")
async def start(conversation_id: str, body: dict[str, str]) -> dict[str, str]:
    return body
handler = mangum.Mangum(app)
"""
TRACER = "from aws_lambda_powertools import Tracer; tracer = Tracer(service='usual')"
OUR_APP = "import app, httptools; from tailrace.http.server import server; server(app.app, host='127.0.0.1', port=1)"

SERVE_USUAL = (
    "\nimport os, uvicorn\nuvicorn.run(app, port=int(os.environ['PORT']), http='httptools', log_level='warning')"
)
SERVE_OURS = "import app; from tailrace.http.server import serve; serve(app.app)"

TOKENS = {"TAILRACE_AUTH": "jwt", "TAILRACE_JWT_ISSUER": "https://issuer.example", "TAILRACE_JWT_AUDIENCE": "app"}
"""With these the function imports what checks tokens."""

PARTS = {
    "starlette": "import starlette.applications, starlette.routing, starlette.responses",
    "uvicorn, httptools": "import uvicorn, uvicorn.lifespan.on, uvicorn.protocols.http.httptools_impl",
    "aiohttp": "import aiohttp",
    "pynamodb.models": "import pynamodb.models",
    "botocore.auth": "import botocore.auth",
    "powertools Logger": "from aws_lambda_powertools import Logger; Logger(service='x')",
    "powertools Metrics": "from aws_lambda_powertools import Metrics; Metrics(namespace='x', service='x')",
    "fastapi app": "import fastapi; fastapi.FastAPI()",
    "httpx2": "import httpx2; httpx2.AsyncClient()",
    "msgspec": "import msgspec",
    "orjson": "import orjson",
    "boto3 client": "import boto3; boto3.client('dynamodb', region_name='us-east-1')",
    "a TLS context": "import ssl; ssl.create_default_context()",
    "anthropic": "import anthropic; anthropic.AsyncAnthropic(api_key='k')",
    "openai": "import openai; openai.AsyncOpenAI(api_key='k')",
}


class Bytecode:
    """Where a measured process finds compiled modules."""

    def __init__(self, folder: Path) -> None:
        self._warm = folder / "warm"
        self._standard_library_only = folder / "standard-library"

    def environment(self, *, compiled: bool, writing: bool = False) -> dict[str, str]:
        """Return the variables of a process that finds it."""
        ours = ("AWS_", "TAILRACE_", "PYTHON")
        variables = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        variables["PYTHONPYCACHEPREFIX"] = str(self._warm if compiled else self._standard_library_only)
        variables["AWS_EC2_METADATA_DISABLED"] = "true"
        if not writing:
            variables["PYTHONDONTWRITEBYTECODE"] = "1"
        return variables

    def drop_all_but_the_standard_library(self) -> None:
        """Make the second directory out of the first, which must be warm."""
        shutil.copytree(self._warm, self._standard_library_only)
        for ours in (Path(sysconfig.get_path("purelib")), measure.ROOT / "layers", STREAM_FUNCTION):
            shutil.rmtree(self._standard_library_only / ours.relative_to(ours.anchor), ignore_errors=True)


def run(code: str, environment: dict[str, str]) -> tuple[float, float]:
    """Return the wall and CPU milliseconds of a process that runs ``code``."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], cwd=STREAM_FUNCTION, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {code}")
    return took * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def serve(code: str, environment: dict[str, str]) -> tuple[float, float, float]:
    """Return wall ms, CPU ms and peak MB of a process until its first /health was answered."""
    port = measure.free_port()
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=STREAM_FUNCTION, env=environment | {"PORT": str(port)}, stderr=subprocess.PIPE
    )
    measure.wait_for_health(port, process)
    took = time.perf_counter() - begin
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    process.send_signal(signal.SIGKILL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = -signal.SIGKILL
    assert process.stderr is not None
    process.stderr.close()
    return took * 1000, (usage.ru_utime + usage.ru_stime) * 1000, peak / 1024


def first_starts(variables: dict[str, str], conversation: str) -> tuple[float, float, float]:
    """Return the CPU milliseconds of a stream function until its first /health, of its first start of a reply up to the
    first chunk, and of its second. What an import put off would be paid by the first alone."""
    port = measure.free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE_OURS], cwd=STREAM_FUNCTION, env=variables | {"PORT": str(port)}
    )
    try:
        measure.wait_for_health(port, process)
        spent = [_cpu_ms(process.pid)]
        for _ in range(2):
            _start_reply(port, conversation)
            spent.append(_cpu_ms(process.pid))
    finally:
        process.kill()
        process.wait()
    return spent[0], spent[1] - spent[0], spent[2] - spent[1]


def _start_reply(port: int, conversation: str) -> None:
    """Start a reply and read it up to its first chunk."""
    body = b'{"input":"Hello"}'
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(
            f"POST /conversations/{conversation}/stream HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = b""
        while b'{"chunk":' not in answer:
            more = client.recv(65536)
            if not more:
                raise SystemExit(f"no chunk: {answer[:300]!r}")
            answer += more


def _cpu_ms(pid: int) -> float:
    """Return what all threads of a process have run for (https://docs.kernel.org/scheduler/sched-stats.html)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6


def starts_of_replies(runs: int, compiled: dict[str, str]) -> list[tuple[float, float, float]]:
    """Return ``first_starts`` of some processes, with an emulated table."""
    emulator = Emulator()
    try:
        url = emulator.url()
        ours = {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_DYNAMODB": url,
            "POWERTOOLS_LOG_LEVEL": "WARNING",
            "POWERTOOLS_METRICS_DISABLED": "true",
        }
        os.environ.update(ours)
        create_table("tailrace", REGION, url)
        conversation = asyncio.run(_conversation())
        return [first_starts(compiled | ours, conversation) for _ in range(runs)]
    finally:
        emulator.end()


async def _conversation() -> str:
    backend = Backend()
    try:
        return (await Conversation.create(backend=backend)).id
    finally:
        await backend.close()


def show(rows: dict[str, list[float]], bare: Sequence[float], base: str) -> None:
    """Print wall and CPU over bare Python, and the CPU's ratio to ``base``."""
    print(f"  {'':34}{'wall ms':>9}{'CPU ms':>9}{'ratio':>8}{'x bare':>8}")
    for name, (wall, cpu, *peak) in rows.items():
        ratio = (cpu - bare[1]) / (rows[base][1] - bare[1])
        memory = f"{peak[0]:8.0f} MB" if peak else ""
        print(f"  {name:34}{wall - bare[0]:9.0f}{cpu - bare[1]:9.0f}{ratio:8.2f}{cpu / bare[1]:8.1f}{memory}")


def explain(environment: dict[str, str], runs: int) -> None:
    """Print what the stream function's import spends where, summed by package. What is counted is wall time, so of each
    module it is the least of some processes."""
    least: dict[str, int] = {}
    for _ in range(runs):
        for name, micros in _import_times(environment):
            least[name] = min(micros, least.get(name, micros))
    packages: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    for name, micros in least.items():
        package = name.split(".")[0]
        package = "(standard library)" if package in sys.stdlib_module_names else package
        packages[package] += micros
        counts[package] += 1
    print(f"\nThe stream function's imports, own ms, the least of {runs} processes: packages (modules), the dearest")
    print("  " + ", ".join(f"{name} {us / 1000:.1f} ({counts[name]})" for name, us in packages.most_common(20)))
    print("  " + ", ".join(f"{name} {us / 1000:.1f}" for name, us in collections.Counter(least).most_common(20)))


def _import_times(environment: dict[str, str]) -> list[tuple[str, int]]:
    """Return the modules that the stream function imports, and the microseconds of each without those it imports."""
    command = [sys.executable, "-X", "importtime", "-c", OUR_APP]
    done = subprocess.run(command, cwd=STREAM_FUNCTION, env=environment, capture_output=True, text=True, check=True)
    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if line.count("|") == 2]
    return [(name.strip(), int(own)) for own, _, name in lines if own.strip().isdigit()]


def works(code: str, environment: dict[str, str]) -> bool:
    """Run ``code``, so that all it imports is compiled; return whether it can be run here at all."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=STREAM_FUNCTION, env=environment, capture_output=True).returncode == 0


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--modules", action="store_true", help="only say where the imports spend their time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bytecode = Bytecode(Path(folder))
        writing = bytecode.environment(compiled=True, writing=True)
        tracer = TRACER if works("import aws_xray_sdk", writing) else ""
        usual = USUAL_APP.format(tracer=tracer)
        parts = {name: code for name, code in PARTS.items() if works(code, writing)}
        serve(SERVE_OURS, writing)
        serve(SERVE_OURS, writing | TOKENS)
        serve(usual + SERVE_USUAL, writing)
        if given.modules:
            explain(bytecode.environment(compiled=True), 3 if given.quick else 9)
            return 0
        bytecode.drop_all_but_the_standard_library()
        compiled, plain = bytecode.environment(compiled=True), bytecode.environment(compiled=False)
        return report(usual, parts, compiled, plain, quick=given.quick)


def report(usual: str, parts: dict[str, str], compiled: dict[str, str], plain: dict[str, str], *, quick: bool) -> int:
    """Measure and print everything; return the exit code."""
    runs = 3 if quick else 5
    measure.heading("Import to ready, over bare Python")
    tokens = compiled | TOKENS
    starts: dict[str, Callable[[], Sequence[float]]] = {
        "bare": lambda: run("pass", compiled),
        "usual stack, app made": lambda: run(usual, compiled),
        "stream function, server made": lambda: run(OUR_APP, compiled),
        "stream function, with tokens": lambda: run(OUR_APP, tokens),
    }
    starts |= {name: partial(run, code, compiled) for name, code in parts.items()}
    rows = measure.medians(starts, runs)
    bare = rows.pop("bare")
    print(f"  bare Python: {bare[0]:.0f} ms wall, {bare[1]:.0f} ms CPU")
    show(rows, bare, "usual stack, app made")
    ratio = (rows["stream function, server made"][1] - bare[1]) / (rows["usual stack, app made"][1] - bare[1])

    measure.heading("Process start to the first /health, over bare Python")
    served = measure.medians(
        {
            "usual stack": lambda: serve(usual + SERVE_USUAL, compiled),
            "stream function": lambda: serve(SERVE_OURS, compiled),
            "stream function, with tokens": lambda: serve(SERVE_OURS, tokens),
            "usual stack, without bytecode": lambda: serve(usual + SERVE_USUAL, plain),
            "stream function, without bytecode": lambda: serve(SERVE_OURS, plain),
        },
        runs,
    )
    show(served, bare, "usual stack")

    measure.heading("A reply's first chunk, CPU of the function (its table is emulated)")
    health, first, second = (
        statistics.median(column) for column in zip(*starts_of_replies(runs, compiled), strict=True)
    )
    print(f"  until /health {health:.0f} ms, the first start {first:.1f} ms, the second {second:.1f} ms")
    print()
    within = [
        measure.verdict("stream function's imports by the usual stack's", ratio, BUDGET_IMPORT),
        measure.verdict(
            "until /health, the same",
            (served["stream function"][1] - bare[1]) / (served["usual stack"][1] - bare[1]),
            BUDGET_HEALTH,
        ),
        measure.verdict("peak MB of the ready stream function", served["stream function"][2], BUDGET_MB),
    ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
