"""The JSON schema an answer is to match, and the check at its end.

The validator is jsonschema: under 2 MB in the layer, where half of what it needs is anyway (jsonschema-rs, ten times
quicker to import, has 12 MB; fastjsonschema makes Python code out of a schema, and schemas come from clients). Its
import costs about 0.2 s, so it waits for the first reply that has a schema, and happens in a thread.

``pattern`` is left to the provider, and ``patternProperties`` is refused: a regular expression of a client's can keep
Python busy for ever. References lead nowhere outside of the schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tailrace.errors import InvalidOutput, Unprocessable
from tailrace.events import Json

if TYPE_CHECKING:
    from collections.abc import Iterator


class Schema:
    """Made by ``Schema.read``."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator  # Any: its class is made by jsonschema.validators.extend, which types cannot follow

    @classmethod
    async def read(cls, schema: Json) -> Schema:
        """Return the schema, ready to check answers.

        Raises:
            Unprocessable: it is no JSON schema (draft 2020-12 where it does not say).
        """
        return cls(await asyncio.to_thread(_validator, schema))

    def check(self, text: str, provider: str) -> None:
        """Pass if the text is JSON that matches.

        Raises:
            InvalidOutput: it is not. What is wrong where is in ``detail``, since it may quote the answer.
        """
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidOutput("The answer is not valid JSON.", provider=provider, detail=str(error)[:500]) from error
        try:
            problem = next(self._validator.iter_errors(value), None)
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


def _validator(schema: Json) -> Any:
    # Its types are a package of their own, and all that is used of it are these few calls.
    from jsonschema import Draft202012Validator, SchemaError, validators  # type: ignore[import-untyped]
    from referencing import Registry

    def unchecked(*_: object) -> Iterator[Any]:
        return iter(())

    chosen = validators.validator_for(schema, default=Draft202012Validator)
    lenient = validators.extend(chosen, {"pattern": unchecked})
    try:
        if _has(schema, "patternProperties"):
            raise Unprocessable("Bad options: patternProperties is not available in a response_format.")
        chosen.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        said = error.message if isinstance(error, SchemaError) else "it nests too deeply"
        raise Unprocessable(f"Bad options: response_format has no JSON schema: {said[:200]}.") from error
    # An empty registry: without one, jsonschema would fetch what a reference points to.
    return lenient(schema, registry=Registry())


def _has(schema: Any, word: str) -> bool:
    if isinstance(schema, Mapping):
        return word in schema or any(_has(value, word) for value in schema.values())
    return isinstance(schema, list) and any(_has(value, word) for value in schema)
