"""Keys and secrets from Secrets Manager and Parameter Store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from tailrace.errors import ConfigurationError

KeyKind = Literal["secret", "parameter", "keys"]
"""Where a key lies: a secret whose text it is, a parameter that it is, a secret with the keys of many."""

KEY_MAX_AGE: Final = 300
"""Seconds a key is kept before it is read again."""


_reading = threading.Lock()
"""Two that ask at once: the second finds what the first has read."""


def read_key(kind: KeyKind, where: str, names: Sequence[str] = ()) -> str | None:
    """Return a key. It calls AWS, so it is called in a thread.

    Args:
        where: the name of the secret or the parameter.
        names: what the key may be called in a secret with many; the first that is there is taken.

    Returns:
        None where a secret with many has none of these names.

    Raises:
        ConfigurationError: it cannot be read, or a secret with many is no JSON object of texts. The message has
            nothing of what was read.
    """
    # Imported when a key is first read: it costs boto3 and about 0.4 s, which a key in the environment saves.
    from aws_lambda_powertools.utilities import parameters

    try:
        with _reading:
            if kind == "parameter":
                return str(parameters.get_parameter(where, decrypt=True, max_age=KEY_MAX_AGE))
            text = str(parameters.get_secret(where, max_age=KEY_MAX_AGE))
    except parameters.GetParameterError as error:
        raise ConfigurationError(
            f"The {'parameter' if kind == 'parameter' else 'secret'} {where} cannot be read."
        ) from error
    if kind == "secret":
        return text
    try:
        keys = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        # "from None": what could not be decoded is a secret.
        raise ConfigurationError(
            f'The secret {where} must be a JSON object of keys, such as {{"GEMINI_API_KEY": "..."}}.'
        ) from None
    return next((keys[name] for name in names if keys.get(name)), None)
