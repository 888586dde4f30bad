"""What people build on OpenAI's wire in Python, each with one streamed answer.

    python tests/clients/python_clients.py litellm <the stack's URL>

It runs in an environment of its own (requirements/clients.txt) and prints the text, for the test beside it in Node.
"""

from __future__ import annotations

import asyncio
import os
import sys

QUESTION = "Write a short story about a river"
MODEL = "scripted/fast"


async def with_litellm(url: str) -> str:
    """Stream by litellm."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it fetches its prices from the internet
    import litellm

    stream = await litellm.acompletion(
        model=f"openai/{MODEL}",
        api_base=f"{url}/v1",
        api_key="none",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def with_langchain(url: str) -> str:
    """Stream by langchain-openai."""
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key="none")
    return "".join([str(chunk.content) async for chunk in model.astream(QUESTION)])


async def with_pydantic_ai(url: str) -> str:
    """Stream by an agent of pydantic-ai."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    agent = Agent(OpenAIChatModel(MODEL, provider=provider))
    async with agent.run_stream(QUESTION) as answer:
        return "".join([text async for text in answer.stream_text(delta=True)])


CLIENTS = {"litellm": with_litellm, "langchain-openai": with_langchain, "pydantic-ai": with_pydantic_ai}

if __name__ == "__main__":
    sys.stdout.write(asyncio.run(CLIENTS[sys.argv[1]](sys.argv[2])))
