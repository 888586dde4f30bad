"""The page of a deployed stack: what is put into its bucket, in moto's S3 and CloudFormation."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import boto3
import pytest

from local.deployed_page import CannotPut, main, put_page
from local.page import INDEX, WEB, document
from tests.resolved_template import Resolved
from tests.test_template_address import PAGE


@pytest.fixture
def aws(emulator_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A session of an account that is moto's."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.Session()


def deploy(aws: Any, name: str, **outputs: str) -> None:
    """Make a stack with a bucket of that name, and these outputs."""
    template = {
        "Resources": {"PageBucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    aws.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))


def test_all_that_the_page_loads_is_put_there(aws: Any) -> None:
    """By the settings that the template makes: each with its type, and for as long as it may be kept."""
    outputs = Resolved(**PAGE).outputs
    deploy(
        aws,
        "with-page",
        PageBucketName="with-page",
        PageSettings=outputs["PageSettings"]["Value"],
        Url=outputs["Url"]["Value"],
    )
    assert put_page("with-page") == "https://chat.example.com"
    s3 = aws.client("s3")

    def stored(key: str) -> tuple[str, str, str]:
        found = s3.get_object(Bucket="with-page", Key=key)
        return found["ContentType"], found["CacheControl"], found["Body"].read().decode()

    kind, cache, index = stored("index.html")
    assert (kind, cache) == ("text/html; charset=utf-8", "no-cache")
    assert "connect-src 'self' https://issuer.example https://my.auth.example;" in index
    settings = re.search(r'<meta name="settings" content="([^"]+)"', index)
    assert settings is not None
    assert json.loads(unescape(settings[1])) == {
        "auth": "jwt",
        "issuer": "https://issuer.example/pool",
        "client_id": "my-page",
        "scopes": "openid",
        "token_origin": "https://my.auth.example",
        "socket": "/live",
    }
    loaded = re.findall(r'(?:href|src)="/(static/[^"]+)"', index)
    imported = {"static/app.js", "static/tailrace/reply.js", *loaded}
    for key in imported:
        kind, cache, content = stored(key)
        assert kind == f"text/{'css' if key.endswith('.css') else 'javascript'}; charset=utf-8"
        assert cache == "max-age=60"
        assert content == (WEB / key.removeprefix("static/")).read_text()
    keys = {each["Key"] for each in s3.list_objects_v2(Bucket="with-page")["Contents"]}
    modules = {f"static/{path.relative_to(WEB).as_posix()}" for path in WEB.rglob("*.js")}
    assert modules <= keys
    assert not [key for key in keys if key.endswith((".md", ".ts", "package.json"))]


def test_a_stack_without_a_page_is_told(
    aws: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is one that is not there, and who names none."""
    deploy(aws, "without-page", Url="https://chat.example.com")
    with pytest.raises(CannotPut, match=r"^The stack without-page has no page: deploy it with Page=on\.$"):
        put_page("without-page")
    monkeypatch.setattr("sys.argv", ["deployed_page", "nowhere"])
    assert main() == 1
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["deployed_page"])
    assert main() == 2


def test_the_policy_is_wider_by_the_issuer_alone() -> None:
    """Where there is none, it is the page's own."""
    index = INDEX.read_text()
    assert document(index, {}) == index
    assert "connect-src" not in document(index, {"auth": "jwt"})
    assert "connect-src 'self' https://issuer.example;" in document(index, {"issuer": "https://issuer.example/pool"})
