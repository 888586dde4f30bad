"""The functions and what stands in front of them, made from the environment, which must be complete by now."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

from tailrace.clock import SystemClock
from tailrace.errors import ConfigurationError
from tailrace.settings import Settings
from tailrace.store import create_table

from local.environment import CannotStart
from local.front import Front
from local.lambda_function import LambdaFunction, load_function
from local.schedule import Rule, Schedule

DAY = 24 * 3600.0


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


def make_front(settings: Settings) -> Front:
    """Import the functions, which read the environment now, and return the application that serves everything."""
    stream, api, sweep = load_function("stream"), load_function("api"), load_function("sweep")
    function = LambdaFunction("tailrace-api", api.handler, lambda: api.app.router.lifespan_context(api.app))
    # The sweep opens and closes its connections in each call.
    sweeping = LambdaFunction("tailrace-sweep", sweep.handler, nullcontext)
    # template.yaml has a minute for the sweep; here nobody pays for it.
    rules = [Rule(max(1.0, settings.lease / 2), {}), Rule(DAY, {"task": "prune"})]
    return Front(stream.app, function, Schedule(sweeping, rules, clock=SystemClock()))
