"""The AWS credentials of this process, found once for all who sign requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache

from botocore.credentials import ReadOnlyCredentials

from tailrace.errors import ConfigurationError

_finding = threading.Lock()


def default_credentials() -> Callable[[], ReadOnlyCredentials]:
    """Return what gives the current credentials, by botocore's usual chain. It may read files or call a metadata
    service, so it is called in a thread; many that ask at once wait for the first.

    Raises:
        ConfigurationError: there are none.
    """
    with _finding:
        return _find()


@cache  # what was found; that there was nothing is found out again
def _find() -> Callable[[], ReadOnlyCredentials]:
    import botocore.session

    credentials = botocore.session.Session().get_credentials()
    if credentials is None:
        raise ConfigurationError("No AWS credentials were found.")
    frozen: Callable[[], ReadOnlyCredentials] = credentials.get_frozen_credentials
    frozen()
    return frozen
