"""The signed curl of docs/deploy.md is one that AWS would take: botocore's own signer comes to the same signature.

It is sent to a server of the test's. With a header that is signed and not sent, as curl does with an empty one, AWS
answers 403.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.test_deploy_docs import DEPLOY

BODY = '{"input": "Write a short story about a robot"}'


class Request(BaseHTTPRequestHandler):
    """Keeps what came."""

    seen: dict[str, str]
    body: bytes

    def do_POST(self) -> None:
        Request.seen = {name.lower(): value for name, value in self.headers.items()} | {":path": self.path}
        Request.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def server() -> Iterator[str]:
    """Yield the address of a server that keeps what came last."""
    with HTTPServer(("127.0.0.1", 0), Request) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/"
        finally:
            running.shutdown()
            thread.join()


@pytest.mark.parametrize("session_token", ["an/IQoJ+token==", ""], ids=["a role's keys", "a user's keys"])
def test_the_signature_is_botocore_s(session_token: str) -> None:
    """With the session token of a role, and without one."""
    (function,) = re.findall(r"^\$ (signed\(\) \{.*?; \})$", DEPLOY, re.MULTILINE | re.DOTALL)
    keys = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    with server() as url:
        subprocess.run(
            ["bash", "-euc", f"{function}\nsigned '{url}conversations/x/stream' -d '{BODY}'"],
            env={"PATH": os.environ["PATH"], **keys, "AWS_SESSION_TOKEN": session_token},
            check=True,
            timeout=30,
        )
    seen = Request.seen
    assert Request.body.decode() == BODY
    assert seen.get("x-amz-security-token", "") == session_token
    (names,) = re.findall(r"SignedHeaders=([^,]+)", seen["authorization"])
    signed = names.split(";")
    assert set(signed) <= seen.keys()

    request = AWSRequest(
        method="POST",
        url=url.rstrip("/") + seen[":path"],
        data=Request.body,
        headers={name: seen[name] for name in signed},
    )
    request.context["timestamp"] = seen["x-amz-date"]
    signer = SigV4Auth(Credentials(*keys.values()), "lambda", "us-east-1")
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert seen["authorization"].endswith(f"Signature={signature}")
