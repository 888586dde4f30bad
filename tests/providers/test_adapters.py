"""What the adapters share. Each one's own tests need its framework (tests/agents)."""

from __future__ import annotations

import ast
import logging
import re
import sys
import tomllib
from pathlib import Path

import anthropic
import httpx2
import openai
import pytest
from botocore.exceptions import ClientError
from tailrace.errors import ContentFiltered, IdleTimeout, ProviderError, TailraceError, Unprocessable
from tailrace.events import StepEnd, ToolCall, ToolResult
from tailrace.providers import OutputSchema, PromptMessage, ProviderRequest, Tool
from tailrace.providers.adapters import ADAPTERS, asked, find_adapter
from tailrace.providers.adapters.failing import failing, meaning
from tailrace.providers.adapters.rounds import Rounds

ROOT = Path(__file__).parent.parent.parent


def test_each_has_its_extra_and_its_tests() -> None:
    """What is told to be installed is what is tested, and each file has ``adapt``."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {module.rsplit(".", 1)[1] for module in ADAPTERS.values()}
    assert {extra.replace("-", "_") for extra in extras if extra != "jwt"} == names
    lock = (ROOT / "requirements" / "agents.txt").read_text()
    for requirement in (requirement for extra in extras.values() for requirement in extra):
        package = re.split(r"[>\[]", requirement)[0]
        assert re.search(rf"^{package}==", lock, re.MULTILINE)
    for name in names:
        assert (ROOT / "tests" / "agents" / f"agents_of_{name}.py").exists()
        source = (ROOT / "layers/tailrace/tailrace/providers/adapters" / f"{name}.py").read_text()
        assert "adapt" in {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def test_what_only_looks_like_an_agent(caplog: pytest.LogCaptureFixture) -> None:
    """Of a package of one's own, with the name of a framework's, is none, and the log has why."""
    made = type("Agent", (), {"__module__": "agents.agent"})()
    with caplog.at_level(logging.WARNING):
        assert find_adapter(made) is None
    assert "no adapter" in caplog.text
    assert find_adapter(object()) is None
    assert not {"agents", "langgraph", "litellm", "pydantic_ai", "strands"} & set(sys.modules)


def ask(model: str | None = None, **more: object) -> ProviderRequest:
    """A request of one question."""
    return ProviderRequest(model=model, messages=[PromptMessage("user", "?")], **more)  # type: ignore[arg-type]  # as the tests give it


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ask("gpt-5"), "its own model"),
        (ask(tools=[Tool(name="t")]), "its own tools"),
        (ask(schema=OutputSchema(name="s", schema={})), "no response_format"),
        (ask(tool_choice="none"), "chooses its tools itself"),
    ],
)
def test_what_an_agent_is_not_asked(request_: ProviderRequest, words: str) -> None:
    """Is refused in a sentence that names it."""
    with pytest.raises(Unprocessable, match=words):
        asked.check(request_, "a framework")


def test_results_as_text() -> None:
    """JSON that a tool wrote stays what it is, and anything has some text; a prompt has a text without its quotes."""

    class Odd:
        def __str__(self) -> str:
            return "odd"

    assert [asked.result_text(each) for each in ("clear", '{"a": 1}', "7", {"a": [1]}, None, Odd(), "\ud800")] == [
        *('"clear"', '{"a": 1}', '"7"', '{"a":[1]}', "null", '"odd"', '"\ufffd"')
    ]
    results = [ToolResult("a", "t", '"clear"'), ToolResult("b", "t", '{"a": 1}', is_error=True)]
    message = PromptMessage("tool_result", "", tool_results=results)
    plain = asked.with_plain_results(ProviderRequest(model=None, messages=[message]))
    assert [(each.result, each.is_error) for each in plain.messages[0].tool_results] == [
        ("clear", False),
        ('{"a": 1}', True),
    ]


def response(status: int) -> httpx2.Response:
    """What a vendor's SDK got."""
    request = httpx2.Request("POST", "https://example.com")
    return httpx2.Response(status, headers={"retry-after": "3"}, request=request)


def behind(error: Exception) -> Exception:
    """An exception as a framework wraps it."""
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("the run failed") from inner
    except RuntimeError as outer:
        return outer


class ContentFilterError(Exception):
    """As a framework calls it."""


@pytest.mark.parametrize(
    ("error", "kind", "status", "retryable"),
    [
        (openai.RateLimitError("secret", response=response(429), body=None), ProviderError, 429, True),
        (behind(anthropic.BadRequestError("secret", response=response(400), body=None)), ProviderError, 400, False),
        (openai.APITimeoutError(request=response(200).request), IdleTimeout, None, True),
        (behind(TimeoutError()), IdleTimeout, None, True),
        (
            ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "Converse"),  # type: ignore[typeddict-item]  # no more is read
            ProviderError,
            503,
            True,
        ),
        (behind(ContentFilterError("secret")), ContentFiltered, None, False),
    ],
)
def test_what_exceptions_mean(error: Exception, kind: type[ProviderError], status: int | None, retryable: bool) -> None:
    """By what the packages of vendors have in common; none of their words is shown."""
    found = meaning(error, "a framework")
    assert type(found) is kind
    assert isinstance(found, ProviderError)
    assert (found.status_code, found.retryable) == (status, retryable)
    assert found.retry_after == (3.0 if status in (400, 429) else None)
    assert "secret" not in found.message


def test_what_means_nothing() -> None:
    """Stays what it is: to the reader the provider has failed. Our own errors are told as they are."""
    with pytest.raises(ValueError, match="mine"), failing("a framework"):
        raise ValueError("mine")
    with pytest.raises(Unprocessable), failing("a framework"):
        raise Unprocessable("no")
    with pytest.raises(TailraceError, match="closed"), failing("a framework"):
        raise behind(ProviderError("It is closed.", provider="mine"))
    endless = ValueError("1")
    endless.__cause__ = endless
    assert meaning(endless, "a framework") is None


def test_rounds() -> None:
    """A step ends when each of its calls has its result, or else when the model goes on."""
    rounds = Rounds()
    first, second = ToolCall("a", "t", "{}"), ToolCall("b", "u", "{}")
    assert [*rounds.called(first), *rounds.called(second)] == [first, second]
    assert (rounds.name("b"), rounds.name("c")) == ("u", "")
    result = ToolResult("a", "t", "1")
    assert list(rounds.answered(result)) == [result]
    assert list(rounds.goes_on()) == [StepEnd()]  # nobody answers the other one
    assert list(rounds.goes_on()) == []
    assert list(rounds.called(first)) == [first]
    assert list(rounds.answered(result)) == [result, StepEnd()]
