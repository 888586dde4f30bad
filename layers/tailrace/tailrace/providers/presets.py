"""Servers that speak another provider's wire, by name: one line each.

What a line says can be overruled by the environment as everywhere: ``<NAME>_BASE_URL``, and the key's own variable.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Preset(msgspec.Struct, frozen=True):
    """Where a server is, and what its key is called.

    Attributes:
        wire: the provider in ``MODULES`` whose wire it speaks.
        base_url: as that wire takes it; empty where each account has its own, which must be given then.
        key_variable: the environment variable with its key, or None where it needs none.
    """

    wire: str
    base_url: str
    key_variable: str | None


PRESETS: Mapping[str, Preset] = {
    # Its v1 endpoint, https://<resource>.openai.azure.com/openai/v1, with a key or a token of Entra's
    # (https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle).
    "azure": Preset("openai", "", "AZURE_OPENAI_API_KEY"),
    "deepseek": Preset("openai", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "groq": Preset("openai", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Preset("openai", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "ollama": Preset("openai", "http://127.0.0.1:11434/v1", None),
    "openrouter": Preset("openai", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "vllm": Preset("openai", "http://127.0.0.1:8000/v1", None),
    "xai": Preset("openai", "https://api.x.ai/v1", "XAI_API_KEY"),
}
