"""What an application of one's own usually is: FastAPI, the official OpenAI SDK, and a generator. It stores nothing.

    uvicorn benchmarks.peers.sdk:app

It is run in an environment of its own, by uvicorn as it is installed (with uvloop and httptools).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()


class Question(BaseModel):
    """The body of a request."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool = True


async def answer(question: Question) -> AsyncIterator[str]:
    """Yield the texts of an answer."""
    stream: Any = await client.chat.completions.create(  # the overloads of its types do not know plain dicts
        model=question.model,
        messages=question.messages,  # type: ignore[arg-type]
        stream=True,
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that requests are served."""
    return {"status": "ok"}


@app.post("/response")
async def response(question: Question) -> StreamingResponse:
    """Answer by a StreamingResponse, the older way."""

    async def events() -> AsyncIterator[str]:
        number = 0
        async for text in answer(question):
            number += 1
            yield f"id: {number}\ndata: {json.dumps({'chunk': text})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.post("/generator", response_class=EventSourceResponse)
async def generator(question: Question) -> AsyncIterator[ServerSentEvent]:
    """Answer by FastAPI's own server-sent events."""
    number = 0
    async for text in answer(question):
        number += 1
        yield ServerSentEvent(data={"chunk": text}, id=str(number))
    yield ServerSentEvent(raw_data="[DONE]")
