"""Breadth-first search through every state that can be reached."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

State = TypeVar("State", bound=Hashable)


class Found(NamedTuple, Generic[State]):
    """What a search found.

    Attributes:
        states: how many it looked at.
        steps: how many ways it saw from one to another.
        wrong: what is wrong with the last state of the trace, or None when nothing ever is.
        trace: a shortest way there, each step with the state it leads to.
    """

    states: int
    steps: int
    wrong: str | None
    trace: list[tuple[str, State]]

    def __str__(self) -> str:
        told = [f"{self.states:,} states, {self.steps:,} steps: {self.wrong or 'nothing wrong'}"]
        return "\n".join(
            told + [f"  {number}. {step}\n       {state}" for number, (step, state) in enumerate(self.trace)]
        )


def search(
    start: State,
    steps: Callable[[State], Iterable[tuple[str, State]]],
    wrong: Callable[[State, State], str | None],
) -> Found[State]:
    """Look at every state, nearest first, until one is wrong.

    Args:
        steps: what may happen next, in words, and the state after it.
        wrong: takes the state before and after a step, and says what is wrong with it, or None.
    """
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    level, count = [start], 0

    def trace(last: State) -> list[tuple[str, State]]:
        way: list[tuple[str, State]] = []
        at: State = last
        while (before := came_from[at]) is not None:
            way.append((before[1], at))
            at = before[0]
        return [("start", at), *reversed(way)]

    while level:
        following: list[State] = []
        for state in level:
            for step, after in steps(state):
                count += 1
                known = after in came_from
                if not known:
                    came_from[after] = (state, step)
                    following.append(after)
                if (fault := wrong(state, after)) is not None:
                    way = trace(after) if not known else [*trace(state), (step, after)]
                    return Found(len(came_from), count, fault, way)
        level = following
    return Found(len(came_from), count, None, [])
