"""What a client may ask for: the operator says which providers and models, how many tokens, which options."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from tailrace.conversation.request import Choice
from tailrace.errors import Unprocessable
from tailrace.events import Json
from tailrace.settings import Settings


def check_choices(settings: Settings, choices: Sequence[Choice]) -> None:
    """Pass if all of them may be asked.

    Raises:
        Unprocessable: one may not; the message lists what may.
    """
    if settings.allow is None:
        return
    for choice in choices:
        model = choice.model or (settings.model if choice.provider == settings.provider else None)
        if not is_allowed(settings.allow, choice.provider, model):
            name = choice.provider if model is None else f"{choice.provider}/{model}"
            raise Unprocessable(f"{name[:128]} may not be asked here. Allowed: {', '.join(settings.allow)}.")


def is_allowed(patterns: Sequence[str], provider: str, model: str | None) -> bool:
    """Whether a provider's model may be asked, or, when there is none, whatever its default is."""
    return any(
        fnmatchcase(provider, wanted) and (models in ("", "*") if model is None else fnmatchcase(model, models or "*"))
        for wanted, _, models in (pattern.partition("/") for pattern in patterns)
    )


def is_any_allowed(patterns: Sequence[str] | None, provider: str) -> bool:
    """Whether some model of a provider may be asked."""
    return patterns is None or any(fnmatchcase(provider, pattern.partition("/")[0]) for pattern in patterns)


def bounded_options(settings: Settings, options: Json, *, is_own: bool) -> Json:
    """Return the options of a start with no more tokens than an answer may have.

    Args:
        is_own: whether code of the operator's own may answer: it is asked for no less than it says itself.

    Raises:
        Unprocessable: there is one that a client may not set, or more tokens are asked for.
    """
    if settings.allow_options is not None:
        for name in options:
            if name not in settings.allow_options:
                allowed = ", ".join(settings.allow_options) or "none"
                raise Unprocessable(f"The option {name[:64]} may not be set here. Allowed: {allowed}.")
    most = settings.max_tokens
    if most is None:
        return options
    asked = options.get("max_tokens")
    if asked is None:
        return options if is_own else {**options, "max_tokens": most}
    if isinstance(asked, int) and asked > most:
        raise Unprocessable(f"max_tokens may be {most} at most here.")
    return options
