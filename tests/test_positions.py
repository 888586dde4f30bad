"""Where messages go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tailrace.conversation.order import Positions

actions = st.sampled_from(["open", "message", "chunk"])


@given(st.lists(st.tuples(actions, st.integers(-2000, 3000)), max_size=40))
def test_a_question_sorts_before_the_reply_it_came_for(steps: list[tuple[str, int]]) -> None:
    """Any order of opening, adding and answering, whatever the clock does: no position is taken twice; what
    is added before a reply's first chunk sorts right before that reply, everything else after all there is."""
    positions = Positions()
    waiting = [False]
    order: list[int] = []  # positions in the order in which the messages belong
    now = 1_000_000
    for action, step in steps:
        now += step
        if action == "chunk":
            waiting[0] = False
        elif action == "open":
            order.append(positions.open_reply(now, lambda: waiting[0]))
            waiting[0] = True
        elif waiting[0]:
            order.insert(len(order) - 1, positions.take(now))
        else:
            order.append(positions.take(now))
    assert order == sorted(set(order))


def test_positions_go_after_those_of_others() -> None:
    """What another process has put comes first, even when its clock was ahead."""
    positions = Positions()
    positions.seen(5_000_000)
    assert positions.take(1) > 5_000_000
