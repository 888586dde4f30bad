"""A function's app.py as Lambda runs it: loaded by its path, its handler called with an event and a context."""

from __future__ import annotations

import asyncio
import importlib.util
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from tailrace.aws.event_loop import CALL

from local.child import ROOT
from local.lambda_event import Event

ENVIRONMENTS: Final = 8
"""How many requests a function serves at a time. Lambda starts another environment for each."""

TIMEOUT_SECONDS: Final = 900

Handler = Callable[[Event, "LambdaContext"], dict[str, Any]]
Closing = Callable[[], AbstractAsyncContextManager[object]]


class LambdaContext:
    """The context of one call (https://docs.aws.amazon.com/lambda/latest/dg/python-context.html)."""

    function_version = "$LATEST"
    memory_limit_in_mb = "1024"
    identity = None
    client_context = None

    def __init__(self, function_name: str, request_id: str | None = None) -> None:
        self.function_name = function_name
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:{function_name}"
        self.aws_request_id = request_id or str(uuid.uuid4())
        self.log_group_name = f"/aws/lambda/{function_name}"
        self.log_stream_name = "local"
        self._ends = time.monotonic() + TIMEOUT_SECONDS

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda would stop the call."""
        return max(0, int((self._ends - time.monotonic()) * 1000))


def load_function(name: str) -> ModuleType:
    """Import ``functions/<name>/app.py``, under a name of its own since all are called ``app``."""
    path: Path = ROOT / "functions" / name / "app.py"
    spec = importlib.util.spec_from_file_location(f"tailrace_function_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Mangum asks for the thread's event loop when it is made, and would make one that nobody closes.
    with asyncio.Runner() as runner:
        runner.get_loop()
        spec.loader.exec_module(module)
    return module


class LambdaFunction:
    """Calls a handler in threads, each with an event loop of its own, as each Lambda environment has.

    Args:
        name: the function's.
        closing: a context whose exit closes what the handler has opened in the event loop it runs in.
        environments: how many requests it serves at a time.
        cancels: whether closing it cancels calls that are running, for a function whose calls last long; otherwise it
            waits for them.
    """

    def __init__(
        self, name: str, handler: Handler, closing: Closing, *, environments: int = ENVIRONMENTS, cancels: bool = False
    ) -> None:
        self.name = name
        self._handler = handler
        self._closing = closing
        self._cancels = cancels
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._threads = ThreadPoolExecutor(environments, f"lambda-{name}", initializer=self._open)

    async def call(self, event: Event, context: LambdaContext) -> dict[str, Any]:
        """Return what the handler returns. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._handler, event, context)

    async def close(self) -> None:
        """Wait for running calls and close what they opened."""
        await asyncio.to_thread(self._close)

    def _open(self) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)  # Mangum runs the application in the thread's own
        self._loops.append(loop)

    def _close(self) -> None:
        if self._cancels:
            self._threads.shutdown(wait=False, cancel_futures=True)
            for loop in self._loops:
                for task in asyncio.all_tasks(loop):
                    if task.get_name() == CALL:
                        loop.call_soon_threadsafe(task.cancel)
        self._threads.shutdown()
        for loop in self._loops:
            loop.run_until_complete(self._close_in_loop())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    async def _close_in_loop(self) -> None:
        async with self._closing():
            pass
