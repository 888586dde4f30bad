"""Tools that run here: functions of your own that a model may call.

    async def weather(city: str, days: int = 1) -> dict[str, float]:
        '''Tell the weather of a city.

        Args:
            city: its English name.
        '''

    conversation.to_request().tools(weather).stream()          TAILRACE_TOOLS="app.tools:weather"

Their schema comes from signature and docstring, by pydantic, which is imported when there is a tool. A parameter that
is annotated ``ToolContext`` or ``Conversation`` is given that, and the model does not know of it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, overload
from weakref import WeakKeyDictionary

from tailrace.errors import ConfigurationError, Unprocessable, where
from tailrace.events import Json, ToolCall, ToolResult
from tailrace.providers import Tool
from tailrace.providers.options import TOOL_NAME, WORDS
from tailrace.providers.own_code import load

if TYPE_CHECKING:
    from tailrace.backend import Backend
    from tailrace.conversation.conversation import Conversation

logger = logging.getLogger(__name__)

TIMEOUT: Final = 30.0
"""Seconds that a tool may take, if it does not say otherwise."""

LARGEST_RESULT: Final = 250_000
"""Bytes of a result; the log has it in one item, and DynamoDB's have 400 KB."""


class ToolError(Exception):
    """Raised by a tool to say in its own words why there is no result. The model reads them, and so may clients; of any
    other exception nobody learns more than that the tool failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """What a tool may know of the reply that it is called for.

    Attributes:
        conversation: the reply's.
        owner: whose conversation it is.
        metadata: of the reply, as its start gave it.
        message_id: the reply's id; empty in a request of the library whose answer is not stored.
        call_id: the call's id, the same if it is repeated.
    """

    conversation: Conversation
    owner: str
    metadata: Json
    message_id: str
    call_id: str


class LocalTool:
    """A function that a model may call. ``tool`` makes one; a function alone will do where nothing else is to be said.

    Attributes:
        definition: what the model is told.
        timeout: seconds that a call may take.
        repeatable: whether a call may be made again of which nobody knows what it did.

    Raises:
        ConfigurationError: it cannot be one; the message says why.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float = TIMEOUT,
        approval: bool | Callable[..., bool] = False,
        repeatable: bool = False,
    ) -> None:
        self.function: Final = function
        self.timeout: Final = timeout
        self.repeatable: Final = repeatable
        self._approval = approval
        name = name or str(getattr(function, "__name__", ""))
        if not re.fullmatch(TOOL_NAME, name) or name in WORDS:
            raise ConfigurationError(
                f"A tool's name must be 1 to 64 letters, digits, _ and -, and not {', '.join(sorted(WORDS))}."
            )
        # pydantic is imported with the first tool, and by nobody who has none.
        from tailrace.conversation.tool_arguments import Arguments, described

        about = described(function)
        self._arguments = Arguments(name, function, {ToolContext: "context", _conversation(): "conversation"}, about)
        self.definition: Final = Tool(
            name=name, description=description or about.description, parameters=self._arguments.schema
        )

    def __call__(self, *args: Any, **values: Any) -> Any:
        """Call the function as if it were no tool."""
        return self.function(*args, **values)

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name

    def needs_approval(self, call: ToolCall) -> bool:
        """Whether somebody has to say yes to this call."""
        if isinstance(self._approval, bool):
            return self._approval
        try:
            values = self._arguments.read(call.arguments)
        except ValueError:
            return False  # it does not come to that: the model is told what is wrong
        try:
            return self._approval(**values)
        except Exception as error:
            logger.error("approval rule failed", extra={"tool": self.name, **where(error)})
            return True

    async def call(self, call: ToolCall, context: ToolContext | None) -> ToolResult:
        """Call it; what goes wrong is the result, in a sentence for the model.

        Args:
            context: for a function that asks for it.
        """
        try:
            values = self._arguments.read(call.arguments)
        except ValueError as error:
            return self._failure(call, str(error))
        given = {"context": context, "conversation": None if context is None else context.conversation}
        values |= {name: given[what] for name, what in self._arguments.given.items()}
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                result = await self._run(values)
            text = result if isinstance(result, str) else self._arguments.to_json(result)
        except ToolError as error:
            return self._failure(call, str(error) or "The tool failed.")
        except Exception as error:
            if limit.expired():
                return self._failure(call, f"The tool took longer than {self.timeout:g} s and was stopped.")
            # Its text may be anything: a prompt, a password.
            logger.error("tool failed", extra={"tool": self.name, **where(error)})
            return self._failure(call, "The tool failed.")
        if len(text.encode()) > LARGEST_RESULT:
            return self._failure(call, f"The tool's result is longer than {LARGEST_RESULT} bytes.")
        return ToolResult(call.id, self.name, text)

    async def _run(self, values: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**values)
        result = await asyncio.to_thread(self.function, **values)
        return await result if isinstance(result, Awaitable) else result

    def _failure(self, call: ToolCall, text: str) -> ToolResult:
        return ToolResult(call.id, self.name, text, is_error=True)


def _conversation() -> type:
    from tailrace.conversation.conversation import Conversation

    return Conversation


@overload
def tool(function: Callable[..., Any], /) -> LocalTool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = TIMEOUT,
    approval: bool | Callable[..., bool] = False,
    repeatable: bool = False,
) -> Callable[[Callable[..., Any]], LocalTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = TIMEOUT,
    approval: bool | Callable[..., bool] = False,
    repeatable: bool = False,
) -> LocalTool | Callable[[Callable[..., Any]], LocalTool]:
    """Make a tool of a function: ``@tool``, or ``@tool(timeout=5, approval=True)``.

    Args:
        name, description: what the model is told; the function's name and docstring when None.
        timeout: seconds that a call may take. An ``async`` function is cancelled then; a plain one runs in a thread,
            which cannot be stopped: it is left to itself.
        approval: whether somebody has to say yes to a call before it is made; or a function of the same arguments that
            decides.
        repeatable: that a call may be made again of which nobody knows what it did, since its reply broke off.

    Raises:
        ConfigurationError: it cannot be one; the message says why.
    """

    def make(decorated: Callable[..., Any]) -> LocalTool:
        return LocalTool(
            decorated,
            name=name,
            description=description,
            timeout=timeout,
            approval=approval,
            repeatable=repeatable,
        )

    return make if function is None else make(function)


def tools_by_name(given: Iterable[Callable[..., Any]]) -> dict[str, LocalTool]:
    """Return tools by their names.

    Raises:
        ConfigurationError: one of them cannot be a tool, or two have one name.
    """
    found: dict[str, LocalTool] = {}
    for each in given:
        made = each if isinstance(each, LocalTool) else LocalTool(each)
        if made.name in found:
            raise ConfigurationError(f"Two tools have the name {made.name}.")
        found[made.name] = made
    return found


async def own_tools(backend: Backend) -> Mapping[str, LocalTool]:
    """Return all tools of a backend by their names; their modules are imported when first asked for.

    Raises:
        ConfigurationError: one of them cannot be imported, or be a tool.
    """
    if backend not in _loaded:
        _loaded[backend] = await asyncio.to_thread(_load, backend.own_tools)
    return _loaded[backend]


async def load_tools(backend: Backend) -> None:
    """Import a backend's tools before the first request asks for one; who then does is told what is wrong with them."""
    try:
        await own_tools(backend)
    except ConfigurationError as error:
        logger.error("not configured", extra={"missing": error.message})


_loaded: WeakKeyDictionary[Backend, Mapping[str, LocalTool]] = WeakKeyDictionary()


def _load(given: Sequence[Any]) -> dict[str, LocalTool]:
    found: list[Callable[..., Any]] = []
    for each in given:
        loaded = load(each, "TAILRACE_TOOLS") if isinstance(each, str) else each
        found += loaded if isinstance(loaded, list | tuple) else [loaded]
    for each in found:
        if not callable(each):
            raise ConfigurationError("TAILRACE_TOOLS must name functions, or lists of functions.")
    return tools_by_name(found)


async def named_tools(backend: Backend, names: Sequence[str]) -> list[LocalTool]:
    """Return the tools that a start names.

    Raises:
        Unprocessable: there is none of a name; the message lists those there are.
        ConfigurationError: they cannot be imported.
    """
    known = await own_tools(backend) if names else {}
    for name in names:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise Unprocessable(f"There is no tool {name[:64]!r} here. Tools here: {there}.")
    return [known[name] for name in dict.fromkeys(names)]
