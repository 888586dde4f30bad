"""What is sent to a provider, and what is refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest
from tailrace.errors import ConfigurationError, Unprocessable
from tailrace.providers import PromptMessage, ProviderConfig, ProviderRequest

from .fake_server import FakeServer, Reply, Request
from .helpers import KEY, WIRES, collect, fixture, opened, prompt, run


def sent(wire: str, request: ProviderRequest, key: str | None = KEY) -> Request:
    """What the provider gets."""

    async def test() -> Request:
        server = FakeServer(Reply(pieces=[fixture(wire)]))
        async with server.serving(), opened(wire, server.url, key) as provider:
            assert (await collect(provider.stream(request))).error is None
        return server.requests[0]

    return run(test())


def test_a_prompt_for_anthropic() -> None:
    """System prompts have their own member, and max_tokens is required."""
    request = sent("anthropic", prompt())
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["accept-encoding"] == "identity"
    assert request.body == {
        "model": "some-model",
        "max_tokens": 4096,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "Tell."},
            {"role": "assistant", "content": "Of?"},
            {"role": "user", "content": "Wheels."},
        ],
    }


def test_a_prompt_for_openai() -> None:
    """System prompts come first, and usage is asked for."""
    request = sent("openai", prompt())
    assert request.path == "/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "some-model",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Tell."},
            {"role": "assistant", "content": "Of?"},
            {"role": "user", "content": "Wheels."},
        ],
    }


@pytest.mark.parametrize("wire", WIRES)
def test_the_request_names_the_model(wire: str) -> None:
    """It wins over the configured one; tool calls and results are left out for now."""
    messages = [PromptMessage("user", "水"), PromptMessage("tool_call", "{}"), PromptMessage("tool_result", "{}")]
    body = sent(wire, ProviderRequest(model="other", messages=messages)).body
    assert body["model"] == "other"
    assert body["messages"] == [{"role": "user", "content": "水"}]
    assert "system" not in body


@pytest.mark.parametrize(
    ("wire", "options", "members"),
    [
        ("anthropic", {"stop": "END", "max_tokens": 9}, {"stop_sequences": ["END"], "max_tokens": 9}),
        ("anthropic", {"stop": ["A", "B"], "top_k": 3}, {"stop_sequences": ["A", "B"], "top_k": 3}),
        ("anthropic", {"tools": [{"name": "now"}], "tool_choice": {"type": "auto"}}, None),
        ("anthropic", {"temperature": 0, "top_p": 1, "thinking": {"type": "disabled"}}, None),
        ("openai", {"stop": "END", "max_tokens": 9, "seed": 1}, None),
        ("openai", {"tools": [{"type": "function"}], "tool_choice": "auto", "parallel_tool_calls": False}, None),
        ("openai", {"temperature": 0.5, "response_format": {"type": "json_object"}}, None),
    ],
)
def test_options(wire: str, options: dict[str, Any], members: dict[str, Any] | None) -> None:
    """Each is sent as the vendor calls it; time-outs are ours and are not."""
    body = sent(wire, prompt(**options, timeouts={"idle": 5})).body
    for name, value in (members or options).items():
        assert body[name] == value
    assert "timeouts" not in body
    assert ("stop" in body) == (wire == "openai" and "stop" in options)


@pytest.mark.parametrize("wire", [*WIRES, "scripted"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, "unknown field `colour`"),
        ({"timeouts": {"idle": 0}}, r"timeouts.idle"),
        ({"timeouts": {"later": 1}}, "unknown field `later`"),
        ({"timeouts": 5}, "timeouts"),
    ],
)
def test_unknown_options_are_refused_at_the_call(wire: str, options: dict[str, Any], words: str) -> None:
    """By name, before anything is sent."""

    async def test() -> None:
        async with opened(wire, "http://127.0.0.1:1") as provider:
            with pytest.raises(Unprocessable, match=words):
                provider.stream(prompt(**options))

    run(test())


@pytest.mark.parametrize("wire", WIRES)
def test_options_of_the_wrong_type(wire: str) -> None:
    """The message names the option, and says nothing of its value."""

    async def test() -> None:
        async with opened(wire, "http://127.0.0.1:1") as provider:
            with pytest.raises(
                Unprocessable, match=r"^Bad options for \w+: Expected `int.*`, got `str` - at `\$.max_tokens`"
            ):
                provider.stream(prompt(max_tokens="Secret"))

    run(test())


@pytest.mark.parametrize("wire", WIRES)
def test_no_model(wire: str) -> None:
    """Neither the request nor the configuration names one."""
    from tailrace.providers import anthropic, openai

    module = {"anthropic": anthropic, "openai": openai}[wire]
    provider = module.create(ProviderConfig(api_key=KEY), None)
    with pytest.raises(Unprocessable, match=f"No model was named, and there is no default model for {wire}"):
        provider.stream(prompt())


@pytest.mark.parametrize(
    ("wire", "config", "words"),
    [
        ("anthropic", {}, "^No API key for anthropic: set ANTHROPIC_API_KEY.$"),
        ("anthropic", {"api_key": "  "}, "^No API key for anthropic"),
        ("openai", {}, "^No API key for openai: set OPENAI_API_KEY.$"),
        ("openai", {"base_url": "https://api.openai.com/v1/"}, "^No API key for openai"),
        ("openai", {"api_key": KEY, "base_url": "api.openai.com"}, "^The base URL for openai must begin with https://"),
    ],
)
def test_a_configuration_that_cannot_work(wire: str, config: dict[str, str], words: str) -> None:
    """It is refused when the provider is made, and the message says what to set."""
    from tailrace.providers import anthropic, openai

    with pytest.raises(ConfigurationError, match=words):
        {"anthropic": anthropic, "openai": openai}[wire].create(ProviderConfig(**config), None)


def test_a_compatible_server_needs_no_key() -> None:
    """Ollama and vLLM have none; a base URL's slash at the end does not matter."""
    assert "authorization" not in sent("openai", prompt(), key=None).headers


def test_the_vendor_gets_the_new_name_of_the_limit() -> None:
    """Its newer models refuse max_tokens; others may not know max_completion_tokens."""
    from tailrace.providers.openai import OpenAI

    assert sent("openai", prompt(max_tokens=7)).body["max_tokens"] == 7
    provider = OpenAI(ProviderConfig(), None, "https://api.openai.com/v1", KEY)  # type: ignore[arg-type]  # never used
    assert provider._limit_name == "max_completion_tokens"
