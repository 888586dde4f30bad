"""Credentials of the environment are botocore's, without its import."""

from __future__ import annotations

from collections.abc import Iterator

import botocore.session
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tailrace.aws import credentials
from tailrace.aws.credentials import Credentials, default_credentials, from_environment
from tailrace.errors import ConfigurationError

NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
)


def forget() -> None:
    """Drop what was found, and what it was found with."""
    credentials._find.cache_clear()
    credentials._session.cache_clear()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment that has no credentials, nor any file or service to find them with."""
    for name in (*NAMES, "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget()
    yield monkeypatch
    forget()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES[:4]), st.sampled_from(["", "one", "two"])))
def test_they_are_those_that_botocore_takes(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Whatever is set and whatever is empty; what is not whole is left to botocore."""
    ours = from_environment(variables)
    with environment.context() as context:
        for name, value in variables.items():
            context.setenv(name, value)
        if ours is not None:
            found = botocore.session.Session().get_credentials()
            assert found is not None
            assert ours == found.get_frozen_credentials()[:3]
        else:
            assert not variables.get("AWS_ACCESS_KEY_ID") or not variables.get("AWS_SECRET_ACCESS_KEY")


def test_those_that_expire_are_read_again(environment: pytest.MonkeyPatch) -> None:
    """botocore knows how: it reads the variables anew before the end."""
    environment.setenv("AWS_ACCESS_KEY_ID", "first")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    environment.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    environment.setattr("botocore.credentials.RefreshableCredentials.refresh_needed", lambda *_, **__: False)
    find = default_credentials()
    assert find() == Credentials("first", "secret", None)
    assert "RefreshableCredentials" in repr(find.__closure__)


def test_where_there_are_none_it_is_said_and_looked_for_again(environment: pytest.MonkeyPatch) -> None:
    """A message in plain words; and what comes later is found."""
    with pytest.raises(ConfigurationError, match=r"^No AWS credentials were found\.$"):
        default_credentials()
    environment.setenv("AWS_ACCESS_KEY_ID", "key")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    environment.setenv("AWS_SESSION_TOKEN", "token")
    assert default_credentials()() == Credentials("key", "secret", "token")
