"""The layers that `make build` made are what Lambda needs. `make build` runs this; `make test` does not, since it
needs nothing.

Run as a program, it prints what each package in them weighs.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / ".aws-sam" / "build"
LAYERS = {"arm64": BUILD / "TailraceLayerArm64" / "python", "x86_64": BUILD / "TailraceLayerX86" / "python"}
TOKENS = {"arm64": BUILD / "TokensLayerArm64" / "python", "x86_64": BUILD / "TokensLayerX86" / "python"}
"""What a stack with Auth=jwt has beside it."""

ALL = [*LAYERS.items(), *TOKENS.items()]
BUDGET = 40_000_000
TOKENS_BUDGET = 14_000_000

MACHINES = {"arm64": 183, "x86_64": 62}  # EM_AARCH64, EM_X86_64 (elf(5))
UNCHECKED_HASH = 0b01  # PEP 552: found by hash, and the hash is not compared with the source
MAGIC_3_13 = 3571  # https://github.com/python/cpython/blob/3.13/Lib/importlib/_bootstrap_external.py

# Imported in a function of ours, or by name when the server starts. uvicorn's command line is for functions of a user's
# own: ours leave it out (http/server.py).
IMPORTED_LATER = [
    "aws_lambda_powertools.utilities.parameters",
    "jsonschema",
    "sentencex",
    "uvicorn.main",
    "uvicorn.protocols.http.httptools_impl",
]

# Everything of the library and of the functions, imported as in Lambda, and what that loaded. Only who has a framework
# imports the adapter of its agents.
IMPORT_ALL = """
import importlib, importlib.util, pathlib, pkgutil, sys
import tailrace
from tailrace.providers.adapters import ADAPTERS
for module in pkgutil.walk_packages(tailrace.__path__, "tailrace."):
    if module.name not in ADAPTERS.values():
        importlib.import_module(module.name)
for app in sorted(pathlib.Path(sys.argv[1]).glob("*/app.py")):
    spec = importlib.util.spec_from_file_location("app_" + app.parent.name, app)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
for later in sys.argv[2:]:
    importlib.import_module(later)
print(*sorted(sys.modules))
"""

bytecode = pytest.mark.skipif(os.environ.get("TAILRACE_BYTECODE") == "skip", reason="built without bytecode")
both = pytest.mark.parametrize("architecture", LAYERS)
every = pytest.mark.parametrize(("architecture", "layer"), ALL, ids=[str(layer.parent.name) for _, layer in ALL])


def native(layers: Mapping[str, Path] = LAYERS) -> Path:
    """The layer whose code runs on this machine."""
    name = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine()) if sys.platform == "linux" else None
    if name is None:
        pytest.skip("the layers hold code for Linux on arm64 and x86_64")
    return layers[name]


def python() -> str:
    """The interpreter of Lambda's version."""
    find = ROOT / "layers" / "tailrace" / "find-python"
    found = subprocess.run([str(find), "3.13"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("no Python 3.13 to import the layer with")
    return found.stdout.strip()


def lambda_environment(layer: Path, *more: Path) -> dict[str, str]:
    """Little more than the layers: nothing of this project's environment."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, (layer, *more))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_LAMBDA_FUNCTION_NAME": "built-layer",
        "TAILRACE_TABLE": "none",
        "TAILRACE_AUTH": "iam",
        "POWERTOOLS_SERVICE_NAME": "tailrace",
        "POWERTOOLS_METRICS_NAMESPACE": "Tailrace",
    }


def import_all(layer: Path, *more: Path) -> set[str]:
    """Import the library and the functions from these layers alone; the modules that loaded."""
    # -S: no site-packages, so that nothing but the layer and the standard library can be found.
    command = [python(), "-S", "-s", "-c", IMPORT_ALL, str(ROOT / "functions"), *IMPORTED_LATER]
    done = subprocess.run(
        command,
        env=lambda_environment(layer, *more),
        cwd=layer,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def files(layer: Path) -> list[Path]:
    return [path for path in layer.rglob("*") if path.is_file()]


def packages(layer: Path) -> set[str]:
    """The names at the top that can be imported."""
    entries = (path for path in layer.iterdir() if path.suffix == ".py" or (path.is_dir() and "-" not in path.name))
    return {path.stem for path in entries if path.name != "__pycache__"}


def sizes(layer: Path) -> Counter[str]:
    """Bytes by package; every distribution's metadata together."""
    counted: Counter[str] = Counter()
    for path in files(layer):
        top = path.relative_to(layer).parts[0]
        if top == "__pycache__":
            top = path.name.partition(".")[0]
        counted["(metadata)" if top.endswith(".dist-info") else top.removesuffix(".py")] += path.stat().st_size
    return counted


@both
def test_layer_is_within_its_budget(architecture: str) -> None:
    """At most 40 MB unzipped: all of it is fetched and mounted before the first line runs."""
    assert 0 < sizes(LAYERS[architecture]).total() <= BUDGET
    assert 0 < sizes(TOKENS[architecture]).total() <= TOKENS_BUDGET


@both
def test_layer_has_the_locked_versions(architecture: str) -> None:
    """Every pin is there, in its version, and no other distribution. h11 is left out (layers/tailrace/Makefile)."""
    text = (ROOT / "layers" / "tailrace" / "requirements.txt").read_text()
    pinned = {(name.replace("-", "_"), version) for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)}
    built = set()
    for path in LAYERS[architecture].glob("*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
        built.add((name, version))
    assert built == {(name, version) for name, version in pinned if name != "h11"}


@every
def test_layer_has_code_for_its_architecture_only(architecture: str, layer: Path) -> None:
    """Every shared object is for the machine the function asks for."""
    objects = [path for path in files(layer) if ".so" in path.suffixes]
    assert objects
    for path in objects:
        (machine,) = struct.unpack_from("<H", path.read_bytes(), 18)
        assert machine == MACHINES[architecture], path


@every
def test_layer_has_nothing_for_tests(architecture: str, layer: Path) -> None:
    """No tests, no test tools, no sources for a compiler."""
    names = [path.relative_to(layer).as_posix() for path in layer.rglob("*")]
    useless = re.compile(r"(^|/)(tests?|conftest\.py|_testcapi.*|pytest.*|moto|mypy|hypothesis)$|\.(pyi|pyx|pxd|c|h)$")
    assert [name for name in names if useless.search(name)] == []


@bytecode
@every
def test_every_module_has_bytecode_nobody_checks(architecture: str, layer: Path) -> None:
    """Each source has bytecode of Python 3.13 that is used without a look at the source."""
    for source in layer.rglob("*.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
        magic, flags = struct.unpack_from("<H2xI", compiled.read_bytes())
        assert (magic, flags) == (MAGIC_3_13, UNCHECKED_HASH), source
    assert {path.name.split(".")[-2] for path in layer.rglob("*.pyc")} == {"cpython-313"}


# Prints the bytecode below a folder that says at which column of a line something is.
WITH_COLUMNS = """
import marshal, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*.pyc"):
    positions = marshal.loads(path.read_bytes()[16:]).co_positions()
    if any(start is not None for _, _, start, _ in positions):
        print(path)
"""


@bytecode
@every
def test_bytecode_has_no_columns(architecture: str, layer: Path) -> None:
    """Tracebacks do without, and it is smaller and loads faster."""
    command = [python(), "-S", "-s", "-c", WITH_COLUMNS, str(layer)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


@bytecode
def test_bytecode_is_used(tmp_path: Path) -> None:
    """With every source replaced by an error, everything still imports: so no source is compiled, or read."""
    copies = [tmp_path / "library", tmp_path / "tokens"]
    for layer, copy in zip((native(), native(TOKENS)), copies, strict=True):
        shutil.copytree(layer, copy)
        for source in copy.rglob("*.py"):
            source.write_text("raise RuntimeError('compiled from source: ' + __file__)\n")
    import_all(*copies)


def test_all_of_the_layer_is_imported_by_somebody() -> None:
    """The library and the functions import from the layer alone, and what they never load is not shipped."""
    layer, tokens = native(), native(TOKENS)
    loaded = {name.partition(".")[0] for name in import_all(layer, tokens)}
    assert packages(layer) | packages(tokens) <= loaded


def test_the_library_needs_no_tokens() -> None:
    """With signed requests nothing of the other layer is missed."""
    done = subprocess.run(
        [python(), "-S", "-s", "-c", "from tailrace.backend import Backend; Backend().auth"],
        env=lambda_environment(native()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@both
def test_tokens_have_the_locked_versions(architecture: str) -> None:
    """Every pin is there, in its version, and no other distribution."""
    text = (ROOT / "layers" / "tailrace" / "requirements-tokens.txt").read_text()
    pinned = {f"{name}-{version}" for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)}
    assert {path.name.removesuffix(".dist-info") for path in TOKENS[architecture].glob("*.dist-info")} == pinned


def test_aws_clients_can_be_made() -> None:
    """What was removed from botocore is not missed: a client for each service that is called."""
    services = ["apigatewaymanagementapi", "bedrock-runtime", "dynamodb", "secretsmanager", "ssm", "sts"]
    code = "import boto3, sys\nfor service in sys.argv[1:]: boto3.client(service)"
    layer = native()
    subprocess.run([python(), "-S", "-s", "-c", code, *services], env=lambda_environment(layer), check=True, timeout=60)


def test_stream_function_starts_from_the_layer(tmp_path: Path) -> None:
    """run.sh serves /health with nothing but the layer, Python 3.13 and its own folder: what the adapter waits for."""
    layer = native()
    (tmp_path / "python3").symlink_to(python())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = lambda_environment(layer) | {"AWS_LWA_PORT": str(port), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    url = f"http://127.0.0.1:{port}/health"
    with subprocess.Popen([str(ROOT / "functions" / "stream" / "run.sh")], env=environment) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    with urllib.request.urlopen(url, timeout=5) as answer:  # asked as the adapter asks
                        assert answer.status == 200
                    break
                except OSError:
                    assert process.poll() is None, "the function ended instead of serving"
                    assert time.monotonic() < deadline, "the function does not answer"
                    time.sleep(0.01)
        finally:
            process.terminate()


def main() -> None:
    """Print what each package weighs, largest first."""
    lines = [f"{'MB unzipped':<24}" + "".join(f"{architecture:>9}" for architecture in LAYERS)]
    for layers, budget in ((LAYERS, BUDGET), (TOKENS, TOKENS_BUDGET)):
        weights = {architecture: sizes(layer) for architecture, layer in layers.items()}
        names = sorted(weights["arm64"].keys() | weights["x86_64"].keys(), key=lambda name: -weights["arm64"][name])
        rows = [(name, [weight[name] for weight in weights.values()]) for name in names]
        rows.append((f"all (at most {budget // 1_000_000})", [weight.total() for weight in weights.values()]))
        lines += [f"{name:<24}" + "".join(f"{size / 1e6:>9.2f}" for size in row) for name, row in rows]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
