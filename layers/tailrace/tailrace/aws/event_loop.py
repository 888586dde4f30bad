"""The event loop of a Lambda environment: one for all of its calls, so that connections are kept between them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on this thread's event loop, which is made by the first call and stays open.

    A handler is called again and again by one thread. ``asyncio.run`` would make a loop for each call, and every call
    would begin with new connections to DynamoDB and to the management API: a TLS handshake each.
    """
    return _loop().run_until_complete(main)


def _loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_event_loop()
    except (RuntimeError, DeprecationWarning):  # there is none yet, and Python 3.14 makes none
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop
