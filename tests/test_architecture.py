"""The house: which way the arrows point, what an import costs, and what is public."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tailrace

ROOT = Path(__file__).parent.parent
PACKAGE = Path(tailrace.__file__).parent

# Each room, and each loose file, may import what stands above it in this list and nothing else. CONTRIBUTING.md has
# the same list in words.
ORDER = (
    *("errors", "clock", "events", "ids", "telemetry", "testing"),
    *("aws", "delivery", "protocols", "providers", "settings", "store"),
    *("identity", "broadcast", "reply", "backend", "conversation", "http"),
    "tailrace",
)


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms(modules: set[str]) -> set[str]:
    """Return which rooms of the library are among the modules."""
    return {parts[1] for module in modules if (parts := module.split("."))[0] == "tailrace" and len(parts) > 1}


def room_of(path: Path) -> str:
    """Return the room a file of the library belongs to."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "tailrace" if parts == ("__init__",) else parts[0]


def test_no_room_imports_one_that_comes_later() -> None:
    """So there is no circle among them either."""
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        for other in rooms(imports(path)) & set(ORDER) - {room}:
            assert ORDER.index(other) < ORDER.index(room), f"{path.relative_to(PACKAGE)} imports {other}"


def test_the_house_is_what_the_list_says() -> None:
    """No file lies loose, and no room is there, that the list does not name."""
    assert {room_of(path) for path in PACKAGE.rglob("*.py")} == set(ORDER)


def test_only_the_store_knows_pynamodb() -> None:
    """pynamodb is a matter of the store alone."""
    users = {
        room_of(path) for path in PACKAGE.rglob("*.py") if any(m.split(".")[0] == "pynamodb" for m in imports(path))
    }
    assert users == {"store"}


def test_functions_import_only_the_library() -> None:
    """Beside the standard library: a function never reaches into another one, nor into what is beside the library."""
    for path in (ROOT / "functions").rglob("*.py"):
        assert {module.split(".")[0] for module in imports(path)} <= {"tailrace", "mangum", *sys.stdlib_module_names}


def loaded_after(statement: str) -> set[str]:
    """Return the top-level packages loaded by a statement in a fresh process."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_imports_no_vendor() -> None:
    """``import tailrace`` is free."""
    loaded = loaded_after("import tailrace")
    assert not loaded & {"pynamodb", "botocore", "boto3", "aiohttp", "starlette", "pydantic", "msgspec", "sentencex"}


def test_the_stream_function_pays_for_nothing_of_the_buffered_one() -> None:
    """Neither FastAPI nor Mangum, nor boto3, nor another provider's wire is imported for a stream."""
    loaded = loaded_after("import tailrace.http.stream_app, tailrace.http.server")
    assert not loaded & {"fastapi", "mangum", "boto3", "pydantic", "moto", "anthropic", "openai"}
    assert not loaded & {"jsonschema", "sentencex"}
    # botocore's and pynamodb's own clients are for who has no other (aws/credentials.py, store/items.py).
    assert not loaded & {"urllib3", "dateutil", "blinker"}


def test_what_is_not_broadcast_is_not_paid_for() -> None:
    """Nothing of the subscribers' side is imported for a stream before something is to be sent to them."""
    code = "import tailrace.http.stream_app, sys; print(*(name for name in sys.modules if 'broadcast' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_a_frame_does_not_pay_for_an_answer() -> None:
    """The WebSocket function imports nothing that answers chats: it hands them over."""
    path = ROOT / "functions" / "websocket" / "app.py"
    code = (
        f"import os, runpy, sys; os.environ.update(AWS_LAMBDA_FUNCTION_NAME='f', TAILRACE_AUTH='iam'); "
        f"runpy.run_path({str(path)!r}); print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stdout.split()
    assert "tailrace.broadcast.chats" in loaded
    assert not [name for name in loaded if name.startswith(("tailrace.http", "tailrace.conversation", "starlette"))]


@pytest.mark.parametrize("function", ["stream", "api", "websocket", "broadcast", "chat", "sweep"])
@pytest.mark.parametrize("auth", ["iam", "jwt"])
def test_tokens_and_providers_are_paid_for_by_who_asks_for_them(function: str, auth: str) -> None:
    """With ``iam`` no function imports what checks tokens; with ``jwt`` those do, as they start, that ask for one. The
    others have no layer with it. Likewise aiohttp, through which providers are asked."""
    code = f"import functions.{function}.app, sys; print(*sorted(sys.modules))"
    environment = {
        **os.environ,
        "TAILRACE_AUTH": auth,
        "TAILRACE_JWT_SECRET": "x" * 32,
        "TAILRACE_TABLE": "none",
        "AWS_REGION": "eu-central-1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment, cwd=ROOT
    )
    loaded = {*done.stdout.split()}
    asks = auth == "jwt" and function in ("stream", "api", "websocket")
    assert ("aiohttp" in loaded) == (asks or function in ("stream", "api", "chat"))  # an issuer's keys come by it too
    assert {"jwt", "cryptography", "tailrace.identity.jwt"} & loaded == (
        {"jwt", "cryptography", "tailrace.identity.jwt"} if asks else set()
    )


def test_the_public_names_are_those_listed() -> None:
    """Each name in ``__all__`` is there, documented, and declared for type checkers."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    declared = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert declared == set(tailrace.__all__)
    for name in tailrace.__all__:
        assert getattr(tailrace, name).__doc__, f"{name} has no docstring"
