"""When a round of tools is over: each of an answer's calls has its result."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.events import ProviderEvent, StepEnd, ToolCall, ToolResult


class Rounds:
    """Says where an agent's steps end. It sees each event before it is passed on, and adds what it returns."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}
        self._answered = False

    def name(self, call_id: str) -> str:
        """Return the name of the tool of a call that has no result yet; empty where there is none."""
        return self._open.get(call_id, "")

    def called(self, call: ToolCall) -> Sequence[ProviderEvent]:
        """Return a call; before it the end of the step before, should that not have been told."""
        before = self.goes_on()
        self._open[call.id] = call.name
        return (*before, call)

    def answered(self, result: ToolResult) -> Sequence[ProviderEvent]:
        """Return a result; after it the step's end, if it was the last one that was waited for."""
        self._open.pop(result.id, None)
        self._answered = True
        return (result,) if self._open else (result, *self.goes_on())

    def goes_on(self) -> Sequence[ProviderEvent]:
        """Return the end of a step that has results, if it has not been told: the model goes on. A call that is still
        without one gets none."""
        if not self._answered:
            return ()
        self._answered = False
        self._open.clear()
        return (StepEnd(),)
