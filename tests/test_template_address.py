"""One address for streams, JSON and WebSocket: who answers what behind it."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any, Final

import pytest
from starlette.routing import Route
from tailrace.backend import Backend
from tailrace.http.api_app import create_api_app
from tailrace.http.stream_app import create_stream_app
from tailrace.settings import Settings

from local.front import STREAMED
from local.page import INDEX
from tests.resolved_template import Resolved

CERTIFICATE: Final = "arn:aws:acm:us-east-1:123456789012:certificate/c"
WITH_TOKENS: Final = {"Auth": "jwt", "JwtSecret": "s"}
ADDRESS: Final = {"DomainName": "chat.example.com", "CertificateArn": CERTIFICATE, **WITH_TOKENS}

# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-cache-policies.html
CACHING_DISABLED: Final = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-origin-request-policies.html
ALL_VIEWER_EXCEPT_HOST: Final = "b689b0a8-53d0-40ab-baf2-68738e2966ac"


def distribution(stack: Resolved) -> dict[str, Any]:
    """Return what the distribution is configured with."""
    found: dict[str, Any] = stack.properties("Distribution")["DistributionConfig"]
    return found


def behavior(stack: Resolved, path: str) -> dict[str, Any]:
    """Return the behavior that a path gets: the first whose pattern matches. As for CloudFront, * is any characters."""
    config = distribution(stack)
    for each in config["CacheBehaviors"]:
        if fnmatchcase(path, each["PathPattern"]):
            found: dict[str, Any] = each
            return found
    default: dict[str, Any] = config["DefaultCacheBehavior"]
    return default


def paths() -> list[tuple[str, str]]:
    """Return every route of the API function, which has all of them, as method and path."""
    app = create_api_app(Backend(Settings()))
    found = []
    for route in app.routes:
        if isinstance(route, Route):
            path = re.sub(r"\{[^}]+\}", "some-id", route.path)
            found += [(method, path) for method in route.methods or ()]
    return found


def test_there_is_none_unless_it_is_asked_for() -> None:
    """Nor any of its outputs."""
    stack = Resolved()
    assert not {"Distribution", "DistributionRecords"} & stack.resources.keys()
    assert not {"Url", "DistributionDomain"} & stack.outputs.keys()


def test_each_route_gets_the_function_that_serves_it_on_one_machine_too() -> None:
    """What streams or waits goes to the stream function, everything else to the API function."""
    stack = Resolved(**ADDRESS)
    streamed = {(method, re.sub(r"\{[^}]+\}", "some-id", path)) for method, path in STREAMED}
    asked = [(method, path) for method, path in paths() if method not in ("HEAD", "OPTIONS")]
    assert streamed <= set(asked)
    apart = ("/api/", "/v1/")
    under = [(method, path, f"/api{path}") for method, path in asked if not path.startswith(apart)]
    for method, path, there in [*((method, path, path) for method, path in asked), *under]:
        found = behavior(stack, there)
        assert found["TargetOriginId"] == ("stream" if (method, path) in streamed else "api"), there
        assert method in found["AllowedMethods"]
        assert "OPTIONS" in found["AllowedMethods"]  # a preflight is the function URL's to answer


def test_what_goes_to_the_stream_function_is_there() -> None:
    """Its application has each of these routes."""
    app = create_stream_app(Backend(Settings()))
    served = {route.path for route in app.routes if isinstance(route, Route)}
    assert {path for _, path in STREAMED} <= served


def test_subscribers_get_the_stage_of_the_websocket_api() -> None:
    """The path is the stage's name; nothing else of that API can be reached, such as its connections."""
    stack = Resolved(**ADDRESS)
    assert behavior(stack, "/live")["TargetOriginId"] == "websocket"
    assert behavior(stack, "/live/@connections/x")["TargetOriginId"] == "api"
    origins = {each["Id"]: each["DomainName"] for each in distribution(stack)["Origins"]}
    assert origins["websocket"] == "<WebSocketApi>.execute-api.eu-central-1.amazonaws.com"
    stages = [
        each["Properties"]["StageName"] for each in stack.resources.values() if each["Type"].endswith("V2::Stage")
    ]
    assert stages == ["live"]
    assert origins["stream"].startswith("<StreamFunctionUrl.FunctionUrl>")
    assert origins["api"].startswith("<ApiFunctionUrl.FunctionUrl>")


def test_nothing_is_kept_changed_or_squeezed() -> None:
    """No cache, every header but the host, no compression, which would hold chunks back; only TLS."""
    config = distribution(Resolved(**ADDRESS))
    for each in (config["DefaultCacheBehavior"], *config["CacheBehaviors"]):
        assert each["CachePolicyId"] == CACHING_DISABLED
        assert each["OriginRequestPolicyId"] == ALL_VIEWER_EXCEPT_HOST
        assert each["Compress"] is False
        assert each["ViewerProtocolPolicy"] == "https-only"
    assert config["ViewerCertificate"]["AcmCertificateArn"] == CERTIFICATE


def test_a_silent_stream_outlives_the_patience_of_the_distribution() -> None:
    """A comment comes several times before it gives up, and so does the answer of the longest poll."""
    for origin in distribution(Resolved(**ADDRESS))["Origins"]:
        timeout = origin["CustomOriginConfig"]["OriginReadTimeout"]
        assert timeout >= 4 * Settings().keep_alive
        assert timeout <= 60  # what an account may set without asking


def test_the_address_is_told() -> None:
    """And its records are made where the zone is known."""
    stack = Resolved(**ADDRESS)
    assert stack.broken == []
    assert stack.outputs["Url"]["Value"] == "https://chat.example.com"
    assert "DistributionRecords" not in stack.resources
    records = Resolved(**ADDRESS, HostedZoneId="Z1").properties("DistributionRecords")
    assert {(each["Name"], each["Type"]) for each in records["RecordSets"]} == {
        ("chat.example.com", "A"),
        ("chat.example.com", "AAAA"),
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"DomainName": "chat.example.com", "CertificateArn": CERTIFICATE},
            "DomainName needs Auth=jwt, since a SigV4 signature is for the host of the function URL.",
        ),
        (
            {"DomainName": "chat.example.com", **WITH_TOKENS},
            "DomainName needs CertificateArn, of a certificate in us-east-1.",
        ),
    ],
)
def test_half_an_address_is_refused(given: dict[str, str], said: str) -> None:
    """Before anything is made."""
    assert Resolved(**given).broken == [said]


# ---- the page, at that address ----

PAGE: Final = {
    **ADDRESS,
    "JwtSecret": "",
    "JwtIssuer": "https://issuer.example/pool,https://other.example",
    "JwtAudience": "app",
    "Page": "on",
    "PageClientId": "my-page",
    "PageTokenOrigin": "https://my.auth.example",
}


def test_the_page_is_there_only_when_it_is_asked_for() -> None:
    """Without it nothing of it is made, and the root stays the API's."""
    stack = Resolved(**ADDRESS)
    assert not [name for name in (*stack.resources, *stack.outputs) if name.startswith("Page")]
    assert behavior(stack, "/")["TargetOriginId"] == "api"
    assert "DefaultRootObject" not in distribution(stack)
    assert {each["Id"] for each in distribution(stack)["Origins"]} == {"stream", "api", "websocket"}


def test_the_page_and_its_files_come_from_the_bucket_and_all_else_as_before() -> None:
    """Its routes and no other."""
    stack, before = Resolved(**PAGE), Resolved(**ADDRESS)
    assert stack.broken == []
    config = distribution(stack)
    assert config["DefaultRootObject"] == "index.html"
    for path in ("/", "/index.html", "/static/app.js", "/static/tailrace/reply.js"):
        found = behavior(stack, path)
        assert (found["TargetOriginId"], found["AllowedMethods"]) == ("page", ["GET", "HEAD"])
        assert found["ResponseHeadersPolicyId"] == "<PageHeaders>"
        assert found["ViewerProtocolPolicy"] == "redirect-to-https"
    for _, path in paths():
        assert behavior(stack, path) == behavior(before, path)
    assert behavior(stack, "/live")["TargetOriginId"] == "websocket"


def test_only_the_distribution_reads_the_bucket() -> None:
    """Signed, over TLS; nothing of it is public."""
    stack = Resolved(**PAGE)
    (origin,) = (each for each in distribution(stack)["Origins"] if each["Id"] == "page")
    assert origin["DomainName"] == "<PageBucket.RegionalDomainName>"
    assert origin["OriginAccessControlId"] == "<PageAccess>"
    access = stack.properties("PageAccess")["OriginAccessControlConfig"]
    assert (access["SigningBehavior"], access["SigningProtocol"]) == ("always", "sigv4")
    assert set(stack.properties("PageBucket")["PublicAccessBlockConfiguration"].values()) == {True}
    allowed, denied = stack.properties("PageBucketPolicy")["PolicyDocument"]["Statement"]
    assert (allowed["Effect"], allowed["Action"]) == ("Allow", "s3:GetObject")
    assert allowed["Principal"] == {"Service": "cloudfront.amazonaws.com"}
    source = "arn:aws:cloudfront::123456789012:distribution/<Distribution>"
    assert allowed["Condition"] == {"StringEquals": {"AWS:SourceArn": source}}
    assert (denied["Effect"], denied["Action"]) == ("Deny", "s3:*")
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_page_s_policy_is_its_document_s_and_the_issuer_s_hosts() -> None:
    """As web/index.html has it when it is put there, and nobody may frame it."""
    headers = Resolved(**PAGE).properties("PageHeaders")["ResponseHeadersPolicyConfig"]["SecurityHeadersConfig"]
    said = set(headers["ContentSecurityPolicy"]["ContentSecurityPolicy"].split("; "))
    own = re.search(r'content="(default-src[^"]+)"', INDEX.read_text())
    assert own is not None
    asked = "connect-src 'self' https://issuer.example https://my.auth.example"
    assert said == {*own[1].split("; "), asked, "frame-ancestors 'none'"}
    assert headers["StrictTransportSecurity"]["AccessControlMaxAgeSec"] >= 31536000
    assert headers["ContentTypeOptions"] == {"Override": True}
    assert headers["ReferrerPolicy"]["ReferrerPolicy"] == "no-referrer"


def test_a_page_with_a_secret_alone_takes_tokens_that_are_pasted() -> None:
    """It calls nobody but its own stack."""
    stack = Resolved(**ADDRESS, Page="on")
    assert stack.broken == []
    assert json.loads(stack.outputs["PageSettings"]["Value"])["issuer"] == ""
    headers = stack.properties("PageHeaders")["ResponseHeadersPolicyConfig"]["SecurityHeadersConfig"]
    assert "http" not in headers["ContentSecurityPolicy"]["ContentSecurityPolicy"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Page": "on", **WITH_TOKENS}, "Page=on needs DomainName, which serves it."),
        ({"Page": "on", "DomainName": ""}, "Page=on needs Auth=jwt, since a browser signs nothing with SigV4."),
        ({**ADDRESS, "Page": "on", "PageClientId": "p"}, "PageClientId needs JwtIssuer, where people sign in."),
    ],
)
def test_half_a_page_is_refused(given: dict[str, str], said: str) -> None:
    """Before anything is made."""
    assert said in Resolved(**given).broken
