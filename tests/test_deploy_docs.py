"""docs/deploy.md and docs/local.md say what is: parameters, costs, outputs, metrics, events and commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tailrace.errors import ConfigurationError
from tailrace.settings import Settings

from local.sam_local import VARIABLES, declared, for_sam_local
from tests import costs
from tests.test_template import TEMPLATE, Loader

ROOT = TEMPLATE.parent
STACK: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
LOCAL = (ROOT / "docs" / "local.md").read_text()


def rows(page: str, head: str) -> list[list[str]]:
    """Return the cells of the table that begins with this head."""
    table = page[page.index(head) :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def names(cell: str) -> list[str]:
    """Return what is set as code in a cell, or in a page beside its blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", cell, flags=re.DOTALL | re.MULTILINE))


# ---- docs/deploy.md ----


def test_every_parameter_has_a_row_with_its_default() -> None:
    """And no row is of a parameter that the template has not."""
    documented = {
        name: default.strip("`") for cell, default, _ in rows(DEPLOY, "| parameter |") for name in names(cell)
    }
    parameters = {name: str(parameter["Default"]) for name, parameter in STACK["Parameters"].items()}
    assert parameters == documented


def test_the_costs_are_those_that_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m tests.costs` would change nothing."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    assert costs.with_tables(DEPLOY) == DEPLOY


def test_dearer_units_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables follow the prices, and a page without a table's marks is refused."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    monkeypatch.setattr(costs, "PRICES", {**costs.PRICES, "write_unit": (1.25e-6, "DynamoDB")})
    assert costs.with_tables(DEPLOY) != DEPLOY
    with pytest.raises(AssertionError, match="no marks for the table prices"):
        costs.with_tables("")


def test_what_it_makes_is_what_the_template_has() -> None:
    """Each function and each output is named, and every logical name that is said to be there is there."""
    made = DEPLOY[DEPLOY.index("## What it makes") : DEPLOY.index("| parameter |")]
    functions = {name for name, it in STACK["Resources"].items() if it["Type"] == "AWS::Serverless::Function"}
    assert {name for name in names(made) if name.endswith("Function")} == functions
    assert STACK["Outputs"].keys() <= set(names(DEPLOY))
    for name in ("BroadcastFailures", "SubscriberAccess", "Table"):
        assert f"`{name}`" in DEPLOY
        assert name in STACK["Resources"]
    assert set(re.findall(r"out (\w+)\)", DEPLOY)) <= STACK["Outputs"].keys()


def test_every_metric_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reply sends is in the table of what to watch, and nothing that nobody sends."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    documented = {name for cell, _ in rows(DEPLOY, "| metric |") for name in names(cell)}
    sent = set(costs.metrics())
    assert sent <= documented
    sweep = set(re.findall(r'"([A-Z]\w+)"', (ROOT / "layers/tailrace/tailrace/telemetry.py").read_text()))
    assert documented - sent <= sweep


def test_teardown_and_upgrade_say_what_is_kept() -> None:
    """The table is, and the page's bucket; log groups and the secret are not."""
    kept = {name for name, resource in STACK["Resources"].items() if resource.get("DeletionPolicy") == "Retain"}
    assert kept == {"Table", "PageBucket"}
    assert "**keeps the table**" in DEPLOY
    assert "the page's bucket" in DEPLOY
    assert STACK["Resources"]["Table"]["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
    layers = [it for it in STACK["Resources"].values() if it["Type"] == "AWS::Serverless::LayerVersion"]
    assert not any("RetentionPolicy" in layer["Properties"] for layer in layers)  # without one, SAM keeps old versions


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"TAILRACE_AUTH": "none"},
            "TAILRACE_AUTH=none is for one machine only: in Lambda it would be an open relay.",
        ),
        (
            {},
            "TAILRACE_AUTH=jwt, the default in Lambda, needs TAILRACE_JWT_ISSUER and TAILRACE_JWT_AUDIENCE, "
            "or TAILRACE_JWT_SECRET_ID, or TAILRACE_JWT_SECRET.",
        ),
    ],
)
def test_nobody_deploys_an_open_relay(variables: dict[str, str], message: str) -> None:
    """In Lambda no function starts without a way to see who asks, and the template knows only the two."""
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environment({"AWS_LAMBDA_FUNCTION_NAME": "stream", **variables})
    assert refused.value.message == message
    assert STACK["Parameters"]["Auth"]["AllowedValues"] == ["iam", "jwt"]
    assert STACK["Resources"]["WebSocketStage"]["Properties"]["DefaultRouteSettings"]["ThrottlingRateLimit"] == 1000
    assert "takes 1,000 requests a second" in re.sub(r"\s+", " ", DEPLOY)


def test_the_http_api_s_lines_are_those_that_are_validated() -> None:
    """`make build` validates the template that has them (`sam validate --lint` on local.yaml)."""
    (lines,) = (block for block in re.findall(r"```yaml\n(.*?)```", DEPLOY, re.DOTALL) if "HttpApi\n" in block)
    events = yaml.safe_load(lines)
    assert for_sam_local(STACK, [])["Resources"]["ApiFunction"]["Properties"]["Events"] == events["Events"]
    assert "--template .aws-sam/build/local.yaml" in (ROOT / "Makefile").read_text()


# ---- docs/local.md ----


def test_every_event_is_listed_for_its_function() -> None:
    """Each sample of events/ once, with the function it is for; what the commands name exists."""
    functions = {"api": "ApiFunction", "stream": "StreamFunction", "websocket": "WebSocketFunction"}
    functions |= {"chat": "ChatFunction", "broadcast": "BroadcastFunction", "sweep": "SweepFunction"}
    listed: list[str] = []
    for cell, events in rows(LOCAL, "| function | events |"):
        for name, target in re.findall(r"\[([\w-]+)\]\(\.\./events/([\w-]+)\.json\)", events):
            assert name == target
            assert functions[name.partition("-")[0]] == names(cell)[0]
            listed.append(name)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "events").glob("*.json"))
    for path in re.findall(r"events/[\w-]+\.json", LOCAL):
        assert (ROOT / path).exists()
    assert set(re.findall(r"\b[A-Z]\w+Function\b", LOCAL)) == set(functions.values())
    assert set(functions.values()) <= STACK["Resources"].keys()


def test_placeholders_are_those_of_the_events() -> None:
    """Whoever follows the page replaces all that is to be replaced."""
    text = "".join(path.read_text() for path in (ROOT / "events").glob("*.json"))
    assert set(re.findall(r"`([A-Z]+_ID)`", LOCAL)) == set(re.findall(r"\b[A-Z]+_ID\b", text))


def test_the_variables_of_sam_local_are_settings() -> None:
    """With them a function starts in what SAM runs, either way of saying who asks."""
    variables: dict[str, str] = json.loads(VARIABLES.read_text())["Parameters"]
    in_sam = {"AWS_LAMBDA_FUNCTION_NAME": "ApiFunction", **variables}
    settings = Settings.from_environment(in_sam)
    assert (settings.auth, settings.dynamodb_endpoint) == ("iam", "http://host.docker.internal:8000")
    assert settings.table == re.findall(r"create_table\('(\w+)'", LOCAL)[0]
    assert Settings.from_environment({**in_sam, "TAILRACE_AUTH": "jwt"}).jwt_secret == variables["TAILRACE_JWT_SECRET"]
    assert "local/sam-local.json" in LOCAL


def test_the_template_of_sam_local_declares_them() -> None:
    """`sam local` sets only what is declared; what the template has already keeps its value, and nothing is lost but
    the REST API, which it does not understand."""
    template = for_sam_local(STACK, declared())
    variables = template["Globals"]["Function"]["Environment"]["Variables"]
    own = STACK["Globals"]["Function"]["Environment"]["Variables"]
    assert set(declared()) <= variables.keys()
    assert own.items() <= variables.items()
    assert template.keys() == STACK.keys()
    left_out = {name for name in STACK["Resources"] if name.startswith("Rest")}
    assert "RestApi" in left_out
    assert template["Resources"].keys() == STACK["Resources"].keys() - left_out
    assert not any("Rest" in name for name in template["Outputs"])
    assert "RestApi" not in repr(template["Resources"])
    assert "Events" not in STACK["Resources"]["ApiFunction"]["Properties"]


# ---- both ----


@pytest.mark.parametrize("page", [DEPLOY, LOCAL], ids=["deploy", "local"])
def test_commands_name_what_is_there(page: str) -> None:
    """Make's targets, files, environments and resources in the commands exist, and nothing that is not run is marked as
    if it were."""
    commands = "\n".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL))
    assert "```bash" not in page
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", page, re.MULTILINE)) <= targets
    for path in re.findall(r"--template (examples/\S+)", commands):
        template = yaml.load((ROOT / path).read_text(), Loader)
        assert set(re.findall(r"remote invoke (\w+)", commands)) <= template["Resources"].keys()
    for overrides in re.findall(r"--parameter-overrides ((?:[A-Z]\w+=\S+\s+(?:\\\s+)?)+)", commands):
        known = STACK["Parameters"].keys() | {"TableName", "LayerArn"}
        assert set(re.findall(r"([A-Z]\w+)=", overrides)) <= known
    for environment in re.findall(r"--config-env (\w+)", page):
        assert f"[{environment}.deploy.parameters]" in (ROOT / "samconfig.toml").read_text()


def test_the_pages_can_be_found() -> None:
    """The README leads to both."""
    readme = (Path(ROOT) / "README.md").read_text()
    assert "docs/deploy.md" in readme
    assert "docs/local.md" in readme
