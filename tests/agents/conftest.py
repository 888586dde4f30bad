"""The whole stack with an agent for a provider, named as a setting names it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tailrace.settings import Settings

from tests.agents.asking import SYSTEM
from tests.http.conftest import Client, Serve, events
from tests.http.conftest import serve as serve

# LiteLLM would fetch its prices from the internet when a test's module imports it, which is before any fixture.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

Replies = Callable[..., Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def replies(settings: Settings, serve: Serve) -> Replies:
    """Return what answers questions of one conversation: the messages that their streams end with, or refusals."""

    async def ask(place: str, *questions: str | dict[str, Any]) -> list[dict[str, Any]]:
        own = Settings.from_environment({"TAILRACE_PROVIDERS": f"helper={place}"})
        async with serve(msgspec.structs.replace(settings, own_providers=own.own_providers)) as client:
            conversation = await client.conversation(system=SYSTEM)
            return [await answer(client, conversation, question) for question in questions]

    async def answer(client: Client, conversation: str, question: str | dict[str, Any]) -> dict[str, Any]:
        asked = {"input": question} if isinstance(question, str) else question
        response, body = await client.start({**asked, "provider": "helper"}, conversation)
        found: dict[str, Any] = events(body)[-1]["message"] if response.status == 200 else msgspec.json.decode(body)
        return found

    return ask
