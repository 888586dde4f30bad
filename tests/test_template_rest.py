"""A REST API in front of both functions: what each of its parameters makes, and who answers what behind it."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any, Final

import pytest
from starlette.routing import Route
from tailrace.backend import Backend
from tailrace.http.api_app import create_api_app
from tailrace.http.client_routes import APART
from tailrace.http.under_api import PREFIX
from tailrace.settings import Settings

from local.front import STREAMED
from tests import rest_paths
from tests.resolved_template import TEMPLATE, Resolved, read_template

Json = dict[str, Any]

TOKENS: Final = {"Auth": "jwt", "JwtSecret": "s"}
POOL: Final = "arn:aws:cognito-idp:eu-central-1:123456789012:userpool/eu-central-1_abc"
AUTHORIZER: Final = "arn:aws:lambda:eu-central-1:123456789012:function:looks"
WEB_ACL: Final = "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/mine/1234"
CERTIFICATE: Final = "arn:aws:acm:eu-central-1:123456789012:certificate/c"
LAMBDA: Final = "arn:aws:apigateway:eu-central-1:lambda:path"
PROVIDER: Final = "arn:aws:lambda:eu-central-1:123456789012:capacity-provider:mine"
ADDRESS: Final = {"RestDomainName": "api.example.com", "RestCertificateArn": CERTIFICATE}

FUNCTION_URLS: Final = {"StreamFunctionUrl", "ApiFunctionUrl"}
FOR_TOKENS: Final = {"StreamUrlForTokens", "StreamInvokeForTokens", "ApiUrlForTokens", "ApiInvokeForTokens"}
ALWAYS: Final = {"RestApi", "RestStreamPermission", "RestApiPermission"}
OPTIONAL: Final[dict[str, tuple[dict[str, str], set[str]]]] = {
    "a user pool": ({**TOKENS, "RestUserPoolArn": POOL}, set()),
    "an authorizer": ({**TOKENS, "RestAuthorizerArn": AUTHORIZER}, {"RestAuthorizerPermission"}),
    "a key": ({"RestApiKey": "on"}, {"RestPlan", "RestKey", "RestPlanKey"}),
    "a web ACL": ({"RestWebAclArn": WEB_ACL}, {"RestWebAcl"}),
    "a name": (ADDRESS, {"RestDomain", "RestMapping"}),
    "a name and its record": ({**ADDRESS, "HostedZoneId": "Z1"}, {"RestDomain", "RestMapping", "RestRecords"}),
    "access logs": ({"RestAccessLogs": "on"}, {"RestLogs"}),
}
"""What is asked for, and what is made for it beside the API."""


def rest(**given: str | int) -> Resolved:
    """Return a stack with a REST API, which no rule refuses."""
    stack = Resolved(**{"FrontDoor": "RestApi", **given})
    assert stack.broken == []
    return stack


def made(stack: Resolved) -> set[str]:
    """Return what is made for a REST API."""
    return {name for name in stack.resources if name.startswith("Rest")}


def body(stack: Resolved) -> Json:
    """Return the OpenAPI document of the API."""
    found: Json = stack.properties("RestApi")["DefinitionBody"]
    return found


def serving(stack: Resolved, method: str, path: str) -> tuple[str, Json]:
    """Return the resource and the method that API Gateway takes for a request: the most specific resource, segment by
    segment, and never a less specific one because the first has no such method."""
    paths = body(stack)["paths"]
    found = ""
    rest_of_path = [part for part in path.split("/") if part]
    while rest_of_path:
        begins = {each[len(found) + 1 :].partition("/")[0] for each in paths if each.startswith(f"{found}/")}
        named = sorted(each for each in begins if re.fullmatch(r"\{\w+\}", each))
        if rest_of_path[0] in begins:
            found += f"/{rest_of_path.pop(0)}"
        elif named:
            found += f"/{named[0]}"
            rest_of_path.pop(0)
        elif "{proxy+}" in begins:
            found += "/{proxy+}"
            rest_of_path = []
        else:
            raise AssertionError(f"there is nothing for {path}")
    found = found or "/"
    methods = paths[found]
    return found, methods.get(method.lower()) or methods["x-amazon-apigateway-any-method"]


def integration(stack: Resolved, method: str, path: str) -> Json:
    """Return whom a request is handed to."""
    found: Json = serving(stack, method, path)[1]["x-amazon-apigateway-integration"]
    return found


def routes() -> list[tuple[str, str]]:
    """Return every route, as method and path with ids in it, also where it stands under /api."""
    app = create_api_app(Backend(Settings()))
    found = []
    for route in app.routes:
        if isinstance(route, Route):
            path = re.sub(r"\{[^}]+\}", "some-id", route.path)
            for method in (route.methods or set()) - {"HEAD", "OPTIONS"}:
                found.append((method, path))
                if not path.startswith((*APART, "/v1/")):
                    found.append((method, PREFIX + path))
    return found


def is_streamed(method: str, path: str) -> bool:
    """Return whether a route is the stream function's on one machine."""
    inner = path if path.startswith(APART) else path.removeprefix(PREFIX)
    return (method, inner) in {(each, re.sub(r"\{[^}]+\}", "some-id", path)) for each, path in STREAMED}


# ---- what is made ----


def test_there_is_none_unless_it_is_asked_for() -> None:
    """Nor an output of one; function URLs are the default."""
    stack = Resolved()
    assert stack.parameters["FrontDoor"] == "FunctionUrl"
    assert made(stack) == set()
    assert not [name for name in stack.outputs if name.startswith("Rest")]
    assert stack.resources.keys() >= FUNCTION_URLS
    assert stack.outputs.keys() >= {"StreamUrl", "ApiUrl"}


@pytest.mark.parametrize("auth", [{}, TOKENS], ids=["iam", "jwt"])
@pytest.mark.parametrize("door", ["FunctionUrl", "RestApi", "Both"])
def test_each_door_is_there_or_is_not(door: str, auth: dict[str, str]) -> None:
    """With a REST API alone no function has a URL, and nobody else may call one."""
    stack = Resolved(FrontDoor=door, **auth)
    assert stack.broken == []
    assert made(stack) == (ALWAYS if door != "FunctionUrl" else set())
    urls = door != "RestApi"
    assert FUNCTION_URLS & stack.resources.keys() == (FUNCTION_URLS if urls else set())
    assert FOR_TOKENS & stack.resources.keys() == (FOR_TOKENS if urls and auth else set())
    assert ("StreamUrl" in stack.outputs, "ApiUrl" in stack.outputs) == (urls, urls)
    assert ("RestUrl" in stack.outputs, "RestApiArn" in stack.outputs) == (door != "FunctionUrl",) * 2
    assert "<StreamFunctionUrl" not in repr(stack.resources) + repr(stack.outputs) or urls


@pytest.mark.parametrize("door", ["RestApi", "Both"])
@pytest.mark.parametrize("wanted", OPTIONAL)
def test_only_what_is_asked_for_is_made(wanted: str, door: str) -> None:
    """Each option makes its own resources and no other's."""
    given, resources = OPTIONAL[wanted]
    assert made(rest(FrontDoor=door, **given)) == ALWAYS | resources


def test_all_of_it_together() -> None:
    """Every option that can be had with another, either way of authorizing."""
    for authorizer in ({"RestUserPoolArn": POOL}, {"RestAuthorizerArn": AUTHORIZER}):
        every: Json = {
            **TOKENS,
            **ADDRESS,
            **authorizer,
            "HostedZoneId": "Z1",
            "RestApiKey": "on",
            "RestAccessLogs": "on",
        }
        stack = rest(**every, RestWebAclArn=WEB_ACL, RestKeyQuota=5, CorsOrigins="https://a.example")
        expected = ALWAYS.union(*(resources for _, resources in OPTIONAL.values()))
        assert made(stack) == expected - ({"RestAuthorizerPermission"} if "RestUserPoolArn" in authorizer else set())


def test_every_reference_is_to_what_is_made() -> None:
    """Nothing that is made names what is not, whichever options are on."""
    names = read_template()["Resources"].keys()
    for door, auth, key in product(["FunctionUrl", "RestApi", "Both"], [{}, TOKENS], ["off", "on"]):
        if door == "FunctionUrl" and key == "on":
            continue
        for more in ({}, {"ProvisionedConcurrency": "1"}, {"CapacityProviderArn": PROVIDER}):
            stack = Resolved(FrontDoor=door, RestApiKey=key, **auth, **more)
            assert stack.broken == []
            named = set(re.findall(r"<(\w+)[.>]", repr(stack.resources) + repr(stack.outputs)))
            # A function's role is SAM's.
            assert (named & names) - stack.resources.keys() == set()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"RestUserPoolArn": POOL, **TOKENS},
            "RestUserPoolArn guards nothing with FrontDoor=FunctionUrl; use RestApi.",
        ),
        (
            {"RestAuthorizerArn": AUTHORIZER, **TOKENS},
            "RestAuthorizerArn guards nothing with FrontDoor=FunctionUrl; use RestApi.",
        ),
        ({"RestApiKey": "on"}, "RestApiKey guards nothing with FrontDoor=FunctionUrl; use RestApi."),
        ({"RestWebAclArn": WEB_ACL}, "RestWebAclArn guards nothing with FrontDoor=FunctionUrl; use RestApi."),
        (ADDRESS, "RestDomainName needs FrontDoor=RestApi or Both."),
        ({"RestAccessLogs": "on"}, "RestAccessLogs needs FrontDoor=RestApi or Both."),
        (
            {"FrontDoor": "RestApi", "RestUserPoolArn": POOL},
            "RestUserPoolArn and RestAuthorizerArn need Auth=jwt; with Auth=iam the REST API asks for signatures.",
        ),
        (
            {"FrontDoor": "Both", "RestUserPoolArn": POOL, "RestAuthorizerArn": AUTHORIZER, **TOKENS},
            "A REST API has RestUserPoolArn or RestAuthorizerArn, not both.",
        ),
        (
            {"FrontDoor": "RestApi", "RestUserPoolScopes": "chat/write", **TOKENS},
            "RestUserPoolScopes need RestUserPoolArn.",
        ),
        (
            {"FrontDoor": "RestApi", "RestDomainName": "api.example.com"},
            "RestDomainName needs RestCertificateArn, of a certificate in the stack's region.",
        ),
        (
            {
                "FrontDoor": "Both",
                **TOKENS,
                **ADDRESS,
                "DomainName": "api.example.com",
                "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c",
            },
            "RestDomainName and DomainName are two names.",
        ),
        (
            {
                "FrontDoor": "RestApi",
                **TOKENS,
                "DomainName": "chat.example.com",
                "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c",
            },
            "DomainName is for function URLs, so FrontDoor must be FunctionUrl or Both; a REST API has RestDomainName.",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(given: dict[str, str], said: str) -> None:
    """What would guard nothing, or cannot work, in a sentence."""
    assert Resolved(**given).broken == [said]


# ---- who answers what ----


def test_the_paths_are_those_that_are_written() -> None:
    """`python -m tests.rest_paths` would change nothing."""
    text = TEMPLATE.read_text()
    assert rest_paths.with_paths(text) == text
    with pytest.raises(AssertionError, match="no mark"):
        rest_paths.with_paths("")


def test_each_route_gets_the_function_that_serves_it_on_one_machine_too() -> None:
    """What streams or waits goes to the stream function, as it comes; everything else to the API function, whole."""
    stack = rest()
    assert {is_streamed(*each) for each in routes()} == {True, False}
    for method, path in routes():
        found = integration(stack, method, path)
        assert (found["type"], found["httpMethod"]) == ("aws_proxy", "POST")
        if is_streamed(method, path):
            assert found["uri"] == f"{LAMBDA}/2021-11-15/functions/<StreamFunction.Arn>/response-streaming-invocations"
            assert found["responseTransferMode"] == "STREAM"
            assert found["timeoutInMillis"] == 900_000
        else:
            assert found["uri"] == f"{LAMBDA}/2015-03-31/functions/<ApiFunction.Arn>/invocations", path
            assert not {"responseTransferMode", "timeoutInMillis"} & found.keys()  # whole, within 29 s


def test_whatever_a_path_begins_with_is_answered() -> None:
    """A request for a part of a path, or for more of it, gets our 404 and no message of API Gateway's."""
    stack = rest()
    for path in body(stack)["paths"]:
        parts = [re.sub(r"\{\w+\+?\}", "x", part) for part in path.split("/") if part]
        for length in range(len(parts) + 1):
            serving(stack, "GET", "/" + "/".join(parts[:length]))
    for unknown in ("/nobody", "/favicon.ico", "/api/nobody", "/conversations/x/y/z", "/messages/x/y/z", "/v1/x/y/z"):
        serving(stack, "DELETE", unknown)


def test_the_stream_function_waits_as_long_as_the_api() -> None:
    """Fifteen minutes both, and a comment comes many times within the five minutes that a stream may be silent."""
    stack = rest()
    timeout = integration(stack, "POST", "/conversations/x/stream")["timeoutInMillis"]
    assert timeout == stack.properties("StreamFunction")["Timeout"] * 1000
    assert 10 <= Settings().keep_alive <= 15
    assert Settings().keep_alive * 20 <= 5 * 60


@pytest.mark.parametrize(
    ("given", "target", "function"),
    [
        ({}, "<StreamFunction.Arn>", "<StreamFunction>"),
        ({"ProvisionedConcurrency": "2"}, "<StreamAlias>", "<StreamAlias>"),
        ({"SnapStart": "on"}, "<StreamAlias>", "<StreamAlias>"),
        ({"CapacityProviderArn": PROVIDER}, "<ManagedStreamFunction.Arn>", "<ManagedStreamFunction>"),
    ],
)
def test_it_calls_the_stream_function_that_there_is(given: dict[str, str], target: str, function: str) -> None:
    """Its alias where a version is published; and API Gateway may call that one, for this API alone."""
    stack = rest(**given)
    assert f"/functions/{target}/" in integration(stack, "GET", "/messages/x/stream")["uri"]
    for name, called in (("RestStreamPermission", function), ("RestApiPermission", "<ApiFunction>")):
        assert stack.properties(name) == {
            "Action": "lambda:InvokeFunction",
            "FunctionName": called,
            "Principal": "apigateway.amazonaws.com",
            "SourceArn": "arn:aws:execute-api:eu-central-1:123456789012:<RestApi>/live/*",
        }


# ---- who may call ----


@pytest.mark.parametrize("key", ["off", "on"])
@pytest.mark.parametrize(
    ("given", "scheme"),
    [
        ({}, {"x-amazon-apigateway-authtype": "awsSigv4"}),
        (TOKENS, None),
        (
            {**TOKENS, "RestUserPoolArn": POOL},
            {
                "x-amazon-apigateway-authtype": "cognito_user_pools",
                "x-amazon-apigateway-authorizer": {"type": "cognito_user_pools", "providerARNs": [POOL]},
            },
        ),
        (
            {**TOKENS, "RestAuthorizerArn": AUTHORIZER},
            {
                "x-amazon-apigateway-authtype": "custom",
                "x-amazon-apigateway-authorizer": {
                    "type": "request",
                    "authorizerUri": f"{LAMBDA}/2015-03-31/functions/{AUTHORIZER}/invocations",
                    "authorizerResultTtlInSeconds": 0,
                },
            },
        ),
    ],
    ids=["iam", "jwt", "a user pool", "an authorizer"],
)
def test_every_method_asks_for_the_same(given: dict[str, str], scheme: Json | None, key: str) -> None:
    """With IAM each one asks for a signature; with tokens the function does, and before it whoever was named; the key
    is asked for beside. /health asks nobody but IAM, since whoever watches has neither."""
    stack = rest(RestApiKey=key, **given)
    found = body(stack)["components"]["securitySchemes"]
    assert found["api_key"] == {"type": "apiKey", "name": "x-api-key", "in": "header"}
    if scheme is None:
        assert "caller" not in found
    else:
        assert scheme.items() <= found["caller"].items()
        assert (found["caller"]["type"], found["caller"]["in"]) == ("apiKey", "header")
    wanted: Json = {**({"caller": []} if scheme else {}), **({"api_key": []} if key == "on" else {})}
    asked = 0
    for path, methods in body(stack)["paths"].items():
        assert methods.keys() == {"x-amazon-apigateway-any-method"}, path
        security = methods["x-amazon-apigateway-any-method"]["security"]
        if path in rest_paths.OPEN:
            assert security == ([] if "Auth" in given else [{"caller": []}])
        else:
            assert security == ([wanted] if wanted else []), path
            asked += 1
    assert asked == len(rest_paths.STREAM) + len(rest_paths.API)


def test_a_user_pool_s_access_tokens_have_scopes() -> None:
    """With scopes, API Gateway takes access tokens that have one of them; without, ID tokens."""
    stack = rest(**TOKENS, RestUserPoolArn=POOL, RestUserPoolScopes="chat/read,chat/write", RestApiKey="on")
    for path, methods in body(stack)["paths"].items():
        security = methods["x-amazon-apigateway-any-method"]["security"]
        asked = [{"caller": ["chat/read", "chat/write"], "api_key": []}]
        assert security == ([] if path in rest_paths.OPEN else asked)


def test_with_iam_nothing_is_open() -> None:
    """Whatever else is set, each method but a preflight asks for a signature."""
    for more in ({}, {"RestApiKey": "on"}, {"CorsOrigins": "*"}, {"FrontDoor": "Both"}):
        for path, methods in body(rest(**more))["paths"].items():
            for name, method in methods.items():
                asks = any("caller" in each for each in method.get("security", []))
                assert asks is (name != "options"), (path, name)


def test_an_authorizer_may_be_called_by_this_api_alone() -> None:
    """It is somebody else's function."""
    assert rest(**TOKENS, RestAuthorizerArn=AUTHORIZER).properties("RestAuthorizerPermission") == {
        "Action": "lambda:InvokeFunction",
        "FunctionName": AUTHORIZER,
        "Principal": "apigateway.amazonaws.com",
        "SourceArn": "arn:aws:execute-api:eu-central-1:123456789012:<RestApi>/authorizers/*",
    }


def test_a_key_has_a_plan() -> None:
    """With what it may use a second and, if it is said, a day."""
    stack = rest(RestApiKey="on")
    stage = {"ApiId": "<RestApi>", "Stage": "<RestApi.Stage>"}
    assert stack.properties("RestPlan")["ApiStages"] == [stage]
    assert stack.properties("RestPlan")["Throttle"] == {"RateLimit": "10", "BurstLimit": "20"}
    assert "Quota" not in stack.properties("RestPlan")
    assert stack.properties("RestPlanKey") == {"KeyId": "<RestKey>", "KeyType": "API_KEY", "UsagePlanId": "<RestPlan>"}
    assert stack.outputs["RestKeyId"]["Value"] == "<RestKey>"
    stack = rest(RestApiKey="on", RestKeyRate=3, RestKeyBurst=4, RestKeyQuota=500)
    assert stack.properties("RestPlan")["Throttle"] == {"RateLimit": "3", "BurstLimit": "4"}
    assert stack.properties("RestPlan")["Quota"] == {"Limit": "500", "Period": "DAY"}


def test_a_firewall_stands_before_the_stage() -> None:
    """The stage's ARN as WAF has it (https://docs.aws.amazon.com/waf/latest/APIReference/API_AssociateWebACL.html)."""
    assert rest(RestWebAclArn=WEB_ACL).properties("RestWebAcl") == {
        "WebACLArn": WEB_ACL,
        "ResourceArn": "arn:aws:apigateway:eu-central-1::/restapis/<RestApi>/stages/<RestApi.Stage>",
    }


# ---- its name ----


def test_its_name_is_all_of_the_path() -> None:
    """Without a base path, which would be in the path that reaches us; its record is the stack's with a zone."""
    stack = rest(**ADDRESS, HostedZoneId="Z1")
    assert stack.properties("RestDomain") == {
        "DomainName": "api.example.com",
        "RegionalCertificateArn": CERTIFICATE,
        "EndpointConfiguration": {"Types": ["REGIONAL"]},
        "SecurityPolicy": "TLS_1_2",
    }
    assert stack.properties("RestMapping") == {
        "DomainName": "<RestDomain>",
        "RestApiId": "<RestApi>",
        "Stage": "<RestApi.Stage>",
    }
    (record,) = stack.properties("RestRecords")["RecordSets"]
    assert (record["Name"], record["Type"]) == ("api.example.com", "A")
    target = {"DNSName": "<RestDomain.RegionalDomainName>", "HostedZoneId": "<RestDomain.RegionalHostedZoneId>"}
    assert record["AliasTarget"] == target
    assert stack.outputs["RestUrl"]["Value"] == "https://api.example.com/"
    assert stack.outputs["RestDomainTarget"]["Value"] == "<RestDomain.RegionalDomainName>"
    assert rest().outputs["RestUrl"]["Value"] == "https://<RestApi>.execute-api.eu-central-1.amazonaws.com/live/"


def test_a_stack_may_have_both_names() -> None:
    """CloudFront's leads to the function URLs, the other one to the REST API."""
    certificate = "arn:aws:acm:us-east-1:123456789012:certificate/c"
    stack = rest(
        FrontDoor="Both",
        **TOKENS,
        **ADDRESS,
        DomainName="chat.example.com",
        CertificateArn=certificate,
        HostedZoneId="Z1",
    )
    assert {"Distribution", "DistributionRecords", "RestDomain", "RestRecords"} <= stack.resources.keys()
    origins = [each["DomainName"] for each in stack.properties("Distribution")["DistributionConfig"]["Origins"]]
    assert not [each for each in origins if "RestApi" in each]


# ---- pages of other origins ----


@pytest.mark.parametrize("door", ["RestApi", "Both"])
def test_our_own_code_answers_preflights_there(door: str) -> None:
    """The API function does, for each path and asking nobody; the URLs no more, or a response would be marked twice."""
    stack = rest(FrontDoor=door, CorsOrigins="https://a.example,https://b.example", RestApiKey="on")
    for path in body(stack)["paths"]:
        options = body(stack)["paths"][path]["options"]
        assert options.get("security", []) == []
        assert "/functions/<ApiFunction.Arn>/invocations" in options["x-amazon-apigateway-integration"]["uri"]
    for function in ("StreamFunction", "ApiFunction"):
        variables = stack.properties(function)["Environment"]["Variables"]
        assert variables["TAILRACE_CORS_ORIGINS"] == "https://a.example,https://b.example"
    for url in FUNCTION_URLS & stack.resources.keys():
        assert "Cors" not in stack.properties(url)
    plain = Resolved(CorsOrigins="https://a.example")
    assert "TAILRACE_CORS_ORIGINS" not in plain.properties("StreamFunction")["Environment"]["Variables"]
    assert "options" not in body(rest())["paths"]["/v1/{proxy+}"]


# ---- what API Gateway says itself ----


def test_what_api_gateway_refuses_looks_like_ours() -> None:
    """In the shape of every error, with a type of ours; a page may read it, and 429 says when to come again."""
    for origins, allowed in (("", None), ("https://a.example", "'*'")):
        responses = body(rest(CorsOrigins=origins))["x-amazon-apigateway-gateway-responses"]
        assert {"DEFAULT_4XX", "DEFAULT_5XX", "THROTTLED", "QUOTA_EXCEEDED", "UNAUTHORIZED"} <= responses.keys()
        for name, response in responses.items():
            error = json.loads(response["responseTemplates"]["application/json"])["error"]
            assert error.keys() == {"type", "message"}, name
            assert error["message"].endswith("."), name
            parameters = response["responseParameters"]
            assert parameters.get("gatewayresponse.header.Access-Control-Allow-Origin") == allowed
            assert ("gatewayresponse.header.Retry-After" in parameters) is (error["type"] == "rate_limited"), name
        # As an IAM method answers a request without a signature.
        assert responses["MISSING_AUTHENTICATION_TOKEN"]["statusCode"] == "401"


# ---- what it writes down ----


def test_no_token_and_no_prompt_is_logged() -> None:
    """Neither queries nor headers nor bodies are; without being asked nothing at all is."""
    stack = rest()
    assert "AccessLogSetting" not in stack.properties("RestApi")
    for given in ({}, {"RestAccessLogs": "on"}):
        (settings,) = rest(**given).properties("RestApi")["MethodSettings"]
        assert (settings["LoggingLevel"], settings["DataTraceEnabled"]) == ("OFF", False)
    logged = rest(RestAccessLogs="on")
    setting = logged.properties("RestApi")["AccessLogSetting"]
    assert setting["DestinationArn"] == "<RestLogs.Arn>"
    line = json.loads(setting["Format"])
    assert set(line.values()) == {
        "$context.requestId",
        "$context.requestTime",
        "$context.identity.sourceIp",
        "$context.httpMethod",
        "$context.path",
        "$context.status",
        "$context.responseLength",
        "$context.responseLatency",
        "$context.identity.apiKeyId",
        "$context.waf.status",
        "$context.error.responseType",
    }
    assert "\n" not in setting["Format"]
    assert logged.properties("RestLogs")["RetentionInDays"] == "30"


def test_a_change_of_a_parameter_is_deployed() -> None:
    """What is deployed is a copy, so one is made each time; it is SAM's to make."""
    properties = rest().properties("RestApi")
    assert properties["AlwaysDeploy"] is True
    assert properties["StageName"] == "live"
    assert properties["EndpointConfiguration"] == {"Type": "REGIONAL"}
    (settings,) = properties["MethodSettings"]
    websocket = rest().properties("WebSocketStage")["DefaultRouteSettings"]
    assert {name: settings[name] for name in websocket} == websocket
    assert properties["TracingEnabled"] is False
    assert rest(Tracing="Active").properties("RestApi")["TracingEnabled"] is True
