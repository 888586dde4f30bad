"""Code of a user's own, by its name: ``package.module:attribute``."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from tailrace.errors import ConfigurationError

PLACE: Final = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"


def load(place: str, variable: str) -> Any:
    """Import what a setting names.

    Args:
        place: ``package.module:attribute``.
        variable: the setting, for the error.

    Raises:
        ConfigurationError: it cannot be imported, or is not there; the message says which.
    """
    module_name, _, names = place.partition(":")
    try:
        found: Any = import_module(module_name)
    except Exception as error:
        # Only the kind of error: its text may be anything.
        raise ConfigurationError(f"{variable}: {module_name} cannot be imported ({type(error).__name__}).") from error
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise ConfigurationError(f"{variable}: there is no {names} in {module_name}.") from error
    return found
