"""Writes docs/reference.md from the signatures and docstrings of what is public: ``make reference``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import msgspec
from tailrace.errors import TailraceError

PAGE: Final = Path(__file__).parent.parent / "docs" / "reference.md"

CHAPTERS: Final[dict[str, tuple[str, ...]]] = {
    "Conversations": (
        "tailrace.Conversation",
        "tailrace.NewMessage",
        "tailrace.Message",
        "tailrace.Owner",
        "tailrace.Report",
    ),
    "Requests": ("tailrace.conversation.request.Request", "tailrace.Reply"),
    "Streams": ("tailrace.MessageStream",),
    "Tools": (
        "tailrace.tool",
        "tailrace.conversation.tools.LocalTool",
        "tailrace.ToolContext",
        "tailrace.ToolError",
    ),
    "Delivery": (
        "tailrace.Delivery",
        "tailrace.Piece",
        "tailrace.Voided",
        "tailrace.Part",
        "tailrace.Paced",
        "tailrace.delivery.Pieces",
        "tailrace.delivery.Progress",
    ),
    "Events": (
        "tailrace.Text",
        "tailrace.Reasoning",
        "tailrace.ToolCall",
        "tailrace.ToolCallStart",
        "tailrace.ToolCallDelta",
        "tailrace.ToolResult",
        "tailrace.ToolRun",
        "tailrace.ApprovalRequest",
        "tailrace.Approval",
        "tailrace.StepEnd",
        "tailrace.Citation",
        "tailrace.Usage",
        "tailrace.ResponseInfo",
        "tailrace.Attempt",
        "tailrace.Reset",
    ),
    "Providers": ("tailrace.providers.ProviderRequest", "tailrace.providers.PromptMessage", "tailrace.providers.Tool"),
    "Setting up": ("tailrace.Backend", "tailrace.Settings", "tailrace.broadcast.Broadcast"),
    "What a prompt holds": ("tailrace.providers.ImagePart", "tailrace.providers.FilePart"),
    "Errors": (
        "tailrace.TailraceError",
        "tailrace.errors.RequestError",
        "tailrace.errors.Unauthenticated",
        "tailrace.errors.Forbidden",
        "tailrace.errors.InsufficientScope",
        "tailrace.NotFound",
        "tailrace.errors.Conflict",
        "tailrace.errors.AlreadyStarted",
        "tailrace.StreamEnded",
        "tailrace.errors.TooLarge",
        "tailrace.errors.UnsupportedType",
        "tailrace.errors.Unprocessable",
        "tailrace.RateLimited",
        "tailrace.errors.UnknownProvider",
        "tailrace.ProviderError",
        "tailrace.ContentFiltered",
        "tailrace.InvalidOutput",
        "tailrace.ProviderTimeout",
        "tailrace.errors.ConnectTimeout",
        "tailrace.errors.FirstChunkTimeout",
        "tailrace.errors.IdleTimeout",
        "tailrace.errors.ConfigurationError",
        "tailrace.errors.IssuerUnavailable",
        "tailrace.errors.OutOfTime",
        "tailrace.StoreError",
        "tailrace.errors.AppendConflict",
    ),
    "Tests": ("tailrace.testing.ManualClock",),
}
"""What is shown, under which headline; a test compares it with what the package exports."""

SECTION: Final = re.compile(r"(Args|Attributes|Raises|Returns|Yields)( \(.*\))?:")

BEGINNING: Final = """\
# The reference

Made from the docstrings by `make reference`; edit those. [The library](library.md) shows how it goes together. A name
is imported from where its heading says.
"""


def page() -> str:
    """Return the page as it should be."""
    parts = [BEGINNING]
    for headline, names in CHAPTERS.items():
        parts.append(f"## {headline}\n")
        for name in names:
            parts += described(name, found(name))
    return "\n".join(parts)


def found(name: str) -> Any:
    """Return what has this whole name."""
    module, _, last = name.rpartition(".")
    return getattr(import_module(module), last)


def described(name: str, what: Any) -> Iterator[str]:
    """Yield the parts of a class: how it is made, what it is, and its members; or of a function."""
    short = name.rpartition(".")[2]
    yield f"### `{name}`\n"
    if isinstance(what, FunctionType):
        yield signature(short, what)
        yield prose(what)
        return
    base = what.__bases__[0]
    if issubclass(what, TailraceError):
        if "__init__" in vars(what):
            yield signature(short, what)
        kind = "An" if base is Exception else "A"
        yield f"{kind} `{base.__name__}`. `status` {what.status}, `error_type` `{what.error_type}`.\n"
    elif is_made(what):
        yield signature(short, what)
    yield prose(what)
    names: dict[object, str] = {}
    for label, member in members(what):
        if isinstance(member, property):
            kind = hints(member.fget).get("return", "")
            yield f"#### `{short}.{label}`: `{kind}`\n"
            yield prose(member.fget)
        elif member in names:
            yield f"#### `{short}.{label}`\n"
            yield f"The same as `{names[member]}`.\n"
        else:
            names[member] = label
            yield f"#### `{short}.{label}`\n"
            yield signature(f"{short}.{label}" if isinstance(raw(what, label), classmethod) else label, member)
            yield prose(member)


def is_made(what: type) -> bool:
    """Return whether users make it themselves, which its docstring says by having arguments, or fields."""
    return issubclass(what, msgspec.Struct) or "Args:" in (what.__doc__ or "")


def raw(what: type, label: str) -> object:
    """Return a member as its class has it."""
    return inspect.getattr_static(what, label)


def members(what: type) -> Iterator[tuple[str, Any]]:
    """Yield a class's public methods and properties in the order of the source, those of bases that are not shown
    themselves included."""
    shown = {found(name) for names in CHAPTERS.values() for name in names} - {what}
    for cls in what.__mro__:
        if not cls.__module__.startswith("tailrace") or cls in shown or issubclass(what, Exception):
            continue
        for label, member in vars(cls).items():
            if label == "__call__":
                yield label, member
            if label.startswith("_"):
                continue
            if isinstance(member, classmethod):
                yield label, member.__func__
            elif isinstance(member, FunctionType | property):
                yield label, member


def signature(label: str, what: Any) -> str:
    """Return how something is called, as a block of code."""
    asynchronous = inspect.iscoroutinefunction(what)
    texts = hints(what)
    arguments: list[str] = []
    starred = False
    for name, parameter in inspect.signature(what).parameters.items():
        if name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            arguments.append("*")
            starred = True
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else star
        starred = starred or star == "*"
        text = star + name + (f": {texts[name]}" if name in texts else "")
        if parameter.default is not parameter.empty:
            text += f" = {value(parameter.default)}"
        arguments.append(text)
    result = f" -> {texts['return']}" if "return" in texts and not isinstance(what, type) else ""
    line = f"{'async ' if asynchronous else ''}{label}({', '.join(arguments)}){result}"
    if len(line) > 110:
        body = "".join(f"    {argument},\n" for argument in arguments)
        line = f"{'async ' if asynchronous else ''}{label}(\n{body}){result}"
    return f"```py\n{line}\n```\n"


def hints(what: Any) -> dict[str, str]:
    """Return annotations as the source has them."""
    sources = [what]
    if isinstance(what, type):
        sources = [*reversed(what.__mro__)] if issubclass(what, msgspec.Struct) else [what.__init__]
    return {
        name: str(text).replace("'", '"')
        for source in sources
        for name, text in getattr(source, "__annotations__", {}).items()
    }


def value(default: object) -> str:
    """Return a default as one would write it."""
    if callable(default):
        return getattr(default, "__qualname__", repr(default))
    return "..." if "<" in repr(default) or len(repr(default)) > 60 else repr(default).replace("'", '"')


def prose(what: Any) -> str:
    """Return a docstring as Markdown.

    Raises:
        ValueError: there is none.
    """
    text = inspect.cleandoc(what.__doc__ or "")
    if not text:
        raise ValueError(f"{what.__module__}.{what.__qualname__} has no docstring")
    text = text.replace("``", "`")
    lines: list[str] = []
    items = False
    for line in text.split("\n"):
        if SECTION.fullmatch(line):
            lines += [f"**{line.removesuffix(':')}**", ""]
            items = True
        elif items and line.startswith("    "):
            item = line[4:]
            if item.startswith(" "):
                lines[-1] += " " + item.strip()
            elif named := re.match(r"([\w.*, ]+): (.*)", item):
                lines.append(f"- `{named[1]}`: {named[2]}")
            elif lines[-1].startswith("-"):
                lines[-1] += " " + item
            else:
                lines.append(f"- {item}")
        else:
            items = items and not line
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
