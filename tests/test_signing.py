"""Our signatures are botocore's, whatever is signed, when, and by whom."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import patch

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st
from tailrace.aws.credentials import Credentials
from tailrace.aws.signing import Signing
from yarl import URL

words = st.text("abcXYZ0189-_.~", min_size=1, max_size=12)
secrets = st.builds(
    Credentials,
    words,
    st.text("abcXYZ/+=09", min_size=1, max_size=40),
    st.none() | st.text("aZ/+=9", min_size=1),
)
paths = st.lists(
    st.text("abcXYZ09-_.~@=%:+$! ü", min_size=1, max_size=10).filter(lambda part: set(part) != {"."}), max_size=4
)


@given(
    st.sampled_from(["POST", "DELETE", "GET"]),
    st.sampled_from(["https://abc.execute-api.eu-central-1.amazonaws.com", "http://127.0.0.1:8787", "http://h:80"]),
    paths,
    st.binary(max_size=100),
    st.dictionaries(st.sampled_from(["Content-Type", "X-Amz-Target", "A", "X-Amz-Z"]), words, max_size=4),
    st.lists(secrets, min_size=1, max_size=2),
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),  # Hypothesis wants them naive
)
def test_it_is_botocore_s(
    method: str,
    origin: str,
    parts: list[str],
    body: bytes,
    further: dict[str, str],
    secrets: list[Credentials],
    moment: datetime,
) -> None:
    """The same headers for the same request, also when the credentials change in between."""
    url = URL(origin) / "live"
    for part in parts:
        url = url / part
    signing = Signing("execute-api", "eu-central-1", url.origin())
    now = moment.replace(tzinfo=UTC, microsecond=0)
    for secret in secrets:
        request = AWSRequest(method=method, url=str(url), data=body, headers=further)
        with patch.object(botocore.auth, "get_current_datetime", lambda: now):
            botocore.auth.SigV4Auth(ReadOnlyCredentials(*secret), "execute-api", "eu-central-1").add_auth(request)
        ours = signing.headers(method, url.raw_path, body, secret, int(now.timestamp()), further)
        assert ours == dict(request.headers.items())
