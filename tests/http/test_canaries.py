"""What must never be in a log line, a metric or an error: prompts, answers, tokens, keys.

Each of them is a word that occurs nowhere else. Every route is asked in good order, with bodies that are broken in
every place, with a table that is away and with a bug inside; then the word is looked for in all that was written. An
error may name a field, which whoever is told has sent; never what was in it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from tailrace.identity.grants import Grants
from tailrace.settings import Settings

from tests.http.conftest import Client, Serve
from tests.http.test_owner import BODIES, a_reply, asking, routes
from tests.issuer import shared_token

pytestmark = pytest.mark.anyio

PROMPT, ANSWER, KEY = "canaryprompt", "canaryanswer", "canarykey"
TOKEN = shared_token({"sub": "me", "exp": time.time() + 600, "jti": "canary"})
ME = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": KEY}


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Look, at the end, at everything that was written: of all loggers and at all levels, and the metrics."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("tailrace").setLevel(logging.DEBUG)
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    # uvicorn's access log is off (tests/http/test_owner.py) until pytest listens to it.
    found = [f"{each.getMessage()} {each.__dict__}" for each in records if each.name != "uvicorn.access"]
    text = "\n".join([*found, *capfd.readouterr()])
    assert "reply ended" in text
    assert '"CompletionTokens"' in text  # metrics are among it
    for canary in (PROMPT, ANSWER, KEY, TOKEN, TOKEN.rsplit(".", 1)[1], "trg_"):
        place = text.find(canary)
        assert place < 0, text[max(0, place - 300) : place + 300]


@pytest.fixture
async def client(serve: Serve, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A stack that asks for tokens, and whose one key is a canary."""
    monkeypatch.delenv("POWERTOOLS_METRICS_DISABLED", raising=False)
    keyed = msgspec.structs.replace(asking(settings, "jwt"), environment={"OPENAI_API_KEY": KEY})
    async with serve(keyed) as client:
        yield client


def said(body: Any) -> Any:
    """Return a body of a route whose texts are canaries."""
    text = msgspec.json.encode(body).decode()
    return msgspec.json.decode(text.replace('"hello"', f'"{PROMPT}"').replace('"b"', f'"{ANSWER}"'))


def broken(body: Any) -> Iterator[Any]:
    """Yield a body with something wrong in each of its places."""
    if isinstance(body, dict):
        yield {**body, "surplus": PROMPT}
        for name, value in body.items():
            for worse in (*broken(value), [PROMPT], {"surplus": PROMPT}, 7):
                yield {**body, name: worse}
    elif isinstance(body, list):
        for index, value in enumerate(body):
            for worse in broken(value):
                yield [*body[:index], worse, *body[index + 1 :]]


def asked(known: dict[str, str]) -> Iterator[tuple[str, str, Any]]:
    """Yield every route, with the ids that are known, and a good body whose texts are canaries."""
    for method, path in sorted(routes()):
        filled = path
        for name, value in known.items():
            filled = filled.replace(f"{{{name}}}", value)
        yield method, filled, said(BODIES.get((method, path), {}))


async def ask(client: Client, method: str, path: str, data: bytes) -> None:
    """Ask a route, whatever it answers; if that is an error, it quotes nothing."""
    headers = {**ME, "Content-Type": "application/json"}
    async with client.session.request(method, path, data=data, headers=headers) as response:
        answer = await response.text()
        if response.status >= 400:
            for canary in (PROMPT, ANSWER, KEY):
                assert canary not in answer, (method, path, data, answer)


async def known(client: Client) -> dict[str, str]:
    conversation, message = await a_reply(client, {"Authorization": ME["Authorization"]})
    _, granted = await client.json("POST", f"/conversations/{conversation}/grants", {}, headers=ME)
    return {
        "conversation_id": conversation,
        "message_id": message,
        "grant_id": granted["id"],
        "id": conversation,
        "thread_id": conversation,
        "model": "fast",
    }


async def test_in_good_order_and_in_bad(client: Client, written: None) -> None:
    """Every route, with a good body and with every part of it broken."""
    for method, path, body in asked(await known(client)):
        raw = msgspec.json.encode(body)
        await ask(client, method, path, raw)
        if method == "POST":
            for data in (raw[:-2], *(msgspec.json.encode(each) for each in broken(body))):
                await ask(client, method, path, data)


async def test_with_a_table_that_is_away(client: Client, written: None) -> None:
    """What cannot be stored is not written down elsewhere."""
    found = await known(client)
    client.calls.choose = lambda operation, payload: "refused"
    for method, path, body in asked(found):
        await ask(client, method, path, msgspec.json.encode(body))


async def test_with_a_bug(client: Client, written: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody thought of may quote anything: only its place is written."""
    found = await known(client)

    async def wrong(*given: Any, **more: Any) -> Any:
        raise ValueError(f"{PROMPT} {ANSWER} {TOKEN} {given} {more}")

    for where, name in ((type(client.backend.store.conversations), "get"), (Grants, "of_conversation")):
        monkeypatch.setattr(where, name, wrong)
    for method, path, body in asked(found):
        await ask(client, method, path, msgspec.json.encode(body))
