"""Agents of frameworks as providers: a file for each, which is imported when such an agent is found.

A file has ``adapt(agent)``, which returns what takes a ``ProviderRequest`` and yields events. Another one is a file and
its line in ``ADAPTERS``. Nothing of a framework is imported before its user has done so.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from importlib import import_module
from typing import Any, Final

from tailrace.errors import where
from tailrace.events import ProviderEvent
from tailrace.providers import ProviderRequest

logger = logging.getLogger(__name__)

ADAPTERS: Final[dict[str, str]] = {
    "agents.agent": "tailrace.providers.adapters.openai_agents",
    "langgraph": "tailrace.providers.adapters.langgraph",
    "litellm.router": "tailrace.providers.adapters.litellm",
    "pydantic_ai.agent": "tailrace.providers.adapters.pydantic_ai",
    "strands.agent.agent": "tailrace.providers.adapters.strands",
}
"""Modules with ``adapt``, by where the classes of their agents are: a package, or a module of it."""


class Adapted:
    """What an adapter makes of an agent.

    Calling it begins nothing, but refuses what the agent cannot be asked, so that the start is refused and no reply
    fails. The agent runs when what it returned is read.

    Args:
        ask: does both.
    """

    def __init__(self, ask: Callable[[ProviderRequest], AsyncIterator[Sequence[ProviderEvent]]]) -> None:
        self._ask = ask

    def __call__(self, request: ProviderRequest) -> AsyncIterator[Sequence[ProviderEvent]]:
        """Return the answer to a request.

        Raises:
            Unprocessable: the agent cannot be asked so; the message says why.
        """
        return self._ask(request)


def find_adapter(given: Any) -> Callable[[Any], Adapted] | None:
    """Return what makes a provider's function of an agent; None of what is no agent that is known."""
    for kind in type(given).__mro__:
        for place, module in ADAPTERS.items():
            if kind.__module__ == place or kind.__module__.startswith(f"{place}."):
                try:
                    adapt: Callable[[Any], Adapted] = import_module(module).adapt
                except ImportError as error:
                    # A package of the user's own may have the name of a framework's, such as "agents".
                    logger.warning("no adapter for what looks like an agent", extra={"adapter": module, **where(error)})
                    return None
                return adapt
    return None
