"""The environment variables that are set where the user set none, before anything reads them."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

Environment = MutableMapping[str, str]

REGION: Final = "us-east-1"

STAGE: Final = "ws"
"""The WebSocket API's stage: the first part of its path."""

BROADCAST_FUNCTION: Final = "tailrace-broadcast"
CHAT_FUNCTION: Final = "tailrace-chat"


class CannotStart(Exception):
    """Why nothing can be served: one sentence for the user."""


def given_database(environment: Environment) -> str | None:
    """Return the address of the DynamoDB that the user gave, as the AWS SDKs take it, or None."""
    return environment.get("AWS_ENDPOINT_URL_DYNAMODB") or environment.get("AWS_ENDPOINT_URL") or None


def make_quiet(environment: Environment) -> None:
    """Leave the terminal to the user: no metrics, and of the log what went wrong."""
    environment.setdefault("POWERTOOLS_METRICS_DISABLED", "true")
    if not environment.keys() & {"POWERTOOLS_LOG_LEVEL", "LOG_LEVEL"}:
        environment["POWERTOOLS_LOG_LEVEL"] = "WARNING"


def use_emulator(environment: Environment, url: str) -> None:
    """Point to our own emulator."""
    environment["AWS_ENDPOINT_URL_DYNAMODB"] = url
    if not environment.keys() & {"AWS_REGION", "AWS_DEFAULT_REGION"}:
        environment["AWS_REGION"] = REGION
    if not _has_credentials(environment):
        _set_placeholders(environment)


def use_given(environment: Environment, url: str) -> None:
    """Use the user's database. One on this machine is an emulator, which does not look at credentials."""
    file = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    if _is_loopback(urlsplit(url).hostname or "") and not _has_credentials(environment) and not file.exists():
        _set_placeholders(environment)


def use_gateway(environment: Environment, url: str) -> None:
    """Point the functions to our own WebSocket API and Lambda.

    Args:
        url: where this machine's stack is served.
    """
    environment.setdefault("TAILRACE_WEBSOCKET_URL", f"{url}/{STAGE}")
    functions = {"TAILRACE_BROADCAST_FUNCTION": BROADCAST_FUNCTION, "TAILRACE_CHAT_FUNCTION": CHAT_FUNCTION}
    if not environment.keys() & functions.keys():  # they are called at one Lambda, the user's or ours
        environment.update(functions)
        environment.setdefault("AWS_ENDPOINT_URL_LAMBDA", url)
    if not environment.keys() & {"TAILRACE_CHANNEL_SECRET", "TAILRACE_CHANNEL_SECRET_ID"}:
        environment["TAILRACE_CHANNEL_SECRET"] = secrets.token_hex(32)  # good for as long as the sockets are


def is_in_aws(url: str) -> bool:
    """Return whether a database is DynamoDB itself."""
    return (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _has_credentials(environment: Environment) -> bool:
    return bool(environment.keys() & {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"})


def _set_placeholders(environment: Environment) -> None:
    # The library signs every request, so there has to be something to sign with.
    environment.update({"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
