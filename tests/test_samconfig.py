"""samconfig.toml: what `sam deploy` says is what the template understands."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

import pytest

from tests.resolved_template import TEMPLATE, Resolved, read_template

CONFIG: Final[dict[str, Any]] = tomllib.loads((TEMPLATE.parent / "samconfig.toml").read_text())
ENVIRONMENTS: Final = [name for name in CONFIG if name != "version"]


def overrides(environment: str) -> dict[str, str]:
    """Return the values that a deployment gives to parameters."""
    given: list[str] = CONFIG[environment]["deploy"]["parameters"].get("parameter_overrides", [])
    return dict(each.split("=", 1) for each in given)


def test_there_is_a_try_out_and_two_that_are_shared() -> None:
    """Each is a stack of its own."""
    assert ENVIRONMENTS == ["default", "dev", "prod"]
    assert len({CONFIG[name]["deploy"]["parameters"]["stack_name"] for name in ENVIRONMENTS}) == 3


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_has_what_sam_needs(environment: str) -> None:
    """`sam deploy` takes nothing from another environment's section."""
    parameters = CONFIG[environment]["deploy"]["parameters"]
    assert parameters["resolve_s3"] is True
    assert parameters["capabilities"] == "CAPABILITY_IAM"
    assert CONFIG[environment]["validate"]["parameters"]["lint"] is True
    assert CONFIG[environment]["build"]["parameters"]["parallel"] is True
    resources = read_template()["Resources"].values()
    named = {"RoleName", "ManagedPolicyName"}  # they would need CAPABILITY_NAMED_IAM
    assert not any(named & resource.get("Properties", {}).keys() for resource in resources)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_override_is_a_parameter_with_an_allowed_value(environment: str) -> None:
    """Within its list, its pattern, its bounds; and no rule of the template is broken by all of them."""
    declared = read_template()["Parameters"]
    given = overrides(environment)
    assert given.keys() <= declared.keys()
    for name, value in given.items():
        parameter = declared[name]
        assert value in [str(each) for each in parameter.get("AllowedValues", [value])], name
        assert re.fullmatch(parameter.get("AllowedPattern", ".*"), value), name
        if parameter["Type"] == "Number":
            assert parameter.get("MinValue", 0) <= int(value) <= parameter.get("MaxValue", 10**9), name
    assert Resolved(**given).broken == []


def test_a_try_out_can_be_deployed_in_a_new_account() -> None:
    """Its limit may be 10 concurrent executions, of which none can be reserved; the shared ones reserve."""
    given = Resolved(**overrides("default")).parameters
    assert (given["StreamConcurrency"], given["ApiConcurrency"]) == ("0", "0")
    for environment in ("dev", "prod"):
        given = Resolved(**overrides(environment)).parameters
        assert int(given["StreamConcurrency"]) > 0
        assert int(given["ApiConcurrency"]) > 0


def test_the_defaults_of_the_parameters_are_allowed() -> None:
    """The template's own, too."""
    for name, parameter in read_template()["Parameters"].items():
        value = str(parameter["Default"])
        assert value in [str(each) for each in parameter.get("AllowedValues", [value])], name
        assert re.fullmatch(parameter.get("AllowedPattern", ".*"), value), name
