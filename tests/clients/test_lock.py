"""The lock of the npm packages: hashes for all of them, and nobody's registry."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent


def test_the_lock() -> None:
    """Every package has its hash and no address, so that npm takes it from wherever this machine takes packages."""
    lock = json.loads((HERE / "package-lock.json").read_text())
    packages = {path: package for path, package in lock["packages"].items() if path}
    assert {"node_modules/laravel-echo", "node_modules/laravel-echo-api-gateway"} <= packages.keys()
    for path, package in packages.items():
        assert package["integrity"].startswith("sha512-"), path
        assert "resolved" not in package, path


def test_the_versions() -> None:
    """The clients are those that the wire was written for, exactly; lock and package agree."""
    asked = json.loads((HERE / "package.json").read_text())
    locked = json.loads((HERE / "package-lock.json").read_text())["packages"]
    assert asked["dependencies"]["laravel-echo"] == "2.5.0"
    assert asked["dependencies"]["laravel-echo-api-gateway"] == "0.5.5"
    for name, version in {**asked["dependencies"], **asked["optionalDependencies"]}.items():
        # Of a package that is there in several versions, "npm:ai@5.0.277" under a name of ours.
        assert locked[f"node_modules/{name}"]["version"] == version.rpartition("@")[2]
