"""Compare-and-append as a whole: writers, a network that loses and delays, the table, and what must hold.

The network may keep a request for as long as it likes, also when its sender has sent it again, given it up or
died, and apply it then. So one step, "no answer in time", is four faults: the request was lost, its answer was
lost, it is late, or it comes twice. There are at most ``Scenario.silences`` of them in one run.

A crash needs no step: a process that is dead is one that takes no step any more, and since every order of
steps is looked at, so is each in which any of them stops anywhere. Readers need none either: in every state
all of them read, from every cursor, missing any of the items (``table.wrong_with``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from tests.model.closer import Closer
from tests.model.search import Found, search
from tests.model.table import ENDS, Answer, Fault, Request, Table, apply, in_vain, text_of, wrong_with
from tests.model.writer import Writer

Process = Writer | Closer


class World(NamedTuple):
    """A state.

    Attributes:
        table: what is stored.
        late: requests for which nobody waits any more, and which may still arrive.
        processes: what each of them knows, with the request for which it waits.
        silences: how many may yet come.
    """

    table: Table
    late: frozenset[Request]
    processes: tuple[Process, ...]
    silences: int

    def __str__(self) -> str:
        late = "".join(f"; late: {request}" for request in sorted(self.late, key=str))
        return f"{self.table}{late}"


class Scenario(NamedTuple):
    """Who takes part."""

    name: str
    processes: tuple[Process, ...]
    silences: int

    def start(self) -> World:
        """Return the state in which nothing has happened."""
        return World(Table(), frozenset(), self.processes, self.silences)


CANCEL: Final = Closer("cancel", "cancelled")
SWEEP: Final = Closer("sweep", "interrupted")
OTHER_SWEEP: Final = Closer("other sweep", "interrupted")

CANCEL_AND_SWEEP: Final = Scenario(
    "a relay, a cancel, a sweep", (Writer("relay", "abc", beats=0), CANCEL, SWEEP), silences=2
)
HEARTBEATS: Final = Scenario("a relay with a heartbeat, a sweep", (Writer("relay", "ab", beats=1), SWEEP), silences=2)
BAD_NETWORK: Final = Scenario("a relay on a bad network, a sweep", (Writer("relay", "ab", beats=0), SWEEP), silences=3)
TWO_SWEEPS: Final = Scenario(
    "a relay, a cancel, two sweeps", (Writer("relay", "a", beats=0), CANCEL, SWEEP, OTHER_SWEEP), silences=1
)
TWO_RELAYS: Final = Scenario(
    "two relays, a sweep", (Writer("relay", "a", beats=0), Writer("zombie", "x", beats=0), SWEEP), silences=1
)
SCENARIOS: Final = (CANCEL_AND_SWEEP, HEARTBEATS, BAD_NETWORK, TWO_SWEEPS, TWO_RELAYS)

NEEDS: Final[Mapping[Fault, Scenario]] = {
    "a lost empty segment is forgotten": HEARTBEATS,
    "a writer that lost reports whatever it reads": TWO_RELAYS,
}


def explore(scenario: Scenario, *planted: Fault) -> Found[World]:
    """Look at every state of a scenario, or at those until something is wrong."""
    faults = frozenset(planted)
    return search(scenario.start(), lambda world: _steps(world, faults), _judge(faults))


def visit(scenario: Scenario, there: Callable[[World], bool]) -> Found[World]:
    """Look for a state, which the search then calls wrong, with a way to it."""
    return search(
        scenario.start(),
        lambda world: _steps(world, frozenset()),
        lambda _, world: "visited" if there(world) else None,
    )


def find(planted: Fault) -> Found[World]:
    """Look for a planted fault in the smallest scenario in which it does harm."""
    return explore(NEEDS.get(planted, BAD_NETWORK), planted)


# ---- what may happen ----


def _steps(world: World, faults: frozenset[Fault]) -> Iterator[tuple[str, World]]:
    table, late, processes, silences = world
    for place, process in enumerate(processes):
        for step, after in process.steps(table, faults):
            yield f"{process.name} {step}", World(table, late, _with(processes, place, after), silences)
        request = process.waits
        if request is None:
            continue
        if silences:
            for step, after in process.unanswered(faults):
                others = _with(processes, place, after)
                step = f"{process.name} gets no answer and {step}"
                yield step, World(table, _worth_keeping(late | {request}, table), others, silences - 1)
        stored, answer, second = _arrive(table, request, faults)
        after = process.answered(answer, faults) if second is None else process._replace(waits=second)
        others = _with(processes, place, after)
        result = "done" if answer.ok else f"refused, {answer.nonce or 'the message'} was first"
        yield f"{request} arrives: {result}", World(stored, _worth_keeping(late, stored), others, silences)
    for request in late:
        stored, _, second = _arrive(table, request, faults)
        left = late - {request} if second is None else late - {request} | {second}
        yield f"{request} arrives late", World(stored, _worth_keeping(left, stored), processes, silences)


def _with(processes: tuple[Process, ...], place: int, process: Process) -> tuple[Process, ...]:
    return (*processes[:place], process, *processes[place + 1 :])


def _arrive(table: Table, request: Request, faults: frozenset[Fault]) -> tuple[Table, Answer, Request | None]:
    """Let the table take a request; return what is stored, the answer, and what is left of the request."""
    if request.segment and request.message and "segment and status are two writes" in faults:
        table, answer = apply(table, request._replace(message=None))
        return table, answer, request._replace(segment=None, blindly=True) if answer.ok else None
    return *apply(table, request), None


def _worth_keeping(late: frozenset[Request], table: Table) -> frozenset[Request]:
    """Return the requests that can still change the table."""
    return frozenset(request for request in late if not in_vain(table, request)) if late else late


# ---- what must hold ----


def _judge(faults: frozenset[Fault]) -> Callable[[World, World], str | None]:
    def wrong(before: World, after: World) -> str | None:
        old, new = before.table, after.table
        if old is not new:
            if new.log[: len(old.log)] != old.log:
                return "P2: a stored segment has changed"
            if old.message.status in ENDS and new.message != old.message:
                return "P4: the message has changed after its end"
            if (fault := wrong_with(new, faults)) is not None:
                return fault
        for was, process in zip(before.processes, after.processes, strict=True):
            if (process is not was or new is not old) and (fault := _wrong_claim(process, new)) is not None:
                return fault
        return _wrong_future(after, faults)

    return wrong


def _wrong_claim(process: Process, table: Table) -> str | None:
    """Hold what a process says, or has delivered, against what is stored."""
    if process.told is not None:
        if process.told.status not in ENDS:
            return f"P4: {process.name} reports {process.told} as the end"
        if process.told != table.message:
            return f"P4: {process.name} reports {process.told}, stored is {table.message}"
    return _wrong_relay(process, table) if isinstance(process, Writer) else None


def _wrong_relay(relay: Writer, table: Table) -> str | None:
    """Hold a relay's memory, its starting connection and its reason to stop against what is stored."""
    own = [segment for segment in table.log if segment and segment.nonce.startswith(relay.name)]
    if relay.doing == "reading" and table.message.status not in ENDS and len(own) == len(table.log):
        return f"P4: {relay.name} stops, although nobody else has written"
    stored = text_of(own).rstrip("".join(ENDS.values()))
    memory = len(relay.sending or "") + len(relay.buffer)
    ahead = len(relay.delivered) - len(stored)
    if not relay.delivered.startswith(stored) or (relay.doing != "done" and ahead > memory):
        return f'P2: {relay.name} has delivered "{relay.delivered}", stored is "{stored}", the rest is forgotten'
    return None


def _wrong_future(world: World, faults: frozenset[Fault]) -> str | None:
    """Let everybody die but one sweep: the reply must come to its end."""
    if world.table.message.status in ENDS:
        return None
    for process in world.processes:
        if isinstance(process, Closer) and process.name == SWEEP.name:
            return None if _comes_to_an_end(world.table, process, faults) else "P5: the sweep cannot end it"
    return None


@lru_cache(maxsize=1 << 16)
def _comes_to_an_end(table: Table, sweep: Closer, faults: frozenset[Fault]) -> bool:
    for _ in range(4):
        if sweep.waits is not None:
            table, answer = apply(table, sweep.waits)
            sweep = sweep.answered(answer, faults)
        else:
            for _, after in sweep.steps(table, faults):
                sweep = after
        if table.message.status in ENDS:
            return True
    return False
