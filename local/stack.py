"""The functions and what stands in front of them, made from the environment, which must be complete by now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from types import ModuleType

from tailrace.clock import SystemClock
from tailrace.errors import ConfigurationError
from tailrace.settings import Settings
from tailrace.store import create_table

from local.broadcasting import Broadcasting
from local.environment import BROADCAST_FUNCTION, CHAT_FUNCTION, CannotStart, is_in_aws
from local.event_source import read_event_source
from local.front import Front
from local.gateway import Gateway, Limits
from local.lambda_function import LambdaFunction, load_function
from local.page import Settings as PageSettings
from local.schedule import Rule, Schedule
from local.stream_reader import StreamReader
from local.table_stream import TableStream

DAY = 24 * 3600.0

CHATS_AT_ONCE = 64
"""Answers of chats over WebSocket at a time. Each is a thread, begun when it is needed."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings, as each function will read them.

    Raises:
        CannotStart: a variable has a value that cannot be.
    """
    try:
        return Settings.from_environment(environment)
    except ConfigurationError as error:
        raise CannotStart(error.message) from error


def make_table(settings: Settings, database: str) -> None:
    """Create the table where there is none.

    Raises:
        CannotStart: the database cannot be used.
    """
    try:
        create_table(settings.table, settings.region, database)
    except Exception as error:  # pynamodb's, botocore's and urllib3's own have no common root
        raise CannotStart(f"The database at {database} cannot be used ({type(error).__name__}).") from error


def read_limits(environment: Mapping[str, str]) -> Limits:
    """Return how long a WebSocket may be idle and open: API Gateway's limits, which tests do not want to wait for.

    Raises:
        CannotStart: a variable has a value that cannot be.
    """
    usual = Limits()
    return Limits(
        idle=_seconds(environment, "TAILRACE_LOCAL_IDLE_S", usual.idle),
        duration=_seconds(environment, "TAILRACE_LOCAL_DURATION_S", usual.duration),
    )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= DAY:
        raise CannotStart(f"{name} must be a number of seconds, and {text[:20]!r} is not.")
    return seconds


def read_page(environment: Mapping[str, str], settings: Settings) -> PageSettings:
    """Return what the page is told: with tokens, whom to ask for one."""
    if settings.auth != "jwt":
        return {}
    page: PageSettings = {"auth": "jwt"}
    client = environment.get("TAILRACE_PAGE_CLIENT_ID")
    if client and settings.jwt_issuers:
        page["issuer"], page["client_id"] = settings.jwt_issuers[0], client
        page["scopes"] = environment.get("TAILRACE_PAGE_SCOPES") or "openid"
        page["token_origin"] = environment.get("TAILRACE_PAGE_TOKEN_ORIGIN") or ""
    return page


def make_front(settings: Settings, limits: Limits, database: str, page: PageSettings) -> Front:
    """Import the functions, which read the environment now, and return the application that serves everything.

    Args:
        limits: of a WebSocket.
        database: its address.
        page: what the page is told.
    """
    stream, api, sweep = load_function("stream"), load_function("api"), load_function("sweep")
    function = LambdaFunction("tailrace-api", api.handler, lambda: api.app.router.lifespan_context(api.app))
    # The sweep opens and closes its connections in each call.
    sweeping = LambdaFunction("tailrace-sweep", sweep.handler, nullcontext)
    # template.yaml has a minute for the sweep; here nobody pays for it.
    rules = [Rule(max(1.0, settings.lease / 2), {}), Rule(DAY, {"task": "prune"})]
    return Front(
        stream.app,
        function,
        Schedule(sweeping, rules, clock=SystemClock()),
        _make_broadcasting(settings, limits, database) if settings.broadcasting else None,
        page,
    )


def _make_broadcasting(settings: Settings, limits: Limits, database: str) -> Broadcasting:
    websocket, broadcast, chat = load_function("websocket"), load_function("broadcast"), load_function("chat")
    answering = LambdaFunction("tailrace-websocket", websocket.handler, lambda: _backend_of(websocket))
    announcing = LambdaFunction(BROADCAST_FUNCTION, broadcast.handler, lambda: _backend_of(broadcast))
    chatting = LambdaFunction(
        CHAT_FUNCTION, chat.handler, lambda: _backend_of(chat), environments=CHATS_AT_ONCE, cancels=True
    )
    stream = None
    if not is_in_aws(database):  # there, a stream is read by the function that is deployed with the table
        reader = StreamReader(settings.table, region=settings.region, endpoint=database)
        stream = TableStream(announcing, reader, read_event_source("BroadcastOnChanges"), clock=SystemClock())
    return Broadcasting(Gateway(answering, clock=SystemClock(), limits=limits), announcing, chatting, stream)


@asynccontextmanager
async def _backend_of(module: ModuleType) -> AsyncIterator[None]:
    """Close what a function's backend has opened in this event loop."""
    yield
    await module.backend.close()
