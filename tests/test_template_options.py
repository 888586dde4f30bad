"""What the stack's parameters do: concurrency, a published version, managed instances, CORS, keys, tracing."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from tailrace.backend import Backend
from tailrace.http.api_app import create_api_app
from tailrace.http.cors import EXPOSED
from tailrace.providers import names
from tailrace.providers.presets import PRESETS
from tailrace.settings import Settings

from tests.resolved_template import TEMPLATE, Resolved, read_template, references

PROVIDER = "arn:aws:lambda:eu-central-1:123456789012:capacity-provider:mine"
FUNCTIONS = ("StreamFunction", "ApiFunction", "SweepFunction", "WebSocketFunction", "ChatFunction", "BroadcastFunction")


def test_no_rule_stands_in_the_way_of_the_defaults() -> None:
    """A stack with nothing said can be deployed, and every parameter has a default."""
    assert Resolved().broken == []


# ---- how much at most ----


def test_concurrency_has_a_limit_unless_it_is_switched_off() -> None:
    """Nobody deploys, without saying so, a stack that asks providers without a limit; 0 is none, not nobody."""
    stack = Resolved()
    for name in ("StreamFunction", "ChatFunction"):
        assert stack.properties(name)["ReservedConcurrentExecutions"] == "100"
    assert stack.properties("ApiFunction")["ReservedConcurrentExecutions"] == "50"
    stack = Resolved(StreamConcurrency=7, ApiConcurrency=0)
    assert stack.properties("StreamFunction")["ReservedConcurrentExecutions"] == "7"
    assert "ReservedConcurrentExecutions" not in stack.properties("ApiFunction")
    assert "ReservedConcurrentExecutions" not in Resolved(StreamConcurrency=0).properties("StreamFunction")


@pytest.mark.parametrize(
    ("parameter", "variable", "setting"),
    [
        ("BodyLimit", "TAILRACE_BODY_LIMIT", "body_limit"),
        ("HistoryTokens", "TAILRACE_HISTORY_TOKENS", "history_tokens"),
    ],
)
def test_bodies_and_histories_have_limits(parameter: str, variable: str, setting: str) -> None:
    """The library's own by default, and within the library's bounds."""
    assert Resolved().parameters[parameter] == str(getattr(Settings(), setting))
    declared = read_template()["Parameters"][parameter]
    for value in (declared["MinValue"], declared["MaxValue"]):
        assert getattr(Settings.from_environment({variable: str(value)}), setting) == value
    variables = read_template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables[variable] == {"Ref": parameter}


# ---- how soon ----


def target(stack: Resolved) -> set[str]:
    """Return whom the stream's URL calls, and whom strangers with a token may call."""
    assert stack.properties("StreamFunctionUrl")["InvokeMode"] == "RESPONSE_STREAM"
    permissions = {stack.properties(name)["FunctionName"] for name in ("StreamUrlForTokens", "StreamInvokeForTokens")}
    return permissions | {stack.properties("StreamFunctionUrl")["TargetFunctionArn"]}


def test_provisioned_concurrency_is_an_alias_s() -> None:
    """It is off by default; when on, the URL and who may call it are those of the alias."""
    stack = Resolved(Auth="jwt", JwtSecret="s")
    assert target(stack) == {"<StreamFunction>", "<StreamFunction.Arn>"}
    assert not {"StreamVersion", "StreamAlias", "StreamSettings"} & stack.resources.keys()
    stack = Resolved(Auth="jwt", JwtSecret="s", ProvisionedConcurrency=3)
    assert target(stack) == {"<StreamAlias>"}
    assert stack.outputs["StreamFunctionArn"]["Value"] == "<StreamAlias>"
    alias = stack.properties("StreamAlias")
    assert (alias["Name"], alias["FunctionVersion"]) == ("live", "<StreamVersion.Version>")
    assert alias["ProvisionedConcurrencyConfig"] == {"ProvisionedConcurrentExecutions": "3"}


def test_a_snapshot_is_a_version_s() -> None:
    """SnapStart needs a published version, and provisions nothing."""
    assert Resolved().properties("StreamFunction")["SnapStart"] == {"ApplyOn": "None"}
    stack = Resolved(SnapStart="on", Auth="jwt", JwtSecret="s")
    assert stack.properties("StreamFunction")["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert target(stack) == {"<StreamAlias>"}
    assert "ProvisionedConcurrencyConfig" not in stack.properties("StreamAlias")
    assert "SnapStart" in Resolved(SnapStart="on", ProvisionedConcurrency=1).broken[0]
    for other in ({"SnapStart": "on"}, {"ProvisionedConcurrency": "1"}):
        (said,) = Resolved(CapacityProviderArn=PROVIDER, **other).broken
        assert said == "With CapacityProviderArn there is neither SnapStart nor ProvisionedConcurrency."


def test_whatever_changes_the_function_publishes_a_version() -> None:
    """A version is replaced when its description changes, so that has every parameter that the function depends on.
    Otherwise a new model, issuer or layer would be deployed and never used."""
    template = read_template()
    conditions = template["Conditions"]
    properties = template["Resources"]["StreamFunction"]["Properties"]
    # Limits and permissions are the function's, not a version's.
    versioned = {
        name: each for name, each in properties.items() if name not in ("ReservedConcurrentExecutions", "Policies")
    }
    changing = references([versioned, template["Globals"]["Function"]], conditions)
    described = references(template["Resources"]["StreamVersion"]["Properties"], conditions)
    assert "StreamSettings" in described
    described |= references(template["Resources"]["StreamSettings"]["Properties"]["Description"], conditions)
    parameters = template["Parameters"].keys()
    # On or off, of which the first is what makes the version: nothing else may hang on them.
    assert (changing & parameters) - described <= {"CapacityProviderArn"}
    layers = {"TailraceLayerArm64", "TailraceLayerX86", "TokensLayerArm64", "TokensLayerX86"}
    assert layers <= changing
    assert layers <= described


KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"


def test_the_table_may_have_a_key_of_its_owner_s() -> None:
    """Then every function may use it, through DynamoDB and in no other way; else it is AWS's own."""
    assert Resolved().properties("Table")["SSESpecification"] == {"SSEEnabled": True}
    assert "DataKeyAccess" not in Resolved().resources
    stack = Resolved(DataKmsKeyArn=KEY)
    assert stack.properties("Table")["SSESpecification"] == {
        "SSEEnabled": True,
        "SSEType": "KMS",
        "KMSMasterKeyId": KEY,
    }
    (statement,) = read_template()["Resources"]["DataKeyAccess"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Resource"] == {"Ref": "DataKmsKeyArn"}
    via = statement["Condition"]["StringEquals"]["kms:ViaService"]
    assert via == {"Fn::Sub": "dynamodb.${AWS::Region}.${AWS::URLSuffix}"}
    functions = [name for name, each in stack.resources.items() if each["Type"] == "AWS::Serverless::Function"]
    assert len(functions) == 6
    assert all("<DataKeyAccess>" in stack.properties(name)["Policies"] for name in functions)


def test_what_checks_tokens_is_there_for_who_has_them() -> None:
    """A third more to fetch and mount: only with tokens, and only where somebody is asked for one."""

    def who(stack: Resolved) -> set[str]:
        return {
            name
            for name in stack.resources
            if any("Tokens" in str(layer) for layer in stack.resources[name].get("Properties", {}).get("Layers", ()))
        }

    assert "TokensLayerArm64" not in Resolved().resources
    assert who(Resolved()) == set()
    assert who(Resolved(Auth="jwt", JwtSecret="s")) == {"StreamFunction", "ApiFunction", "WebSocketFunction"}
    x86 = Resolved(Auth="jwt", JwtSecret="s", Architecture="x86_64")
    assert {"TokensLayerX86", "TokensLayerArm64"} & x86.resources.keys() == {"TokensLayerX86"}


def test_a_change_of_the_function_s_own_files_publishes_a_version() -> None:
    """The template cannot see into them, so what they come to is written there."""
    digest = hashlib.sha256()
    for path in sorted((TEMPLATE.parent / "functions" / "stream").iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    description = Resolved(ProvisionedConcurrency=1).properties("StreamVersion")["Description"]
    assert description.endswith(f", files {digest.hexdigest()[:12]}")


def test_the_descriptions_are_short_enough() -> None:
    """A version's may have 256 characters, with the longest names there can be; a policy's 1000."""
    stack = Resolved(ProvisionedConcurrency=1)
    written = stack.properties("StreamVersion")["Description"]
    longest_name, longest_number = 128, 10  # of a policy, of a layer's version
    assert len(written) + longest_name + longest_number <= 256
    assert len(stack.properties("StreamSettings")["Description"]) <= 300  # the rest is for what is set


def test_managed_instances_run_the_same_function() -> None:
    """Beside what they are about, the two are alike; only one is made, and everything names that one."""
    resources = read_template()["Resources"]
    here, there = resources["StreamFunction"]["Properties"], resources["ManagedStreamFunction"]["Properties"]
    only = {"CapacityProviderConfig", "PublishToLatestPublished", "SnapStart", "ReservedConcurrentExecutions"}
    assert {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)} == only | {"MemorySize"}

    stack = Resolved(CapacityProviderArn=PROVIDER, Auth="jwt", JwtSecret="s")
    assert "StreamFunction" not in stack.resources
    assert target(stack) == {"<ManagedStreamFunction>", "<ManagedStreamFunction.Arn>"}
    assert stack.properties("ManagedStreamFunction")["CapacityProviderConfig"]["Arn"] == PROVIDER
    assert stack.outputs["StreamFunctionName"]["Value"] == "<ManagedStreamFunction>"
    assert "StreamFunction>" not in repr(stack.resources).replace("ManagedStreamFunction>", "")
    assert "ManagedStreamFunction" not in Resolved().resources
    assert "ManagedStreamFunction" not in repr(Resolved().resources)


# ---- who may call ----


@pytest.mark.parametrize("function", ["StreamFunctionUrl", "ApiFunctionUrl"])
def test_cors_is_off_until_somebody_is_named(function: str) -> None:
    """Then a page of theirs may send what our routes read, and read what they answer."""

    def cors(stack: Resolved) -> Any:
        return stack.properties(function).get("Cors")

    assert cors(Resolved()) is None
    found = cors(Resolved(CorsOrigins="https://a.example,https://b.example"))
    assert found["AllowOrigins"] == ["https://a.example", "https://b.example"]
    assert {"GET", "POST", "PATCH", "DELETE"} == set(
        found["AllowMethods"]
    )  # Lambda refuses OPTIONS here, and answers it
    assert {"authorization", "content-type", "idempotency-key", "last-event-id", "x-socket-id"} <= set(
        found["AllowHeaders"]
    )
    assert {name.lower() for name in EXPOSED} == set(found["ExposeHeaders"])
    assert "AllowCredentials" not in found  # no cookie is taken


def test_methods_are_those_of_the_routes() -> None:
    """A page may use every route."""
    app = create_api_app(Backend(Settings()))
    methods = set().union(*(getattr(route, "methods", None) or set() for route in app.routes)) - {"HEAD", "OPTIONS"}
    cors = Resolved(CorsOrigins="*").properties("StreamFunctionUrl")["Cors"]
    assert set(cors["AllowMethods"]) == methods


# ---- providers ----


def test_every_provider_can_be_the_stack_s() -> None:
    """But for those that answer on the machine itself, where a function has nobody."""
    on_this_machine = {name for name, preset in PRESETS.items() if preset.base_url.startswith("http://127.0.0.1")}
    assert on_this_machine
    for name in {*names()} - on_this_machine:
        assert (
            "There is no such Provider. One of your own must be among Providers." not in Resolved(Provider=name).broken
        )
    for name in (*on_this_machine, "mine"):
        assert Resolved(Provider=name).broken == ["There is no such Provider. One of your own must be among Providers."]


def test_code_of_your_own() -> None:
    """Named by parameters, in a layer after ours, for the functions that write replies."""
    layer = "arn:aws:lambda:eu-central-1:123456789012:layer:agent-code:3"
    stack = Resolved(Providers="support=agent:support", Tools="app.tools:all", Provider="support", CodeLayerArn=layer)
    assert stack.broken == []
    variables = read_template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["TAILRACE_PROVIDERS"] == {
        "Fn::If": ["HasProviders", {"Ref": "Providers"}, {"Ref": "AWS::NoValue"}]
    }
    assert variables["TAILRACE_TOOLS"] == {"Fn::If": ["HasTools", {"Ref": "Tools"}, {"Ref": "AWS::NoValue"}]}
    for function in ("StreamFunction", "ApiFunction", "ChatFunction"):
        assert stack.properties(function)["Layers"][-1] == layer
        assert layer not in Resolved().properties(function)["Layers"]
    for function in ("SweepFunction", "WebSocketFunction", "BroadcastFunction"):
        assert layer not in stack.properties(function)["Layers"]


def test_a_provider_without_parameters_needs_the_secret_with_keys() -> None:
    """It is said before anything is made."""
    assert Resolved(Provider="gemini").broken == ["This Provider needs KeysSecret."]
    stack = Resolved(Provider="gemini", KeysSecret="mine")
    assert stack.broken == []
    (statement,) = stack.properties("KeyAccess")["PolicyDocument"]["Statement"]
    assert statement["Action"] == "secretsmanager:GetSecretValue"
    assert statement["Resource"] == "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mine-??????"
    for function in ("StreamFunction", "ApiFunction", "ChatFunction"):
        assert "<KeyAccess>" in stack.properties(function)["Policies"]
    assert "KeyAccess" not in Resolved().resources


# ---- tracing ----


def test_tracing_is_a_parameter() -> None:
    """Off by default, for all functions alike."""
    assert read_template()["Globals"]["Function"]["Tracing"] == {"Ref": "Tracing"}
    assert Resolved().parameters["Tracing"] == "PassThrough"
    for function in FUNCTIONS:
        assert "Tracing" not in read_template()["Resources"][function]["Properties"]


def test_every_variable_of_the_stack_is_one_that_is_read() -> None:
    """A misspelt one would be set and never seen."""
    template = read_template()
    given = set(template["Globals"]["Function"]["Environment"]["Variables"])
    for resource in template["Resources"].values():
        environment = resource.get("Properties", {}).get("Environment", {}) if "Function" in resource["Type"] else {}
        given |= set(environment.get("Variables", {}))
    documented = (TEMPLATE.parent / "docs" / "settings.md").read_text()
    for name in given:
        if name.startswith("TAILRACE_"):
            assert f"`{name}`" in documented, name


def test_every_output_says_what_it_is() -> None:
    """And the names that a client needs are there."""
    outputs = read_template()["Outputs"]
    assert all(each["Description"] for each in outputs.values())
    assert {"Url", "StreamUrl", "ApiUrl", "WebSocketUrl", "TableName", "LayerArn", "DashboardUrl"} <= outputs.keys()
    used = {
        name
        for group in read_template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for name in group["Parameters"]
    }
    assert used == read_template()["Parameters"].keys()
