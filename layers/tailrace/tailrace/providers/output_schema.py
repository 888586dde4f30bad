"""The JSON schema an answer is to match, and the check at its end.

The validator is jsonschema: under 2 MB in the layer, where half of what it needs is anyway (jsonschema-rs, ten times
quicker to import, has 12 MB; fastjsonschema makes Python code out of a schema, and schemas come from clients). Its
import costs about 0.2 s, so it waits for the first reply that has a schema, and happens in a thread.

``pattern`` is left to the provider, and ``patternProperties`` is refused: a regular expression of a client's can keep
Python busy for ever. References lead nowhere outside of the schema. With each keyword the time is looked at, so that no
schema and no answer cost more than two seconds, and what fits into them, and a reply that is stopped stops its check.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from tailrace.errors import InvalidOutput, Unprocessable
from tailrace.events import Json

MOST_SECONDS: Final = 2.0
"""Of one core, for reading a schema or checking an answer. 10,000 objects of two fields take 0.7 s."""


class _TooMuch(Exception):
    """The work goes on for too long, or nobody wants its result any more."""


class _Budget:
    """The time of one piece of work. Made in its thread; ``stop`` is called from another."""

    def __init__(self) -> None:
        self._end = math.inf

    def begin(self) -> None:
        """Count from now on."""
        self._end = min(self._end, time.thread_time() + MOST_SECONDS)

    def spend(self) -> None:
        """Go on, or raise ``_TooMuch``."""
        if time.thread_time() > self._end:
            raise _TooMuch

    def stop(self) -> None:
        """Let the work end at its next look."""
        self._end = -math.inf


class Schema:
    """Made by ``Schema.read``."""

    def __init__(self, schema: Json) -> None:
        self._schema = schema

    @classmethod
    async def read(cls, schema: Json) -> Schema:
        """Return the schema, ready to check answers.

        Raises:
            Unprocessable: it is no JSON schema (draft 2020-12 where it does not say), or too much of one.
        """
        await _in_thread(_read, schema)
        return cls(schema)

    async def check(self, text: str, provider: str) -> None:
        """Pass if the text is JSON that matches.

        Raises:
            InvalidOutput: it is not, or that takes too long to find out. What is wrong where is in ``detail``, since it
                may quote the answer.
        """
        await _in_thread(_check, self._schema, text, provider)


async def _in_thread(work: Callable[..., None], *args: Any) -> None:
    """Do work beside the event loop; when it takes too long, or nobody waits for it any more, it stops."""
    budget = _Budget()
    try:
        await asyncio.to_thread(work, *args, budget)
    finally:
        budget.stop()


def _read(schema: Json, budget: _Budget) -> None:
    # Its types are a package of their own, and all that is used of it are these few calls.
    from jsonschema import Draft202012Validator, SchemaError, validators  # type: ignore[import-untyped]

    budget.begin()

    chosen = validators.validator_for(schema, default=Draft202012Validator)
    try:
        if _has(schema, "patternProperties"):
            raise Unprocessable("Bad options: patternProperties is not available in a response_format.")
        # What it is held against is a schema too. Its patterns are the library's own.
        problem = next(_counted(chosen, budget)(chosen.META_SCHEMA).iter_errors(schema), None)
        if problem is not None:
            raise SchemaError(problem.message)
    except _TooMuch:
        raise Unprocessable("Bad options: the schema of response_format takes too long to read.") from None
    except (SchemaError, RecursionError) as error:
        said = error.message if isinstance(error, SchemaError) else "it nests too deeply"
        raise Unprocessable(f"Bad options: response_format has no JSON schema: {said[:200]}.") from error


def _check(schema: Json, text: str, provider: str, budget: _Budget) -> None:
    from jsonschema import Draft202012Validator, validators
    from referencing import Registry

    budget.begin()
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidOutput("The answer is not valid JSON.", provider=provider, detail=str(error)[:500]) from error
    chosen = validators.validator_for(schema, default=Draft202012Validator)
    # An empty registry: without one, jsonschema would fetch what a reference points to.
    validator = _counted(chosen, budget, pattern=_unchecked)(schema, registry=Registry())
    try:
        problem = next(validator.iter_errors(value), None)
    except _TooMuch:
        raise InvalidOutput(
            "The answer could not be checked: with its schema that takes too long.", provider=provider
        ) from None
    except Exception as error:  # a reference that leads nowhere, or round and round: the schema's fault
        raise InvalidOutput(
            "The answer could not be checked: its schema refers to what is not there.",
            provider=provider,
            detail=type(error).__name__,
        ) from error
    if problem is not None:
        raise InvalidOutput(
            "The answer does not match its schema.",
            provider=provider,
            detail=f"{problem.json_path}: {problem.message}"[:500],
        )


def _counted(chosen: Any, budget: _Budget, **others: Any) -> Any:
    """Return a validator's class that looks at the time with each keyword."""
    from jsonschema import validators

    def counting(keyword: Any) -> Any:
        def look(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            budget.spend()
            yield from keyword(validator, value, instance, schema) or ()

        return look

    known = {**chosen.VALIDATORS, "uniqueItems": _unique, **others}
    return validators.extend(chosen, {name: counting(keyword) for name, keyword in known.items()})


def _unchecked(*_: object) -> Iterator[Any]:
    return iter(())


def _unique(validator: Any, is_wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """Compare items by what they are as JSON, each once; the library compares each with all others."""
    from jsonschema import ValidationError

    if not is_wanted or not isinstance(instance, list):
        return
    seen = {msgspec.json.encode(_plain(item), order="deterministic") for item in instance}
    if len(seen) < len(instance):
        yield ValidationError("the items are not unique")


def _plain(value: Any) -> Any:
    """Return a value in which numbers that are equal look the same: 1 and 1.0 are one item to JSON Schema."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _has(schema: Any, word: str) -> bool:
    if isinstance(schema, Mapping):
        return word in schema or any(_has(value, word) for value in schema.values())
    return isinstance(schema, list) and any(_has(value, word) for value in schema)
