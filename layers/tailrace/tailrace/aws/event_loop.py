"""The event loop of a Lambda environment: one for all of its calls, so that connections are kept between them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

CALL: Final = "tailrace call"
"""The name of the task that a call of a handler is: on one machine, what ends the process cancels those."""

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on this thread's event loop, which is made by the first call and stays open.

    A handler is called again and again by one thread. ``asyncio.run`` would make a loop for each call, and every call
    would begin with new connections to DynamoDB and to the management API: a TLS handshake each.
    """
    loop = _loop()
    return loop.run_until_complete(loop.create_task(main, name=CALL))


def _loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_event_loop()
    except (RuntimeError, DeprecationWarning):  # there is none yet, and Python 3.14 makes none
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop
