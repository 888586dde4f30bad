"""Agents of frameworks as providers: a file for each, which is imported when such an agent is found.

A file has ``adapt(agent)``, which returns a function that takes a ``ProviderRequest`` and yields events. Another one is
a file and its line in ``ADAPTERS``. Nothing of a framework is imported before its user has done so.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

ADAPTERS: Final[dict[str, str]] = {}
"""Modules with ``adapt``, by where the classes of their agents are: a package, or a module of it."""


def find_adapter(given: Any) -> Callable[[Any], Any] | None:
    """Return what makes a provider's function of an agent; None of what is no agent that is known."""
    for kind in type(given).__mro__:
        for place, module in ADAPTERS.items():
            if kind.__module__ == place or kind.__module__.startswith(f"{place}."):
                adapt: Callable[[Any], Any] = import_module(module).adapt
                return adapt
    return None
