"""What template.yaml comes to, given values for its parameters: its conditions and functions, worked out here.

Attributes and names of resources, which only AWS knows, become ``<logical id>`` and ``<logical id>.<attribute>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

TEMPLATE: Final = Path(__file__).parent.parent / "template.yaml"

PSEUDO: Final = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::StackName": "tailrace-test",
    "AWS::URLSuffix": "amazonaws.com",
}

NO_VALUE: Final = object()

Json = dict[str, Any]


class Tags(yaml.SafeLoader):
    """Reads CloudFormation's short functions as the long ones."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Json:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt":
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


Tags.add_multi_constructor("!", _function)


def read_template() -> Json:
    """Return the template as it is written, with its functions in their long form."""
    template: Json = yaml.load(TEMPLATE.read_text(), Tags)
    return template


class Resolved:
    """The template with these values of its parameters, and the defaults for all others.

    Attributes:
        parameters: every parameter and its value.
        resources: those that are made, resolved.
        outputs: likewise.
        broken: the descriptions of the rules' assertions that do not hold.
    """

    def __init__(self, **given: str | int) -> None:
        self.template = read_template()
        declared = self.template["Parameters"]
        assert given.keys() <= declared.keys(), given.keys() - declared.keys()
        self.parameters = {name: self._value(name, given.get(name, each["Default"])) for name, each in declared.items()}
        self._values: dict[str, Any] = {**PSEUDO, **self.parameters}
        self._conditions: Mapping[str, Any] = self.template["Conditions"]
        self.resources = self._made(self.template["Resources"])
        self.outputs = self._made(self.template["Outputs"])
        self.broken = [
            assertion["AssertDescription"].strip()
            for rule in self.template["Rules"].values()
            if self._resolve(rule.get("RuleCondition", {"Fn::Equals": ["", ""]}))
            for assertion in rule["Assertions"]
            if not self._resolve(assertion["Assert"])
        ]

    def properties(self, name: str) -> Json:
        """Return a resource's properties."""
        found: Json = self.resources[name]["Properties"]
        return found

    def _value(self, name: str, value: str | int) -> Any:
        text = str(value)
        declared = self.template["Parameters"][name]
        assert re.fullmatch(declared.get("AllowedPattern", ".*"), text), f"{name} cannot be {text}"
        assert text in map(str, declared.get("AllowedValues", [text])), f"{name} cannot be {text}"
        if declared["Type"] == "CommaDelimitedList":
            return text.split(",") if text else []
        return text

    def _made(self, section: Mapping[str, Json]) -> dict[str, Json]:
        return {
            name: self._resolve(each)
            for name, each in section.items()
            if "Condition" not in each or self._condition(each["Condition"])
        }

    def _condition(self, name: str) -> bool:
        return bool(self._resolve(self._conditions[name]))

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [each for each in map(self._resolve, value) if each is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._call(name.removeprefix("Fn::"), argument)
            if name == "Condition":
                return self._condition(argument)
        resolved = {
            name: self._resolve(each) for name, each in value.items() if name != "Condition" or isinstance(each, dict)
        }
        return {name: each for name, each in resolved.items() if each is not NO_VALUE}

    def _call(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return NO_VALUE if argument == "AWS::NoValue" else self._values.get(argument, f"<{argument}>")
            case "If":
                condition, yes, no = argument
                return self._resolve(yes if self._condition(condition) else no)
            case "Sub":
                return self._sub(argument)
        resolved = self._resolve(argument)
        match name:
            case "GetAtt":
                return f"<{'.'.join(resolved)}>"
            case "Join":
                return resolved[0].join(resolved[1])
            case "Split":
                return resolved[1].split(resolved[0])
            case "Select":
                # Of an attribute only AWS knows the parts.
                index, parts = int(resolved[0]), resolved[1]
                return parts[index] if index < len(parts) else f"{parts[0]}[{index}]"
            case "Equals":
                return str(resolved[0]) == str(resolved[1])
            case "Not":
                return not resolved[0]
            case "And":
                return all(resolved)
            case "Or":
                return any(resolved)
            case "Contains":
                return resolved[1] in resolved[0]
        raise AssertionError(name)

    def _sub(self, argument: Any) -> str:
        text, values = (argument, {}) if isinstance(argument, str) else argument
        known = {**self._values, **{name: self._resolve(each) for name, each in values.items()}}

        def replaced(found: re.Match[str]) -> str:
            name = found[1]
            return f"${{{name[1:]}}}" if name.startswith("!") else str(known.get(name, f"<{name}>"))

        return re.sub(r"\$\{([^}]+)\}", replaced, text)


def references(value: Any, conditions: Mapping[str, Any]) -> set[str]:
    """Return what a part of the template refers to, also by way of its conditions."""
    if isinstance(value, list):
        return set().union(*(references(each, conditions) for each in value))
    if not isinstance(value, dict):
        return set()
    found: set[str] = set()
    for name, each in value.items():
        if name == "Ref":
            found.add(each)
        elif name == "Fn::GetAtt":
            found.add(each[0])
        elif name == "Fn::Sub":
            text = each if isinstance(each, str) else each[0]
            found |= {part.split(".")[0] for part in re.findall(r"\$\{([^!}]+)\}", text)}
            found |= references(each if isinstance(each, list) else [], conditions)
        elif name == "Condition" and isinstance(each, str):
            found |= references(conditions[each], conditions)
        elif name == "Fn::If":
            found |= references(conditions[each[0]], conditions) | references(each[1:], conditions)
        else:
            found |= references(each, conditions)
    return found
