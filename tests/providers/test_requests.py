"""What is sent to a provider, and what is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import msgspec
import pytest
from tailrace.errors import ConfigurationError, Unprocessable
from tailrace.events import ProviderEvent, Text, ToolCall, ToolResult, Usage
from tailrace.providers import (
    MODULES,
    FilePart,
    ImagePart,
    InputPart,
    OutputSchema,
    PromptMessage,
    ProviderConfig,
    ProviderRequest,
    Tool,
    open_provider,
)
from tailrace.providers.gemini import Gemini
from tailrace.providers.openai import OpenAI
from tailrace.providers.presets import PRESETS
from tailrace.settings import Settings

from .fake_server import FakeServer, Reply, Request
from .helpers import ALL_WIRES, KEY, WIRES, Answer, collect, fixture, opened, prompt, run
from .whole_answers import BEDROCK, WHOLE


def sent(wire: str, request: ProviderRequest, key: str | None = KEY) -> Request:
    """What the provider gets."""

    async def test() -> Request:
        body = fixture(PRESETS[wire].wire if wire in PRESETS else wire)
        server = FakeServer(Reply(pieces=[body]))
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


def test_a_prompt_for_responses() -> None:
    """System prompts are the instructions, and the vendor is asked to keep nothing."""
    request = sent("openai-responses", prompt())
    assert request.path == "/responses"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "some-model",
        "stream": True,
        "store": False,
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "Tell."},
            {"role": "assistant", "content": "Of?"},
            {"role": "user", "content": "Wheels."},
        ],
    }


def test_a_prompt_for_gemini() -> None:
    """The model is in the path, the key in a header and not in the address, where it would be logged."""
    request = sent("gemini", prompt())
    assert request.path == "/v1/models/some-model:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == KEY
    assert request.body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Tell."}]},
            {"role": "model", "parts": [{"text": "Of?"}]},
            {"role": "user", "parts": [{"text": "Wheels."}]},
        ],
    }


def test_a_prompt_for_bedrock() -> None:
    """The model is in the path, and the request is signed with the credentials that boto3 finds."""
    request = sent("bedrock", prompt())
    assert request.path == "/model/some-model/converse-stream"
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")
    assert request.body == {
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "Tell."}]},
            {"role": "assistant", "content": [{"text": "Of?"}]},
            {"role": "user", "content": [{"text": "Wheels."}]},
        ],
    }


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("tunedModels/mill", "/v1/tunedModels/mill:streamGenerateContent?alt=sse"),
        ("../x:embed?y", "/v1/models/..%2Fx:embed%3Fy:streamGenerateContent?alt=sse"),
        ("models/../x", "/v1/models/..%2Fx:streamGenerateContent?alt=sse"),
    ],
)
def test_geminis_model_is_no_way_to_another_method(model: str, path: str) -> None:
    """A caller chooses the model; what it contains stays in its place."""
    assert sent("gemini", ProviderRequest(model=model, messages=[PromptMessage("user", "?")])).path == path


def test_another_version_of_gemini() -> None:
    """What the vendor has not yet made stable is had by a base URL that ends in a version."""
    session: Any = None  # never used
    for root, version in (("https://mills.example/v1beta/", "/v1beta"), ("https://mills.example/v1x/y", "/v1x/y/v1")):
        provider = open_provider("gemini", ProviderConfig(api_key=KEY, base_url=root), session)
        assert isinstance(provider, Gemini)
        assert provider._root == "https://mills.example" + version


def test_the_arn_of_a_model_for_bedrock() -> None:
    """An inference profile's name has slashes and colons."""
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.some-model-v1:0"
    path = sent("bedrock", ProviderRequest(model=arn, messages=[PromptMessage("user", "?")])).path
    assert path == f"/model/{arn.replace(':', '%3A').replace('/', '%2F')}/converse-stream"


@pytest.mark.parametrize("wire", ["anthropic", "openai", "openai-responses"])
def test_the_request_names_the_model(wire: str) -> None:
    """It wins over the configured one."""
    body = sent(wire, ProviderRequest(model="other", messages=[PromptMessage("user", "水")])).body
    assert body["model"] == "other"
    assert "system" not in body
    assert "instructions" not in body


PNG, PDF, TXT = "iVBORw0KGgo=", "JVBERi0xLjc=", "SGVsbG8g5rC0"
SCHEMA = {"type": "object", "properties": {"m": {"type": "integer"}}, "required": ["m"], "additionalProperties": False}
PARAMETERS = {"type": "object", "properties": {"river": {"type": "string"}}}


def full(*, parts: bool = True, model: str | None = None, **more: Any) -> ProviderRequest:
    """A prompt with everything in it."""
    image = ImagePart(media_type="image/png", data=PNG)
    file = FilePart(media_type="application/pdf", data=PDF, name="mill: plan.pdf")
    return ProviderRequest(
        model=model,
        cache=False,
        messages=[
            PromptMessage("user", "Measure.", parts=[image, file] if parts else ()),
            PromptMessage(
                "assistant",
                "Both?",
                tool_calls=[ToolCall("call:1", "measure", '{"river":"Po"}'), ToolCall("call_2", "now", "broken")],
            ),
            PromptMessage(
                "tool_result",
                "",
                tool_results=[ToolResult("call:1", "measure", '{"m":3}'), ToolResult("call_2", "now", '"noon"')],
            ),
            PromptMessage("user", "So?"),
        ],
        tools=[Tool(name="measure", description="How wide", parameters=PARAMETERS), Tool(name="now")],
        **{"tool_choice": "required", "schema": OutputSchema(name="width", schema=SCHEMA), **more},
    )


NOTHING = {"type": "object", "properties": {}}


def test_everything_for_anthropic() -> None:
    """Ids as it allows them, arguments as objects, results before the next words."""
    body = sent("anthropic", full(options={"citations": True, "parallel_tool_calls": False})).body
    pdf = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "document", "source": pdf, "title": "mill: plan.pdf", "citations": {"enabled": True}},
                {"type": "text", "text": "Measure."},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Both?"},
                {"type": "tool_use", "id": "call_1", "name": "measure", "input": {"river": "Po"}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {"arguments": "broken"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": '{"m":3}'},
                {"type": "tool_result", "tool_use_id": "call_2", "content": '"noon"'},
            ],
        },
        {"role": "user", "content": "So?"},
    ]
    assert body["tools"] == [
        {"name": "measure", "description": "How wide", "input_schema": PARAMETERS},
        {"name": "now", "input_schema": NOTHING},
    ]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}


def test_a_tool_that_failed_for_anthropic() -> None:
    """It has a word for that."""
    calls = PromptMessage("assistant", "", tool_calls=[ToolCall("c", "now", "{}")])
    failed = PromptMessage("tool_result", "", tool_results=[ToolResult("c", "now", "It failed.", is_error=True)])
    request = msgspec.structs.replace(full(), messages=[PromptMessage("user", "?"), calls, failed])
    (result,) = sent("anthropic", request).body["messages"][-1]["content"]
    assert result == {"type": "tool_result", "tool_use_id": "c", "content": "It failed.", "is_error": True}


def test_everything_for_openai() -> None:
    """Each result is a message."""
    body = sent("openai", full()).body
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {
                    "type": "file",
                    "file": {"filename": "mill: plan.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
                },
                {"type": "text", "text": "Measure."},
            ],
        },
        {
            "role": "assistant",
            "content": "Both?",
            "tool_calls": [
                {
                    "id": "call:1",
                    "type": "function",
                    "function": {"name": "measure", "arguments": '{"river":"Po"}'},
                },
                {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": "broken"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call:1", "content": '{"m":3}'},
        {"role": "tool", "tool_call_id": "call_2", "content": '"noon"'},
        {"role": "user", "content": "So?"},
    ]
    assert body["tools"] == [
        {"type": "function", "function": {"name": "measure", "description": "How wide", "parameters": PARAMETERS}},
        {"type": "function", "function": {"name": "now", "parameters": NOTHING}},
    ]
    assert body["tool_choice"] == "required"
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "width", "schema": SCHEMA, "strict": True},
    }


def test_everything_for_responses() -> None:
    """Calls and results are items of their own."""
    body = sent("openai-responses", full()).body
    assert body["input"] == [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
                {
                    "type": "input_file",
                    "filename": "mill: plan.pdf",
                    "file_data": f"data:application/pdf;base64,{PDF}",
                },
                {"type": "input_text", "text": "Measure."},
            ],
        },
        {"role": "assistant", "content": "Both?"},
        {"type": "function_call", "call_id": "call:1", "name": "measure", "arguments": '{"river":"Po"}'},
        {"type": "function_call", "call_id": "call_2", "name": "now", "arguments": "broken"},
        {"type": "function_call_output", "call_id": "call:1", "output": '{"m":3}'},
        {"type": "function_call_output", "call_id": "call_2", "output": '"noon"'},
        {"role": "user", "content": "So?"},
    ]
    assert body["tools"] == [
        {
            "type": "function",
            "name": "measure",
            "description": "How wide",
            "parameters": PARAMETERS,
            "strict": False,
        },
        {"type": "function", "name": "now", "parameters": NOTHING, "strict": False},
    ]
    assert body["tool_choice"] == "required"
    assert body["text"] == {"format": {"type": "json_schema", "name": "width", "schema": SCHEMA, "strict": True}}


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "models/gemini-2.5-flash", "gemini-3-flash"])
def test_everything_for_gemini(model: str) -> None:
    """Results are objects, neighbouring messages of one side are one, and the first call is signed for Gemini 3."""
    body = sent("gemini", full(model=model)).body
    signature = {"thoughtSignature": "skip_thought_signature_validator"} if "3" in model else {}
    assert body["contents"] == [
        {
            "role": "user",
            "parts": [
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
                {"text": "Measure."},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Both?"},
                {"functionCall": {"id": "call:1", "name": "measure", "args": {"river": "Po"}}, **signature},
                {"functionCall": {"id": "call_2", "name": "now", "args": {"arguments": "broken"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "call:1", "name": "measure", "response": {"m": 3}}},
                {"functionResponse": {"id": "call_2", "name": "now", "response": {"result": "noon"}}},
                {"text": "So?"},
            ],
        },
    ]
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "measure", "description": "How wide", "parametersJsonSchema": PARAMETERS},
                {"name": "now", "parametersJsonSchema": NOTHING},
            ]
        }
    ]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert body["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}


def test_everything_for_bedrock() -> None:
    """The roles take turns, and a file's name has only the characters that the API allows."""
    body = sent("bedrock", full(options={"citations": True})).body
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"image": {"format": "png", "source": {"bytes": PNG}}},
                {
                    "document": {
                        "format": "pdf",
                        "name": "mill plan pdf",
                        "source": {"bytes": PDF},
                        "citations": {"enabled": True},
                    }
                },
                {"text": "Measure."},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"text": "Both?"},
                {"toolUse": {"toolUseId": "call_1", "name": "measure", "input": {"river": "Po"}}},
                {"toolUse": {"toolUseId": "call_2", "name": "now", "input": {"arguments": "broken"}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "call_1", "content": [{"json": {"m": 3}}]}},
                {"toolResult": {"toolUseId": "call_2", "content": [{"text": '"noon"'}]}},
                {"text": "So?"},
            ],
        },
    ]
    assert body["toolConfig"] == {
        "tools": [
            {"toolSpec": {"name": "measure", "description": "How wide", "inputSchema": {"json": PARAMETERS}}},
            {"toolSpec": {"name": "now", "inputSchema": {"json": NOTHING}}},
        ],
        "toolChoice": {"any": {}},
    }
    schema = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (schema["name"], msgspec.json.decode(schema["schema"])) == ("width", SCHEMA)


@pytest.mark.parametrize(
    ("wire", "member", "choices"),
    [
        (
            "anthropic",
            "tool_choice",
            {"auto": {"type": "auto"}, "none": {"type": "none"}, "now": {"type": "tool", "name": "now"}},
        ),
        ("openai", "tool_choice", {"none": "none", "now": {"type": "function", "function": {"name": "now"}}}),
        ("openai-responses", "tool_choice", {"none": "none", "now": {"type": "function", "name": "now"}}),
        (
            "gemini",
            "toolConfig",
            {
                "auto": {"functionCallingConfig": {"mode": "AUTO"}},
                "none": {"functionCallingConfig": {"mode": "NONE"}},
                "now": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["now"]}},
            },
        ),
    ],
)
def test_which_tool_to_call(wire: str, member: str, choices: dict[str, Any]) -> None:
    """Each vendor's word for it, and nothing where nothing was chosen or there are no tools."""
    for choice, spelled in choices.items():
        assert sent(wire, full(tool_choice=choice)).body[member] == spelled
    assert member not in sent(wire, full(tool_choice=None)).body
    assert member not in sent(wire, ProviderRequest(model=None, messages=[PromptMessage("user", "?")])).body


def test_which_tool_to_call_on_bedrock() -> None:
    """It knows no none: then only what the history calls is declared, which it asks for."""
    assert sent("bedrock", full(tool_choice="now")).body["toolConfig"]["toolChoice"] == {"tool": {"name": "now"}}
    config = sent("bedrock", full(tool_choice="none")).body["toolConfig"]
    assert config == {
        "tools": [
            {"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}} for name in ("measure", "now")
        ]
    }


@pytest.mark.parametrize(
    ("wire", "part", "spelled"),
    [
        (
            "anthropic",
            ImagePart(url="https://mills.example/a.png"),
            {"type": "image", "source": {"type": "url", "url": "https://mills.example/a.png"}},
        ),
        (
            "anthropic",
            FilePart(url="https://mills.example/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://mills.example/a.pdf"}},
        ),
        (
            "anthropic",
            FilePart(media_type="text/plain", data=TXT),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hello 水"}},
        ),
        (
            "openai",
            ImagePart(url="https://mills.example/a.png"),
            {"type": "image_url", "image_url": {"url": "https://mills.example/a.png"}},
        ),
        (
            "openai-responses",
            FilePart(url="https://mills.example/a.pdf"),
            {"type": "input_file", "file_url": "https://mills.example/a.pdf"},
        ),
        (
            "gemini",
            FilePart(media_type="application/pdf", url="https://mills.example/a.pdf"),
            {"fileData": {"mimeType": "application/pdf", "fileUri": "https://mills.example/a.pdf"}},
        ),
        (
            "bedrock",
            ImagePart(media_type="image/png", url="s3://mills/a.png"),
            {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://mills/a.png"}}}},
        ),
        (
            "bedrock",
            FilePart(media_type="text/plain", data=TXT),
            {"document": {"format": "txt", "name": "file 1", "source": {"bytes": TXT}}},
        ),
    ],
)
def test_a_part_alone(wire: str, part: InputPart, spelled: dict[str, Any]) -> None:
    """By its address, or as text; a message may have no words of its own."""
    body = sent(wire, ProviderRequest(model=None, messages=[PromptMessage("user", "", parts=[part])])).body
    [message] = body.get("messages") or body.get("input") or body["contents"]
    assert (message.get("content") or message["parts"]) == [spelled]


@pytest.mark.parametrize(
    ("wire", "part", "message"),
    [
        (
            "anthropic",
            FilePart(media_type="text/csv", data=TXT),
            "The provider anthropic takes no files of the type 'text/csv', only PDF and plain text.",
        ),
        (
            "anthropic",
            FilePart(media_type="text/plain", data="/w=="),
            "A text file in the input for anthropic is not UTF-8.",
        ),
        (
            "openai",
            FilePart(url="https://mills.example/a.pdf"),
            "The provider openai takes no files by their address, only their data.",
        ),
        (
            "bedrock",
            ImagePart(media_type="image/tiff", data=PNG),
            "The provider bedrock takes no images of the type 'image/tiff'.",
        ),
        (
            "bedrock",
            ImagePart(media_type="image/png", url="https://mills.example/a.png"),
            "The provider bedrock takes no images and files by their address, only their data, or an address in S3.",
        ),
        (
            "bedrock",
            ImagePart(media_type="image/png", data="?"),
            "A part of the input for bedrock has data that is not base64.",
        ),
    ],
)
def test_a_part_that_a_provider_has_no_form_for(wire: str, part: InputPart, message: str) -> None:
    """It is refused at the call, before anything is sent."""

    async def test() -> None:
        async with opened(wire, "http://127.0.0.1:1") as provider:
            with pytest.raises(Unprocessable) as refused:
                provider.stream(ProviderRequest(model=None, messages=[PromptMessage("user", "?", parts=[part])]))
        assert refused.value.message == message

    run(test())


@pytest.mark.parametrize(
    ("wire", "options", "members"),
    [
        ("anthropic", {"stop": "END", "max_tokens": 9}, {"stop_sequences": ["END"], "max_tokens": 9}),
        ("anthropic", {"stop": ["A", "B"], "top_k": 3}, {"stop_sequences": ["A", "B"], "top_k": 3}),
        (
            "anthropic",
            {"server_tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        ),
        ("anthropic", {"temperature": 0, "top_p": 1, "thinking": {"type": "disabled"}}, None),
        ("openai", {"stop": "END", "max_tokens": 9, "seed": 1}, None),
        ("openai", {"parallel_tool_calls": False, "reasoning_effort": "low"}, None),
        ("openai", {"temperature": 0.5, "response_format": {"type": "json_object"}}, None),
        (
            "openai-responses",
            {"max_tokens": 9, "reasoning_effort": "low", "reasoning_summary": "auto", "include": ["x"]},
            {
                "max_output_tokens": 9,
                "reasoning": {"effort": "low", "summary": "auto"},
                "include": ["x", "reasoning.encrypted_content"],
            },
        ),
        ("openai-responses", {"server_tools": [{"type": "web_search"}]}, {"tools": [{"type": "web_search"}]}),
        (
            "gemini",
            {"max_tokens": 9, "stop": "END", "top_k": 3, "thinking_config": {"includeThoughts": True}, "seed": 1},
            {
                "generationConfig": {
                    "maxOutputTokens": 9,
                    "stopSequences": ["END"],
                    "topK": 3,
                    "thinkingConfig": {"includeThoughts": True},
                    "seed": 1,
                }
            },
        ),
        (
            "gemini",
            {"server_tools": [{"googleSearch": {}}], "safety_settings": [{"category": "x"}]},
            {"tools": [{"googleSearch": {}}], "safetySettings": [{"category": "x"}]},
        ),
        (
            "bedrock",
            {"max_tokens": 9, "stop": "END", "temperature": 0, "top_p": 1, "additional_fields": {"top_k": 3}},
            {
                "inferenceConfig": {"maxTokens": 9, "stopSequences": ["END"], "temperature": 0, "topP": 1},
                "additionalModelRequestFields": {"top_k": 3},
            },
        ),
        (
            "bedrock",
            {
                "server_tools": [{"systemTool": {"name": "nova_grounding"}}],
                "guardrail_config": {"guardrailIdentifier": "abc", "guardrailVersion": "1"},
            },
            {
                "toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]},
                "guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"},
            },
        ),
    ],
)
def test_options(wire: str, options: dict[str, Any], members: dict[str, Any] | None) -> None:
    """Each is sent as the vendor calls it; time-outs are ours and are not."""
    body = sent(wire, prompt(**options, timeouts={"idle": 5})).body
    for name, value in (members or options).items():
        assert body[name] == value
    assert "timeouts" not in body
    assert ("stop" in body) == (wire == "openai" and "stop" in options)


@pytest.mark.parametrize("wire", [*ALL_WIRES, "scripted"])
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


@pytest.mark.parametrize("wire", ALL_WIRES)
def test_options_of_the_wrong_type(wire: str) -> None:
    """The message names the option, and says nothing of its value."""

    async def test() -> None:
        async with opened(wire, "http://127.0.0.1:1") as provider:
            with pytest.raises(
                Unprocessable, match=r"^Bad options for [\w-]+: Expected `int.*`, got `str` - at `\$.max_tokens`"
            ):
                provider.stream(prompt(max_tokens="Secret"))

    run(test())


@pytest.mark.parametrize("wire", ALL_WIRES)
def test_no_model(wire: str) -> None:
    """Neither the request nor the configuration names one."""
    provider = import_module(MODULES[wire]).create(ProviderConfig(api_key=KEY), None)
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
        ("openai-responses", {}, "^No API key for openai-responses: set OPENAI_API_KEY.$"),
        ("gemini", {}, "^No API key for gemini: set GEMINI_API_KEY.$"),
        ("groq", {}, "^No API key for groq: set GROQ_API_KEY.$"),
        ("mistral", {"base_url": "https://api.mistral.ai/v1/"}, "^No API key for mistral: set MISTRAL_API_KEY.$"),
    ],
)
def test_a_configuration_that_cannot_work(wire: str, config: dict[str, str], words: str) -> None:
    """It is refused when the provider is made, and the message says what to set."""
    session: Any = None  # never used
    with pytest.raises(ConfigurationError, match=words):
        open_provider(wire, ProviderConfig(**config), session)


def test_a_compatible_server_needs_no_key() -> None:
    """Ollama and vLLM have none; a base URL's slash at the end does not matter."""
    assert "authorization" not in sent("openai", prompt(), key=None).headers


@pytest.mark.parametrize("wire", ["openai", *sorted(PRESETS)])
def test_what_a_server_calls_it(wire: str) -> None:
    """The vendor's newer models refuse max_tokens, and others may not know max_completion_tokens; Mistral refuses
    whatever it does not know. The provider's name is the preset's."""
    request = sent(wire, prompt(max_tokens=7, seed=1))
    assert request.path == "/chat/completions"
    limits = dict.fromkeys(("azure", "groq"), "max_completion_tokens")
    assert request.body[limits.get(wire, "max_tokens")] == 7
    assert request.body["random_seed" if wire == "mistral" else "seed"] == 1
    assert ("stream_options" in request.body) == (wire != "mistral")


def test_the_vendor_gets_the_new_name_of_the_limit() -> None:
    """Where it is not somebody else's server."""
    session: Any = None  # never used
    assert OpenAI(ProviderConfig(), session, "https://api.openai.com/v1", KEY)._dialect.limit == "max_completion_tokens"


@pytest.mark.parametrize("wire", sorted(PRESETS))
def test_a_preset(wire: str) -> None:
    """It has its own name and place."""
    session: Any = None  # never used
    own = PRESETS[wire].base_url or "https://mine.openai.azure.com/openai/v1"
    provider = open_provider(wire, ProviderConfig(api_key=KEY, base_url=own), session)
    assert isinstance(provider, OpenAI)
    assert provider.name == wire
    assert provider._url == own + "/chat/completions"
    assert PRESETS[wire].base_url or wire == "azure"


def test_azure_has_an_address_for_each_account() -> None:
    """Which must be given; its key may be a token of Entra's, and both go into the same header."""
    session: Any = None  # never used
    with pytest.raises(ConfigurationError, match=r"^There is no address for azure: set AZURE_OPENAI_BASE_URL\.$"):
        open_provider("azure", ProviderConfig(api_key=KEY), session)
    settings = Settings(environment={"AZURE_OPENAI_AD_TOKEN": "token", "AZURE_OPENAI_BASE_URL": "https://a/openai/v1"})
    config = settings.provider_config("azure")
    assert (config.api_key, config.base_url) == ("token", "https://a/openai/v1")
    assert sent("azure", prompt()).headers["authorization"] == f"Bearer {KEY}"


# ---- what a provider keeps of the prompt ----

SECOND_TURN = msgspec.structs.replace(prompt(), cache=True, conversation="c1")
FIRST_TURN = msgspec.structs.replace(SECOND_TURN, messages=SECOND_TURN.messages[:1])


def test_anthropic_is_asked_to_keep_the_prompt() -> None:
    """From the second turn on, up to the end and up to the system prompt's; not when it is switched off."""
    mark = {"cache_control": {"type": "ephemeral"}}
    body = sent("anthropic", SECOND_TURN).body
    assert body["system"] == [{"type": "text", "text": "Be brief.", **mark}]
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "Wheels.", **mark}]
    results = PromptMessage("tool_result", "", tool_results=[ToolResult("call_1", "now", "noon")])
    calls = PromptMessage("assistant", "", tool_calls=[ToolCall("call_1", "now", "{}")])
    tool_turn = msgspec.structs.replace(SECOND_TURN, messages=[SECOND_TURN.messages[0], calls, results], system=())
    body = sent("anthropic", tool_turn).body
    assert body["messages"][-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}
    for request in (FIRST_TURN, prompt()):
        assert "cache_control" not in repr(sent("anthropic", request).body)


@pytest.mark.parametrize(
    ("model", "keeps"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("eu.anthropic.claude-3-7-sonnet-20250219-v1:0", True),
        ("us.amazon.nova-pro-v1:0", True),
        ("anthropic.claude-3-sonnet-20240229-v1:0", False),
        ("meta.llama3-70b-instruct-v1:0", False),
    ],
)
def test_bedrock_is_asked_where_the_model_can(model: str, keeps: bool) -> None:
    """Others refuse it."""
    point = {"cachePoint": {"type": "default"}}
    body = sent("bedrock", msgspec.structs.replace(SECOND_TURN, model=model)).body
    assert (body["messages"][-1]["content"][-1] == point) is keeps
    assert (body["system"][-1] == point) is keeps
    assert "cachePoint" not in repr(sent("bedrock", msgspec.structs.replace(FIRST_TURN, model=model)).body)


def test_openai_gets_a_key_by_which_it_finds_what_it_kept() -> None:
    """The vendor itself and Azure; a compatible server might refuse it."""
    for wire in ("openai-responses", "azure"):
        assert sent(wire, SECOND_TURN).body["prompt_cache_key"] == "c1"
        assert "prompt_cache_key" not in sent(wire, prompt()).body
    assert "prompt_cache_key" not in sent("openai", SECOND_TURN).body


# ---- an answer that is paused ----


def test_anthropic_s_pause_goes_on_by_itself() -> None:
    """The vendor gets its own blocks back as they were, and the answer is one, with the counts of all its parts."""

    def part(number: int, reason: str) -> Reply:
        found = [{"type": "web_search_result", "encrypted_content": "x" * 9, "url": "u", "title": "t"}]
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 10 * number}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"Part {number}. "}},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "server_tool_use", "id": f"s{number}", "name": "web_search", "input": {}},
            },
            {"type": "content_block_delta", "index": 1, "delta": {"partial_json": '{"query": "x"}'}},
            {"type": "content_block_stop", "index": 1},
            {
                "type": "content_block_start",
                "index": 2,
                "content_block": {"type": "web_search_tool_result", "tool_use_id": f"s{number}", "content": found},
            },
            {"type": "content_block_stop", "index": 2},
            {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": number}},
            {"type": "message_stop"},
        ]
        lines = [b"event: %b\ndata: %b\n\n" % (e["type"].encode(), msgspec.json.encode(e)) for e in events]
        return Reply(pieces=[b"".join(lines)])

    async def test() -> tuple[FakeServer, Answer]:
        server = FakeServer(part(1, "pause_turn"), part(2, "pause_turn"), part(3, "end_turn"))
        search = {"type": "web_search_20250305", "name": "web_search"}
        async with server.serving(), opened("anthropic", server.url) as provider:
            return server, await collect(provider.stream(prompt(server_tools=[search])))

    server, answer = run(test())
    assert answer.error is None
    assert answer.text == "Part 1. Part 2. Part 3. "
    assert answer.finish_reason == "end_turn"
    assert answer.usage == Usage(60, 6)
    assert len(answer.results) == 3
    first, second, third = (request.body["messages"] for request in server.requests)
    assert second[:-1] == third[:-1] == first
    blocks = third[-1]["content"]
    assert [block["type"] for block in blocks] == ["text", "server_tool_use", "web_search_tool_result"] * 2
    assert blocks[0]["text"] == "Part 1. "
    assert blocks[1]["input"] == {"query": "x"}
    assert blocks[2]["content"][0]["encrypted_content"] == "x" * 9
    assert second[-1]["content"] == blocks[:3]


@pytest.mark.parametrize("wire", ALL_WIRES)
def test_an_answer_in_one_body(wire: str) -> None:
    """It is asked for so, and comes as one sequence of events."""
    whole = BEDROCK if wire == "bedrock" else WHOLE[wire]
    reply = Reply(headers={"Content-Type": "application/json"}, pieces=[msgspec.json.encode(whole)])

    async def test() -> tuple[Request, list[Sequence[ProviderEvent]]]:
        server = FakeServer(reply)
        async with server.serving(), opened(wire, server.url) as provider:
            batches = [batch async for batch in provider.stream(full(parts=False, streamed=False))]
        return server.requests[0], batches

    request, batches = run(test())
    assert [event.text for batch in batches for event in batch if isinstance(event, Text)] == ["Yes."]
    assert len(batches) == 1
    assert "stream_options" not in request.body
    match wire:
        case "gemini":
            assert request.path == "/v1/models/some-model:generateContent"
        case "bedrock":
            assert request.path == "/model/some-model/converse"
        case _:
            assert request.body["stream"] is False
            assert request.headers["accept"] == "application/json"


@pytest.mark.parametrize("wire", WIRES)
def test_one_body_in_place_of_a_stream(wire: str) -> None:
    """Some servers ignore what was asked for: it is an answer all the same."""
    reply = Reply(headers={"Content-Type": "application/json"}, pieces=[msgspec.json.encode(WHOLE[wire])])

    async def test() -> Answer:
        server = FakeServer(reply)
        async with server.serving(), opened(wire, server.url) as provider:
            return await collect(provider.stream(prompt()))

    answer = run(test())
    assert answer.error is None
    assert answer.text == "Yes."
    assert answer.tools == [ToolCall("c", "now", "{}")]
