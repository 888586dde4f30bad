"""The locks and the files around the layer agree with each other, as far as can be told without an index.

`make check` locks again and compares; `make build` proves the built layer (tests/built/built_layer.py).
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LAYER = ROOT / "layers" / "tailrace"

# What a marker sees in the layer. The values that differ between its two architectures decide nothing today.
LAMBDA = {"python_version": "3.13", "python_full_version": "3.13.0", "sys_platform": "linux", "os_name": "posix"} | {
    "platform_system": "Linux",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(path: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    """Name to version of what a lock installs there (here, if nothing is said)."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate(environment):
                (specifier,) = requirement.specifier
                assert specifier.operator == "=="
                found[canonicalize_name(requirement.name)] = specifier.version
    return found


def layer_pins() -> dict[str, str]:
    return pins(LAYER / "requirements.txt", LAMBDA)


def needed(requirements: list[Requirement]) -> set[str]:
    """What they need in the end, by the metadata of what is installed here, for the Python of Lambda."""
    todo, seen = list(requirements), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                lines = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue  # needed by Lambda's Python and not by this one
            for line in lines:
                child = Requirement(line)
                if child.marker is None or child.marker.evaluate(LAMBDA | {"extra": extra}):
                    todo.append(child)
    return {name for name, _ in seen}


@pytest.mark.parametrize(
    "lock",
    [
        "requirements/dev.txt",
        "requirements/uv.txt",
        "requirements/sam.txt",
        "requirements/ric.txt",
        "requirements/lint.txt",
        "requirements/api.txt",
        "layers/tailrace/requirements.txt",
        "layers/tailrace/requirements-tokens.txt",
    ],
)
def test_locks_have_hashes_and_name_no_index(lock: str) -> None:
    """A lock installs the same bytes from any index."""
    text = (ROOT / lock).read_text()
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "://" not in text


def test_dynamodb_local_is_locked() -> None:
    """Every file of it has a hash, the version is the one that is asked for, and no repository is named."""
    asked = (ROOT / "requirements" / "dynamodb-local.xml").read_text()
    locked = (ROOT / "requirements" / "dynamodb-local.sha256").read_text()
    (version,) = re.findall(r"<artifactId>DynamoDBLocal</artifactId>\s*<version>([^<]+)", asked)
    names = [re.fullmatch(r"[0-9a-f]{64}  ([\w.-]+\.(?:jar|so|dll|dylib))", line) for line in locked.splitlines()]
    assert f"DynamoDBLocal-{version}.jar" in {name[1] for name in names if name}
    assert all(names)
    assert "://" not in asked + locked


def test_dependencies_are_locked_as_declared() -> None:
    """Every dependency in pyproject.toml is pinned to a version it allows."""
    declared = project()
    locked = pins(ROOT / "requirements" / "dev.txt")
    for line in declared["project"]["dependencies"] + declared["dependency-groups"]["dev"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), line
    for line in declared["project"]["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(layer_pins()[canonicalize_name(requirement.name)]), line


def test_layer_has_the_versions_that_are_tested() -> None:
    """The layer's pins are among the lock's."""
    locked = pins(ROOT / "requirements" / "dev.txt", LAMBDA)
    assert layer_pins().items() <= locked.items()


def test_layer_has_what_the_dependencies_need_and_nothing_else() -> None:
    """No test tool, stub or SDK slips into the layer, and no dependency of a dependency is forgotten."""
    dependencies = [Requirement(line) for line in project()["project"]["dependencies"]]
    assert set(layer_pins()) == needed(dependencies)


def test_the_layer_of_the_tokens_has_what_the_extra_asks_for_and_nothing_else() -> None:
    """In the versions that are tested, and nothing that the other layer has."""
    locked = pins(LAYER / "requirements-tokens.txt", LAMBDA)
    extra = [Requirement(line) for line in project()["project"]["optional-dependencies"]["jwt"]]
    assert set(locked) == needed(extra)
    assert locked.items() <= pins(ROOT / "requirements" / "dev.txt", LAMBDA).items()
    assert not locked.keys() & layer_pins().keys()


def test_layer_has_nothing_of_the_development_group() -> None:
    """What only developers ask for by name stays out."""
    declared = project()
    runtime = {canonicalize_name(Requirement(line).name) for line in declared["project"]["dependencies"]}
    development = {canonicalize_name(Requirement(line).name) for line in declared["dependency-groups"]["dev"]}
    assert not (development - runtime) & set(layer_pins())


def test_uv_can_build_the_project() -> None:
    """The locked build backend is one that pyproject.toml allows, so that set-up downloads no other."""
    (line,) = project()["build-system"]["requires"]
    assert Requirement(line).specifier.contains(pins(ROOT / "requirements" / "uv.txt")["uv-build"])


def test_template_and_makefile_name_the_same_layers() -> None:
    """sam calls `build-<logical id>`, for one Python, and that is the functions' Python."""
    template = (ROOT / "template.yaml").read_text()
    makefile = (LAYER / "Makefile").read_text()
    layers = set(re.findall(r"^  (\w+):\n    Type: AWS::Serverless::LayerVersion$", template, re.MULTILINE))
    named = re.findall(r"^(build-\w+(?: build-\w+)*): PLATFORM", makefile, re.MULTILINE)
    assert layers == {target.removeprefix("build-") for targets in named for target in targets.split()}
    (version,) = re.findall(r"^PYTHON_VERSION := (\S+)$", makefile, re.MULTILINE)
    assert set(re.findall(r"\bpython3\.\d+", template)) == {f"python{version}"}


def test_template_exposes_nothing_without_iam_or_tokens() -> None:
    """Nobody reaches a function without AWS credentials, unless that function asks for tokens."""
    template = (ROOT / "template.yaml").read_text()
    urls = template.count("Type: AWS::Lambda::Url\n")
    assert (urls, template.count("FunctionUrlConfig:")) == (2, 0)
    assert re.findall(r"\bAuthType: (.+)", template) == ["!If [WithJwt, NONE, AWS_IAM]"] * urls
    assert "WithJwt: !Equals [!Ref Auth, jwt]" in template
    assert "TAILRACE_AUTH: !Ref Auth" in template
    assert "  Auth:\n    Type: String\n    Default: iam\n    AllowedValues: [iam, jwt]\n" in template
    permissions = re.findall(r"Type: AWS::Lambda::Permission\n(.+?)\n\n", template, re.DOTALL)
    # API Gateway's own are narrowed to this WebSocket API, whose $connect is as guarded, and to this REST API, whose
    # methods are (test_template_rest.py).
    gateways = [permission for permission in permissions if "Principal: apigateway.amazonaws.com" in permission]
    sources = [re.findall(r"\$\{AWS::AccountId\}:(.+)", gateway) for gateway in gateways]
    assert sources == [
        ["${WebSocketApi}/live/*"],
        ["${RestApi}/live/*"],
        ["${RestApi}/live/*"],
        ["${RestApi}/authorizers/*"],
    ]
    others = [permission for permission in permissions if permission not in gateways]
    assert len(others) == 2 * urls
    assert all(permission.startswith("    Condition: TokensAtUrls\n") for permission in others)
    assert "TokensAtUrls: !And [!Condition HasFunctionUrls, !Condition WithJwt]" in template
    assert "AWS::Serverless::HttpApi" not in template


def test_run_sh_starts_the_app_as_lambda_does(tmp_path: Path) -> None:
    """The start script finds the layer, takes the adapter's port, and becomes the app (so that it gets signals)."""
    (tmp_path / "app.py").write_text("import os, sys\nprint(os.environ['PORT'], sys.path[1], os.getpid())\n")
    environment = {"PATH": os.environ["PATH"], "LAMBDA_TASK_ROOT": str(tmp_path), "AWS_LWA_PORT": "8123"}
    script = ROOT / "functions" / "stream" / "run.sh"
    with subprocess.Popen([str(script)], env=environment, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=30)
    port, first, pid = output.split()
    assert (process.returncode, port, first, int(pid)) == (0, "8123", "/opt/python", process.pid)
