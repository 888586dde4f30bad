"""Writes the template that `sam local` runs, after `make build`: `python -m local.sam_local` (docs/local.md).

The built one leaves out two things that `sam local` asks for, and has one that it does not understand:

- It sets only variables that the template declares, whatever --env-vars has (samcli/local/lambdafn/env_vars.py), and
  nothing but a variable leads to another DynamoDB.
- `sam local start-api` serves APIs of API Gateway and knows no function URLs. With an HTTP API before the API function
  it has one, which sends the same events (payload format 2.0):
  https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads
- It takes the REST API for one that is there, whatever its condition says, and stops at who may call its methods, which
  hangs on conditions too. So that is left out.
"""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from local.child import ROOT

BUILT: Final = ROOT / ".aws-sam" / "build"

VARIABLES: Final = ROOT / "local" / "sam-local.json"
"""What --env-vars is given."""

REST: Final = "Rest"
"""What the names of the REST API and of all that belongs to it begin with, and no other's."""

Json = dict[str, Any]


def declared() -> list[str]:
    """Return the names of the variables that --env-vars sets."""
    names: Json = json.loads(VARIABLES.read_text())["Parameters"]
    return list(names)


def for_sam_local(built: Json, names: list[str]) -> Json:
    """Return a built template with these variables declared, empty, and an HTTP API before the API function."""
    variables = built["Globals"]["Function"]["Environment"]["Variables"]
    functions = {name: each for name, each in built["Resources"].items() if not name.startswith(REST)}
    api = functions["ApiFunction"]["Properties"]
    return {
        **built,
        # Conditions of what is left out are not used.
        "Metadata": {**built["Metadata"], "cfn-lint": {"config": {"ignore_checks": ["W8001"]}}},
        "Globals": {
            **built["Globals"],
            "Function": {
                **built["Globals"]["Function"],
                "Environment": {"Variables": {**dict.fromkeys(names, ""), **variables}},
            },
        },
        "Outputs": {name: each for name, each in built["Outputs"].items() if not name.startswith(REST)},
        "Resources": {
            **functions,
            "ApiFunction": {
                **functions["ApiFunction"],
                "Properties": {**api, "Events": {"Http": {"Type": "HttpApi"}}},
            },
        },
    }


def main() -> None:
    """Write the template beside the built one, whose paths are relative to it."""
    built: Json = yaml.safe_load((BUILT / "template.yaml").read_text())
    path = BUILT / "local.yaml"
    path.write_text(yaml.safe_dump(for_sam_local(built, declared()), sort_keys=False))
    print(f"sam local: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
