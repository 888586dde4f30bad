"""The AWS credentials of this process, found once for all who sign requests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from tailrace.errors import ConfigurationError

if TYPE_CHECKING:
    from botocore.session import Session

_finding = threading.Lock()


class Credentials(NamedTuple):
    """What a request is signed with.

    Attributes:
        token: of temporary credentials, or None.
    """

    access_key: str
    secret_key: str
    token: str | None = None


FindCredentials = Callable[[], Credentials]
"""Gives the credentials of this moment."""


def default_credentials() -> FindCredentials:
    """Return what gives the current credentials: the environment's, as Lambda sets them, or those of botocore's usual
    chain. That may read files or call a metadata service, so this is called in a thread; many that ask at once wait
    for the first.

    Raises:
        ConfigurationError: there are none.
    """
    with _finding:
        return _find()


@cache  # what was found; that there was nothing is found out again
def _find() -> FindCredentials:
    lasting = from_environment(os.environ)
    return _from_botocore() if lasting is None else lambda: lasting


def from_environment(variables: Mapping[str, str]) -> Credentials | None:
    """Return the credentials in the environment's variables, which botocore's chain takes first too; None where they
    are not whole or expire, which is left to botocore, since its import costs a fifth of a cold start
    (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime).
    """
    access_key = variables.get("AWS_ACCESS_KEY_ID")
    secret_key = variables.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key or variables.get("AWS_CREDENTIAL_EXPIRATION"):
        return None
    token = variables.get("AWS_SECURITY_TOKEN") or variables.get("AWS_SESSION_TOKEN") or None
    return Credentials(access_key, secret_key, token)


def prepare_chain() -> None:
    """Have ready what finds credentials, where the environment has none that last. With SnapStart it has not: they are
    at an address, and the first request after a restore need not wait for botocore's import as well
    (https://docs.aws.amazon.com/lambda/latest/dg/snapstart-activate.html#snapstart-credentials)."""
    if from_environment(os.environ) is None:
        _session()


@cache
def _session() -> Session:
    import botocore.session

    return botocore.session.Session()


def _from_botocore() -> FindCredentials:
    found = _session().get_credentials()
    if found is None:
        raise ConfigurationError("No AWS credentials were found.")

    def current() -> Credentials:
        frozen = found.get_frozen_credentials()
        return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)

    current()
    return current
