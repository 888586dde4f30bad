"""Lambda's filter criteria: JSON patterns that say which records of a stream a function is called for.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

Pattern = Mapping[str, Any]

ABSENT: Final = object()

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matches(pattern: Pattern, event: object) -> bool:
    """Return whether each field that the pattern names is as one of its rules says.

    Raises:
        ValueError: the pattern has a rule that Lambda does not have.
    """
    for name, expected in pattern.items():
        if name == "$or":
            if not any(matches(each, event) for each in expected):
                return False
            continue
        value = event.get(name, ABSENT) if isinstance(event, Mapping) else ABSENT
        if isinstance(expected, Mapping):
            if not matches(expected, value):
                return False
        elif not isinstance(expected, list):
            raise ValueError(f"The rules for {name!r} are not a list.")
        elif not any(_is(rule, value) for rule in expected):
            return False
    return True


def _is(rule: object, value: object) -> bool:
    if isinstance(rule, Mapping):
        ((kind, operand),) = rule.items()
        if kind == "exists":
            return (value is not ABSENT) is operand
        return any(_compares(kind, operand, each) for each in _leaves(value))
    # True is no 1 in JSON.
    return any(each == rule and isinstance(each, bool) is isinstance(rule, bool) for each in _leaves(value))


def _leaves(value: object) -> list[Any]:
    """Return what a rule looks at: of a list, one element that fits is enough."""
    if value is ABSENT or isinstance(value, Mapping):
        return []
    return value if isinstance(value, list) else [value]


def _compares(kind: str, operand: Any, value: object) -> bool:
    if kind == "anything-but":
        return value not in (operand if isinstance(operand, list) else [operand])
    if kind == "numeric":
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        pairs = zip(operand[::2], operand[1::2], strict=True)
        return all(COMPARISONS[sign](value, number) for sign, number in pairs)
    if kind not in ("prefix", "suffix", "equals-ignore-case"):
        raise ValueError(f"Lambda's filters have no rule {kind!r}.")
    if not isinstance(value, str):
        return False
    text = str(operand)
    if kind == "prefix":
        return value.startswith(text)
    if kind == "suffix":
        return value.endswith(text)
    return value.lower() == text.lower()
