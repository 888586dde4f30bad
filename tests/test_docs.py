"""The documentation runs: every python block, and those that need a running stack (```bash run, ```python run).

The python blocks of a page share their names, in order, and may await; the bash blocks of a page are one script.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest
from tailrace import backend
from tailrace.settings import Settings

pytest_plugins = ["tests.stack"]

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DEADLINE = 60


def blocks(page: Path, kind: str) -> list[tuple[int, str]]:
    """Return the page's blocks of a kind, each with the number of its first line."""
    text = page.read_text()
    found = re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def pages_with(kind: str) -> pytest.MarkDecorator:
    """Parametrize a test by the pages that have such blocks."""
    pages = [page for page in PAGES if blocks(page, kind)]
    return pytest.mark.parametrize("page", pages, ids=[page.name for page in pages])


@pytest.fixture
async def environment_of_a_reader(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The environment points to a table, and the backend made from it is closed at the end."""
    assert settings.dynamodb_endpoint is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", settings.dynamodb_endpoint)
    monkeypatch.setenv("TAILRACE_TABLE", settings.table)
    monkeypatch.setattr(backend, "_default", None)  # it is made once a process, and this is another environment
    yield
    await backend.default_backend().close()


@pytest.mark.anyio
@pytest.mark.usefixtures("environment_of_a_reader")
@pages_with("python")
async def test_python(page: Path) -> None:
    """The blocks run in order, and what they assert is so."""
    await run_python(page, blocks(page, "python"))


@pytest.mark.anyio
@pages_with("python run")
async def test_python_on_a_stack(page: Path, stack_url: str) -> None:
    """The same, against a running stack."""
    async with asyncio.timeout(DEADLINE):
        await run_python(
            page,
            [(line, source.replace("http://127.0.0.1:8787", stack_url)) for line, source in blocks(page, "python run")],
        )


async def run_python(page: Path, found: list[tuple[int, str]]) -> None:
    """Run blocks as one module whose top level may await."""
    names: dict[str, Any] = {}
    for line, source in found:
        tree = ast.parse(source, str(page))
        ast.increment_lineno(tree, line - 1)
        code = compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(code, names)
        if inspect.isawaitable(running):
            await running


@pages_with("bash run")
def test_bash(page: Path, stack_url: str, tmp_path: Path) -> None:
    """The blocks run as they are written, against a running stack; no answer is a fault of ours."""
    script = "\n".join(source for _, source in blocks(page, "bash run")).replace("http://127.0.0.1:8787", stack_url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"done":true' in done.stdout
    assert '"streamed":false' in done.stdout
    assert '"status":"cancelled"' in done.stdout
    assert "general_error" not in done.stdout
    assert '"type":"invalid_request"' not in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links(page: Path) -> None:
    """Links between the pages lead somewhere."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_variable_is_documented() -> None:
    """What settings.py and `make run` read of ours is in docs/settings.md, and the other way round."""
    documented = set(re.findall(r"TAILRACE_[A-Z_]+[A-Z]", (ROOT / "docs" / "settings.md").read_text()))
    source = (ROOT / "layers/tailrace/tailrace/settings.py").read_text() + (ROOT / "local/stack.py").read_text()
    read = {name for name in re.findall(r"TAILRACE_[A-Z_]+", source) if not name.endswith("_")}
    keys = {
        f"TAILRACE_{vendor}_API_KEY_{kind}" for vendor in ("ANTHROPIC", "OPENAI") for kind in ("SECRET", "PARAMETER")
    } | {"TAILRACE_GROQ_API_KEY_SECRET"}  # the example for all others
    assert documented == read | keys


def test_every_provider_is_documented() -> None:
    """By its name, and with the variables of its key and its address."""
    from tailrace.providers import MODULES, VARIABLES, names, variables
    from tailrace.providers.presets import PRESETS

    page = (ROOT / "docs" / "providers.md").read_text()
    settings = (ROOT / "docs" / "settings.md").read_text()
    for name in names():
        assert f"`{name}`" in page
        if (name in MODULES or name in VARIABLES) and name != "scripted":
            for variable in (*variables(name).keys, variables(name).base_url):
                assert f"`{variable}`" in settings
    for name, preset in PRESETS.items():
        assert preset.key_variable in (None, variables(name).keys[0])
        assert f"`{name}`" in settings


def test_every_route_is_documented() -> None:
    """Each route of the application is in the table of docs/http.md, and no other."""
    from starlette.routing import Route
    from tailrace.backend import Backend
    from tailrace.http.api_app import create_api_app
    from tailrace.http.stream_app import hot_routes

    api = Backend(Settings())
    schema = create_api_app(api).openapi()["paths"]
    found = {(method.upper(), path) for path, methods in schema.items() for method in methods}
    for route in hot_routes(api):  # mounted, so not in the schema
        assert isinstance(route, Route)
        found |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    routes = {(method, re.sub(r"\{[^}]+\}", "{id}", path)) for method, path in found}
    table = re.findall(r"^\| `([A-Z]+) ([^`?]+)", (ROOT / "docs" / "http.md").read_text(), re.MULTILINE)
    assert {(method, re.sub(r"\{[^}]+\}", "{id}", path)) for method, path in table} == routes


def test_every_error_type_is_documented() -> None:
    """docs/http.md lists each that a reply can end with, and no other: all but those of requests that were refused."""
    from tailrace import errors

    def types(root: type[errors.TailraceError]) -> set[str]:
        return {root.error_type}.union(*map(types, root.__subclasses__()))

    sentence = re.search(r"`error_type` is one of ([^;]+);", (ROOT / "docs" / "http.md").read_text())
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == set(get_args(errors.ErrorType)) - types(errors.RequestError)
