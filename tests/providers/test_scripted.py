"""The provider without a provider."""

from __future__ import annotations

from typing import Any

import pytest
from tailrace.errors import ProviderTimeout, Unprocessable
from tailrace.events import Text, Usage
from tailrace.providers.scripted import STORY, Scripted, split

from .helpers import Answer, collect, opened, prompt, run


def ask(model: str | None = None, **script: Any) -> tuple[Answer, list[float], list[int]]:
    """The answer, the pauses in it, and how many chunks each read brought."""
    pauses: list[float] = []
    reads: list[int] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def test() -> Answer:
        request = prompt(**({"script": script} if script else {}))
        stream = Scripted(sleep, model).stream(request)

        async def counted() -> Any:
            async for events in stream:
                if count := sum(isinstance(event, Text) for event in events):
                    reads.append(count)
                yield events

        return await collect(counted())

    return run(test()), pauses, reads


def test_the_story() -> None:
    """By default, at about 50 chunks a second, in several languages, with counts and a finish reason."""
    answer, pauses, reads = ask()
    assert answer.text == STORY
    assert set(pauses) == {0.02}
    assert len(pauses) == len(reads) - 1
    assert answer.usage == Usage(5, len(reads))
    assert (answer.model, answer.finish_reason, answer.error) == ("story", "stop", None)
    assert answer.request_id
    assert 100 < len(reads) < 400


@pytest.mark.parametrize("text", [STORY, " 水火 a\n\n🌊  b", "", "x" * 100])
def test_no_character_is_lost(text: str) -> None:
    """The pieces are the text."""
    assert "".join(split(text)) == text


def test_other_models() -> None:
    """Each name is a behaviour, and an unknown one tells the story."""
    assert ask("gpt-5")[0].text == STORY
    assert ask("gpt-5")[0].model == "gpt-5"
    fast, pauses, _ = ask("fast")
    assert (fast.text, pauses) == (STORY, [])
    assert ask("echo")[0].text == "Wheels."
    long, _, reads = ask("long")
    assert reads == [10] * 1000
    assert long.usage.completion_tokens == 10_000
    assert getattr(ask("error")[0].error, "status_code", None) == 529
    assert ask("break")[0].error is not None


def test_a_script() -> None:
    """Chunks, batches, pauses, counts and a finish reason of one's own; empty chunks are left out."""
    answer, pauses, reads = ask(
        chunks=["a", "", "b", "c"], batch=2, every=0.5, prompt_tokens=7, completion_tokens=8, finish_reason="length"
    )
    assert (answer.text, answer.usage, answer.finish_reason) == ("abc", Usage(7, 8), "length")
    assert (reads, pauses) == ([2, 1], [0.5])
    assert ask(chunks=0)[0].text == ""
    assert len(ask(chunks=1000)[2]) == 1000


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ({"status": 429}, 429, "limiting requests"),
        ({"status": 401}, 401, "refused"),
        ({"error": "early"}, None, "ended its answer early"),
        ({"error": "garbage"}, None, "cannot be read"),
        ({"error": "reset"}, None, "broke off"),
    ],
)
@pytest.mark.parametrize("error_at", [0, 1, 2])
def test_failures(script: dict[str, Any], status: int | None, message: str, error_at: int) -> None:
    """At any chunk; what came before stays."""
    answer, _, _ = ask(chunks=["a", "b"], error_at=error_at, batch=5, **script)
    assert answer.error is not None
    assert answer.error.status_code == status
    assert message in answer.error.message
    assert answer.text == "ab"[:error_at]
    assert answer.finish_reason is None


def test_a_stall() -> None:
    """Silence until the idle time-out, or the first chunk's."""
    answer, pauses, _ = ask("stall")
    assert isinstance(answer.error, ProviderTimeout)
    assert answer.text
    assert pauses == [60.0]
    assert ask(stall_after=0)[1] == [120.0]


@pytest.mark.parametrize("script", [{"chunk": 1}, {"chunks": -1}, {"batch": 0}, {"status": 200}, {"error": "fire"}, 7])
def test_a_script_of_the_wrong_shape(script: Any) -> None:
    """It is refused at the call."""
    with pytest.raises(Unprocessable, match=r"^Bad options for scripted: "):
        Scripted().stream(prompt(script=script))


def test_it_is_opened_by_name() -> None:
    """With neither key nor address, and takes what the real ones take."""

    async def test() -> None:
        async with opened("scripted", "", key=None) as provider:
            answer = await collect(provider.stream(prompt(script={"echo": True, "every": 0.0}, temperature=1)))
            assert (provider.name, answer.text, answer.model) == ("scripted", "Wheels.", "some-model")

    run(test())
