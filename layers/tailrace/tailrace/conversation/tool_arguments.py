"""A function's parameters as a JSON schema, and a model's arguments checked against it, by pydantic."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, get_type_hints

import msgspec
from docstring_parser import ParseError, parse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, to_json

from tailrace.errors import ConfigurationError
from tailrace.events import Json

MOST_PROBLEMS: Final = 5
"""Of wrong arguments, how many the model is told at once."""


class Described(msgspec.Struct, frozen=True):
    """What a docstring says: of the function, and of its parameters."""

    description: str | None
    parameters: Mapping[str, str]


class _WithoutTitles(GenerateJsonSchema):
    """Every title would repeat a name, and costs tokens in each prompt."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def described(function: Callable[..., Any]) -> Described:
    """Read a docstring in the style of Google, NumPy, Sphinx or Epydoc."""
    text = inspect.getdoc(function) or ""
    try:
        found = parse(text)
    except ParseError:
        return Described(text or None, {})
    parts = (found.short_description, found.long_description)
    about = "\n\n".join(part for part in parts if part)
    return Described(about or None, {each.arg_name: each.description or "" for each in found.params})


class Arguments:
    """The parameters of a function.

    Args:
        given: what some are given here instead of by the model, by their annotations.

    Attributes:
        schema: of those that the model gives.
        given: the names of the others, with what they are given.

    Raises:
        ConfigurationError: the function cannot be called by names, or pydantic does not know an annotation.
    """

    def __init__(self, name: str, function: Callable[..., Any], given: Mapping[type, str], about: Described) -> None:
        target = function if inspect.isroutine(function) else type(function).__call__
        try:
            hints = get_type_hints(target, include_extras=True)
        except Exception as error:
            raise ConfigurationError(f"The annotations of the tool {name} cannot be read.") from error
        self.given: dict[str, str] = {}
        self._names: dict[str, str] = {}
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise ConfigurationError(
                    f"The tool {name} must take its arguments by their names: no *args or **kwargs."
                )
            annotation = hints.get(parameter.name, Any)
            if isinstance(annotation, type) and annotation in given:
                self.given[parameter.name] = given[annotation]
                continue
            # Under names of ours: a parameter may be called as pydantic's own methods are.
            field = f"a{len(fields)}"
            self._names[field] = parameter.name
            default = ... if parameter.default is parameter.empty else parameter.default
            options: dict[str, Any] = {"alias": parameter.name}
            if text := about.parameters.get(parameter.name):
                options["description"] = text
            fields[field] = (annotation, Field(default, **options))
        try:
            self._model: type[BaseModel] = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
            schema = self._model.model_json_schema(schema_generator=_WithoutTitles)
        except Exception as error:
            raise ConfigurationError(f"The tool {name} has a parameter of a type that has no JSON schema.") from error
        schema.pop("title", None)
        schema.setdefault("properties", {})
        self.schema: Json = schema

    def read(self, arguments: str) -> dict[str, Any]:
        """Return the arguments of a call, by the names of the parameters.

        Args:
            arguments: JSON text, as a model wrote it.

        Raises:
            ValueError: they are not right; the text tells the model what is wrong.
        """
        try:
            read = self._model.model_validate_json(arguments.strip() or "{}")
        except ValidationError as error:
            raise ValueError(_problems(error)) from None
        return {self._names[field]: getattr(read, field) for field in type(read).model_fields}

    @staticmethod
    def to_json(result: Any) -> str:
        """Return a result as JSON text.

        Raises:
            TypeError: it has none.
        """
        try:
            return to_json(result).decode()
        except PydanticSerializationError as error:
            raise TypeError("the result of a tool must be JSON") from error


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if any(each["type"] == "json_invalid" for each in found):
        return "The arguments are not JSON."
    told = [f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in found[:MOST_PROBLEMS]]
    return f"The arguments are not right: {'; '.join(told)}."
