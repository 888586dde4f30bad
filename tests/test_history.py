"""The window of a conversation that goes into a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailrace import Backend, Conversation
from tailrace.conversation.history import Selection, Window, tokens_of
from tailrace.conversation.prompt import is_prompt
from tailrace.errors import Unprocessable
from tailrace.events import Message, Role, Usage
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.store.dynamodb import Payload

from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio


class CountingCalls(MemoryCalls):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.items_read = 0
        self.made: list[str] = []

    async def call(self, operation: str, payload: Payload) -> Payload:
        answer = await super().call(operation, payload)
        self.made.append(operation)
        self.items_read += len(answer.get("Items", ()))
        return answer


def message(role: Role, number: int, content: str = "word", completion_tokens: int | None = None) -> Message:
    """Return a message that was said."""
    return Message(
        id=f"m{number}",
        conversation_id="c",
        role=role,
        content=content,
        status="completed",
        seq=0,
        metadata={},
        usage=None if completion_tokens is None else Usage(prompt_tokens=1, completion_tokens=completion_tokens),
        created_at="",
    )


roles: st.SearchStrategy[Role] = st.sampled_from(["user", "assistant", "tool_call", "tool_result"])
histories = st.lists(st.builds(message, roles, st.just(0), st.text("ab", min_size=1, max_size=30)), max_size=12)
bounds = st.none() | st.integers(0, 15)


@given(histories, bounds, bounds, st.booleans())
def test_a_window_is_the_longest_that_fits(
    history: list[Message], messages: int | None, tokens: int | None, has_question: bool
) -> None:
    """Of all ends of the history that begin with a user's message, or are all of it, the longest that fits; where there
    is no question, at least the last round. What is taken never depends on what lies further back."""
    window = Window(messages, tokens)
    selection = Selection(window, has_question=has_question)
    taken = 0
    for each in reversed(history):
        taken += 1
        if not selection.take(each):
            break

    def fits(end: Sequence[Message]) -> bool:
        return (messages is None or len(end) <= messages) and (tokens is None or sum(map(tokens_of, end)) <= tokens)

    starts = [0, *(place for place, each in enumerate(history) if each.role == "user"), len(history)]
    fitting = [history[start:] for start in starts if fits(history[start:])]
    expected = max(fitting, key=len, default=[])
    last_round = max((place for place, each in enumerate(history) if each.role == "user"), default=0)
    if not has_question and len(expected) < len(history[last_round:]):
        expected = history[last_round:]
    assert selection.kept() == expected
    # One message beyond the window is looked at, or the whole round that did not fit.
    if taken < len(history):
        assert selection.is_cut


def test_tokens_are_those_that_were_counted() -> None:
    """The provider's own count where there is one; an estimate of the text and the calls otherwise."""
    assert tokens_of(message("assistant", 1, "x" * 400, completion_tokens=7)) == 7
    assert tokens_of(message("user", 1, "x" * 400)) == 100
    calling = msgspec.structs.replace(message("assistant", 1, ""), metadata={"tool_calls": [{"name": "x" * 391}]})
    assert is_prompt(calling)
    assert tokens_of(calling) == 101


@pytest.mark.parametrize("count", [10, 1_000, 3_000])
async def test_what_is_read_does_not_grow(count: int) -> None:
    """The same calls and no more items from a conversation of thousands than from one of a hundred."""
    calls = CountingCalls()
    backend = Backend(Settings(broadcast=False), store=Store(calls, "t"))
    conversation = await Conversation.create(backend=backend)
    for begin in range(0, count, 100):
        roles: list[Role] = ["user", "assistant"]
        await conversation.add_messages(
            *({"role": roles[number % 2], "content": f"{number}"} for number in range(begin, min(begin + 100, count)))
        )
    calls.items_read = 0
    calls.made.clear()
    _, past = await Conversation.load_with_past(
        conversation.id, Window(messages=20), has_question=True, backend=backend
    )
    assert [each.content for each in past.messages] == [str(number) for number in range(max(0, count - 20), count)]
    assert past.left_out == max(0, count - 20)
    assert sorted(calls.made) == ["GetItem", "Query", "Query"]
    assert calls.items_read <= 50


async def test_what_the_system_said_always_stays() -> None:
    """However far back; and it is not among those left out."""
    backend = Backend(Settings(broadcast=False), store=Store(MemoryCalls(), "t"))
    conversation = await Conversation.create(system="First.", backend=backend)
    await conversation.add_system_message("Second.")
    for number in range(4):
        await conversation.add_user_message(f"{number}?")
        await conversation.add_assistant_message(f"{number}!")
    late = await conversation.add_system_message("Third.")
    again = await Conversation.load(conversation.id, backend=backend)
    _, past = await Conversation.load_with_past(conversation.id, Window(messages=3), has_question=True, backend=backend)
    assert [each.content for each in past.messages] == ["Second.", "Third.", "3?", "3!"]
    assert past.left_out == 6
    await again.delete_message(late.id)
    kept = await again.to_messages(history=Window(messages=0))
    assert [each.content for each in kept] == ["Second.", "3?", "3!"]  # nothing else is there to be answered


async def test_the_library_takes_a_mapping() -> None:
    """The same as over HTTP; one that is no window is refused with the reason."""
    backend = Backend(Settings(broadcast=False), store=Store(MemoryCalls(), "t"))
    conversation = await Conversation.create(backend=backend)
    for number in range(4):
        await conversation.add_user_message(f"{number}?")
    assert [each.content for each in await conversation.to_messages(history={"messages": 2})] == ["2?", "3?"]
    with pytest.raises(Unprocessable, match=r"^Bad history: Expected `int` >= 0 - at `\$\.messages`\.$"):
        await conversation.to_messages(history={"messages": -1})
    with pytest.raises(Unprocessable, match=r"^Bad history: Object contains unknown field `message`\.$"):
        await conversation.to_messages(history={"message": 1})


async def test_only_so_many_system_messages() -> None:
    """Their ids lie in the conversation's item, which has an end; nothing is added beyond."""
    backend = Backend(Settings(broadcast=False), store=Store(MemoryCalls(), "t"))
    conversation = await Conversation.create(backend=backend)
    for _ in range(10):
        await conversation.add_messages(*[{"role": "system", "content": "x"}] * 99)
    await conversation.add_messages(*[{"role": "system", "content": "x"}] * 10)
    with pytest.raises(Exception, match=r"^A conversation may have 1000 system messages\.$"):
        await conversation.add_system_message("one more")
    assert len(await conversation.messages()) == 1000
