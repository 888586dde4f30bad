"""What the tests in the browser stand on: the lock of its packages, and the listings as they are in the seed page."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_the_lock() -> None:
    """Every package has its hash and no address, so that npm takes it from wherever this machine takes packages."""
    asked = json.loads((HERE / "package.json").read_text())
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    for name, version in asked["dependencies"].items():
        assert packages[f"node_modules/{name}"]["version"] == version
    for path, package in packages.items():
        if path:
            assert package["integrity"].startswith("sha512-"), path
            assert "resolved" not in package, path


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("echo.js", "8ead3c87c3df2c0dd5f9a3effa885c3d9424d17fc6768280d0fd5503132855b4"),
        ("event-source.js", "6d5bc65fd464bf90836f0d71d9421ddbbf81b5dbb3403825cde854c17969b8c8"),
    ],
)
def test_the_listings(name: str, digest: str) -> None:
    """They are byte for byte the two of the seed page: nobody has helped them to run."""
    assert hashlib.sha256((HERE / "listings" / name).read_bytes()).hexdigest() == digest
